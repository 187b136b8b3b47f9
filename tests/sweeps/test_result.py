"""Results of sweeps: tables, the best, figures. All on histories that are written down here."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import jaxnets as jn
from jaxnets.plot.style import bootstrap
from jaxnets.sweeps.execution import Layout
from jaxnets.sweeps.space import design
from jaxnets.train.names import Directions

# Three configurations by two seeds: the first has the luckiest seed, the second is best on average, the third fails.
ACCURACY = [[0.5, 0.99], [0.5, 0.61], [0.7, 0.9], [0.7, 0.88], [0.8, 0.95], [0.1, np.nan]]
LR, L2 = [0.001, 0.01, 0.1], 1e-4


def result(values: Any = ACCURACY, grid: dict[str, Any] | None = None, **changed: Any) -> jn.sweeps.SweepResult:
    rows = np.array(values, np.float32)
    chosen = design(grid=grid or {"lr": LR, "l2": [L2]}, seeds=2)
    fields: dict[str, Any] = {
        "history": {"validation/accuracy": rows, "l2": rows * 0, "confusion": np.zeros((len(rows), 2, 3))},
        "epochs": np.isfinite(rows).sum(1),
        "reported": np.full(len(rows), rows.shape[1] - 1),
        "failed": np.where(np.isnan(rows).any(1), 5, -1),
        "dropped": np.zeros(len(rows), bool),
        "runs": None,
        "directions": Directions({"accuracy": True}, (), monitored=False),
    }
    fields |= changed
    return jn.sweeps.SweepResult(
        hp=chosen.hp, labels=chosen.labels, config=chosen.config, keys=chosen.keys, layout=Layout("vmap"),
        **fields,
    )  # fmt: skip


def test_best_is_so_on_average_over_seeds():
    best = result().best("validation/accuracy")
    assert best.hp == {"lr": 0.01, "l2": L2}
    assert best.value == pytest.approx((0.9 + 0.88) / 2, rel=1e-6)
    assert (best.trial, best.trials) == (2, (2, 3))
    lucky = result().best("validation/accuracy", by="trial")
    assert (lucky.hp["lr"], lucky.trial, lucky.trials) == (0.001, 0, (0,))
    assert lucky.value == pytest.approx(0.99)
    assert result().best("validation/accuracy", "min").trials == (0, 1)
    dropped = result(dropped=np.array([False, False, True, True, False, False]))
    assert dropped.best("validation/accuracy").trials == (0, 1)


def test_values_are_those_of_the_finished_run():
    first = result(reported=np.array([0, 1, 0, 1, -1, 1]))
    np.testing.assert_allclose(first.value("validation/accuracy"), [0.5, 0.61, 0.7, 0.88, np.nan, np.nan], rtol=1e-6)


def test_a_table_has_a_record_a_trial():
    table = result().table()
    assert [each["trial"] for each in table] == list(range(6))
    assert list(table[1]) == [
        "trial", "seed", "lr", "l2", "epochs", "validation/accuracy", "reported/l2", "failed",
    ]  # fmt: skip
    assert {name: table[1][name] for name in ("seed", "lr", "l2", "epochs", "failed")} == {
        "seed": 1, "lr": 0.001, "l2": L2, "epochs": 2, "failed": None,
    }  # fmt: skip
    assert table[5]["failed"] == 5
    assert result().failures() == [{"trial": 5, "seed": 1, "lr": 0.1, "l2": L2, "step": 5}]
    frame: Any = result().frame()
    means = frame.groupby("lr")["validation/accuracy"].mean()
    np.testing.assert_allclose(means.to_numpy(), [0.8, 0.89, 0.95], rtol=1e-6)  # pandas leaves NaN out
    assert repr(result()) == "SweepResult(6 trials of 3 configurations of lr, l2; 1 failed)"


def line(figure: Any, number: int = 0) -> np.ndarray:
    return np.asarray(figure.axes[0].get_lines()[number].get_xydata())


def test_a_plot_shows_means_on_an_axis_that_suits():
    figure = result().plot("lr", "validation/accuracy")
    axes = figure.axes[0]
    np.testing.assert_allclose(line(figure), [[0.001, 80], [0.01, 89], [0.1, np.nan]], rtol=1e-6)
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == ("log", "lr", "validation accuracy (%)")
    assert axes.get_title() == "mean of 2 networks and their range; 1 of 6 networks without a finite value"
    band: Any = axes.collections[0].get_paths()[0].vertices
    ends = band[band[:, 0] == 0.001][:, 1]
    np.testing.assert_allclose([ends.min(), ends.max()], [61, 99], rtol=1e-6)
    many = np.arange(24).reshape(12, 2)
    both: Any = result(many, {"lr": [1.0, 2.0, 3.0], "l2": [0.0, 0.1]}).plot("lr", "validation/accuracy")
    assert [text.get_text() for text in both.axes[0].get_legend().get_texts()] == ["l2 0", "l2 0.1"]
    assert both.axes[0].get_xscale() == "linear"
    np.testing.assert_allclose(line(both, 1), [[1, 600], [2, 1400], [3, 2200]])
    with_zero = result(many[:8], {"l2": [0.0, 1e-4, 1e-3, 1e-2]}).plot("l2", "validation/accuracy")
    assert with_zero.axes[0].get_xscale() == "symlog"


def test_a_band_over_five_seeds_is_the_bootstrap_interval():
    values = np.random.default_rng(0).random((10, 1))
    chosen = design(grid={"lr": [0.1, 0.2]}, seeds=5)
    five = result(
        values, {"lr": [0.1]}, reported=np.zeros(10, int), failed=np.full(10, -1), dropped=np.zeros(10, bool)
    )  # fmt: skip
    five = dataclasses.replace(five, hp=chosen.hp, labels=chosen.labels, config=chosen.config, keys=chosen.keys)
    axes: Any = five.plot("lr", "validation/accuracy").axes[0]
    band, (_, low, high) = axes.collections[0].get_paths()[0].vertices, bootstrap(100 * np.float32(values[:5, 0]))
    ends = band[band[:, 0] == 0.1][:, 1]
    np.testing.assert_allclose([ends.min(), ends.max()], [low, high], rtol=1e-5)
    assert axes.get_title() == "mean of 5 networks and its 95 % interval"


def test_a_plot_of_random_draws_has_points():
    chosen = design(random={"lr": jn.sweeps.log_uniform(1e-4, 0.1), "l2": jn.sweeps.uniform(0, 1)}, samples=3, seeds=2)
    drawn = result()
    drawn.hp.update(chosen.hp)
    axes = drawn.plot("lr", "validation/accuracy").axes[0]
    assert len(axes.containers) == 1  # points with bars
    assert axes.get_legend() is None


def test_curves_over_epochs_are_of_configurations():
    rows = np.arange(40.0).reshape(20, 2)
    figure = result(rows, {"lr": np.arange(1.0, 11.0)}).plot("epoch", "validation/accuracy")
    assert len(figure.axes[0].get_lines()) == 8
    np.testing.assert_allclose(line(figure), [[1, 3700], [2, 3800]])  # the mean of (36, 37) and (38, 39)
    assert figure.axes[0].get_xlabel() == "epoch"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            lambda: result().best("accuracy"),
            "best finds no scalar 'accuracy' in the history; it has validation/accuracy",
        ),
        (lambda: result().best("confusion", "max"), "finds no scalar 'confusion'"),
        (
            lambda: result(np.full((6, 2), np.nan)).best("validation/accuracy"),
            "finds no configuration with a finite 'validation/accuracy'",
        ),
        (lambda: result().best("l2"), "best expects mode 'min' or 'max' for 'l2': nothing declares"),
        (lambda: result().best("validation/accuracy", "most"), "expects mode 'min' or 'max'"),  # pyright: ignore
        (lambda: result().best("validation/accuracy", by="seed"), "expects by 'config' or 'trial'"),  # pyright: ignore
        (lambda: result().plot("rate", "l2"), "plot finds no hyperparameter 'rate'; the sweep has epoch, lr, l2"),
        (lambda: result().plot("lr", "loss"), "plot finds no scalar 'loss'"),
        (lambda: result().run(6), "run expects a trial from 0 to 5, got 6"),
    ],
)
def test_mistakes_with_a_result(wrong: Any, says: str):
    with pytest.raises(jn.NetError) as caught:
        wrong()
    assert says in str(caught.value)


def test_without_pandas_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jaxnets\[search\]'"):
        result().frame()
