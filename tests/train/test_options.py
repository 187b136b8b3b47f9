"""What a step does beyond plain gradient descent: parts, patterns, averages, scales, weights, and halting."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from tests.oracle import floats, integers, witness
from tests.train.test_program import equal

pytestmark = pytest.mark.promotes  # Optax's own arithmetic
KEY = jax.random.key(5)
N = 10
X, Y = floats(N, 4), integers(N, high=3)
OBJECTIVE = jn.objective(jn.losses.cross_entropy, jn.regularizers.l2(0.01, on="**/kernel"))
whole = jax.jit(lambda program, key: program(key))


def net() -> jn.Net:
    return jn.serial(features=jn.serial(fc=jn.dense(5), bn=jn.batch_norm(), tanh=jnp.tanh), head=jn.dense(3))


def plain() -> jn.Net:
    return jn.serial(hidden=jn.dense(5), tanh=jnp.tanh, head=jn.dense(3))


SMALL = jn.dense(3)


def program(model: jn.Net, data: Any = (X, Y), optimizer: Any = None, **options: Any) -> jn.train.Program:
    given: dict[str, Any] = {"epochs": 3, "batch_size": 5} | options
    return jn.train.program(model, OBJECTIVE, optimizer or optax.sgd(0.1, momentum=0.9), data, **given)


def close(a: Any, b: Any, atol: float) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), a, b)


@pytest.mark.parametrize("size", [4, 10])
@pytest.mark.slow
def test_a_batch_in_parts_is_the_whole_batch(size: int):
    """Also where the last batch is filled up with rows of weight 0: 10 examples in batches of 4."""
    with jax.enable_x64(True):
        data = X.astype(np.float64), Y
        one, parts = (
            whole(program(SMALL, data, batch_size=size, options=jn.train.Options(accumulate=k)), KEY) for k in (1, 2)
        )
        close(one[0].params, parts[0].params, 1e-12)
        close(one[1], parts[1], 1e-12)


def test_a_step_in_parts_or_of_a_scaled_loss_is_a_plain_step():
    """With rows of weight 0 and of weight 2 in the batch."""
    weights = np.where(np.arange(N) > 7, 0, np.arange(N) % 2 + 1).astype(np.float32)
    sgd, scale = optax.sgd(0.1, momentum=0.9), jn.train.LossScale(initial=2.0**8)

    @jax.jit
    def stepped(key: jax.Array) -> list[jn.train.TrainState]:
        ends = []
        for options in (jn.train.Options(), jn.train.Options(accumulate=2), jn.train.Options(loss_scale=scale)):
            run = jn.train.start(SMALL, sgd, X, options, key=key)
            step = jn.train.make_train_step(SMALL, OBJECTIVE, sgd, options)
            ends.append(step(run, jn.train.Batch(X, Y, weights))[0])
        return ends

    plainly, parts, scaled = stepped(KEY)
    close(parts.params, plainly.params, 1e-6)
    close(scaled.params, plainly.params, 1e-6)
    assert (float(scaled.scale.factor), int(scaled.scale.skipped)) == (2.0**8, 0)


@pytest.mark.slow
def test_weights_are_repetitions():
    """An example of weight 2 counts as two, one of weight 0 as none: full-batch descent, by hand on repeated data."""
    weights = np.array([2, 1, 0, 1, 3, 1, 1, 0, 1, 2], np.float32)
    often = np.repeat(np.arange(N), weights.astype(int))
    heavy = whole(program(SMALL, (X, Y, weights), batch_size=None, validation=(X, Y, weights)), KEY)
    repeated = whole(program(SMALL, (X[often], Y[often]), batch_size=None, validation=(X[often], Y[often])), KEY)
    close(heavy[0].params, repeated[0].params, 2e-6)
    close(heavy[1], repeated[1], 2e-6)


ADAMW = optax.adamw(0.1, weight_decay=0.1)


def test_what_is_frozen_has_no_memory():
    one = program(net(), optimizer=ADAMW, freeze="features/**")
    before = jax.eval_shape(one.start, KEY)
    memory = jax.tree.leaves(jax.eval_shape(ADAMW.init, {"head": before.params["head"]}))
    assert len(jax.tree.leaves(before.opt_state)) == len(memory)
    with pytest.raises(jn.NetError, match="'tail' matches no parameter"):
        program(net(), freeze="tail").start(KEY)


@pytest.mark.slow
@pytest.mark.exact
def test_what_is_frozen_stays():
    one = program(net(), optimizer=ADAMW, freeze="features/**")
    before = jax.jit(one.start)(KEY)
    run, _ = whole(one, KEY)
    equal(run.params["features"], before.params["features"])
    equal(run.state, before.state)
    assert np.abs(run.params["head"]["kernel"] - before.params["head"]["kernel"]).max() > 0.01


@pytest.mark.slow
def test_the_rest_of_a_net_of_which_a_bias_is_frozen_learns():
    one = program(net(), optimizer=ADAMW, freeze="features/fc/bias")
    before, after = jax.jit(one.start)(KEY), whole(one, KEY)[0]
    equal(after.params["features"]["fc"]["bias"], before.params["features"]["fc"]["bias"])
    assert np.abs(after.state["features"]["bn"]["mean"]).max() > 0


def test_rates_by_pattern_are_pytorchs_parameter_groups():
    model = plain()
    params, _ = model.init(KEY, X)

    def compute() -> dict[str, np.ndarray]:
        import torch

        layers = torch.nn.Linear(4, 5), torch.nn.Linear(5, 3)
        with torch.no_grad():
            for layer, name in zip(layers, ("hidden", "head"), strict=True):
                layer.weight.copy_(torch.tensor(np.asarray(params[name]["kernel"]).T))
                layer.bias.copy_(torch.tensor(np.asarray(params[name]["bias"])))
        groups = [{"params": layers[0].parameters(), "lr": 0.02}, {"params": layers[1].parameters(), "lr": 0.2}]
        adam = torch.optim.Adam(groups)
        for _ in range(5):
            adam.zero_grad()
            logits = layers[1](torch.tanh(layers[0](torch.tensor(X))))
            torch.nn.functional.cross_entropy(logits, torch.tensor(Y).long()).backward()
            adam.step()
        return {"hidden": layers[0].weight.detach().numpy().T, "head": layers[1].bias.detach().numpy()}

    expected = witness("train/groups", compute)
    optimizer = optax.chain(optax.adam(0.2), optax.masked(optax.scale(0.1), jn.paths.mask("hidden/**")))
    step = jax.jit(jn.train.make_train_step(model, jn.objective(jn.losses.cross_entropy), optimizer))
    run = jn.train.TrainState(params, {}, optimizer.init(params), KEY, jnp.int32(0), failed=jnp.int32(-1))
    for _ in range(5):
        run, _, _ = step(run, jn.train.Batch(jnp.asarray(X), jnp.asarray(Y), jnp.ones(N)))
    np.testing.assert_allclose(run.params["hidden"]["kernel"], expected["hidden"], atol=2e-6)
    np.testing.assert_allclose(run.params["head"]["bias"], expected["head"], atol=5e-6)
    with pytest.raises(jn.NetError, match="'tail' matches no parameter"):
        optax.masked(optax.scale(0.1), jn.paths.mask("tail")).init(params)


def test_the_average_is_that_of_a_loop():
    one = program(SMALL, ema_decay=0.3, validation=(X[:4], Y[:4]), batch_size=None, epochs=4)
    own, step = jax.jit(one.start)(KEY), jax.jit(one.run_epoch)
    shadow, row = jax.device_get(own.params), {}
    for t in range(4):
        own, row = step(own)
        decay = np.float32(min(0.3, (1 + t) / (10 + t)))
        shadow = jax.tree.map(lambda new, old, d=decay: (1 - d) * new + d * old, jax.device_get(own.params), shadow)
    close(own.ema, shadow, 1e-6)
    seen = jn.evaluate(SMALL, (shadow, {}), (X[:4], Y[:4]), {}, OBJECTIVE)
    np.testing.assert_allclose(row["ema/validation/loss"], seen["loss"], atol=1e-6)
    assert row["ema/validation/loss"] != row["validation/loss"]


def test_statistics_of_other_parameters_are_pytorchs():
    """`torch.optim.swa_utils.update_bn` over two batches of five, from statistics that are far off."""
    model = jn.serial(fc=jn.dense(6), bn=jn.batch_norm(), dropout=jn.dropout(0.0))
    params, state = model.init(KEY, X)

    def compute() -> dict[str, np.ndarray]:
        import torch

        fc, bn = torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6)
        with torch.no_grad():
            fc.weight.copy_(torch.tensor(np.asarray(params["fc"]["kernel"]).T))
            fc.bias.copy_(torch.tensor(np.asarray(params["fc"]["bias"])))
        torch.nn.init.constant_(bn.get_buffer("running_mean"), 7.0)
        batches = [torch.tensor(X[:5]), torch.tensor(X[5:])]
        torch.optim.swa_utils.update_bn(batches, torch.nn.Sequential(fc, bn))
        return {name: bn.get_buffer(f"running_{name}").numpy() for name in ("mean", "var")}

    expected = witness("train/update_bn", compute)
    far = jax.tree.map(lambda leaf: leaf + 7, state)
    got = jn.train.estimate_statistics(model, params, far, X, key=KEY, batch_size=5)["bn"]
    for name in ("mean", "var"):
        np.testing.assert_allclose(got[name], expected[name], rtol=2e-6, atol=1e-6)


@pytest.mark.slow
def test_average_and_statistics_go_together():
    one = program(net(), ema_decay=0.5, validation=(X, Y))
    run, history = whole(one, KEY)
    params, state = jn.train.ema_params(net(), run, X)
    seen = jn.evaluate(net(), (params, state), (X, Y), {}, OBJECTIVE)
    np.testing.assert_allclose(history["ema/validation/loss"][-1], seen["loss"], rtol=1e-5)
    with pytest.raises(jn.NetError, match="no moving average in the train state"):
        jn.train.ema_params(net(), program(net()).start(KEY), X)


@pytest.mark.slow
def test_a_scaled_loss_takes_the_same_steps():
    scale = jn.train.LossScale(initial=2.0**8, period=4)
    plainly, _ = whole(program(SMALL), KEY)
    scaled, history = whole(program(SMALL, options=jn.train.Options(loss_scale=scale)), KEY)
    close(scaled.params, plainly.params, 1e-6)  # powers of two; the penalty's gradient is rounded elsewhere
    assert float(scaled.scale.factor) == 2.0**9
    np.testing.assert_array_equal(history["skipped_steps"], [0, 0, 0])


@pytest.mark.slow
def test_a_scale_that_overflows_halves_until_it_fits():
    """In float16, 2¹⁵ times a loss of 100 overflows; then the network learns."""
    half = jn.cast(plain(), jn.Policy(compute=jnp.float16))
    large = jn.train.program(
        half, jn.objective(lambda y, t: 100 * jn.losses.cross_entropy(y, t)), optax.sgd(1e-3), (X, Y),
        epochs=6, batch_size=5, options=jn.train.Options(loss_scale=jn.train.LossScale()))  # fmt: skip
    run, history = whole(large, KEY)
    assert 0 < int(history["skipped_steps"][-1]) < 12
    assert int(run.failed) == -1
    assert history["loss"][-1] < history["loss"][0]


SPOILED = np.where(np.arange(4 * N).reshape(N, 4) == 0, np.float32(np.inf), X)


def scaled_step(model: jn.Net) -> tuple[jn.train.TrainState, jn.train.TrainState]:
    """Return the states before and after a step of a scaled loss on an infinite input."""
    options, adam = jn.train.Options(loss_scale=jn.train.LossScale(), halt_on_nonfinite=True), optax.adam(0.1)

    @jax.jit
    def both(key: jax.Array) -> Any:
        run = jn.train.start(model, adam, X, options, key=key)
        batch = jn.train.Batch(jnp.asarray(SPOILED), jnp.asarray(Y), jnp.ones(N))
        return run, jn.train.make_train_step(model, OBJECTIVE, adam, options)(run, batch)[0]

    return both(KEY)


def test_a_skipped_step_changes_nothing_but_the_scale():
    before, after = scaled_step(plain())  # the tanh of infinity is 1
    equal((after.params, after.opt_state), (before.params, before.opt_state))
    assert (int(after.step), int(after.failed), int(after.scale.skipped)) == (1, -1, 1)
    assert float(after.scale.factor) == 2.0**14


@pytest.mark.slow
def test_an_infinite_loss_is_no_matter_of_its_scale():
    before, after = scaled_step(SMALL)
    equal((after.params, after.opt_state), (before.params, before.opt_state))
    assert (int(after.step), int(after.failed), int(after.scale.skipped)) == (0, 0, 0)


@pytest.mark.slow
def test_a_step_that_is_not_taken_has_no_updates_to_watch():
    def largest(seen: jn.train.StepInfo) -> dict[str, jax.Array]:
        return {"largest": jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(seen.updates)]).max()}

    model, options, sgd = SMALL, jn.train.Options(halt_on_nonfinite=True, monitor=largest), optax.sgd(0.1)
    run, one = (
        jax.jit(lambda key: jn.train.start(model, sgd, X, options, key=key))(KEY),
        jax.jit(jn.train.make_train_step(model, OBJECTIVE, sgd, options)),
    )
    for x, moves in ((X, True), (SPOILED, False)):
        _, _, parts = one(run, jn.train.Batch(x, Y, np.ones(N, np.float32)))
        assert bool(parts["largest"] > 0) == moves


def test_training_halts_at_the_last_good_step():
    bad = X.copy()
    bad[3] = np.inf
    one = program(SMALL, (bad, Y), validation=(X, Y), batch_size=2)
    run, history = whole(one, KEY)
    step = int(run.failed)
    assert 0 <= step == int(run.step) < 5
    next_batch = jax.jit(jn.train.Program.next_batch)
    assert np.isinf(np.asarray(next_batch(one, run).x)).any()
    by_hand = jax.jit(jn.train.make_train_step(SMALL, OBJECTIVE, optax.sgd(0.1, momentum=0.9)))
    own = jax.jit(one.start)(KEY)
    for _ in range(step):
        own, _, _ = by_hand(own, next_batch(one, own))
    close(run.params, own.params, 1e-6)
    assert np.isnan(history["loss"]).all()
    assert np.isfinite(history["validation/loss"][0])  # of the last good parameters


@pytest.mark.slow
def test_a_run_halts_where_its_program_does():
    one = program(SMALL, (SPOILED, Y), validation=(X, Y), batch_size=2)
    run, _ = whole(one, KEY)
    step = int(run.failed)
    with pytest.raises(jn.train.NonFiniteError, match=rf"step {step}\b") as caught:
        jn.train.run(one, key=KEY)
    equal(caught.value.state, run)
    assert len(caught.value.history["loss"]) == 1


@pytest.mark.slow
def test_training_halts_at_gradients_and_a_step_after_an_update_that_overflows():
    """Training halts at an infinite gradient whatever would clip it; an update that overflows is the next step's."""

    def square(outputs: Any, targets: Any) -> jax.Array:
        return (outputs**2).sum(-1)

    def root(outputs: Any, targets: Any) -> jax.Array:
        return jnp.sqrt(jnp.abs(outputs)).sum(-1)  # at 0 the slope is infinite

    def of(loss: Any, optimizer: Any, x: Any) -> Any:
        """Take two steps."""
        options, net = jn.train.Options(halt_on_nonfinite=True), jn.dense(1)

        @jax.jit
        def steps(x: jax.Array) -> jn.train.TrainState:
            run = jn.train.start(net, optimizer, x, options, key=KEY)
            one = jn.train.make_train_step(net, jn.objective(loss), optimizer, options)
            batch = jn.train.Batch(x, jnp.asarray(Y), jnp.ones(N))
            return jax.lax.scan(lambda run, _: (one(run, batch)[0], None), run, length=2)[0]

        return steps(x)

    over = of(square, optax.chain(optax.scale(-1e38), optax.scale(1e3)), X)
    assert int(over.failed) == 1
    zeros = np.zeros_like(X)
    assert int(of(root, optax.sgd(0.1), zeros).failed) == 0
    clipped = of(
        root,
        optax.chain(optax.stateless(lambda g, _: jax.tree.map(jnp.nan_to_num, g)), optax.clip(1.0), optax.sgd(0.1)),
        zeros,
    )
    assert int(clipped.failed) == 0
    assert np.isfinite(clipped.params["kernel"]).all()


