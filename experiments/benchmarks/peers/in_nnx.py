"""Flax NNX: modules that hold their parameters, `nnx.jit`, `nnx.value_and_grad`, `nnx.Optimizer`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import jaxnets as jn
from experiments.benchmarks import architecture as a
from experiments.benchmarks.peers import stepping
from experiments.benchmarks.work import Contestant, Work

BIASES = {"lstm": 4, "gru": 3}


class Residual(nnx.Module):
    """relu(body(x) + shortcut(x))."""

    def __init__(self, body: nnx.Sequential, shortcut: nnx.Sequential) -> None:
        self.body, self.shortcut = body, shortcut

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the sum."""
        return nnx.relu(self.body(x) + self.shortcut(x))


class Block(nnx.Module):
    """Causal attention and two layers, each after a norm and with a shortcut."""

    def __init__(self, features: int, heads: int, rngs: nnx.Rngs) -> None:
        self.norm1, self.norm2 = (nnx.LayerNorm(features, epsilon=1e-5, rngs=rngs) for _ in range(2))
        self.attention = nnx.MultiHeadAttention(heads, features, decode=False, rngs=rngs)
        self.up, self.down = (
            nnx.Linear(*sizes, rngs=rngs) for sizes in ((features, 4 * features), (4 * features, features))
        )

    def __call__(self, x: jax.Array, decode: bool) -> jax.Array:
        """Return the sum."""
        mask = None if decode else nnx.make_causal_mask(jnp.ones(x.shape[:2]))
        x = x + self.attention(self.norm1(x), mask=mask, decode=decode)
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class Transformer(nnx.Module):
    """A language model with one table for the embedding and the logits."""

    def __init__(self, layer: a.Transformer, rngs: nnx.Rngs) -> None:
        normal = nnx.initializers.normal(0.02)
        self.tokens = nnx.Embed(layer.vocabulary, layer.features, embedding_init=normal, rngs=rngs)
        self.positions = nnx.Embed(layer.length, layer.features, embedding_init=normal, rngs=rngs)
        self.blocks = nnx.List([Block(layer.features, layer.heads, rngs) for _ in range(layer.blocks)])
        self.norm = nnx.LayerNorm(layer.features, epsilon=1e-5, rngs=rngs)

    def __call__(self, tokens: jax.Array, place: jax.Array | None = None) -> jax.Array:
        """Return the logits; with a place, those of one token there, after those that the cache has."""
        x = self.tokens(tokens) + self.positions(jnp.arange(tokens.shape[1]) if place is None else place)
        for block in self.blocks:
            x = block(x, place is not None)
        return self.tokens.attend(self.norm(x))


def network(layers: a.Layers, shape: a.Shape, rngs: nnx.Rngs) -> nnx.Sequential:
    """Return the module."""
    return nnx.Sequential(*(_layer(layer, at, rngs) for layer, at in a.walk(layers, shape)))


def _layer(layer: a.Layer, shape: a.Shape, rngs: nnx.Rngs) -> Any:
    width = shape[-1]
    match layer:
        case a.Dense(features):
            return nnx.Linear(width, features, rngs=rngs)
        case a.Conv(features, window, stride, padding, bias):
            return nnx.Conv(width, features, (window,) * 2, stride, padding=padding, use_bias=bias, rngs=rngs)
        case a.Double(features):
            return nnx.ConvTranspose(width, features, (3, 3), (2, 2), rngs=rngs)
        case a.Pool(window, stride, padding):
            pad: Any = ((padding,) * 2,) * 2
            return lambda x: nnx.max_pool(x, (window,) * 2, (stride,) * 2, pad)
        case a.Norm():
            return nnx.BatchNorm(width, momentum=0.9, rngs=rngs)
        case a.Relu():
            return nnx.relu
        case a.Flatten():
            return lambda x: x.reshape(len(x), -1)
        case a.Fold(new):
            return lambda x: x.reshape(-1, *new)
        case a.Mean():
            return lambda x: x.mean((1, 2))
        case a.Recurrent(cell, features, last):
            made = (nnx.OptimizedLSTMCell if cell == "lstm" else nnx.GRUCell)(width, features, rngs=rngs)
            return nnx.Sequential(nnx.RNN(made), (lambda x: x[:, -1]) if last else (lambda x: x))
        case a.Residual(body, shortcut):
            return Residual(network(body, shape, rngs), network(shortcut, shape, rngs))
        case a.Transformer():
            return Transformer(layer, rngs)


