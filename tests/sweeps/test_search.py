"""Successive halving, Bayesian search and cross-validation, all of them sweeps."""

import sys
from typing import Any

import jax
import numpy as np
import optax
import optuna
import pytest
from jax.sharding import Mesh

import jaxnets as jn
from tests.oracle import floats

pytestmark = pytest.mark.promotes  # Optax's own arithmetic
HOW: Any = {"strategy": "vmap", "mesh": Mesh(np.array(jax.devices()[:1]), ("trials",))}
X = floats(8, 1)
RATES = [0.3, 1e25, 0.001, 0.2, 0.003, 0.1, 0.01, 0.03]


def linear(hp: dict[str, Any]) -> jn.train.Program:
    objective = jn.objective(jn.losses.squared_error)
    return jn.train.program(jn.dense(1), objective, optax.sgd(hp["lr"]), (X, 3 * X), epochs=5, batch_size=4)


def test_halving_keeps_the_better_half():
    """The survivors of each rung are read off a sweep in which nobody was dropped."""
    full = jn.sweeps.sweep(linear, grid={"lr": RATES}, **HOW)
    halved = jn.sweeps.halving(linear, "loss", grid={"lr": RATES}, factor=2, **HOW)
    loss, going = full.history["loss"], list(range(8))
    want = np.zeros(8, int)
    for rung, keep in ((1, 4), (2, 2), (4, 1), (5, 1)):
        want[going] = np.minimum(rung, np.isfinite(loss[going]).sum(1) + 1)
        going = sorted(going, key=lambda trial: np.nan_to_num(loss[trial, rung - 1], nan=np.inf))[:keep]
    assert halved.epochs.tolist() == want.tolist()
    assert sorted(halved.epochs.tolist()) == [1, 1, 1, 1, 2, 2, 4, 5]
    for trial, done in enumerate(halved.epochs):
        np.testing.assert_allclose(halved.history["loss"][trial, :done], loss[trial, :done], rtol=1e-6)
    assert halved.dropped.tolist() == (want < 5).tolist()
    assert halved.best("loss").hp == {"lr": RATES[going[0]]}
    np.testing.assert_allclose(halved.run(going[0]).params["kernel"], full.run(going[0]).params["kernel"], rtol=1e-6)


@pytest.mark.slow
def test_halving_judges_configurations_by_all_their_seeds():
    halved = jn.sweeps.halving(linear, "loss", grid={"lr": [0.001, 0.1]}, seeds=4, first=2, factor=2, **HOW)
    assert halved.epochs.tolist() == [2] * 4 + [5] * 4