@pytest.mark.parametrize(("dtype", "slope", "taken"), [("float16", 100, True), ("float32", 1e38, False)])
def test_gradients_are_summed_in_float32_at_least(dtype: str, slope: float, taken: bool):
    """1,000 gradients whose sum is beyond float16, and then beyond float32; each of them is finite."""
    x, options = np.full((1, 1000), slope, dtype), jn.train.Options(halt_on_nonfinite=True)
    objective, sgd = jn.objective(lambda outputs, targets: outputs.sum(-1)), optax.sgd(1e-3)

    @jax.jit
    def stepped(x: Any) -> Any:
        run = jn.train.start(jn.dense(1), sgd, x, options, key=KEY)
        run = dataclasses.replace(run, params=jax.tree.map(lambda leaf: jnp.zeros_like(leaf, dtype), run.params))
        step = jn.train.make_train_step(jn.dense(1), objective, sgd, options)
        return step(run, jn.train.Batch(x, jnp.zeros(1), jnp.ones(1)))[0]

    after = stepped(x)
    assert (int(after.failed) == -1) == taken
    assert (np.asarray(after.params["kernel"]) != 0).all() == taken


@pytest.mark.slow
def test_trials_halt_alone():
    """One of three learning rates is far too large."""

    def trial(rate: Any) -> Any:
        objective = jn.objective(jn.losses.squared_error)
        return jn.train.program(jn.dense(1), objective, optax.sgd(rate), (X, X[:, :1]), epochs=60, batch_size=5)(KEY)

    runs, history = jax.jit(jax.vmap(trial))(jnp.array([0.01, 1e4, 0.1]))
    assert (np.asarray(runs.failed) >= 0).tolist() == [False, True, False]
    assert np.isfinite(history["loss"][::2]).all()
    assert np.isfinite(runs.params["kernel"]).all()


