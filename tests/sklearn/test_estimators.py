"""What the estimators compute: the parameters of `jn.fit`, weights, labels, classes, continued fits."""

import pickle
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
import pandas
import polars
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_multilabel_classification
from sklearn.frozen import FrozenEstimator

import jaxnets as jn
from jaxnets.sklearn import AnomalyDetector, Classifier, Regressor, Transformer
from jaxnets.sklearn.training import program_of
from tests.sklearn.order import in_order

pytestmark = pytest.mark.promotes
X, Y = load_iris(return_X_y=True)
X = ((X - X.mean(0)) / X.std(0)).astype(np.float32)
NET = jn.serial(jn.dense(8), jax.nn.relu, jn.dense(3))
DRAWN: dict[str, Any] = {"learning_rate": 0.05, "epochs": 6, "random_state": 3}
GIVEN: dict[str, Any] = {**DRAWN, "fit_options": {"sampler": in_order}}
FULL: dict[str, Any] = {**GIVEN, "batch_size": None, "epochs": 20}


def by_hand(net: Any, loss: Any, optimizer: Any, *data: np.ndarray, **options: Any) -> tuple[jn.train.TrainState, Any]:
    return jn.fit(net, loss, optimizer, data, key=jax.random.key(3), **{"epochs": 6, "sampler": in_order, **options})


def same(found: Any, wanted: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(assert_array_equal, found, wanted)


def test_a_classifier_has_the_parameters_of_fit():
    state, history = by_hand(NET, jn.losses.cross_entropy, optax.adam(0.05), X, Y.astype(np.int32), sampler=None)
    fitted = Classifier(NET, **DRAWN).fit(X.astype(float), Y)
    same(fitted.params_, state.params)
    same(fitted.history_, history)
    assert (fitted.n_iter_, fitted.n_features_in_, fitted.input_shape_) == (6, 4, (4,))
    logits = jn.predict(NET, state, X)
    assert_allclose(fitted.decision_function(X), logits, rtol=1e-5, atol=1e-6)
    assert_allclose(fitted.predict_proba(X), jax.nn.softmax(logits), rtol=1e-4, atol=1e-6)
    assert_allclose(fitted.predict_log_proba(X), jax.nn.log_softmax(logits), rtol=1e-4, atol=1e-5)
    assert_array_equal(fitted.predict(X), np.asarray(logits).argmax(1))
    assert fitted.score(X, Y) > 0.9


@pytest.mark.slow
def test_a_regressor_has_the_parameters_of_fit():
    l1 = jn.regularizers.l1(0.01)
    objective = jn.objective(jn.losses.huber, jn.regularizers.l2(0.1), l1)
    y = X[:, :2] * np.array([1, -2], np.float32)
    given: dict[str, Any] = {"loss": jn.losses.huber, "l2": 0.1, "regularizer": l1, "batch_size": 50}
    for optimizer in (partial(optax.sgd, momentum=0.5), optax.sgd(0.05, momentum=0.5)):  # of a rate, or ready
        state, _ = by_hand(jn.dense(2), objective, optax.sgd(0.05, momentum=0.5), X, y, batch_size=50)
        fitted = Regressor(jn.dense, optimizer=optimizer, **given, **GIVEN).fit(X, y)
        same(fitted.params_, state.params)
        assert_allclose(fitted.predict(X), jn.predict(jn.dense(2), state, X), rtol=1e-5)
    state, _ = by_hand(jn.dense(1), jn.losses.squared_error, optax.adam(0.05), X, y[:, :1])
    one = Regressor(jn.dense(1), **GIVEN).fit(X, y[:, 0])
    same(one.params_, state.params)
    assert one.predict(X).shape == (150,)


@pytest.mark.slow
def test_an_anomaly_detector_has_the_parameters_of_fit():
    net = jn.models.autoencoder((4,), (8,), 2)
    state, _ = by_hand(net, jn.losses.squared_error, optax.adam(0.05), X, X)
    fitted = AnomalyDetector(lambda shape: jn.models.autoencoder(shape, (8,), 2), **GIVEN).fit(X)
    same(fitted.params_, state.params)
    errors = np.square(jn.predict(net, state, X) - X).mean(1)
    assert_allclose(fitted.score_samples(X), -errors, rtol=1e-5)
    assert (fitted.predict(X) == -1).sum() == 15  # a tenth
    assert_array_equal(fitted.predict(X) == -1, np.argsort(np.argsort(-errors)) < 15)


@pytest.mark.slow
def test_numbers_of_a_program_may_be_traced():
    """As a sweep over estimators needs: `vmap` over rates and strengths gives what each fit gives."""
    net, loss, data = (estimator := Classifier(NET, **FULL))._prepare(X, Y)
    params = estimator.get_params(deep=False)

    def train(rate: jax.Array, strength: jax.Array) -> Any:
        program = program_of({**params, "learning_rate": rate, "l2": strength}, net, loss, data)
        return program(jax.random.key(3))[0].params

    grid = np.array([[0.05, 0.01], [0.0, 0.1]], np.float32)
    found = jax.jit(jax.vmap(train))(*grid)
    for place, (rate, strength) in enumerate(grid.T):
        one = clone(estimator).set_params(learning_rate=float(rate), l2=float(strength)).fit(X, Y)
        mine = jax.tree.map(lambda leaf, place=place: leaf[place], found)
        jax.tree.map(partial(assert_allclose, rtol=1e-3, atol=1e-5), mine, one.params_)


def test_the_second_fit_compiles_nothing():
    names = np.array(["setosa", "versicolor", "virginica"])[Y]
    first = Classifier(lambda outputs: jn.models.mlp((8,), outputs), **GIVEN, validation_fraction=0.2).fit(X, names)
    expected = first.predict(X)
    first.predict(X[:100])
    with jax.no_tracing():
        again = clone(first).fit(X, names)
        assert_array_equal(again.predict(X), expected)
        again.predict(X[:90])  # in a block of the same size
    same(again.params_, first.params_)
    assert list(first.classes_) == ["setosa", "versicolor", "virginica"]
    assert set(expected) == set(first.classes_)


@pytest.mark.slow
def test_weights_of_classes_are_weights_of_examples():
    by_class = {0: 3.0, 2: 0.5}
    weights = np.array([by_class.get(each, 1.0) for each in Y])
    one = Classifier(NET, class_weight=by_class, **FULL).fit(X, Y)
    same(one.params_, Classifier(NET, **FULL).fit(X, Y, sample_weight=weights).params_)
    plain = Classifier(NET, **FULL).fit(X, Y)
    assert abs(one.params_["0"]["kernel"] - plain.params_["0"]["kernel"]).max() > 1e-3
    few = slice(30, None)
    balanced = Classifier(NET, class_weight="balanced", **FULL).fit(X[few], Y[few])
    shares = 120 / (3 * np.bincount(Y[few]))
    by_hand = Classifier(NET, class_weight=dict(enumerate(shares)), **FULL).fit(X[few], Y[few])
    assert_allclose(balanced.predict_proba(X), by_hand.predict_proba(X), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Classifier, Regressor])
