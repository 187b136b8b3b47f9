"""Equinox: a model of one example under `jax.vmap`, `eqx.filter_jit`, `eqx.filter_value_and_grad`."""
# pyright: reportMissingImports=false

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import architecture as a
from experiments.benchmarks.peers import stepping
from experiments.benchmarks.work import Contestant, Work

BIASES = {"lstm": 4, "gru": 4}


class Residual(eqx.nn.StatefulLayer):
    """relu(body(x) + shortcut(x))."""

    body: eqx.nn.Sequential
    shortcut: eqx.nn.Sequential

    def __call__(self, x: jax.Array, state: Any, *, key: Any = None) -> tuple[jax.Array, Any]:
        """Return the sum and the state."""
        y, state = self.body(x, state)
        shortcut, state = self.shortcut(x, state)
        return jax.nn.relu(y + shortcut), state


class Scanned(eqx.Module):
    """A cell over a sequence."""

    cell: Any
    last: bool = eqx.field(static=True)

    def __call__(self, x: jax.Array, *, key: Any = None) -> jax.Array:
        """Return its outputs, or the last."""
        zero = jnp.zeros(self.cell.hidden_size)
        lstm = isinstance(self.cell, eqx.nn.LSTMCell)

        def one(carry: Any, x: jax.Array) -> tuple[Any, Any]:
            carry = self.cell(x, carry)
            return carry, None if self.last else (carry[0] if lstm else carry)

        carry, outputs = jax.lax.scan(one, (zero, zero) if lstm else zero, x)
        return outputs if not self.last else carry[0] if lstm else carry


