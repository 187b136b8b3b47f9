"""Weights of Haiku: outputs and gradients of each kind of module, and what is refused."""

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


@pytest.mark.parametrize("name", CASES)
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
