"""Flax Linen: `module.apply`, `jax.jit` around a step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from experiments.benchmarks import architecture as a
from experiments.benchmarks.peers import stepping
from experiments.benchmarks.work import Contestant, Work

BIASES = {"lstm": 4, "gru": 4}


class Residual(nn.Module):
    """relu(body(x) + shortcut(x))."""

    body: nn.Module
    shortcut: nn.Module | None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the sum."""
        body: Any = self.body
        shortcut: Any = self.shortcut
        return nn.relu(body(x) + (x if shortcut is None else shortcut(x)))


class Block(nn.Module):
    """Causal attention and two layers, each after a norm and with a shortcut."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Return the sum."""
        features, dtype = x.shape[-1], self.dtype
        norm1, norm2 = (nn.LayerNorm(1e-5, dtype, name=name) for name in ("norm1", "norm2"))
        x = x + nn.MultiHeadDotProductAttention(self.heads, dtype, name="attention")(norm1(x), mask=mask)
        y = nn.gelu(nn.Dense(4 * features, dtype=dtype, name="up")(norm2(x)))
        return x + nn.Dense(features, dtype=dtype, name="down")(y)


class Transformer(nn.Module):
    """A language model with one table for the embedding and the logits."""

    layer: a.Transformer
    dtype: Any

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Return the logits."""
        layer, sizes = self.layer, (self.layer.features, self.dtype)
        normal = nn.initializers.normal(0.02)
        table = nn.Embed(layer.vocabulary, *sizes, embedding_init=normal, name="tokens")
        places = nn.Embed(layer.length, *sizes, embedding_init=normal, name="positions")
        x, mask = table(tokens) + places(jnp.arange(tokens.shape[1])), nn.make_causal_mask(tokens)
        for place in range(layer.blocks):
            x = Block(layer.heads, self.dtype, name=f"block{place}")(x, mask)
        return table.attend(nn.LayerNorm(1e-5, self.dtype, name="norm")(x))


def network(layers: a.Layers, dtype: Any) -> nn.Sequential:
    """Return the module."""
    return nn.Sequential([_layer(layer, dtype) for layer in layers])


def _layer(layer: a.Layer, dtype: Any) -> Any:
    match layer:
        case a.Dense(features):
            return nn.Dense(features, dtype=dtype)
        case a.Conv(features, window, stride, padding, bias):
            return nn.Conv(features, (window,) * 2, stride, padding, use_bias=bias, dtype=dtype)
        case a.Double(features):
            return nn.ConvTranspose(features, (3, 3), (2, 2), dtype=dtype)
        case a.Pool(window, stride, padding):
            pad: Any = ((padding,) * 2,) * 2
            return lambda x: nn.max_pool(x, (window,) * 2, (stride,) * 2, pad)
        case a.Norm():
            return nn.BatchNorm(use_running_average=False, momentum=0.9, dtype=dtype)
        case a.Relu():
            return nn.relu
        case a.Flatten():
            return lambda x: x.reshape(len(x), -1)
        case a.Fold(shape):
            return lambda x: x.reshape(-1, *shape)
        case a.Mean():
            return lambda x: x.mean((1, 2))
        case a.Recurrent(cell, features, last):
            made = nn.OptimizedLSTMCell(features) if cell == "lstm" else nn.GRUCell(features)
            return nn.Sequential([nn.RNN(made), (lambda x: x[:, -1]) if last else (lambda x: x)])
        case a.Residual(body, shortcut):
            return Residual(network(body, dtype), network(shortcut, dtype) if shortcut else None)
        case a.Transformer():
            return Transformer(layer, dtype)


def train(work: Work) -> Contestant:
    """Return the contestant."""
    module, step = network(work.layers, jnp.dtype(work.precision)), _step(work)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.asarray(work.x[:1]))
    params, rest = variables["params"], {name: value for name, value in variables.items() if name != "params"}
    turn = stepping.looped(work, jax.jit(step), (params, rest, stepping.optimizer(work).init(params)))
    return _contestant(work, turn, module, variables)


def sweep(work: Work, rates: np.ndarray) -> Contestant:
    """Return a contestant that trains a trial for each rate, side by side by `jax.vmap` over the step."""
    module = network(work.layers, jnp.dtype(work.precision))
    x, y, generator = jnp.asarray(work.x), jnp.asarray(work.y), np.random.default_rng(0)

    def start(key: jax.Array, rate: jax.Array) -> Any:
        variables = module.init(key, x[:1])
        params, rest = variables["params"], {name: value for name, value in variables.items() if name != "params"}
        return params, rest, stepping.optimizer(work, rate).init(params)

    def step(carry: Any, rate: jax.Array, chosen: jax.Array) -> Any:
        return _step(work, rate)(*carry, x, y, chosen)

    begin, go = jax.jit(jax.vmap(start)), jax.jit(jax.vmap(step, in_axes=(0, 0, None)))
    keys, given = jax.random.split(jax.random.key(0), len(rates)), jnp.asarray(rates, jnp.float32)

    def turn() -> None:
        carry = begin(keys, given)
        for chosen in work.batches(generator):
            carry = go(carry, given, chosen)
        jax.block_until_ready(carry)

    return _contestant(work, turn, module, module.init(jax.random.key(0), x[:1]), len(rates))


def _step(work: Work, rate: Any = 1e-3) -> Any:
    module, loss_of, tx = (
        network(work.layers, jnp.dtype(work.precision)),
        stepping.loss_of(work),
        stepping.optimizer(work, rate),
    )

    def step(params: Any, rest: Any, state: Any, x: jax.Array, y: jax.Array, chosen: jax.Array) -> Any:
        def loss(params: Any) -> Any:
            outputs, new = module.apply({"params": params, **rest}, x[chosen], mutable=list(rest))
            return loss_of(outputs, y[chosen]), new

        grads, new = jax.grad(loss, has_aux=True)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), new, state

    return step


def _contestant(work: Work, turn: Any, module: nn.Module, variables: Any, trials: int = 1) -> Contestant:
    def forward(variables: Any, x: jax.Array) -> Any:
        return module.apply(variables, x, mutable=["batch_stats"])[0]

    parameters = stepping.count(variables["params"])
    return Contestant(work, turn, parameters, stepping.multiply_adds(work, forward, variables), BIASES, trials)


def start(work: Work) -> Contestant:
    """Return a contestant that makes the parameters, under `jax.jit`."""
    module = network(work.layers, jnp.dtype(work.precision))
    x, make = jnp.asarray(work.x[:1]), jax.jit(module.init)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return _contestant(work, lambda: jax.block_until_ready(make(jax.random.key(0), x)), module, shapes)