def test_orders_and_mixing_are_used():
    def backwards(key: Any, train: Any) -> jax.Array:
        return jnp.arange(N)[::-1]

    def swap(key: Any, x: Any, y: Any, weights: Any) -> Any:
        return x[::-1], y[::-1], weights[::-1]

    one = program(plain(), sampler=backwards, batch_augment=swap, batch_size=4)

    @jax.jit
    def batches(key: jax.Array) -> list[jn.train.Batch]:
        run = one.start(key)
        return [one.next_batch(dataclasses.replace(run, step=jnp.int32(step))) for step in (0, 2)]

    first, last = batches(KEY)
    np.testing.assert_array_equal(first.y, Y[::-1][:4][::-1])
    np.testing.assert_array_equal(last.weights, [0, 0, 1, 1])


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "parts": ({"options": jn.train.Options(accumulate=3)}, "batch of equal parts, got batch_size=5 in accumulate=3"),
    "average": ({"ema_decay": 1.0}, r"ema_decay in \[0, 1\), got 1"),
    "average twice": ({"ema_decay": 0.9, "options": jn.train.Options(ema_decay=0.9)}, "gets ema_decay twice"),
    "nan": ({"data": (np.where(X[2, 1] == X, np.nan, X), Y)}, "1 NaN in the inputs of data, the first in example 2"),
    "triple": ({"data": (X, Y, Y, Y)}, r"got a tuple of 4"),
    "weights": ({"data": (X, Y, -np.ones(N))}, r"weights ≥ 0 in data, got -1"),
    "weights' shape": ({"data": (X, Y, np.ones((N, 1)))}, r"weights \(examples,\) in data, got \(10, 1\)"),
    "weights' length": ({"data": (X, Y, np.ones(N - 1))}, "as many inputs as targets"),
    "validation": ({"validation": (X * np.nan, Y)}, "NaN in the inputs of validation"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str):
    options, message = MISTAKES[name]
    with pytest.raises(jn.NetError, match=f"program .*{message}"):
        program(plain(), **options)


