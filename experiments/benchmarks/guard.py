"""What the guard of a training run costs: a step with it and without.

    python -m experiments.benchmarks.halt_on_nonfinite [--rounds 7]

Milliseconds a step with Adam, one call each and in a scan, medians of interleaved rounds, the ratio with a 95 %
interval; the memory that a step takes beside what it is given.
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
from experiments.benchmarks.timing import interleaved, ratio, timed

# a network, the shape of an example, the batch, steps a turn, trials side by side or none
NETWORKS = {
    "MLP 64-64-10": (jn.serial(jn.dense(64), jax.nn.relu, jn.dense(10)), (64,), 32, 500, 0),
    "64 MLPs 64-64-10 by vmap": (jn.serial(jn.dense(64), jax.nn.relu, jn.dense(10)), (64,), 32, 50, 64),
    "ResNet-50, 64×64": (jn.models.resnet50(1000), (64, 64, 3), 2, 3, 0),
}


def contestants(
    net: jn.Net, shape: tuple[int, ...], size: int, steps: int, trials: int
) -> dict[str, Callable[[], float]]:
    """Return functions that run the steps and return the seconds they took, and print the memory."""
    batch = jn.train.Batch(jnp.ones((size, *shape)), jnp.zeros(size, int), jnp.ones(size))
    objective, adam = jn.objective(jn.losses.cross_entropy), optax.adam(1e-3)
    made = {}
    for name, halt_on_nonfinite in (("with", True), ("without", False)):
        options = jn.train.Options(halt_on_nonfinite=halt_on_nonfinite)
        run = jn.train.start(net, adam, jax.random.key(0), batch.x, options)
        step: Any = jn.train.make_train_step(net, objective, adam, options)
        if trials:
            run = jax.tree.map(lambda leaf: jnp.stack([leaf] * trials), run)
            step = jax.vmap(step, (0, None))
        one = jax.jit(lambda run, batch, step=step: step(run, batch)[0], donate_argnums=0).lower(run, batch).compile()

        def scanned(run: jn.train.TrainState, step: Callable[..., Any] = step) -> jn.train.TrainState:
            return jax.lax.scan(lambda run, _: (step(run, batch)[0], None), run, length=steps)[0]

        loop, memory = jax.jit(scanned, donate_argnums=0).lower(run).compile(), one.memory_analysis()
        assert memory is not None
        print(f"  {name} the guard, {memory.temp_size_in_bytes / 2**20:.1f} MiB")
        made[f"step {name}"] = timed(partial(taken, lambda run, one=one: one(run, batch), [run], steps))
        made[f"scan {name}"] = timed(partial(taken, loop, [jax.tree.map(jnp.copy, run)], 1))
    return made


def taken(step: Callable[..., Any], held: list[Any], times: int) -> None:
    """Take steps, each from where the last one ended."""
    for _ in range(times):
        held[0] = step(held[0])
    jax.block_until_ready(held[0])


def main(rounds: int) -> None:
    """Measure and print."""
    for label, (net, shape, size, steps, trials) in NETWORKS.items():
        print(f"{label}, batch {size}")
        took = interleaved(contestants(net, shape, size, steps, trials), rounds=rounds)
        for way in ("step", "scan"):
            ours, plain = took[f"{way} with"], took[f"{way} without"]
            middle, low, high = ratio(ours, plain)
            times = " and ".join(f"{1e3 * np.median(each) / steps:.3g}" for each in (ours, plain))
            print(f"  {way}: {times} ms with and without, {middle:.2f} times ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    main(**vars(parser.parse_args()))
