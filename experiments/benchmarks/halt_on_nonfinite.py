"""The cost of halting at a non-finite loss: a training step with and without `halt_on_nonfinite`.

    python -m experiments.benchmarks.halt_on_nonfinite [--rounds 7]

Milliseconds per step with Adam, as separate calls and in a scan: medians of interleaved rounds, and the ratio with a
95 % interval. Also the temporary memory of a step.
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

# network, shape of an example, batch size, steps per turn, trials under `vmap` (0: none)
NETWORKS = {
    "MLP 64-64-10": (jn.serial(jn.dense(64), jax.nn.relu, jn.dense(10)), (64,), 32, 500, 0),
    "64 MLPs 64-64-10 by vmap": (jn.serial(jn.dense(64), jax.nn.relu, jn.dense(10)), (64,), 32, 50, 64),
    "ResNet-50, 64×64": (jn.models.resnet50(1000), (64, 64, 3), 2, 3, 0),
}


def contestants(
    net: jn.Net, shape: tuple[int, ...], size: int, steps: int, trials: int
) -> dict[str, Callable[[], float]]:
    """Return functions that time the steps, with `halt_on_nonfinite` and without; print their memory."""
    batch = jn.train.Batch(jnp.ones((size, *shape)), jnp.zeros(size, int), jnp.ones(size))
    objective, adam = jn.objective(jn.losses.cross_entropy), optax.adam(1e-3)
    made = {}
    for name, halt_on_nonfinite in (("with", True), ("without", False)):
        options = jn.train.Options(halt_on_nonfinite=halt_on_nonfinite)
        state = jn.train.start(net, adam, batch.x, options, key=jax.random.key(0))
        step: Any = jn.train.make_train_step(net, objective, adam, options)
        if trials:
            state = jax.tree.map(lambda leaf: jnp.stack([leaf] * trials), state)
            step = jax.vmap(step, (0, None))
        one = jax.jit(lambda state, batch, step=step: step(state, batch)[0], donate_argnums=0)
        one = one.lower(state, batch).compile()

        def scanned(state: jn.train.TrainState, step: Callable[..., Any] = step) -> jn.train.TrainState:
            return jax.lax.scan(lambda state, _: (step(state, batch)[0], None), state, length=steps)[0]

        loop, memory = jax.jit(scanned, donate_argnums=0).lower(state).compile(), one.memory_analysis()
        assert memory is not None
        print(f"  {name} halt_on_nonfinite, {memory.temp_size_in_bytes / 2**20:.1f} MiB")
        made[f"step {name}"] = timed(partial(take_steps, lambda state, one=one: one(state, batch), [state], steps))
        made[f"scan {name}"] = timed(partial(take_steps, loop, [jax.tree.map(jnp.copy, state)], 1))
    return made


def take_steps(step: Callable[..., Any], held: list[Any], times: int) -> None:
    """Take steps, each from the state that the last one returned."""
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
