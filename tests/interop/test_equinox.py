"""Weights of Equinox: outputs and gradients of each kind of layer, and what is refused."""

import re
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


@pytest.mark.slow
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


def refused(message: str, net: jn.Net, module: Any, x: Any = STEPS, **options: Any) -> None:
    with pytest.raises(jn.NetError, match=re.escape(message)):
        from_equinox(net, module, x, **options)


class Fields(eqx.Module):
    """Two equal layers, of which the last is called first."""

    last: nn.Linear
    start: nn.Linear

    def __init__(self) -> None:
        self.last, self.start = (nn.Linear(4, 4, key=jax.random.key(k)) for k in range(2))


def test_equal_layers_in_different_fields_must_be_named():
    net, module = jn.serial(jn.dense(4), jn.dense(4)), Fields()
    refused(
        "can't tell which of last, start and 0, 1 correspond: the source's order is unknown; map layers", net, module
    )
    params, _ = from_equinox(net, module, STEPS, rename={"start": "0", "last": "1"})
    np.testing.assert_array_equal(params["0"]["kernel"], module.start.weight.T)
    params, _ = from_equinox(jn.serial(start=jn.dense(4), last=jn.dense(4)), module, STEPS)
    np.testing.assert_array_equal(params["start"]["kernel"], module.start.weight.T)


def test_copies_in_one_loop_are_consecutive_layers():
    module = nn.MLP(4, 4, 4, 2, key=KEY)
    params, _ = from_equinox(jn.repeat(jn.dense(4), 3), module, STEPS)
    np.testing.assert_array_equal(params["kernel"], np.stack([layer.weight.T for layer in module.layers]))


def test_other_modules_and_settings_are_listed():
    linear = nn.Linear(4, 3, key=KEY)
    from_equinox(jn.dense(3), linear, STEPS)
    refused("misshapen it bias (3,) kernel (4, 3) for it bias (5,) kernel (4, 5)", jn.dense(5), linear)
    refused("missing it (rms_norm); unexpected it (dense", jn.rms_norm(), linear)
    refused("expects a module of Equinox, got dict", jn.dense(3), {})
    refused("LayerNorm has epsilon=0.1, got 1e-05", jn.layer_norm(), nn.LayerNorm(4, eps=0.1))
    conv = nn.Conv1d(4, 3, 3, padding=1, padding_mode="CIRCULAR", key=KEY)
    refused("padding=((1, 1),), got ((0, 0),), it: Conv1d has padding_mode='CIRCULAR'", jn.conv(3, 3), conv)
    heads = nn.MultiheadAttention(2, 4, key=KEY)
    refused("MultiheadAttention has heads=2, got 4", jn.attention(4, 4, use_bias=False), heads)
    pools = nn.Sequential([nn.Conv1d(4, 3, 1, key=KEY), nn.MaxPool1d(2, 2)])
    refused("MaxPool1d has stride=(2,), got (1,)", jn.serial(jn.conv(3, 1), jn.max_pool(2, stride=1)), pools)
    module, _ = nn.make_with_state(Images)()
    refused("has a BatchNorm, whose statistics are in the module's state; pass state=", IMAGE_NET, module, IMAGES)


def test_layers_may_be_drawn_anew():
    module = nn.MLP(4, 3, 4, 1, key=KEY)
    net = jn.serial(body=jn.dense(4), relu=jax.nn.relu, head=jn.dense(7))
    params, _ = from_equinox(net, module, STEPS, fresh="head/**", key=KEY)
    assert params["head"]["kernel"].shape == (4, 7)
    np.testing.assert_array_equal(params["body"]["kernel"], module.layers[0].weight.T)


@pytest.mark.filterwarnings("ignore:When `eqx.nn.BatchNorm")
def test_a_batch_norm_of_the_older_kind():
    module, state = nn.make_with_state(nn.BatchNorm)(4, "batch", mode="ema", momentum=0.9)
    assert module.ema_state_index is not None
    state = state.set(module.ema_state_index, (jnp.asarray(floats(4)), jnp.exp(floats(4))))
    _, found = from_equinox(jn.batch_norm(), module, STEPS, state=state)
    np.testing.assert_array_equal(found["mean"], floats(4))