@pytest.mark.parametrize("options", [{"initial": 0.5}, {"period": 0}, {"growth": 1.0}])
def test_scales_out_of_range_are_named(options: Any):
    with pytest.raises(jn.NetError, match="LossScale expects initial ≥ 1, period ≥ 1 and growth > 1"):
        jn.train.LossScale(**options)


@pytest.mark.parametrize(
    "options",
    [{"batch_size": None}, {"batch_size": 5, "validation": (X, Y), "ema_decay": 0.9}],
    ids=["one batch", "two, validation and an average"],
)
@pytest.mark.slow_cases("one batch")
def test_parameters_that_the_last_step_makes_infinite_are_neither_reported_nor_saved(options: dict[str, Any]):
    """An update of 3e38 times the gradient, in the last step of an epoch: the run is that of the epoch's beginning."""
    one = program(SMALL, (50 * X, Y), optax.sgd(3e38), epochs=2, **options)
    seen: list[Any] = []

    def watched(number: int, run: jn.train.TrainState, row: Any) -> None:
        seen.append(jax.device_get(run.params))

    watch = jn.train.Callback(on_epoch_end=watched)
    with pytest.raises(jn.train.NonFiniteError, match="parameters that are not") as caught:
        jn.train.run(one, key=KEY, callbacks=[watch])
    equal(caught.value.state.params, jax.jit(one.start)(KEY).params)
    assert len(seen) == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(seen))
    assert np.isfinite(caught.value.history.get("validation/loss", np.zeros(1))).all()
    assert int(caught.value.state.failed) == (0 if options["batch_size"] is None else 1)


