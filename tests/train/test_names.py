"""Names that values are reported under, and whether more or less of them is better; data that is not fit to use."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from tests.oracle import floats, integers

pytestmark = pytest.mark.promotes  # Optax's own arithmetic
X, Y, KEY = floats(12, 4), integers(12, high=3), jax.random.key(0)
NET, OBJECTIVE = jn.dense(3), jn.objective(jn.losses.cross_entropy, jn.regularizers.l2(0.1))
PARAMS, STATE = NET.init(KEY, X)
METRICS = {"top_error": jn.metrics.mean(jn.losses.cross_entropy), "elbo": jn.metrics.accuracy,
           "confusion": jn.metrics.confusion_matrix(3)}  # fmt: skip


def program(data: Any = (X, Y), objective: Any = OBJECTIVE, **options: Any) -> Any:
    given = {"epochs": 2, "batch_size": 6, "metrics": METRICS} | options
    return jn.train.program(NET, objective, optax.sgd(0.1), data, **given)


def own(params: Any, outputs: Any, targets: Any, weights: Any) -> Any:
    loss = jnp.square(outputs).mean()
    return loss, {"evidence": loss}


def watch(watched: Any) -> dict[str, jax.Array]:
    return {"rise": jnp.float32(0)}


@pytest.mark.parametrize(
    ("name", "mode"),
    [("loss", "min"), ("validation/loss", "min"), ("ema/validation/l2", "min"), ("cross_entropy", "min"),
     ("validation/top_error", "min"), ("elbo", "max"), ("ema/validation/elbo", "max"), ("confusion", None),
     ("validation/accuracy", None), ("skipped_steps", None), ("rise", None)],
)  # fmt: skip
def test_directions_are_what_metrics_and_the_objective_declare(name: str, mode: str | None):
    """Whatever they are called: `top_error` falls, `elbo` rises here."""
    assert program(options=jn.train.Options(monitor=watch)).recipe.directions.mode(name) == mode
    rule = jn.train.early_stopping(name, patience=3)
    if mode is None:
        with pytest.raises(jn.NetError, match=f"early_stopping expects mode 'min' or 'max' for '{name}': nothing"):
            program(stopping=rule)
        assert program(stopping=jn.train.early_stopping(name, patience=3, mode="max")).stopping.mode == "max"
    else:
        assert program(stopping=rule).stopping.mode == mode


def test_parts_of_an_objective_of_ones_own():
    told = program(objective=own).recipe.directions
    assert (told.mode("evidence"), told.mode("elbo"), told.mode("skipped_steps")) == ("min", "max", None)
    beside = program(objective=own, options=jn.train.Options(monitor=watch)).recipe.directions
    assert (beside.mode("validation/evidence"), beside.mode("evidence"), beside.mode("rise")) == ("min", None, None)


@pytest.mark.slow
def test_stopping_in_fit_and_the_best_checkpoint_follow_the_metric(tmp_path):
    """A metric named `top_error` that falls: the best is the least."""
    rule = jn.train.early_stopping("validation/top_error", patience=9)
    rate = optax.sgd(lambda step: jnp.where(jnp.asarray(step) < 6, 0.5, -2.0))  # better for three epochs, then worse
    given = {"epochs": 6, "validation": (X, Y), "metrics": METRICS, "batch_size": 6}
    learn = jn.train.program(NET, OBJECTIVE, rate, (X, Y), **given)
    keep = jn.train.checkpoint(tmp_path, best="validation/top_error", overhead=None)
    run, history = jn.train.run(learn, key=KEY, callbacks=[rule, keep])
    least = int(np.argmin(history["validation/top_error"]))
    assert 0 < least < 5
    assert int(run.stopping.best_epoch) == least
    assert jn.train.load_checkpoint(tmp_path, "best")[2]["epoch"] == least + 1
    keep = jn.train.checkpoint(tmp_path / "other", best="validation/whim")
    with pytest.raises(jn.NetError, match="checkpoint expects mode 'min' or 'max' for 'validation/whim': nothing"):
        jn.train.run(program(validation=(X, Y), metrics={"whim": undeclared()}), key=KEY, callbacks=[keep])


def undeclared() -> jn.metrics.Metric:
    return jn.metrics.Metric(jn.metrics.accuracy.measure, jn.metrics.accuracy.value, "whim")


@pytest.mark.slow
def test_the_best_of_a_sweep_follows_the_metric():
    def study(hp: dict[str, Any]) -> jn.train.Program:
        return jn.train.program(NET, OBJECTIVE, optax.sgd(hp["lr"]), (X, Y), epochs=2, batch_size=12, metrics=METRICS)

    result = jn.sweeps.sweep(study, grid={"lr": [0.5, 1e-4]}, strategy="vmap")
    assert result.best("top_error").hp == {"lr": 0.5}
    assert result.best("elbo").value == result.value("elbo").max()
    result.history["whim"] = result.history["loss"]
    with pytest.raises(jn.NetError, match="best expects mode 'min' or 'max' for 'whim': nothing"):
        result.best("whim")


Options = jn.train.Options
TWICE = "reports two values under one name, '{}'"
ACCURACY = jn.metrics.accuracy
SHADOWED = {
    "loss": (lambda: program(metrics={"loss": ACCURACY}), "program " + TWICE.format("loss")),
    "part": (lambda: program(metrics={"l2": ACCURACY}), "program " + TWICE.format("l2")),
    "skipped": (lambda: program(metrics={"skipped_steps": ACCURACY}, options=Options(loss_scale=jn.train.LossScale())),
                "program " + TWICE.format("skipped_steps")),
    "validation": (lambda: program(metrics={"validation/a": ACCURACY}), "without 'validation/' in front"),
    "own part": (lambda: program(objective=own, metrics={"evidence": ACCURACY})(KEY), TWICE.format("evidence")),
    "monitored": (lambda: program(metrics={"rise": ACCURACY}, options=Options(monitor=watch))(KEY),
                  TWICE.format("rise")),
    "monitored loss": (lambda: program(options=Options(monitor=lambda _: {"loss": jnp.float32(0)}))(KEY),
                       TWICE.format("loss")),
    "own loss": (lambda: program(objective=lambda p, o, t, w: (o.sum(), {"loss": o.sum()}))(KEY), TWICE.format("loss")),
    "evaluate": (lambda: jn.evaluate(NET, (PARAMS, STATE), (X, Y), {"loss": ACCURACY}, OBJECTIVE),
                 "evaluate " + TWICE.format("loss")),
}  # fmt: skip


@pytest.mark.parametrize("name", SHADOWED)
def test_no_value_hides_another(name: str):
    call, message = SHADOWED[name]
    with pytest.raises(jn.NetError, match=message):
        call()


def evaluate(data: Any, **options: Any) -> Any:
    return jn.evaluate(NET, (PARAMS, STATE), data, {"accuracy": ACCURACY}, **options)


W = np.ones(12, np.float32)
UNFIT = {
    "evaluate lengths": (lambda: evaluate((X, Y[:10])), "evaluate expects as many inputs as targets in data, got"),
    "evaluate weights": (lambda: evaluate((X, Y, W[:3])), "evaluate expects as many inputs as targets in data"),
    "evaluate nothing": (lambda: evaluate((X[:0], Y[:0])), "evaluate expects at least one example in data, got none"),
    "evaluate no batch": (lambda: evaluate((X, Y), batch_size=0), "evaluate expects batch_size ≥ 1, got 0"),
    "evaluate half a batch": (lambda: evaluate((X, Y), batch_size=2.5), "evaluate expects an integer for batch_size"),
    "evaluate a loss": (lambda: jn.evaluate(NET, (PARAMS, STATE), (X, Y), {"a": jn.losses.hinge}),  # pyright: ignore
                        "evaluate expects metrics from jn.metrics, got the function hinge for 'a'"),
    "evaluate weightless": (lambda: evaluate((X, Y, 0 * W)), "evaluate expects some weight above 0 in data, got 0"),
    "program weightless": (lambda: program((X, Y, 0 * W)), "program expects some weight above 0 in data"),
    "validation weightless": (lambda: program(validation=(X, Y, 0 * W)), "program expects some weight above 0 in v"),
    "predict nothing": (lambda: jn.predict(NET, (PARAMS, STATE), X[:0]), "predict expects at least one example"),
    "predict lengths": (lambda: jn.predict(NET, (PARAMS, STATE), (X, X[:3])), "predict expects .* in x, got"),
    "predict no batch": (lambda: jn.predict(NET, (PARAMS, STATE), X, batch_size=0), "predict expects batch_size"),
    "objective": (lambda: jn.objective(lambda o, t: (o[:3] - t)[:, 0])(PARAMS, X, X[:3]),
                  r"objective expects targets with the batch axis of the outputs, \(12,\), got \(3, 4\)"),
    "metric": (lambda: jn.metrics.mean(lambda o, t: (o[:3] - t)[:, 0])(X, X[:3]), "lambda expects targets with"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_unfit_data_are_refused_alike(name: str):
    call, message = UNFIT[name]
    with pytest.raises(jn.NetError, match=message):
        call()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.slow
def test_what_stands_in_rows_of_weight_0_never_matters(streamed: bool):
    """Infinity and NaN among their inputs, in training and validation: the run that it is with numbers there."""
    weights = np.where(np.arange(12) % 5 == 1, 0, 1).astype(np.float32)
    net = jn.serial(jn.dense(5), jnp.tanh, jn.dense(3))

    def end(bad: float) -> tuple[Any, Any]:
        data = (np.where(weights[:, None] > 0, X, np.float32(bad)), Y, weights)
        given = jn.data.stream(data, 6, seed=1) if streamed else data
        options = {"epochs": 3, "batch_size": 6, "validation": data, "metrics": {"accuracy": ACCURACY}}
        return jn.train.run(jn.train.program(net, OBJECTIVE, optax.sgd(0.1), given, **options), key=KEY)

    (run, history), (same, expected) = end(np.inf) if streamed else end(np.nan), end(0.5)
    jax.tree.map(np.testing.assert_array_equal, run.params, same.params)
    jax.tree.map(np.testing.assert_array_equal, history, expected)


def test_traced_negative_weights_of_an_objective_give_nan():
    weights = jnp.array([2.0, -1.0, 1.0])
    loss, objective = jnp.array([1.0, 2.0, 9.0]), jn.objective(jn.losses.absolute_error)
    assert np.isnan(jax.jit(objective)({}, loss, 0 * loss, weights)[0])
    assert jax.jit(objective)({}, loss, 0 * loss, abs(weights))[0] == 13 / 4
    assert jax.jit(objective)({}, loss, 0 * loss, 0 * weights)[0] == 0
    with pytest.raises(jn.NetError, match="objective expects weights ≥ 0, got -1"):
        objective({}, loss, 0 * loss, weights)


def test_without_an_objective_a_metric_may_be_called_loss():
    found = jn.evaluate(NET, (PARAMS, STATE), (X, Y), {"loss": jn.metrics.mean(jn.losses.cross_entropy)})
    assert list(found) == ["loss"]


def test_weights_and_losses_are_summed_exactly():
    """2²⁵ and 4,000 ones, one by one, of which float32 alone would lose every one."""
    weights = np.append(np.float32(2**25), np.ones(4000, np.float32))
    x, y = np.append(np.float32(0), np.full(4000, 5e3, np.float32))[:, None], np.zeros((4001, 1), np.float32)
    net, objective = jn.serial(lambda x: x), jn.objective(jn.losses.absolute_error)
    metrics = {"error": jn.metrics.mean_absolute_error}
    found = jax.jit(lambda *data: jn.evaluate(net, ({}, {}), data, metrics, objective, batch_size=1))(x, y, weights)
    right = np.average(x[:, 0].astype(np.float64), weights=weights.astype(np.float64))
    for name in ("error", "loss", "absolute_error"):
        assert float(found[name]) == pytest.approx(right, rel=1e-6)
