"""Whether flattening small leaves pays: an MLP's training steps in a scan, with its parameters in three forms.

    python -m experiments.benchmarks.flat_buffers

Microseconds per step, medians of interleaved rounds, and the ratio to the tree's with 95 % intervals. `tree` is what
the library does: parameters and Adam's state are leaves of the scan's carry. `flat update` flattens gradients and
Adam's state into one vector for the update (`optax.flatten`); `flat carry` keeps parameters as one vector, too, and
splits it for each use.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import jaxnets as jn
from experiments.benchmarks.timing import interleaved, ratio, timed

BATCH, STEPS = 32, 500
NETWORKS = {"1 hidden layer": 1, "4 hidden layers": 4, "12 hidden layers": 12, "40 hidden layers": 40}


def contestants(depth: int) -> dict[str, Callable[[], float]]:
    """Return functions that run the steps and return the seconds of one."""
    images, labels = jn.data.digits()
    x, y = jnp.asarray(images.reshape(len(images), -1)), jnp.asarray(labels)
    net = jn.serial(*(each for _ in range(depth) for each in (jn.dense(64), jax.nn.relu)), out=jn.dense(10))
    params, state = net.init(jax.random.key(0), x)
    vector, cut = ravel_pytree(params)

    def loss(params: Any, start: jax.Array) -> jax.Array:
        own_x, own_y = (jax.lax.dynamic_slice_in_dim(each, start, BATCH) for each in (x, y))
        return jn.losses.cross_entropy(net.apply(params, state, own_x, train=True)[0], own_y).mean()

    def steps(loss: Callable, optimizer: optax.GradientTransformation, params: Any) -> Any:
        def step(carry: Any, start: jax.Array) -> tuple[Any, None]:
            params, memory = carry
            updates, memory = optimizer.update(jax.grad(loss)(params, start), memory, params)
            return (optax.apply_updates(params, updates), memory), None

        starts = jnp.arange(STEPS) * BATCH % (len(x) - BATCH)
        return jax.lax.scan(step, (params, optimizer.init(params)), starts)[0]

    adam = optax.adam(1e-3)
    forms = {
        "tree": (partial(steps, loss, adam), params),
        "flat update": (partial(steps, loss, optax.flatten(adam)), params),
        "flat carry": (partial(steps, lambda vector, start: loss(cut(vector), start), adam), vector),
    }
    compiled = {name: (jax.jit(run).lower(given).compile(), given) for name, (run, given) in forms.items()}
    return {name: timed(partial(ready, run, given)) for name, (run, given) in compiled.items()}


def ready(run: Callable, given: Any) -> None:
    """Run, and wait."""
    jax.block_until_ready(run(given))


def main(rounds: int = 7) -> None:
    """Measure and print."""
    for name, depth in NETWORKS.items():
        took = interleaved(contestants(depth), rounds=rounds)
        for form, values in took.items():
            middle, low, high = ratio(values, took["tree"])
            each = 1e6 * np.median(values) / STEPS
            print(f"{name:17s} {form:12s} {each:7.1f} µs a step, {middle:.2f} times the tree ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
