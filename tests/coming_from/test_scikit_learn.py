"""What the page says of scikit-learn."""

import importlib
import warnings
from typing import Any

import jax
import numpy as np
import pytest
import scipy.special

import jaxnets as jn
from tests.coming_from.page import Checks, Row, apply, close, differ, rows
from tests.oracle import floats, integers

ROWS = rows("scikit-learn")
checks = Checks()
N = 60
X = floats(N, 5) * np.array([1, 2, 3, 1, 0], np.float32) + np.array([0, 1, 0, 5, 2], np.float32)
SCORES, Y = floats(N, 3), integers(N, high=3)
O, T = floats(N), floats(N, seed=1)
NAMES = {
    "x": X, "y": Y, "scores": SCORES, "labels": SCORES.argmax(1), "p": scipy.special.softmax(SCORES, 1),
    "o": O, "t": T, "s": np.sign(T), "n": N, "np": np,
}  # fmt: skip


@pytest.mark.promotes
@pytest.mark.parametrize("there", ROWS)
@pytest.mark.slow_cases(
    "linear_model.Ridge(alpha=0.5)", "linear_model.Lasso(alpha=0.1)", "linear_model.LogisticRegression(C=2.0)"
)
def test_row(there: str):
    checks[there](ROWS[there])


def test_every_row_is_checked():
    assert set(checks) == set(ROWS)


def code(row: Row) -> Any:
    name = row.there.partition(".")[0]
    if name == "utils":
        importlib.import_module("sklearn.utils.class_weight")
    return row.theirs(**{name: importlib.import_module(f"sklearn.{name}")}, **NAMES)


@checks.row("linear_model.Ridge(alpha=0.5)")
@checks.row("linear_model.Lasso(alpha=0.1)")
@checks.row("linear_model.ElasticNet(alpha=0.1, l1_ratio=0.3)")
@checks.row("linear_model.LogisticRegression(C=2.0)")
def optimum(row: Row):
    """Where theirs ends, our objective has no slope, but for weights that L1 holds at 0."""
    target = Y if "Logistic" in row.there else T + 2 * X[:, 0]

    def theirs():
        model = code(row).set_params(tol=1e-9, max_iter=100_000).fit(X.astype(float), target)
        return {"kernel": np.atleast_2d(model.coef_).T, "bias": np.atleast_1d(model.intercept_)}

    params = {name: np.asarray(value, np.float32) for name, value in row.answers(theirs).items()}
    loss, penalty = row.ours(n=N)
    like = target if "Logistic" in row.there else target[:, None]

    @jax.jit
    @jax.grad
    def slopes(params: Any, strength: float) -> jax.Array:
        return loss(X @ params["kernel"] + params["bias"], like).mean() + strength * penalty(params)

    def slope(strength: float) -> Any:
        along = jax.tree.map(np.asarray, slopes(params, strength))
        return max(abs(along["bias"]).max(), abs(along["kernel"][params["kernel"] != 0]).max())

    assert slope(1.0) < 2e-5
    assert slope(1.2) > 5 * slope(1.0)


@checks.row("neural_network.MLPClassifier([8], alpha=0.3)")
def mlp(row: Row):
    def theirs():
        model = code(row).set_params(solver="sgd", learning_rate_init=1e-9, max_iter=1, batch_size=N, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            model.fit(X.astype(float), Y)
        kernels, biases = ([np.asarray(each) for each in part] for part in (model.coefs_, model.intercepts_))
        return {"loss": np.array(model.loss_curve_[0]), **{f"{n}{i}": each for n, part in
                (("kernel", kernels), ("bias", biases)) for i, each in enumerate(part)}}  # fmt: skip

    want = row.answers(theirs)
    params = {
        str(2 * place): {name: np.asarray(want[f"{name}{place}"], np.float32) for name in ("kernel", "bias")}
        for place in range(2)
    }
    loss, penalty = row.ours(n=N)
    logits = apply(jn.serial(jn.dense(8), jax.nn.relu, jn.dense(3)), X, params)
    value, more = jax.jit(lambda: (loss(logits, Y).mean(), penalty(params)))()
    close(float(value) + float(more), want["loss"])
    assert float(more) > 1e-3


@checks.row("preprocessing.StandardScaler()")
@checks.row("preprocessing.MinMaxScaler()")
def scaled(row: Row):
    want = row.answers(lambda: {"y": code(row).fit_transform(X.astype(float)).astype(np.float32)})["y"]
    close(row.ours(x=X)(X), want, 1e-4)


@checks.row("model_selection.train_test_split(x, y, test_size=0.25, stratify=y)")
def split(row: Row):
    """As many in each part as theirs, and of each class its share within one; theirs draws which classes round up."""
    shares = np.outer([0.75, 0.25], np.bincount(Y))

    def counts(parts: Any) -> np.ndarray:
        each = np.array([np.bincount(part, minlength=3) for part in parts])
        assert abs(each - shares).max() < 1
        return each.sum(1)

    places = np.arange(N)
    parts = row.ours(x=places, y=Y)
    np.testing.assert_array_equal(
        counts([labels for _, labels in parts]), row.answers(lambda: {"n": counts(code(row)[2:])})["n"]
    )
    np.testing.assert_array_equal(np.sort(np.concatenate([part for part, _ in parts])), places)


@checks.row('utils.class_weight.compute_class_weight("balanced", classes=np.arange(3), y=y)')
@checks.row("metrics.accuracy_score(y, labels)")
@checks.row("metrics.top_k_accuracy_score(y, scores, k=2)")
@checks.row("metrics.log_loss(y, p)")
@checks.row('metrics.f1_score(y, labels, average="macro")')
@checks.row('metrics.jaccard_score(y, labels, average="macro")')
@checks.row('metrics.roc_auc_score(y, p, multi_class="ovr")')
@checks.row("metrics.average_precision_score(s > 0, o)")
@checks.row("metrics.matthews_corrcoef(y, labels)")
@checks.row("metrics.cohen_kappa_score(y, labels)")
@checks.row("metrics.brier_score_loss(y, p)")
@checks.row("metrics.confusion_matrix(y, labels)")
@checks.row("metrics.mean_absolute_percentage_error(t, o)")
@checks.row("metrics.r2_score(t, o)")
@checks.row("metrics.hinge_loss(s, o)")
def value(row: Row):
    want = row.answers(lambda: {"y": np.asarray(code(row), np.float64)})["y"]
    assert want.size
    close(jax.jit(lambda: row.ours(**NAMES))(), want, 1e-4)


@checks.row("metrics.hinge_loss(y, scores)")
def multiclass_hinge(row: Row):
    want = row.answers(lambda: {"y": np.asarray(code(row))})["y"]
    close(jax.jit(lambda: row.ours(**NAMES))(), want)
    differ(np.mean(jax.jit(jn.losses.multiclass_hinge)(SCORES, Y)), want)
