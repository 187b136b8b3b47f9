"""Shared by libraries on JAX: a loss, an Optax optimizer, a loop over jitted steps."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.benchmarks.work import Work

OPTIMIZERS = {"adam": optax.adam, "sgd": optax.sgd, "momentum": partial(optax.sgd, momentum=0.9)}


def optimizer(work: Work, rate: Any = 1e-3) -> optax.GradientTransformation:
    """Return the optimizer of a piece of work."""
    return OPTIMIZERS[work.optimizer](rate)


def loss_of(work: Work) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return the mean loss of outputs and targets."""

    def loss(outputs: jax.Array, y: jax.Array) -> jax.Array:
        outputs = outputs.astype(jnp.float32)
        if work.classifies:
            return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean()
        return jnp.mean((outputs - y) ** 2)

    return loss


def looped(work: Work, step: Callable[..., Any], carry: Any) -> Callable[[], None]:
    """Return a turn: `carry = step(*carry, x, y, chosen)` for each batch, with the data on the device."""
    x, y, generator = jnp.asarray(work.x), jnp.asarray(work.y), np.random.default_rng(0)
    held = [carry]

    def turn() -> None:
        for chosen in work.batches(generator):
            held[0] = step(*held[0], x, y, chosen)
        jax.block_until_ready(held[0])

    return turn


def count(params: Any) -> int:
    """Return how many numbers are in the arrays of a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def multiply_adds(work: Work, forward: Callable[..., Any], params: Any = None) -> int:
    """Return the multiply-adds of a forward pass over one batch, counted in what the library traces to.

    With `params`, arrays or their shapes, they are the first argument.
    """
    return jn.inspect.multiply_adds(forward, batch(work), params=params)


def batch(work: Work) -> jax.ShapeDtypeStruct:
    """Return the shape of one batch."""
    return jax.ShapeDtypeStruct((work.batch_size, *work.shape), work.x.dtype)
