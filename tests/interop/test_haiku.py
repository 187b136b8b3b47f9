"""Weights of Haiku: outputs and gradients of each kind of module, and what is refused."""

import re
from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.interop import from_haiku
from tests.interop.alike import close, loss_and_gradients, our_loss
from tests.oracle import floats, integers

pytestmark = pytest.mark.promotes
IMAGES, STEPS, TOKENS = floats(2, 6, 6, 3), floats(2, 5, 4), integers(2, 5, high=7)


def images(x: Any) -> Any:
    x = hk.Conv2D(4, 3, stride=2)(x)
    x = hk.BatchNorm(True, True, 0.9)(x, is_training=hk.running_init())
    x = hk.DepthwiseConv2D(2, 3)(x)
    x = hk.Conv2DTranspose(3, 3, stride=2)(x)
    x = hk.LayerNorm(-1, True, True)(x)
    x = hk.GroupNorm(3)(x)
    x = hk.InstanceNorm(True, True)(x)
    x = hk.Conv2D(4, 2, padding="VALID", with_bias=False, name="last")(x)
    return hk.nets.MLP([5, 5, 3], activation=jnp.tanh)(hk.Flatten()(x))


IMAGE_NET = jn.serial(
    jn.conv(4, 3, stride=2, padding="SAME"),
    jn.batch_norm(),
    jn.depthwise_conv(3, 2, padding="SAME"),
    jn.conv_transpose(3, 3, stride=2, padding="SAME"),
    jn.layer_norm(),
    jn.group_norm(3),
    jn.group_norm(3),
    last=jn.conv(4, 2, use_bias=False),
    flatten=jn.flatten,
    mlp=jn.serial(jn.dense(5), jnp.tanh, jn.dense(5), jnp.tanh, jn.dense(3)),
)


def steps(x: Any) -> Any:
    x = x.swapaxes(0, 1)
    for cell in (hk.LSTM(4), hk.LSTM(4), hk.GRU(4), hk.VanillaRNN(3, double_bias=False)):
        x, _ = hk.dynamic_unroll(cell, x, cell.initial_state(x.shape[1]))
    x = hk.RMSNorm(-1)(x.swapaxes(0, 1))
    return hk.MultiHeadAttention(2, 3, w_init=hk.initializers.RandomNormal(), model_size=5)(x, x, x)


STEP_NET = jn.serial(
    jn.recurrent(jn.lstm_cell(4), jn.lstm_cell(4)),
    jn.recurrent(jn.gru_cell(4, reset_after=False)),
    jn.recurrent(jn.rnn_cell(3, activation=jax.nn.relu)),
    jn.rms_norm(epsilon=1e-5),
    jn.attention(5, 2, width=3),
)


def words(x: Any) -> Any:
    return hk.Linear(3)(hk.Linear(4)(hk.Embed(7, 4)(x)))


CASES: dict[str, tuple[jn.Net, Callable[[Any], Any], Any, dict[str, str]]] = {
    "images": (IMAGE_NET, images, IMAGES, {"group_norm": "5", "instance_norm": "6"}),
    "steps": (STEP_NET, steps, STEPS, {}),
    "words": (jn.serial(jn.embed(7, 4), jn.dense(4), jn.dense(3)), words, TOKENS, {"linear": "2", "linear_1": "1"}),
}


def made(build: Callable[[Any], Any], x: Any) -> tuple[Any, Any, Any]:
    theirs = hk.without_apply_rng(hk.transform_with_state(build))
    specs = jax.eval_shape(theirs.init, jax.random.key(0), x)
    leaves, structure = jax.tree.flatten(specs)
    drawn = [floats(*leaf.shape, seed=k, scale=0.4).astype(leaf.dtype) for k, leaf in enumerate(leaves)]
    params, state = jax.tree.unflatten(structure, drawn)
    for each in state.values():
        each["average"] = np.exp(each["average"])
    return params, state, lambda params, x: theirs.apply(params, state, x)[0]


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "words" else pytest.mark.slow) for n in CASES])
def test_outputs_and_gradients_are_those_of_haiku(name: str):
    net, build, x, rename = CASES[name]
    params, state, run = made(build, x)
    given = from_haiku(net, params, x, state, rename=rename)
    gradients, by_x, y = loss_and_gradients(run, params, x)
    ours, ours_by_x, our_y = our_loss(net, *given, x)
    close((our_y, ours_by_x), (y, by_x))
    # Without what is added to a bias.
    zeros = jax.tree.map(np.zeros_like, params)
    moved, added = (from_haiku(net, each, x, state, rename=rename)[0] for each in (gradients, zeros))
    close(ours, jax.tree.map(jnp.subtract, moved, added))


