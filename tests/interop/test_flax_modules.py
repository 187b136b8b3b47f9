"""Modules of Flax as networks: the values, gradients and training steps of Flax, and mistakes that are explained."""

import pickle
import re
from collections import deque
from functools import partial
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxnets as jn
from jaxnets.core.net import fold
from tests.once import once
from tests.oracle import floats, integers

pytestmark = pytest.mark.promotes
RATE = optax.sgd(0.1)
KEY, X, Y = jax.random.key(0), floats(8, 5, 4, 3), integers(8, high=3)


class Linen(nn.Module):
    """A convolution, batch norm and dropout, with two values recorded on the way."""

    classes: int = 3

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3))(x)))
        x = nn.Dropout(0.3, deterministic=not train)(x.mean((1, 2)))
        self.sow("intermediates", "features", x)
        self.sow("losses", "size", (x**2).sum())
        return nn.Dense(self.classes)(x)


class Nnx(nnx.Module):
    """The same in NNX."""

    def __init__(self, classes: int = 3, *, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.rest = nnx.List([nnx.BatchNorm(4, rngs=rngs), nnx.Dropout(0.3, rngs=rngs)])
        self.out = nnx.Linear(4, classes, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.out(self.rest[1](nnx.relu(self.rest[0](self.conv(x))).mean((1, 2))))


def close(ours: Any, theirs: Any) -> None:
    for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def cross_entropy(logits: Any, y: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def step(net: jn.Net, params: Any, state: Any, key: Any) -> Any:
    """Return the loss, gradients, and the parameters and state after a step of SGD."""

    def loss(params: Any) -> Any:
        y, new = net.apply(params, state, X, key=key, train=True)
        return cross_entropy(y, Y), new

    (value, state), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return value, gradients, jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients), state


def test_a_step_of_linen_is_ours():
    net, module = jn.from_flax_module(Linen()), Linen()

    def theirs(variables: Any, key: Any) -> Any:
        def loss(params: Any) -> Any:
            rngs: Any = {"dropout": fold(key, "dropout")}
            all_of = {"params": params, "batch_stats": variables["batch_stats"]}
            y, new = module.apply(all_of, X, train=True, rngs=rngs, mutable=["batch_stats"])
            return cross_entropy(y, Y), {"batch_stats": new["batch_stats"]}

        (value, new), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        return value, gradients, jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], gradients), new

    @partial(once)
    def both() -> Any:
        variables = module.init(KEY, X, train=False)
        variables = {name: variables[name] for name in ("params", "batch_stats")}
        params, state = net.init(KEY, X)
        ours = net.apply(params, state, X)[0], step(net, params, state, KEY)
        return (params, state, ours), (
            variables["params"],
            {"batch_stats": variables["batch_stats"]},
            (module.apply(variables, X, train=False), theirs(variables, KEY)),
        )

    ours, wanted = both
    assert jax.tree.structure(ours) == jax.tree.structure(wanted)
    close(ours, wanted)
    assert float(np.abs(ours[2][1][1]["Conv_0"]["kernel"]).max()) > 1e-3


def test_a_step_of_nnx_is_ours():
    net = jn.from_flax_module(Nnx)
    module = Nnx(rngs=nnx.Rngs(KEY))
    params, state = net.init(KEY, X)
    close(params["rest"]["0"], nnx.to_pure_dict(nnx.state(module, nnx.Param))["rest"][0])
    ours = jax.jit(partial(step, net))(params, state, KEY)
    # The stream of the dropout starts from the key folded with its path.
    dropout: Any = module.rest[1]
    dropout.rngs = nnx.RngStream(fold(KEY, "rest/1/rngs"), tag="dropout")
    optimizer = nnx.Optimizer(module, optax.sgd(0.1), wrt=nnx.Param)

    @nnx.jit
    def theirs(module: Nnx, optimizer: nnx.Optimizer) -> Any:
        value, gradients = nnx.value_and_grad(lambda module: cross_entropy(module(X), Y))(module)
        optimizer.update(module, gradients)
        return value, gradients

    value, gradients = theirs(module, optimizer)
    close(ours[:2], (value, nnx.to_pure_dict(gradients)))
    close(ours[2:], [nnx.to_pure_dict(nnx.state(module, kind)) for kind in (nnx.Param, nnx.BatchStat)])
    module.eval()
    close(net.apply(ours[2], ours[3], X)[0], module(X))