def test_weight_two_is_two_examples_and_weight_zero_none(kind: Any):
    weights = np.arange(150) % 3
    repeated = np.repeat(np.arange(150), weights)
    weighted = kind(jn.dense, **FULL).fit(X, Y, sample_weight=weights)
    twice = kind(jn.dense, **FULL).fit(X[repeated], Y[repeated])
    assert_allclose(weighted.params_["kernel"], twice.params_["kernel"], rtol=1e-4, atol=1e-5)
    alike = kind(jn.dense, **FULL).fit(X, Y)
    assert abs(weighted.params_["kernel"] - alike.params_["kernel"]).max() > 1e-3


@pytest.mark.slow
def test_several_labels():
    x, y = make_multilabel_classification(80, 6, n_classes=4, random_state=0)
    fitted = Classifier(jn.dense, **{**FULL, "epochs": 100}).fit(x, y)
    state, _ = by_hand(
        jn.dense(4), jn.losses.binary_cross_entropy, optax.adam(0.05), x.astype(np.float32), y.astype(np.float32),
        batch_size=None, epochs=100,
    )  # fmt: skip
    same(fitted.params_, state.params)
    assert_allclose(fitted.predict_proba(x), jax.nn.sigmoid(jn.predict(jn.dense(4), state, x.astype(np.float32))), 1e-4)
    assert (fitted.predict(x) == y).mean() > 0.8
    assert_allclose(np.exp(fitted.predict_log_proba(x)), fitted.predict_proba(x))
    assert_array_equal(clone(fitted).fit(x, sparse.csr_matrix(y)).predict(x), fitted.predict(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "like"),
    [
        (jn.losses.binary_cross_entropy, lambda y: y),
        (jn.losses.hinge, lambda y: 2 * y - 1),
        (jn.objective(jn.losses.squared_hinge, jn.regularizers.l2(0.01)), lambda y: 2 * y - 1),
    ],
    ids=["binary_cross_entropy", "hinge", "objective"],
)  # fmt: skip
def test_losses_of_a_single_output(loss: Any, like: Any):
    x, y = X[50:], Y[50:] - 1
    fitted = Classifier(jn.dense, loss=loss, **FULL).fit(x, np.array(["no", "yes"])[y])
    targets = like(y)[:, None].astype(np.float32)
    state, _ = by_hand(jn.dense(1), loss, optax.adam(0.05), x, targets, batch_size=None, epochs=20)
    same(fitted.params_, state.params)
    scores = np.asarray(jn.predict(jn.dense(1), state, x))[:, 0]
    assert_allclose(fitted.decision_function(x), scores, rtol=1e-5)
    assert_array_equal(fitted.predict(x), np.where(scores > 0, "yes", "no"))
    assert hasattr(fitted, "predict_proba") == (loss is jn.losses.binary_cross_entropy)
    if hasattr(fitted, "predict_proba"):
        assert_allclose(fitted.predict_proba(x)[:, 1], jax.nn.sigmoid(scores), rtol=1e-5)
        same(Classifier(jn.dense(1), **FULL).fit(x, y).params_, state.params)  # the default for one output