def refused(message: str, net: jn.Net, params: Any, x: Any, *state: Any, **options: Any) -> None:
    with pytest.raises(jn.NetError, match=re.escape(message)):
        from_haiku(net, params, x, *state, **options)


def linear(*shape: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"w": floats(*shape, seed=seed), "b": floats(shape[1], seed=seed)}


def test_modules_of_equal_shapes_follow_their_numbers():
    given = {f"linear_{k}" if k else "linear": linear(4, 4, seed=k) for k in range(11)}
    params, _ = from_haiku(jn.serial(*[jn.dense(4)] * 11), dict(sorted(given.items())), STEPS)
    for k in range(11):
        np.testing.assert_array_equal(params[str(k)]["kernel"], floats(4, 4, seed=k))


def test_an_order_that_is_unknown_or_another_is_refused():
    net = jn.serial(jn.dense(4), jn.dense(4))
    apart = {"mlp/~/linear_0": linear(4, 4), "linear": linear(4, 4, seed=1)}
    refused(
        "can't tell which of mlp/linear_0, linear and 0, 1 correspond: the source's order is unknown", net, apart, STEPS
    )
    params, _ = from_haiku(net, apart, STEPS, rename={"mlp/linear_0": "1", "linear": "0"})
    np.testing.assert_array_equal(params["1"]["kernel"], floats(4, 4))
    nested = {"linear": linear(4, 3), "linear_1": linear(4, 4)}
    refused(
        "runs 0 before 1, but the source linear_1 after linear;", jn.serial(jn.dense(4), jn.dense(3)), nested, STEPS
    )


def test_other_modules_are_listed():
    net = jn.serial(fc=jn.dense(3))
    refused("missing fc (dense); unexpected layer_norm (layer_norm", net, {"layer_norm": {"scale": floats(3)}}, STEPS)
    refused("misshapen fc kernel (4, 5) bias (5,) for fc bias (3,) kernel (4, 3)", net, {"fc": linear(4, 5)}, STEPS)
    refused("expects Haiku's params, arrays by module and name, got list", net, [], STEPS)
    refused("pass state=", jn.batch_norm(), {"batch_norm": {"scale": floats(4)}}, STEPS)
    gru = {"gru": {"w_i": floats(4, 9), "w_h": floats(3, 9), "b": floats(9)}}
    refused("misshapen gru", jn.recurrent(jn.gru_cell(3)), gru, STEPS)
    rnn = {"vanilla_rnn/linear": linear(4, 3), "vanilla_rnn/linear_1": linear(3, 3)}
    refused("VanillaRNN has activation='relu', got 'tanh'", jn.recurrent(jn.rnn_cell(3)), rnn, STEPS)


def test_two_biases_of_a_cell_are_added():
    rnn = {"vanilla_rnn/linear": linear(4, 3), "vanilla_rnn/linear_1": linear(3, 3, seed=1)}
    params, _ = from_haiku(jn.recurrent(jn.rnn_cell(3, activation=jax.nn.relu)), rnn, STEPS)
    np.testing.assert_array_equal(params["bias"], floats(3) + floats(3, seed=1))


def test_modules_may_be_drawn_anew():
    net = jn.serial(body=jn.dense(4), head=jn.dense(7))
    given = {"linear": linear(4, 4), "linear_1": linear(4, 3)}
    params, _ = from_haiku(net, given, STEPS, fresh="head/**", key=jax.random.key(0))
    assert params["head"]["kernel"].shape == (4, 7)
    np.testing.assert_array_equal(params["body"]["kernel"], floats(4, 4))
