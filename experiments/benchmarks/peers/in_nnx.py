"""Flax NNX: modules that hold their parameters, `nnx.jit`, `nnx.value_and_grad`, `nnx.Optimizer`."""

from typing import Any

import jax
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