def test_a_continued_fit_is_the_whole_fit():
    whole = Classifier(NET, **DRAWN, batch_size=30).fit(X, Y)
    warm = Classifier(NET, **{**DRAWN, "epochs": 3}, batch_size=30, warm_start=True).fit(X, Y)
    half = warm.params_
    warm.fit(X, Y)
    same(warm.params_, whole.params_)
    same(warm.history_, whole.history_)
    assert warm.n_iter_ == 6
    parts = Classifier(NET, **DRAWN, batch_size=30)
    for epoch in range(6):
        parts = pickle.loads(pickle.dumps(parts.partial_fit(X, Y, classes=[0, 1, 2])))
        if epoch == 2:
            same(parts.params_, half)
    same(parts.params_, whole.params_)
    assert parts.n_iter_ == 6
    same(parts.fit(X, Y).params_, whole.params_)  # without warm_start, from the beginning


def test_partial_fit_knows_classes_that_come_later():
    fitted = Classifier(NET, **GIVEN).partial_fit(X[:100], Y[:100], classes=np.arange(3))
    assert fitted.predict_proba(X).shape == (150, 3)
    for _ in range(10):
        fitted.partial_fit(X[50:], Y[50:])
    assert (fitted.predict(X[100:]) == 2).mean() > 0.6


@pytest.mark.slow
def test_early_stopping_on_a_part_with_all_classes():
    given = {**GIVEN, "epochs": 200, "learning_rate": 0.1}
    fitted = Classifier(NET, validation_fraction=0.2, patience=3, metrics=[jn.metrics.accuracy], **given).fit(X, Y)
    values = fitted.history_["validation/loss"]
    assert fitted.n_iter_ == len(values) < 200
    assert values.argmin() == len(values) - 4
    train, held_out = jn.data.split_indices(Y, (0.8, 0.2), seed=3)
    assert_array_equal(np.bincount(Y[held_out]), [10, 10, 10])
    rule = jn.train.early_stopping("validation/loss", patience=3)
    y = Y.astype(np.int32)
    state, _ = by_hand(
        NET, jn.losses.cross_entropy, optax.adam(0.1), X[train], y[train], epochs=200, callbacks=[rule],
        validation=(X[held_out], y[held_out]),
    )  # fmt: skip
    same(fitted.params_, state.params)
    # The best epoch's parameters are restored.
    loss = -fitted.predict_log_proba(X[held_out])[np.arange(30), y[held_out]].mean()
    assert_allclose(loss, values.min(), rtol=1e-4)


def test_random_state():
    def kernel(random_state: Any) -> np.ndarray:
        return Classifier(jn.dense, **{**GIVEN, "epochs": 1, "random_state": random_state}).fit(X, Y).params_["kernel"]

    assert_array_equal(kernel(np.random.RandomState(0)), kernel(np.random.RandomState(0)))
    assert_array_equal(kernel(np.int64(5)), kernel(5))
    assert (kernel(np.random.RandomState(0)) != kernel(5)).all()
    assert (kernel(None) != kernel(None)).all()