class Block(eqx.Module):
    """Causal attention and two layers, each after a norm and with a shortcut."""

    norm1: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    norm2: eqx.nn.LayerNorm
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self, features: int, heads: int, key: jax.Array) -> None:
        keys = jax.random.split(key, 3)
        self.norm1, self.norm2 = eqx.nn.LayerNorm(features), eqx.nn.LayerNorm(features)
        self.attention = eqx.nn.MultiheadAttention(
            *(heads, features),
            **{f"use_{name}_bias": True for name in ("query", "key", "value", "output")},
            key=keys[0],
        )
        self.up = eqx.nn.Linear(features, 4 * features, key=keys[1])
        self.down = eqx.nn.Linear(4 * features, features, key=keys[2])

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Return the sum."""
        y = jax.vmap(self.norm1)(x)
        x = x + self.attention(y, y, y, mask)
        return x + jax.vmap(lambda x: self.down(jax.nn.gelu(self.up(self.norm2(x)))))(x)


class Transformer(eqx.Module):
    """A language model with one table for the embedding and the logits."""

    tokens: eqx.nn.Embedding
    positions: eqx.nn.Embedding
    blocks: list[Block]
    norm: eqx.nn.LayerNorm

    def __init__(self, layer: a.Transformer, key: jax.Array) -> None:
        first, second, *others = jax.random.split(key, layer.blocks + 2)
        tables = [(first, layer.vocabulary), (second, layer.length)]
        self.tokens, self.positions = (
            eqx.nn.Embedding(weight=0.02 * jax.random.normal(key, (count, layer.features))) for key, count in tables
        )
        self.blocks = [Block(layer.features, layer.heads, key) for key in others]
        self.norm = eqx.nn.LayerNorm(layer.features)

    def __call__(self, tokens: jax.Array, *, key: Any = None) -> jax.Array:
        """Return the logits of one text."""
        time = len(tokens)
        x, mask = jax.vmap(self.tokens)(tokens) + self.positions.weight[:time], jnp.tri(time, dtype=bool)
        for block in self.blocks:
            x = block(x, mask)
        return jax.vmap(self.norm)(x) @ self.tokens.weight.T


def network(layers: a.Layers, shape: a.Shape, key: jax.Array) -> eqx.nn.Sequential:
    """Return the module."""
    keys = jax.random.split(key, len(layers) + 1)
    return eqx.nn.Sequential([_layer(layer, at, each) for (layer, at), each in zip(a.walk(layers, shape), keys)])


def _layer(layer: a.Layer, shape: a.Shape, key: jax.Array) -> Any:
    width = shape[-1]
    match layer:
        case a.Dense(features):
            return eqx.nn.Linear(width, features, key=key)
        case a.Conv(features, window, stride, padding, bias):
            return eqx.nn.Conv2d(width, features, window, stride, padding, use_bias=bias, key=key)
        case a.Double(features):
            return eqx.nn.ConvTranspose2d(width, features, 3, 2, 1, 1, key=key)
        case a.Pool(window, stride, padding):
            return eqx.nn.MaxPool2d(window, stride, padding)
        case a.Norm():
            return eqx.nn.BatchNorm(width, axis_name="batch", momentum=0.9, mode="batch")
        case a.Relu():
            return eqx.nn.Lambda(jax.nn.relu)
        case a.Flatten():
            return eqx.nn.Lambda(jnp.ravel)
        case a.Fold(new):
            return eqx.nn.Lambda(lambda x: x.reshape(new[-1:] + new[:-1]))
        case a.Mean():
            return eqx.nn.Lambda(lambda x: x.mean((1, 2)))
        case a.Recurrent(cell, features, last):
            made = (eqx.nn.LSTMCell if cell == "lstm" else eqx.nn.GRUCell)(width, features, key=key)
            return Scanned(made, last)
        case a.Residual(body, shortcut):
            one, other = jax.random.split(key)
            return Residual(network(body, shape, one), network(shortcut, shape, other))  # pyright: ignore
        case a.Transformer():
            return Transformer(layer, key)


def train(work: Work) -> Contestant:
    """Return the contestant."""
    own, step = _channels_first(work), eqx.filter_jit(_step(work))
    model, state = eqx.filter_jit(_make(work))(jax.random.key(0))
    opt_state = stepping.optimizer(work).init(eqx.filter(model, eqx.is_array))
    turn = stepping.looped(own, step, (model, state, opt_state))
    return _contestant(work, turn, model, state)


def sweep(work: Work, rates: np.ndarray) -> Contestant:
    """Return a contestant that trains a trial for each rate, side by side by `eqx.filter_vmap` over the step."""
    own, make = _channels_first(work), _make(work)
    x, y, generator = jnp.asarray(own.x), jnp.asarray(own.y), np.random.default_rng(0)

    def start(key: jax.Array, rate: jax.Array) -> Any:
        model, state = make(key)
        return model, state, stepping.optimizer(work, rate).init(eqx.filter(model, eqx.is_array))

    def step(carry: Any, rate: jax.Array, chosen: jax.Array) -> Any:
        return _step(work, rate)(*carry, x, y, chosen)

    begin = eqx.filter_jit(eqx.filter_vmap(start))
    go = eqx.filter_jit(eqx.filter_vmap(step, in_axes=(eqx.if_array(0), 0, None)))
    keys, given = jax.random.split(jax.random.key(0), len(rates)), jnp.asarray(rates, jnp.float32)

    def turn() -> None:
        carry = begin(keys, given)
        for chosen in work.batches(generator):
            carry = go(carry, given, jnp.asarray(chosen))
        jax.block_until_ready(eqx.filter(carry, eqx.is_array))

    model, state = make(jax.random.key(0))
    return _contestant(work, turn, model, state, len(rates))


def _make(work: Work) -> Callable[[jax.Array], Any]:
    return eqx.nn.make_with_state(lambda key: network(work.layers, work.shape, key))


def _step(work: Work, rate: Any = 1e-3) -> Callable:
    loss_of, tx = stepping.loss_of(work), stepping.optimizer(work, rate)

    @eqx.filter_value_and_grad(has_aux=True)
    def loss(model: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        outputs, state = _batched(model)(x, state)
        return loss_of(outputs, y), state

    def step(model: Any, state: Any, opt_state: Any, x: jax.Array, y: jax.Array, chosen: jax.Array) -> Any:
        (_, state), grads = loss(model, state, x[chosen], y[chosen])
        updates, opt_state = tx.update(grads, opt_state, model)
        return eqx.apply_updates(model, updates), state, opt_state

    return step


def _batched(model: Any) -> Callable:
    return jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))


def _channels_first(work: Work) -> Work:
    """Return the work with channels-first images."""
    work.in_float32("Equinox")
    turned = [np.moveaxis(each, -1, 1).copy() if each.ndim == 4 else each for each in (work.x, work.y)]
    return replace(work, x=turned[0], y=turned[1])


def _contestant(work: Work, turn: Callable[[], None], model: Any, state: Any, trials: int = 1) -> Contestant:
    params = eqx.filter(model, eqx.is_inexact_array)
    counted = stepping.multiply_adds(_channels_first(work), lambda x: _batched(model)(x, state)[0])
    return Contestant(work, turn, stepping.count(params), counted, BIASES, trials)