@pytest.mark.slow
def test_a_run_of_a_scaled_loss_stops_at_an_infinite_one():
    bad = X.copy()
    bad[3] = np.inf
    one = program(SMALL, (bad, Y), batch_size=5, options=jn.train.Options(loss_scale=jn.train.LossScale()))
    with pytest.raises(jn.train.NonFiniteError, match="example 3 of the data has a value that is not finite") as caught:
        jn.train.run(one, key=KEY)
    assert 0 <= int(caught.value.state.failed) < 2
    assert int(caught.value.state.scale.skipped) == 0


@pytest.mark.slow
def test_half_precision_learns_as_float32_does():
    """Adam's moments and the average are kept in float32, small steps add up in masters of the parameters."""
    runs = {}
    for dtype in ("float32", "bfloat16"):
        model = jn.cast(jn.dense(3), jn.Policy(param=jnp.dtype(dtype), compute=jnp.float32))
        one = jn.train.program(model, jn.objective(jn.losses.squared_error), optax.adam(1e-3), (X, X[:, :3]),
                               epochs=3000, batch_size=None, ema_decay=0.999)  # fmt: skip
        runs[dtype], history = whole(one, KEY)
        assert history["loss"][-1] < 1e-3 * history["loss"][0]
    half, full = runs["bfloat16"], runs["float32"]
    assert half.params["kernel"].dtype == jnp.bfloat16
    assert {leaf.dtype.name for leaf in jax.tree.leaves((half.opt_state, half.ema))} == {"float32", "int32"}
    wide = half.opt_state.params
    np.testing.assert_allclose(wide["kernel"], full.params["kernel"], atol=5e-3)
    np.testing.assert_array_equal(wide["kernel"].astype(jnp.bfloat16), half.params["kernel"])
    np.testing.assert_allclose(half.ema["kernel"], full.ema["kernel"], atol=5e-3)
    # Parameters that are put in place, such as pretrained ones, are what is learned from.
    placed = dataclasses.replace(half, params=jax.tree.map(lambda leaf: jnp.full_like(leaf, 3), half.params))
    step = jax.jit(jn.train.make_train_step(jn.dense(3), jn.objective(jn.losses.squared_error), optax.adam(0.0),
                                 jn.train.Options(ema_decay=0.999)))  # fmt: skip
    after, _, _ = step(placed, jn.train.Batch(jnp.asarray(X), jnp.asarray(X[:, :3]), jnp.ones(N)))
    equal(after.opt_state.params["kernel"], jnp.full((4, 3), 3.0))