class Spy(optuna.samplers.RandomSampler):
    """Draws at random, and writes down what it is told."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.told: list[Any] = []

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        self.told.append((trial.params, state.name, values))


@pytest.mark.slow
def test_optuna_is_told_what_came():
    spy, space = Spy(), {"lr": jn.sweeps.choice([0.01, 0.1, 1e25])}
    result = jn.sweeps.search(linear, space, "loss", trials=7, batch=4, seeds=2, sampler=spy, **HOW)
    assert result.history["loss"].shape == (14, 5)
    assert result.config.tolist() == [trial for trial in range(7) for _ in range(2)]
    means = result.value("loss").reshape(7, 2).mean(1)
    for trial, (params, state, values) in enumerate(spy.told):
        assert params["lr"] == result.hp["lr"][2 * trial]
        if params["lr"] == 1e25:
            assert (state, values) == ("FAIL", None)
        else:
            assert state == "COMPLETE"
            assert values == [pytest.approx(means[trial], rel=1e-6)]
    assert {state for _, state, _ in spy.told} == {"FAIL", "COMPLETE"}
    assert result.best("loss").hp == {"lr": 0.1}


def test_a_search_is_had_again_and_gets_nearer(capsys: pytest.CaptureFixture[str]):
    space = {"lr": jn.sweeps.log_uniform(1e-4, 1.0)}
    how = {"trials": 32, "batch": 8, "progress": True, **HOW}
    result, again = (jn.sweeps.search(linear, space, "loss", **how) for _ in range(2))
    np.testing.assert_array_equal(result.hp["lr"], again.hp["lr"])
    values = result.value("loss")
    assert np.nanmedian(values[16:]) < np.nanmedian(values[:8])
    assert capsys.readouterr().out.splitlines()[3].startswith("search  100 %  32 of 32 trials  best loss 0.")


def test_lipo_searches_without_optuna_and_takes_failures(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    space = {"lr": jn.sweeps.log_uniform(1e-4, 1e8)}
    result, again = (
        jn.sweeps.search(linear, space, "loss", trials=18, batch=8, seeds=2, sampler="lipo", **HOW) for _ in range(2)
    )
    np.testing.assert_array_equal(result.hp["lr"], again.hp["lr"])
    assert len(result) == 36
    values = result.value("loss")
    assert (result.failed >= 0).any()
    assert np.nanmin(values) < min(0.1, np.nan_to_num(values[:16], nan=np.inf).min())
    with pytest.raises(
        jn.NetError, match=r"search expects sampler \"lipo\", a sampler of Optuna's or None, got str 'tpe'"
    ):
        jn.sweeps.search(linear, space, "loss", trials=2, sampler="tpe")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({}, "search expects at least one hyperparameter in space"),
        ({"lr": [0.1, 0.2]}, "search expects a space for 'lr' in space, such as"),
    ],
)
def test_mistakes_in_a_search(space: Any, says: str):
    with pytest.raises(jn.NetError) as caught:
        jn.sweeps.search(linear, space, "loss", trials=2)
    assert says in str(caught.value)


def test_metrics_that_nobody_reports():
    with pytest.raises(jn.NetError, match="search finds no scalar 'validation/loss' in the history; it has loss"):
        jn.sweeps.search(linear, {"lr": jn.sweeps.uniform(0.01, 0.1)}, "validation/loss", trials=8, **HOW)
    with pytest.raises(jn.NetError, match="halving finds no scalar 'accuracy' in the history; it has loss"):
        jn.sweeps.halving(linear, "accuracy", grid={"lr": RATES}, mode="max", **HOW)
    with pytest.raises(jn.NetError, match="halving expects mode 'min' or 'max' for 'accuracy': nothing declares"):
        jn.sweeps.halving(linear, "accuracy", grid={"lr": RATES}, **HOW)
    with pytest.raises(jn.NetError, match=r"search expects mode .* for 'accuracy': nothing .* is for loss, sq"):
        jn.sweeps.search(linear, {"lr": jn.sweeps.uniform(0.01, 0.1)}, "accuracy", trials=8, **HOW)
    with pytest.raises(jn.NetError, match="halving expects factor ≥ 2, got 1"):
        jn.sweeps.halving(linear, "loss", grid={"lr": RATES}, factor=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'chunks'"):
        jn.sweeps.halving(linear, "loss", grid={"lr": RATES}, chunks=2)  # pyright: ignore[reportCallIssue]


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jaxnets\[search\]'"):
        jn.sweeps.search(linear, {"lr": jn.sweeps.uniform(0.01, 0.1)}, "loss", trials=2)


def test_cross_validation_agrees_with_scikit_learn():
    """Ridge regression by gradient descent to the end, over five folds of unequal size and two strengths."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import PredefinedSplit, cross_val_score

    x = floats(23, 3)
    y = x @ np.array([1.0, -2.0, 0.5], np.float32) + 0.3 + 0.5 * floats(23, seed=1)
    numbers = jn.data.folds(23, 5)

    def trial_fn(hp, train, validation):
        # Ridge minimizes the sum of squares and α ‖w‖²; here the mean is taken over the training examples.
        objective = jn.objective(jn.losses.squared_error, jn.regularizers.l2(hp["alpha"] / train[2].sum(), on="kernel"))
        sgd = optax.sgd(0.2, momentum=0.5)
        return jn.train.program(
            jn.dense(1), objective, sgd, train, epochs=300, batch_size=None, validation=validation,
            metrics={"squared error": jn.metrics.mean(jn.losses.squared_error)},
        )  # fmt: skip

    result = jn.sweeps.cross_validate(
        trial_fn, (x, y[:, None]), 5, numbers=numbers, grid={"alpha": [0.1, 3.0]}, strategy="map", mesh=HOW["mesh"]
    )
    assert result.labels["fold"].tolist() == [0, 1, 2, 3, 4] * 2
    want = [
        -cross_val_score(Ridge(alpha), x, y, cv=PredefinedSplit(numbers), scoring="neg_mean_squared_error")
        for alpha in (0.1, 3.0)
    ]
    got = result.value("validation/squared error").reshape(2, 5)
    np.testing.assert_allclose(got, want, rtol=1e-4)
    best = result.best("validation/squared error")
    assert best.hp["alpha"] == [0.1, 3.0][int(np.argmin(np.mean(want, 1)))]
    assert best.value == pytest.approx(np.min(np.mean(want, 1)), rel=1e-4)


def test_mistakes_in_cross_validation():
    data = (X, 3 * X)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"k": 1}, "expects at least 2 folds"),
        ({"k": 2, "numbers": [0, 1]}, "numbers from 0 to 1, one for each of 8 examples"),
        ({"k": 3, "numbers": [0, 1] * 4}, "numbers from 0 to 2, one for each of 8 examples"),
    ]
    for given, says in cases:
        with pytest.raises(jn.NetError) as caught:
            jn.sweeps.cross_validate(lambda hp, train, validation: linear({"lr": 0.1}), data, **given)
        assert says in str(caught.value)
