"""Mistakes in the use of the estimators, and what is said to them."""

import importlib
import re
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
import pandas
import polars
import pytest
from sklearn.exceptions import NotFittedError

import jaxnets as jn
from jaxnets.sklearn import AnomalyDetector, Classifier, Regressor, Transformer

pytestmark = pytest.mark.promotes
X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y = np.arange(12) % 3
TABLE = pandas.DataFrame(X, columns=["a", "b", "c"])
TEXT = TABLE.assign(city=["Rome", "Oslo"] * 6)
SHORT: dict[str, Any] = {"epochs": 1, "random_state": 0}


def fit(kind: Any = Classifier, x: Any = X, y: Any = Y, **given: Any) -> Any:
    return kind(**{"net": jn.dense, **SHORT, **given}).fit(x, y)


MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "unfitted": (lambda: Classifier().predict(X), NotFittedError, "This Classifier instance is not fitted yet"),
    "unfitted features": (lambda: Transformer().transform(X), NotFittedError, "This Transformer instance is not"),
    "missing column": (
        lambda: fit(x=TABLE).predict(TABLE[["a", "b"]]), ValueError,
        "The feature names should match.*missing:\n- c",
    ),
    "renamed column": (
        lambda: fit(x=TABLE).predict(TABLE.rename(columns={"b": "d"})), ValueError,
        "(?s)Feature names unseen at fit time:\n- d.*missing:\n- b",
    ),
    "text": (
        lambda: fit(x=TEXT), jn.NetError,
        "^Classifier expects columns of numbers, got other values in city; OneHotEncoder or OrdinalEncoder in a Column",
    ),
    "text in polars": (lambda: fit(x=polars.DataFrame(TEXT.to_dict("list"))), jn.NetError, "other values in city;"),
    "outputs": (
        lambda: fit(net=jn.dense(10)), jn.NetError,
        r"^Classifier expects a network with 3 outputs for 3 classes, 0, 1, 2; got \(10,\); a function gives it as",
    ),
    "outputs of each place": (
        lambda: fit(x=X[:, :, None], net=jn.dense(3)), jn.NetError, r"with 3 outputs .* got \(3, 3\)",
    ),
    "outputs for labels": (
        lambda: fit(net=jn.dense(2), y=Y[:, None] == np.arange(3)), jn.NetError, r"3 outputs for 3 labels; got \(2,\)",
    ),
    "outputs for targets": (
        lambda: fit(Regressor, y=X, net=jn.dense(1)), jn.NetError,
        r"^Regressor expects a network with 3 outputs for y \(12, 3\), got \(1,\)",
    ),
    "reconstruction": (
        lambda: fit(AnomalyDetector, net=jn.dense(2)), jn.NetError,
        r"^AnomalyDetector expects a network with outputs \(3,\), as the inputs, got \(2,\); an autoencoder",
    ),
    "loss of values": (
        lambda: fit(loss=jn.losses.squared_error), jn.NetError, "squared_error expects .* for class indices use cross",
    ),
    "loss of two classes": (
        lambda: fit(loss=jn.losses.hinge), jn.NetError, "gets 3 classes, but hinge takes two; cross_entropy or multic",
    ),
    "loss of one class": (
        lambda: fit(loss=jn.losses.cross_entropy, y=Y[:, None] == np.arange(3)), jn.NetError,
        "expects a loss of independent labels, binary_cross_entropy, .* got cross_entropy",
    ),
    "loss of probabilities": (
        lambda: fit(loss=partial(jn.losses.binary_cross_entropy, from_logits=False), y=Y > 0), jn.NetError,
        "expects a loss of logits, got from_logits=False; leave it out",
    ),
    "loss by name": (lambda: fit(loss="cross_entropy"), jn.NetError, "cross_entropy"),
    "optimizer by name": (lambda: fit(optimizer="adam"), jn.NetError, r"got str 'adam'; optax.adam\(1e-3\)"),
    "rate": (lambda: fit(learning_rate=-0.1), jn.NetError, "^Classifier expects learning_rate ≥ 0, got -0.1"),
    "one class": (lambda: fit(y=0 * Y), jn.NetError, "expects at least 2 classes in y, got 1 class, 0"),
    "real classes": (lambda: fit(y=X[:, 0]), ValueError, "Unknown label type: continuous"),
    "several targets": (
        lambda: fit(y=np.stack([Y, Y], 1)), jn.NetError, "expects one class for each example, .*MultiOutputClassifier",
    ),
    "no classes": (
        lambda: Classifier(jn.dense).partial_fit(X, Y), jn.NetError, "expects classes at the first call of partial_fit",
    ),
    "unknown class": (
        lambda: Classifier(jn.dense, **SHORT).partial_fit(X, Y, classes=[0, 1, 2]).partial_fit(X, Y + 1), jn.NetError,
        r"knows the classes \[0, 1, 2\], got \[3\] in y; name all of them at the first call",
    ),
    "other classes": (
        lambda: Classifier(jn.dense, **SHORT).partial_fit(X, Y, classes=[0, 1, 2]).partial_fit(X, Y, classes=[0, 1]),
        jn.NetError, r"expects the classes of the first call, \[0, 1, 2\], got \[0, 1\]",
    ),
    "weight of no class": (lambda: fit(class_weight={7: 2}), jn.NetError, r"class_weight of the classes \[0, 1, 2\]"),
    "weight by word": (lambda: fit(class_weight="even"), jn.NetError, "expects class_weight='balanced' or a dict"),
    "weights of labels": (
        lambda: fit(class_weight="balanced", y=Y[:, None] == np.arange(3)), jn.NetError, "one class per example",
    ),
    "no weight": (
        lambda: Classifier().fit(X, Y, sample_weight=np.zeros(12)), ValueError, "(?i)sample.weight.*zero",
    ),
    "fraction": (lambda: fit(validation_fraction=20), jn.NetError, "validation_fraction in .*20 % is 0.2"),
    "no class left": (
        lambda: fit(x=X[:2], y=[0, 1], validation_fraction=0.5), jn.NetError, "holds out all examples of a class",
    ),
    "contamination": (lambda: fit(AnomalyDetector, contamination=0.7), jn.NetError, "contamination above 0 and at"),
    "contamination by word": (lambda: fit(AnomalyDetector, contamination="auto"), jn.NetError, "0.5, got 'auto'"),
    "fractions as integers": (lambda: fit(dtype="int32"), jn.NetError, "expects integers of int32 in X, got "),
    "large integers": (
        lambda: fit(x=np.array([[2**32 + 1]] * 12), dtype="int32"), jn.NetError, "of int32 in X, got 4294967297",
    ),
    "images of another size": (
        lambda: fit(net=lambda n: jn.serial(jn.flatten, jn.dense(n)), x=np.ones((12, 4, 4, 1))).predict(
            np.ones((1, 4, 5, 1))
        ),
        jn.NetError, r"^Classifier expects X as \(n, 4, 4, 1\), as in fit, got \(1, 4, 5, 1\)",
    ),
    "another net": (
        lambda: fit(warm_start=True).set_params(net=partial(jn.models.mlp, (4,))).fit(X, Y), jn.NetError,
        "^Classifier can't go on from the last fit, whose params has other names or shapes; fit with warm_start=False",
    ),
    "no such layer": (lambda: Transformer(Classifier(**SHORT), layer="conv").fit(X, Y), jn.NetError, "conv.*fc1"),
    "no layer before": (
        lambda: Transformer(Classifier(jn.dense, **SHORT)).fit(X, Y), jn.NetError,
        r"^Transformer finds no layer before the last in dense\(3\); name one, layer=",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(name: str):
    make, kind, message = MISTAKES[name]
    with pytest.raises(kind) as caught:
        make()
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_says_where():
    with pytest.raises(jn.train.NonFiniteError):
        fit(Regressor, y=X[:, 0], learning_rate=1e30, optimizer=optax.sgd, epochs=50)


def test_a_failed_continuation_keeps_what_was_fitted():
    fitted = fit(warm_start=True)
    before = jax.tree.map(np.copy, fitted.params_)
    with pytest.raises(jn.NetError):
        fitted.fit(X, Y + 5)
    jax.tree.map(np.testing.assert_array_equal, fitted.params_, before)
    assert fitted.predict(X).shape == (12,)


def test_a_failed_fit_leaves_no_mixture():
    fitted = fit()
    with pytest.raises(jn.NetError):
        fitted.set_params(net=jn.dense(7)).fit(X, Y + 5)
    with pytest.raises(NotFittedError):
        fitted.predict(X)


def test_names_of_scikit_learn_lead_here():
    for name in ("Classifier", "MLPClassifier", "MLPRegressor"):
        with pytest.raises(AttributeError, match=f"jn.sklearn.{name.removeprefix('MLP')}"):
            getattr(jn, name)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "jaxnets.sklearn")
    with pytest.raises(ModuleNotFoundError, match=r"needs the package sklearn: pip install 'jaxnets\[sklearn\]'"):
        importlib.import_module("jaxnets.sklearn")
