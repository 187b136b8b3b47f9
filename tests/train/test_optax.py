"""Optax, used as it is: every optimizer learns in a program, or says why it can't."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import jaxnets as jn
from tests.oracle import floats, integers

pytestmark = pytest.mark.promotes  # Optax's own arithmetic
KEY = jax.random.key(3)
X, Y = floats(12, 4), integers(12, high=3)
OBJECTIVE = jn.objective(jn.losses.cross_entropy, jn.regularizers.l2(0.01, on="**/kernel"))
SGD = optax.sgd(0.1)
HALF = {"hidden": True, "out": False}


def matrices(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim == 2, params)


def axes(params: Any) -> Any:
    return jax.tree.map(lambda _: contrib.MuonDimensionNumbers(), params)


# How to make those that don't come of a learning rate, or of nothing, alone.
MADE: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "adadelta": lambda make: make(1.0),
    "adafactor": lambda make: make(0.02),
    "adaptive_grad_clip": lambda make: optax.chain(make(0.1), SGD),
    "add_noise": lambda make: optax.chain(make(1e-4, 0.5, jax.random.key(0)), SGD),
    "apply_if_finite": lambda make: make(SGD, 3),
    "chain": lambda make: make(SGD),
    "clip": lambda make: optax.chain(make(1.0), SGD),
    "clip_by_block_rms": lambda make: optax.chain(make(1.0), SGD),
    "clip_by_global_norm": lambda make: optax.chain(make(1.0), SGD),
    "conditionally_mask": lambda make: make(SGD, lambda step: step % 2 == 0),
    "conditionally_transform": lambda make: make(SGD, lambda step: step < 100),
    "ema": lambda make: optax.chain(make(0.5), SGD),
    "flatten": lambda make: make(optax.adam(0.1)),
    "freeze": lambda make: optax.chain(SGD, make(HALF)),
    "inject_hyperparams": lambda make: make(optax.adam)(learning_rate=optax.constant_schedule(0.1)),
    "inject_stateful_hyperparams": lambda make: make(optax.adam)(learning_rate=0.1),
    "masked": lambda make: optax.chain(make(optax.scale(2.0), HALF), SGD),
    "mechanize": lambda make: make(SGD),
    "multi_transform": lambda make: make({True: SGD, False: optax.adam(0.1)}, HALF),
    "named_chain": lambda make: make(("descent", SGD)),
    "normalize": lambda make: optax.chain(make(), SGD),
    "partition": lambda make: make({True: SGD, False: optax.adam(0.1)}, HALF),
    "reduce_on_plateau": lambda make: optax.chain(SGD, make()),
    "sam": lambda make: make(SGD, optax.chain(contrib.normalize(), optax.sgd(0.05)), opaque_mode=True),
    "scale": lambda make: make(-0.1),
    "scale_by_cocob": lambda make: make(),  # it descends by itself
    "scale_by_madgrad": lambda make: make(0.05),
    "scale_by_distance_over_gradients": lambda make: optax.chain(make(reps_rel=0.1), optax.scale(-1.0)),
    "scale_by_backtracking_linesearch": lambda make: optax.chain(SGD, make(10)),
    "scale_by_learning_rate": lambda make: make(0.1),
    "scale_by_muon": lambda make: optax.chain(
        optax.masked(make(weight_dimension_numbers=axes), matrices), optax.scale(-0.05)
    ),
    "scale_by_schedule": lambda make: make(lambda step: -0.1),
    "scale_by_zoom_linesearch": lambda make: optax.chain(optax.scale(-1.0), make(10)),
    "schedule_free": lambda make: make(SGD, 0.1),
    "selective_transform": lambda make: make(SGD, freeze_mask=HALF),
    "snapshot": lambda make: optax.chain(make("norm", optax.global_norm), SGD),
    "split_real_and_imaginary": lambda make: make(SGD),
    "stateless": lambda make: make(lambda updates, params: jax.tree.map(lambda leaf: -0.1 * leaf, updates)),
    "stateless_with_tree_map": lambda make: make(lambda update, param: -0.1 * update),
    "keep_params_nonnegative": lambda make: optax.chain(SGD, make()),  # the last: it bounds updates, not gradients
    "trace": lambda make: optax.chain(make(0.5), optax.scale(-0.05)),
    "with_extra_args_support": lambda make: make(SGD),
    **{
        name: lambda make: optax.chain(make(), SGD)
        for name in ("add_decayed_weights", "apply_every", "centralize", "identity",
                     "normalize_by_update_norm", "zero_nans")
    },
}  # fmt: skip
REFUSED = {
    "differentially_private_aggregate": lambda make: optax.chain(make(1.0, 0.1, key=jax.random.key(0)), SGD),
    "dpsgd": lambda make: make(0.1, 1.0, 0.1, 0),
    "lookahead": lambda make: make(SGD, 2, 0.5),
}
STILL = ("set_to_zero", "measure_with_ema")  # the one stands still, the other is a part of `optax.monitor`


def transformations() -> dict[str, Any]:
    """Return the public functions of Optax that make a transformation, by name, those of a newer version too."""
    found = {}
    for module in (optax, contrib):
        for name, function in vars(module).items():
            public = inspect.isfunction(function) and not name.startswith("_")
            if public and "GradientTransformation" in str(inspect.signature(function).return_annotation):
                found[name] = function
    return found


def made(name: str) -> optax.GradientTransformation:
    make = transformations()[name]
    if name in REFUSED or name in MADE:
        return (REFUSED | MADE)[name](make)
    parameters = inspect.signature(make).parameters
    rate = "learning_rate" in parameters and parameters["learning_rate"].default is inspect.Parameter.empty
    one = make(0.05) if rate else make()
    return optax.chain(one, optax.scale(-0.05)) if name.startswith("scale_by") else one


def net() -> jn.Net:
    return jn.serial(hidden=jn.dense(4), tanh=jnp.tanh, out=jn.dense(3))


def program(optimizer: Any, model: Any = None, **options: Any) -> jn.train.Program:
    given: dict[str, Any] = {"epochs": 60, "batch_size": None} | options
    return jn.train.program(model or net(), OBJECTIVE, optimizer, (X, Y), **given)


def learned(one: jn.train.Program) -> Any:
    return jax.jit(lambda program, key: program(key))(one, KEY)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", sorted(set(transformations()) - set(REFUSED) - set(STILL)))
@pytest.mark.slow
def test_every_optimizer_learns(name: str):
    run, history = learned(program(made(name)))
    assert history["loss"][-1] < history["loss"][0] - 1e-3
    assert jnp.isfinite(run.params["out"]["kernel"]).all()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_those_that_can_not_say_why(name: str):
    message = "pairs of fast and slow parameters" if name == "lookahead" else "a gradient of each example"
    with pytest.raises(jn.NetError, match=message):
        program(made(name)).start(KEY)


def spy() -> optax.GradientTransformationExtraArgs:
    """Descend, and remember how far `value` and `grad` are from those of `value_fn`, `obj_fn` and `grad_fn`."""

    def update(grads: Any, state: Any, params: Any, *, value: Any, grad: Any, value_fn: Any, obj_fn: Any, grad_fn: Any):
        slope = jax.grad(value_fn)(params)
        gaps = [jnp.abs(a - b).max() for own in (slope, grad_fn(params, 0)) for a, b in zip(
            jax.tree.leaves(own), jax.tree.leaves(grad), strict=True)]  # fmt: skip
        gaps += [abs(value - value_fn(params)), abs(value - obj_fn(params))]
        return jax.tree.map(lambda leaf: -0.5 * leaf, grads), jnp.maximum(state, jnp.stack(gaps).max())

    return optax.GradientTransformationExtraArgs(lambda params: jnp.zeros(()), update)  # pyright: ignore[reportArgumentType]


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"options": jn.train.Options(halt_on_nonfinite=False)},
    "all at once": {"options": jn.train.Options(accumulate=3, loss_scale=jn.train.LossScale(initial=4096)),
                    "batch_size": 9, "ema_decay": 0.9, "freeze": "bn/*"},
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.slow_cases("all at once")
def test_what_an_optimizer_asks_for_is_the_objective_on_its_batch(name: str):
    """With dropout, whose draws have to be those of the step, and batch statistics."""
    model = jn.serial(bn=jn.batch_norm(), drop=jn.dropout(0.5), out=jn.dense(3))
    one = program(optax.chain(optax.identity(), spy()), model, epochs=2, **OPTIONS[name])
    run, history = jax.jit(jax.vmap(one))(jax.random.split(KEY, 2))
    assert np.ptp(history["loss"]) > 0.01
    np.testing.assert_allclose(run.opt_state[1], 0, atol=3e-6)


@pytest.mark.slow
def test_lbfgs_is_that_of_optaxs_manual():
    one, solver = program(optax.lbfgs(), epochs=3), optax.lbfgs()
    run, history = learned(one)

    def value(params: Any) -> jax.Array:
        return OBJECTIVE(params, net().apply(params, {}, X)[0], Y)[0]

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        loss, grad = jax.value_and_grad(value)(params)
        updates, state = solver.update(grad, state, params, value=loss, grad=grad, value_fn=value)
        return optax.apply_updates(params, updates), state, loss

    params = one.start(KEY).params
    state = solver.init(params)
    for seen in history["loss"]:
        params, state, loss = step(params, state)
        np.testing.assert_allclose(seen, loss, rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), run.params, params)


def test_what_it_can_not_have_is_named():
    def update(grads: Any, state: Any, params: Any = None, *, batch: Any) -> Any:
        return grads, state

    wants = optax.GradientTransformationExtraArgs(lambda params: (), update)  # pyright: ignore[reportArgumentType]

    def grow(updates: Any, state: Any, params: Any = None) -> Any:
        return updates, {"seen": updates}  # as `optax.monitor` does, which Optax 0.2.6 lacks

    grows = optax.GradientTransformation(lambda params: {}, grow)
    with pytest.raises(jn.NetError, match="the optimizer has a state whose structure changes in a step"):
        jax.eval_shape(program(grows), KEY)
    with pytest.raises(jn.NetError, match=r"the optimizer can't be updated: .*'batch'; .* may take value, grad"):
        jax.eval_shape(program(wants), KEY)


@pytest.mark.slow
def test_a_plateau_of_a_validation_loss_lowers_the_rate():
    """By hand: one step an epoch, the rate halved after two epochs without a lower validation loss."""
    plateau = contrib.reduce_on_plateau(factor=0.5, patience=2)
    wrong = X, (Y + 1) % 3
    one = program(
        optax.sgd(0.5), epochs=7, validation=wrong, options=jn.train.Options(plateau=("validation/loss", plateau))
    )
    run, history = learned(one)

    @jax.jit
    def value_and_slope(params: Any, y: Any) -> Any:
        return jax.value_and_grad(lambda params: OBJECTIVE(params, net().apply(params, {}, X)[0], y)[0])(params)

    params, rate, best, waited = jax.device_get(jax.jit(one.start)(KEY).params), 0.5, np.inf, 0
    for epoch in range(7):
        _, slope = jax.device_get(value_and_slope(params, Y))
        params = jax.tree.map(lambda p, g, r=rate: p - np.float32(r) * g, params, slope)
        seen = float(value_and_slope(params, wrong[1])[0])
        np.testing.assert_allclose(history["validation/loss"][epoch], seen, rtol=1e-5)
        best, waited = (seen, 0) if seen < best * (1 - 1e-4) else (best, waited + 1)
        if waited == 2:
            rate, waited = rate / 2, 0
    assert rate < 0.2
    assert 0.5 * float(run.plateau.scale) == rate
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), run.params, params)
    with pytest.raises(jn.NetError, match=r"plateau finds no scalar 'validation/error' in the history; it has .*loss"):
        jax.eval_shape(program(SGD, options=jn.train.Options(plateau=("validation/error", plateau))), KEY)
    with pytest.raises(jn.NetError, match=r'Options expects plateau=\("validation/loss", optax.contrib'):
        jn.train.Options(plateau=plateau)  # pyright: ignore[reportArgumentType]