@pytest.mark.slow
def test_the_average_of_bfloat16_parameters_moves():
    """One parameter that rises to 1: its average with decay 0.999 follows, where bfloat16 would round each move off."""
    policy = jn.Policy(param=jnp.bfloat16, compute=jnp.bfloat16)
    model = jn.cast(jn.dense(1, use_bias=False, kernel_init=jax.nn.initializers.zeros), policy)
    one = jn.train.program(model, jn.objective(jn.losses.squared_error), optax.sgd(1e-3), (np.ones((4, 1)),) * 2,
                           epochs=9000, batch_size=None, ema_decay=0.999)  # fmt: skip
    run, _ = whole(one, KEY)
    assert abs(float(run.params["kernel"][0, 0]) - 1) < 0.004
    assert abs(float(run.ema["kernel"][0, 0]) - 1) < 0.004
    assert run.ema["kernel"].dtype == jnp.float32


@pytest.mark.slow
def test_what_data_makes_is_an_option():
    """The functions that `jn.data` makes are not taken for makers that nobody has called."""
    mixed = jn.data.mixup(0.4, num_classes=3)
    one = program(SMALL, augment=jn.data.noise(0.1), batch_augment=mixed, sampler=jn.data.balanced(3))
    assert np.isfinite(whole(one, KEY)[1]["loss"]).all()


def test_a_step_refuses_a_train_state_started_with_other_options():
    model, adam, batch = jn.dense(3), optax.adam(0.1), jn.train.Batch(X, Y, jnp.ones(len(X)))
    plain = jn.train.Options(halt_on_nonfinite=False)
    state = jax.eval_shape(lambda: jn.train.start(model, adam, X, plain, key=KEY))
    jax.eval_shape(jn.train.make_train_step(model, OBJECTIVE, adam, plain), state, batch)
    for options, absent in (
        (jn.train.Options(), "failed"),
        (jn.train.Options(loss_scale=jn.train.LossScale()), "failed, scale"),
        (jn.train.Options(halt_on_nonfinite=False, ema_decay=0.9), "ema"),
    ):
        with pytest.raises(jn.NetError, match=f"expects a train state .* without {absent}; jn.train.start"):
            jax.eval_shape(jn.train.make_train_step(model, OBJECTIVE, adam, options), state, batch)