def test_equal_modules_make_equal_networks():
    nets = [jn.from_flax_module(Linen()), jn.from_flax_module(nn.Dense(3, kernel_init=nn.initializers.zeros))]
    assert nets[0] == jn.from_flax_module(Linen(3))
    assert hash(nets[0]) == hash(jn.from_flax_module(Linen(3)))
    assert nets[0] != jn.from_flax_module(Linen(2))
    assert nets[0] != jn.from_flax_module(Linen(), rngs=("noise",))
    assert pickle.loads(pickle.dumps(nets[0])) == nets[0]
    assert jn.from_flax_module(partial(Nnx, 2)) == jn.from_flax_module(partial(Nnx, 2))
    assert jn.from_flax_module(partial(Nnx, 2)) != jn.from_flax_module(Nnx)


TRACED: deque[int] = deque()


class Counted(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        TRACED.append(1)
        return nn.Dense(3)(x)


def test_equal_modules_compile_once():
    x = floats(8, 5)
    for times in range(2):
        before = len(TRACED)
        net = jn.from_flax_module(Counted())
        jn.fit(net, jn.losses.cross_entropy, RATE, (x, Y), epochs=1, batch_size=4, key=KEY)
        assert (len(TRACED) > before) == (times == 0)


def test_a_module_of_nnx_with_values_is_a_snapshot():
    module = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    net, x = jn.from_flax_module(module), floats(4, 3)
    assert net == jn.from_flax_module(module)
    params, state = net.init(KEY, x)
    assert state == {}
    want = module(jnp.asarray(x))
    module.kernel[...] = jnp.zeros((3, 2))
    assert net != jn.from_flax_module(module)
    np.testing.assert_allclose(net.apply(params, state, x)[0], want, atol=1e-6)
    np.testing.assert_array_equal(net.init(jax.random.key(5), x)[0]["kernel"], params["kernel"])


def test_shapes_are_enough_and_what_was_recorded_is_dropped():
    shape = jax.ShapeDtypeStruct((1, 5, 4, 3), jnp.float32)
    params, state = jn.from_flax_module(Linen()).init(KEY, shape)
    assert [*state] == ["batch_stats"]
    assert params["Dense_0"]["kernel"].shape == (4, 3)
    nested = jn.serial(jn.conv(3, 1), inside=jn.from_flax_module(Linen()), out=jn.dense(2))
    made = nested.init(KEY, shape)
    assert jax.tree.structure(made[0]["inside"]) == jax.tree.structure(params)
    rows = {row.path: row.parameters for row in jn.summary(nested, X).rows}
    assert rows["inside"] == 4 * 27 + 4 + 8 + 15
    assert rows["inside/Dense_0"] == 15


class Mixed(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.norm, self.drop = nnx.BatchNorm(3, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.drop(self.norm(x))


@pytest.mark.parametrize("module", [nn.Dense(3), Mixed], ids=["Linen", "NNX"])
def test_copies_are_drawn_and_run_apart(module: Any):
    one, x = jn.from_flax_module(module), floats(4, 3)
    three = jn.ensemble(one, 3)
    params, state = three.init(KEY, x)
    y, after = once(lambda params, state: three.apply(params, state, x, key=KEY, train=True), params, state)
    assert not np.allclose(y[:, 0], y[:, 1], atol=1e-3)
    deep = jn.repeat(one, 3)
    params, state = deep.init(KEY, x)
    y, after = once(lambda params, state: deep.apply(params, state, x, key=KEY, train=True), params, state)
    assert y.shape == x.shape
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)


class Field(nn.Module):
    """Says in a field whether it trains, and draws from a stream of its own."""

    training: bool = False

    @nn.compact
    def __call__(self, x: Any) -> Any:
        noise = jax.random.normal(self.make_rng("noise"), x.shape) if self.training else jnp.zeros_like(x)
        return nn.Dense(2)(x) + noise[:, :2]


@pytest.mark.parametrize(
    "module",
    [
        Field(),
        nn.Dropout(0.5),
        nn.BatchNorm(),
        partial(nnx.BatchNorm, 3),
        partial(nnx.Dropout, 0.5),
    ],
    ids=["field", "dropout", "batch norm", "NNX's batch norm", "NNX's dropout"],
)
def test_training_is_said_in_the_modules_own_way(module: Any):
    net, x = jn.from_flax_module(module), floats(4, 3)
    params, state = net.init(KEY, x)
    calm, same = net.apply(params, state, x)
    moved, after = net.apply(params, state, x, key=KEY, train=True)
    assert same is state
    assert not np.allclose(calm, moved, atol=1e-3)
    np.testing.assert_array_equal(net.apply(params, state, x, key=KEY, train=True)[0], moved)
    if state:
        assert not np.allclose(*(jax.tree.leaves(tree)[0] for tree in (state, after)))
    else:
        assert not np.array_equal(net.apply(params, state, x, key=jax.random.key(9), train=True)[0], moved)
        with pytest.raises(jn.NetError, match=r"is random.* needs a key, got none; pass apply\(\.\.\., key=key"):
            net.apply(params, state, x, train=True)


def test_a_field_that_is_set_and_a_call_have_the_last_word():
    frozen, x = jn.from_flax_module(nn.BatchNorm(use_running_average=True)), floats(4, 3)
    params, state = frozen.init(KEY, x)
    np.testing.assert_array_equal(frozen.apply(params, state, x, train=True)[0], frozen.apply(params, state, x)[0])
    sequence = nn.Sequential([nn.Dense(3), nn.Dropout(0.5)])

    def call(module: Any, x: Any, train: bool) -> Any:
        first, second = module.layers
        return second(first(x), deterministic=not train)

    net = jn.from_flax_module(sequence, call=call)
    params, state = net.init(KEY, x)
    y, _ = net.apply(params, state, x, key=KEY, train=True)
    assert 0 < int((y == 0).sum()) < y.size


@pytest.mark.slow
def test_a_sweep_trains_several_at_once():
    def trial(hp: Any) -> Any:
        net = jn.serial(drop=jn.dropout(hp["rate"]), theirs=jn.from_flax_module(nn.Dense(3)))
        return jn.train.program(net, jn.losses.cross_entropy, RATE, (X[:, 0, 0], Y), epochs=1, batch_size=4)

    result = jn.sweeps.sweep(trial, grid={"rate": [0.0, 0.5]}, strategy="vmap")
    state, history = jn.train.run(trial({"rate": np.float32(0.5)}), key=result.keys[1])
    np.testing.assert_allclose(result.history["loss"][1], history["loss"], rtol=1e-6)
    close(result.run(1).params, state.params)


@pytest.mark.parametrize("module", [Linen(), Nnx, Nnx(rngs=nnx.Rngs(1))], ids=["Linen", "NNX", "NNX with values"])
@pytest.mark.slow_cases("NNX", "NNX with values")
def test_fit_trains_and_save_refuses_the_network(module: Any, tmp_path: Any):
    net = jn.from_flax_module(module)
    state, history = jn.fit(net, jn.losses.cross_entropy, optax.adam(0.1), (X, Y), epochs=3, batch_size=4, key=KEY)
    assert history["loss"][-1] < history["loss"][0]
    with pytest.raises(jn.NetError, match=r"can't write a Flax .* module into a file; to save params and state, leave"):
        jn.save(tmp_path / "it.safetensors", state, net=net)
    assert not [*tmp_path.iterdir()]


class TwoInputs(nn.Module):
    def __call__(self, x: Any, other: Any) -> Any:
        return x + other


class Odd(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.BatchNorm()(x)


class Writes(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        count = self.variable("counts", "calls", lambda: jnp.zeros(()))
        count.value = count.value + 1
        return x


class MoreInTraining(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        y = nn.Dense(2)(x)
        return y + nn.Dense(2)(x) if train else y


WRONG = {
    "a class": (lambda: jn.from_flax_module(nn.Dense), "got the class Dense: make one, Dense(...)"),
    "not a module": (lambda: jn.from_flax_module(3), "expects a module of Flax or a function (*, rngs) that makes"),
    "two inputs": (
        lambda: jn.from_flax_module(TwoInputs()),
        "expects a module of one input x, got TwoInputs.__call__(self, x: Any, other: Any) -> Any: missing a required "
        "argument: 'other'; pass call=lambda module, x, train: module(x, ...)",
    ),
    "arguments missing": (
        lambda: jn.from_flax_module(nnx.Linear),
        "missing 2 required positional arguments: 'in_features' and 'out_features'; give other arguments first",
    ),
    "a maker of others": (
        lambda: jn.from_flax_module(lambda rngs: 3),
        "makes a module of NNX, got one that makes ",
    ),
    "a call": (
        lambda: jn.from_flax_module(Linen(), call=cast(Any, True)),
        "expects a function for call, got bool True",
    ),
    "a stream": (lambda: jn.from_flax_module(Linen(), rngs="noise"), "expects names for rngs, got 'noise'"),
    "streams of NNX": (lambda: jn.from_flax_module(Nnx, rngs=("noise",)), "expects rngs for Linen modules alone"),
    "bound": (
        lambda: jn.from_flax_module(nn.Dense(2).bind({})),
        "expects an unbound module, got Dense with variables; pass module.unbind()[0]",
    ),
    "mode unsaid": (
        lambda: jn.serial(a=jn.from_flax_module(Odd())).init(KEY, floats(2, 3)),
        "a: from_flax_module(Odd) is refused by Flax: ",
    ),
    "written in evaluation": (
        lambda: jn.from_flax_module(Writes()).apply({}, {"counts": {"calls": jnp.zeros(())}}, floats(2, 3)),
        'is refused by Flax: Cannot update variable "calls"',
    ),
    "more in training": (
        lambda: jn.from_flax_module(MoreInTraining()).apply(
            *jn.from_flax_module(MoreInTraining()).init(KEY, floats(2, 3)), floats(2, 3), train=True
        ),
        "if it has more in training, init has those of evaluation: call=lambda module, x, train: module(x, train or",
    ),
    "another shape": (
        lambda: jn.serial(a=jn.from_flax_module(nn.Dense(2))).apply(
            {"a": {"kernel": floats(4, 2), "bias": floats(2)}}, {}, floats(2, 3)
        ),
        'a: from_flax_module(Dense) is refused by Flax: For parameter "kernel"',
    ),
    "NNX's parameters": (
        lambda: jn.serial(a=jn.from_flax_module(partial(nnx.Linear, 3, 2))).apply({}, {}, floats(2, 3)),
        "missing parameters a/bias, a/kernel",
    ),
    "another shape in NNX": (
        lambda: jn.from_flax_module(partial(nnx.Linear, 3, 2)).apply(
            {"kernel": floats(4, 2), "bias": floats(2)}, {}, floats(2, 3)
        ),
        "from_flax_module(Linear) has kernel (4, 2), but input (2, 3) needs kernel (3, 2)",
    ),
    "padding": (
        lambda: jn.from_flax_module(nn.Dense(2)).init(KEY, jn.Padded(floats(2, 3, 4), np.array([3, 1]))),
        "expects an array, got Padded: a module of Flax would read the padding; give it values and lengths by call=",
    ),
    "in another network": (
        lambda: jn.serial(jn.dense(2), nn.Dense(3)),
        "got Dense, a Flax Linen module; jn.from_flax_module(module) makes a Net of it",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistake_is_explained(name: str):
    call, message = WRONG[name]
    with pytest.raises(jn.NetError, match=re.escape(message)):
        call()


def test_more_in_training_can_be_had():
    def call(module: Any, x: Any, train: bool) -> Any:
        return module(x, train or module.is_initializing())

    net, x = jn.from_flax_module(MoreInTraining(), call=call), floats(2, 3)
    params, state = net.init(KEY, x)
    assert not np.allclose(net.apply(params, state, x)[0], net.apply(params, state, x, train=True)[0])