@pytest.mark.parametrize("table", [pandas.DataFrame, partial(polars.DataFrame, orient="row")], ids=["pandas", "polars"])
def test_tables(table: Any):
    names, words = ["a", "b", "c", "d"], np.array(["x", "y", "z"])
    frame = table(X, **({"columns": names} if table is pandas.DataFrame else {"schema": names}))
    series = (pandas.Series if table is pandas.DataFrame else polars.Series)(words[Y])
    fitted = Classifier(NET, **GIVEN).fit(frame, series)
    assert fitted.feature_names_in_.tolist() == names
    numbered = Classifier(NET, **GIVEN).fit(X, Y)
    same(fitted.params_, numbered.params_)
    assert_array_equal(fitted.predict(frame), words[numbered.predict(X)])


@pytest.mark.slow
def test_sparse_inputs_and_images():
    images, y = load_digits(return_X_y=True)
    images, y = images[:200] / 16, y[:200]
    fitted = Classifier(jn.dense, **GIVEN).fit(sparse.csr_array(images), y)
    same(fitted.params_, Classifier(jn.dense, **GIVEN).fit(images, y).params_)
    assert_array_equal(fitted.predict(sparse.coo_matrix(images)), fitted.predict(images))
    net = jn.serial(jn.conv(4, 3, stride=2), jax.nn.relu, jn.flatten, jn.dense(10))
    drawn = Classifier(net, **{**GIVEN, "epochs": 30, "learning_rate": 0.02}).fit(images.reshape(-1, 8, 8, 1), y)
    assert drawn.input_shape_ == (8, 8, 1)
    assert drawn.score(images.reshape(-1, 8, 8, 1), y) > 0.95


@pytest.mark.slow
def test_indices_stay_integers():
    tokens = np.array([[0, 1], [1, 0], [2, 2], [0, 2]] * 10)
    net = jn.serial(jn.embed(3, 4), jn.flatten, jn.dense(2))
    fitted = Classifier(net, dtype="int32", **{**FULL, "epochs": 100}).fit(tokens, [0, 1, 1, 0] * 10)
    assert fitted.score(tokens, [0, 1, 1, 0] * 10) == 1


@pytest.mark.slow
def test_double_precision():
    fitted = Classifier(NET, dtype="float64", **FULL).fit(X, Y)
    assert fitted.params_["0"]["kernel"].dtype == np.float64
    restored = pickle.loads(pickle.dumps(fitted))
    same(restored.predict_proba(X), fitted.predict_proba(X))
    x = X[:1].astype(float)
    assert abs(fitted.predict_proba(x + 1e-9) - fitted.predict_proba(x)).max() > 0  # lost in float32


@pytest.mark.slow
def test_features_of_a_layer():
    net = jn.serial(hidden=jn.dense(8), relu=jax.nn.relu, out=jn.dense(3))
    classifier = Classifier(net, **GIVEN).fit(X, Y)
    features = Transformer(FrozenEstimator(classifier)).fit(X)
    want, _ = net.upto("relu").apply(classifier.params_, classifier.state_, X)
    assert_allclose(features.transform(X), want, rtol=1e-6)
    assert features.estimator_.estimator is classifier
    hidden = Transformer(Classifier(net, **GIVEN), layer="hidden").fit(X, Y)
    same(hidden.estimator_.params_, classifier.params_)
    assert (hidden.transform(X) < 0).any()
    assert hidden.get_feature_names_out().tolist() == [f"transformer{each}" for each in range(8)]
    codes = Transformer(AnomalyDetector(epochs=1)).fit_transform(X)
    assert codes.shape == (150, 2)


@pytest.mark.slow
def test_options_reach_the_program():
    seen: list[int] = []
    watch = jn.train.Callback(on_epoch_end=lambda number, state, row: seen.append(number))
    given: dict[str, Any] = {"freeze": "0/**", "ema_decay": 0.9}
    fitted = Classifier(NET, callbacks=[watch], fit_options=given, **DRAWN).fit(X, Y)
    state, _ = by_hand(NET, jn.losses.cross_entropy, optax.adam(0.05), X, Y.astype(np.int32), sampler=None, **given)
    same(fitted.params_, state.params)
    assert seen == [*range(6)]


def test_the_pickle_of_an_estimator_is_its_arrays():
    fitted = Classifier(partial(jn.models.mlp, (8,)), **GIVEN).fit(X, Y)
    data = pickle.dumps(fitted)
    assert len(data) < 6_000  # three times the parameters: theirs and the optimizer's
    restored = pickle.loads(data)
    assert restored.net_ == fitted.net_
    same(restored.predict_proba(X), fitted.predict_proba(X))
