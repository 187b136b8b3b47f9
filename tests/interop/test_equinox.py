"""Weights of Equinox: outputs and gradients of each kind of layer, and what is refused."""

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.interop import from_equinox
from tests.interop.alike import close, loss_and_gradients, our_loss
from tests.oracle import floats

pytestmark = pytest.mark.promotes
KEY = jax.random.key(0)
IMAGES, STEPS = floats(2, 8, 6, 3), floats(2, 5, 4)
nn = eqx.nn


def first(x: Any) -> Any:
    return jnp.moveaxis(x, -1, 1)


class Images(eqx.Module):
    conv: nn.Conv2d
    norm: nn.BatchNorm
    rest: list

    def __init__(self) -> None:
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, key=KEY)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.norm = nn.BatchNorm(4, "batch", mode="batch", momentum=0.9)
        self.rest = [
            nn.PReLU(),
            nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, key=KEY),
            nn.GroupNorm(2, 6),
            nn.Conv2d(6, 6, 2, groups=3, use_bias=False, key=KEY),
            nn.MaxPool2d(2, 2),
            nn.LayerNorm((6, 3, 2)),
            jnp.ravel,
            nn.MLP(36, 3, 5, 1, activation=jnp.tanh, key=KEY),
        ]

    def __call__(self, x: Any, state: Any) -> Any:
        x, state = self.norm(self.conv(x), state)
        for layer in self.rest:
            x = layer(x)
        return x


IMAGE_NET = jn.serial(
    conv=jn.conv(4, 3, stride=2, padding=1),
    norm=jn.batch_norm(),
    rest=jn.serial(
        jn.prelu(),
        jn.conv_transpose(6, 3, stride=2, padding=1, output_padding=1),
        jn.group_norm(2),
        jn.conv(6, 2, groups=3, use_bias=False),
        jn.max_pool(2),
        jn.layer_norm(axis=(-3, -2, -1)),
        jn.flatten,
        *(jn.dense(5), jnp.tanh, jn.dense(3)),
    ),
)


class Steps(eqx.Module):
    embed: nn.Embedding
    norm: nn.RMSNorm
    attention: nn.MultiheadAttention
    lstm: nn.LSTMCell
    gru: nn.GRUCell

    def __init__(self) -> None:
        self.embed = nn.Embedding(7, 4, key=KEY)
        self.norm = nn.RMSNorm(4, eps=1e-6, use_bias=False)
        self.attention = nn.MultiheadAttention(2, 4, key=KEY)
        self.lstm, self.gru = nn.LSTMCell(4, 3, key=KEY), nn.GRUCell(3, 4, key=KEY)

    def __call__(self, x: Any) -> Any:
        x = jax.vmap(self.norm)(x @ self.embed.weight)
        x = self.attention(x, x, x)

        def step(carry: Any, x: Any) -> Any:
            lstm, h = carry
            lstm = self.lstm(x, lstm)
            return (lstm, self.gru(lstm[0], h)), self.gru(lstm[0], h)

        return jax.lax.scan(step, ((jnp.zeros(3), jnp.zeros(3)), jnp.zeros(4)), x)[1]


# Rows of an embedding, as a product: so that the input has a gradient.
EMBED = jn.layer(
    lambda key, x: {"embedding": jnp.zeros((7, 4))}, lambda params, x: x @ params["embedding"], label="embed"
)
STEP_NET = jn.serial(
    embed=EMBED,
    norm=jn.rms_norm(),
    attend=jn.attention(4, 2, use_bias=False),
    cells=jn.recurrent(jn.lstm_cell(3), jn.gru_cell(4)),
)


def drawn(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(eqx.filter(tree, eqx.is_array))
    new = [floats(*leaf.shape, seed=k, scale=0.4) for k, leaf in enumerate(leaves)]
    return eqx.combine(jax.tree.unflatten(structure, new), tree)


def images() -> tuple[Any, Any, Callable[[Any, Any], Any]]:
    module, state = nn.make_with_state(Images)()
    assert module.norm.batch_state_index is not None
    assert module.norm.batch_counter is not None
    mean, var = floats(4), np.exp(floats(4, seed=1))
    state = state.set(module.norm.batch_state_index, (jnp.asarray(mean), jnp.asarray(var)))
    state = state.set(module.norm.batch_counter, jnp.array(3))
    module = nn.inference_mode(drawn(module))

    def run(module: Any, x: Any) -> Any:
        return jax.vmap(module, in_axes=(0, None), axis_name="batch")(first(x), state)

    return module, state, run


def steps() -> tuple[Any, Any, Callable[[Any, Any], Any]]:
    return drawn(Steps()), None, lambda module, x: jax.vmap(module)(x)


CASES = {"images": (IMAGE_NET, images, IMAGES), "steps": (STEP_NET, steps, floats(2, 5, 7))}


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_those_of_equinox(name: str):
    net, build, x = CASES[name]
    module, state, run = build()
    rename = {"lstm": "cells/0", "gru": "cells/1", "attention": "attend"} if name == "steps" else {}
    given = from_equinox(net, module, x, state=state, rename=rename)
    arrays, rest = eqx.partition(module, eqx.is_inexact_array)
    gradients, by_x, y = loss_and_gradients(lambda arrays, x: run(eqx.combine(arrays, rest), x), arrays, x)
    ours, ours_by_x, our_y = our_loss(net, *given, x)
    close((our_y, ours_by_x), (y, by_x))
    close(ours, from_equinox(net, eqx.combine(gradients, rest), x, state=state, rename=rename)[0])
