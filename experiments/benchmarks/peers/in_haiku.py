"""Haiku: `hk.transform_with_state` makes pure functions of a network with modules in it."""
# pyright: reportMissingImports=false

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from experiments.benchmarks import architecture as a
from experiments.benchmarks.peers import stepping
from experiments.benchmarks.work import Contestant, Unsuited, Work

BIASES = {"lstm": 4, "gru": 3}


def apply(layers: a.Layers, x: jax.Array) -> jax.Array:
    """Return the output of layers; called inside a transform."""
    for layer in layers:
        x = _layer(layer, x)
    return x


def _layer(layer: a.Layer, x: jax.Array) -> jax.Array:
    match layer:
        case a.Dense(features):
            return hk.Linear(features)(x)
        case a.Conv(features, window, stride, padding, bias):
            return hk.Conv2D(features, window, stride, padding=((padding,) * 2,) * 2, with_bias=bias)(x)
        case a.Double(features):
            return hk.Conv2DTranspose(features, 3, 2)(x)
        case a.Pool(window, stride, padding):
            return hk.max_pool(x, (window, window, 1), (stride, stride, 1), "SAME" if padding else "VALID")
        case a.Norm():
            return hk.BatchNorm(True, True, 0.9)(x, is_training=True)
        case a.Relu():
            return jax.nn.relu(x)
        case a.Flatten():
            return hk.Flatten()(x)
        case a.Fold(shape):
            return hk.Reshape(shape)(x)
        case a.Mean():
            return jnp.mean(x, (1, 2))
        case a.Recurrent(cell, features, last):
            core = hk.LSTM(features) if cell == "lstm" else hk.GRU(features)
            outputs: Any = hk.dynamic_unroll(core, x, core.initial_state(len(x)), time_major=False)[0]
            return outputs[:, -1] if last else outputs
        case a.Residual(body, shortcut):
            return jax.nn.relu(apply(body, x) + apply(shortcut, x))
        case a.Transformer():
            raise Unsuited("no language model is written in Haiku here")


def train(work: Work) -> Contestant:
    """Return the contestant."""
    work.in_float32("Haiku")
    network = hk.transform_with_state(lambda x: apply(work.layers, x))
    loss_of, tx = stepping.loss_of(work), stepping.optimizer(work)
    params, state = jax.jit(network.init)(jax.random.key(0), jnp.asarray(work.x[:1]))

    def loss(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        outputs, state = network.apply(params, state, None, x)
        return loss_of(outputs, y), state

    @jax.jit
    def step(params: Any, state: Any, opt_state: Any, x: jax.Array, y: jax.Array, chosen: jax.Array) -> Any:
        grads, state = jax.grad(loss, has_aux=True)(params, state, x[chosen], y[chosen])
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(params, updates), state, opt_state

    turn = stepping.looped(work, step, (params, state, tx.init(params)))
    counted = stepping.multiply_adds(work, lambda made, x: network.apply(*made, None, x)[0], (params, state))
    return Contestant(work, turn, stepping.count(params), counted, BIASES)


def start(work: Work) -> Contestant:
    """Return a contestant that makes the parameters, under `jax.jit`."""
    network = hk.transform_with_state(lambda x: apply(work.layers, x))
    x, make = jnp.asarray(work.x[:1]), jax.jit(network.init)
    made = jax.eval_shape(network.init, jax.random.key(0), x)
    counted = stepping.multiply_adds(work, lambda made, x: network.apply(*made, None, x)[0], made)

    def turn() -> None:
        jax.block_until_ready(make(jax.random.key(0), x))

    return Contestant(work, turn, stepping.count(made[0]), counted, BIASES)
