"""Training steps of eight CNNs by `vmap`, beside one network's step alone, in calls and in a scan.

    python -m experiments.benchmarks.vmapped_steps [--rounds 15]

Milliseconds a network and step: medians of interleaved rounds, and the ratio to one network's steps in calls, with a
95 % interval. The CNN has 16 and 32 features, batches of 64 images of 28×28, and Adam; each network has its own
parameters and data.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.benchmarks.data import noise
from experiments.benchmarks.timing import interleaved, ratio, timed

NETWORKS, BATCH, STEPS = 8, 64, 8
ALONE = "one network, calls"


def contestants() -> dict[str, tuple[Callable[[], Any], int]]:
    """Return, by name, a function that computes `STEPS` steps, and how many these are for all networks together."""

    def block(features: int) -> list[Any]:
        return [jn.conv(features, 3, padding="SAME"), jax.nn.relu, jn.max_pool(2)]

    net = jn.serial(*block(16), *block(32), jn.flatten, jn.dense(10))
    options, adam = jn.train.Options(weighted=False), optax.adam(1e-3)
    step = jn.train.make_train_step(net, jn.objective(jn.losses.cross_entropy), adam, options)
    x = jnp.asarray(noise(NETWORKS * BATCH, 28, 28, 1)).reshape(NETWORKS, BATCH, 28, 28, 1)
    y = jnp.broadcast_to(jnp.arange(BATCH) % 10, (NETWORKS, BATCH))
    batches = jn.train.Batch(x, y, jnp.ones((NETWORKS, BATCH)))
    keys = jax.random.split(jax.random.key(0), NETWORKS)
    states = jax.vmap(lambda key: jn.train.start(net, adam, x[0], options, key=key))(keys)

    def once(state: Any, batch: Any) -> Any:
        return step(state, batch)[0]

    def scanned(take: Callable[[Any, Any], Any], state: Any, batch: Any) -> Any:
        return jax.lax.scan(lambda state, _: (take(state, batch), None), state, length=STEPS)[0]

    together = (states, batches)
    first = jax.tree.map(lambda leaf: leaf[0], together)

    def called(take: Callable[[Any, Any], Any], state: Any, batch: Any) -> None:
        for _ in range(STEPS):
            state = take(state, batch)
        jax.block_until_ready(state)

    many = jax.vmap(once)
    scan_one, scan_many = (jax.jit(partial(scanned, take)) for take in (once, many))
    return {
        ALONE: (partial(called, jax.jit(once), *first), STEPS),
        "one network, in a scan": (lambda: jax.block_until_ready(scan_one(*first)), STEPS),
        "eight by vmap, calls": (partial(called, jax.jit(many), *together), NETWORKS * STEPS),
        "eight by vmap, in a scan": (lambda: jax.block_until_ready(scan_many(*together)), NETWORKS * STEPS),
    }


def main(rounds: int) -> None:
    """Measure and print."""
    made = contestants()
    took = interleaved({name: timed(turn) for name, (turn, _) in made.items()}, rounds=rounds)
    each = {name: took[name] / steps for name, (_, steps) in made.items()}
    for name, seconds in each.items():
        middle, low, high = ratio(seconds, each[ALONE])
        print(f"{name:<26}{1e3 * np.median(seconds):7.2f} ms, {middle:.2f} times ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    main(**vars(parser.parse_args()))