def train(work: Work) -> Contestant:
    """Return the contestant."""
    work.in_float32("Flax NNX")
    loss_of = stepping.loss_of(work)
    model = nnx.jit(lambda: network(work.layers, work.shape, nnx.Rngs(0)))()
    optimizer = nnx.Optimizer(model, stepping.optimizer(work), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array, chosen: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda model: loss_of(model(x[chosen]), y[chosen]))(model)
        optimizer.update(model, grads)
        return loss

    def stepped(x: jax.Array, y: jax.Array, chosen: jax.Array) -> tuple:
        step(model, optimizer, x, y, chosen)
        return ()

    turn = stepping.looped(work, stepped, ())

    def whole() -> None:
        turn()
        jax.block_until_ready(nnx.state(model))

    counted = jn.inspect.multiply_adds(model, stepping.batch(work))
    return Contestant(work, whole, stepping.count(nnx.state(model, nnx.Param)), counted, BIASES)


def decode(work: Work, *, scan: bool = False) -> Contestant:
    """Return a contestant that reads and writes token by token: a jitted step in a loop, or all in one scan."""
    model = network(work.layers, work.shape, nnx.Rngs(0))
    counted = jn.inspect.multiply_adds(model, stepping.batch(work))
    write = writer(model.layers[0], work, scan=scan)
    parameters = stepping.count(nnx.state(model, nnx.Param))
    return Contestant(work, lambda: jax.block_until_ready(write()), parameters, counted, BIASES)


def writer(model: Any, work: Work, *, scan: bool) -> Callable[[], jax.Array]:
    """Return a function that returns the tokens after the prompts."""
    return (_scanned if scan else _looped)(model, work)


def _start(model: Any, work: Work) -> None:
    for block in model.blocks:
        # The longest text: (batch, length, features)
        block.attention.init_cache((len(work.x), model.positions.num_embeddings, model.tokens.features))


def _looped(model: Any, work: Work) -> Callable[[], jax.Array]:
    prompts, time = jnp.asarray(work.x), work.shape[0]

    @nnx.jit
    def step(model: Any, tokens: jax.Array, place: jax.Array) -> jax.Array:
        return model(tokens[:, None], place[None])[:, 0].argmax(-1)

    def write() -> jax.Array:
        _start(model, work)
        tokens, written = prompts[:, 0], []
        for place in range(time + work.tokens - 1):
            tokens = step(model, prompts[:, place] if place < time else tokens, jnp.asarray(place))
            written.append(tokens)
        return jnp.stack(written[time - 1 :], 1)

    return write


def _scanned(model: Any, work: Work) -> Callable[[], jax.Array]:
    prompts, time = jnp.asarray(work.x), work.shape[0]
    _start(model, work)
    static, first = nnx.split(model)

    @jax.jit
    def write(first: Any) -> jax.Array:
        def step(carry: Any, place: jax.Array) -> Any:
            state, tokens = carry
            model = nnx.merge(static, state)
            tokens = jnp.where(place < time, prompts[:, jnp.minimum(place, time - 1)], tokens)
            tokens = model(tokens[:, None], place[None])[:, 0].argmax(-1).astype(jnp.int32)
            return (nnx.state(model), tokens), tokens

        _, written = jax.lax.scan(step, (first, prompts[:, 0]), jnp.arange(time + work.tokens - 1))
        return written[time - 1 :].T

    return lambda: write(first)
