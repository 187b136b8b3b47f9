"""The speedup of a sweep: 64 MLPs on handwritten digits, all at once and one by one.

    python -m experiments.benchmarks.sweep_mlp

Eight learning rates by eight seeds, 20 epochs. Contestants take turns; medians, and ratios with 95 % intervals. With
compilation: caches are emptied before each turn, and one by one compiles for each learning rate, as its programs
differ. Without: everything was compiled before. Three minutes on two cores.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.benchmarks.timing import interleaved, ratio
from jaxnets.sweeps import strategy

RATES, SEEDS, EPOCHS = np.logspace(-4, -1, 8), 8, 20


def main(rounds: int = 5) -> None:
    """Time and print."""
    images, labels = jn.data.digits()
    data = jnp.asarray(images.reshape(len(images), -1)), jnp.asarray(labels)
    train, validation = jn.data.split(data, (0.8, 0.2))
    net, objective = jn.serial(jn.dense(64), jax.nn.relu, out=jn.dense(10)), jn.objective(jn.losses.cross_entropy)

    def trial(hp: dict) -> jn.train.Program:
        return jn.train.program(
            net,
            objective,
            optax.adam(hp["lr"]),
            train,
            epochs=EPOCHS,
            batch_size=32,
            validation=validation,
            metrics={"accuracy": jn.metrics.accuracy},
        )

    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(0), seed))(jnp.arange(SEEDS))
    whole = jax.jit(lambda program, rates, keys: jax.vmap(lambda rate, key: bound(program, rate)(key))(rates, keys))

    def bound(program: jn.train.Program, rate: jax.Array) -> jn.train.Program:
        own = trial({"lr": rate})
        return jn.train.Program(program.train, program.validation, own.epochs, own.recipe)

    def all_at_once(how: str) -> Callable[[], object]:
        return lambda: jn.sweeps.sweep(trial, seeds=SEEDS, grid={"lr": RATES}, strategy=how)  # pyright: ignore

    programs = [trial({"lr": rate}) for rate in RATES]
    every = jnp.asarray(np.repeat(RATES, SEEDS), jnp.float32), jnp.concatenate([keys] * len(RATES))
    warm = {
        "sweep, side by side": all_at_once("vmap"),
        "sweep, in turn": all_at_once("map"),
        "one vmap of whole runs": lambda: jax.block_until_ready(whole(programs[0], *every)),
        "fit, one by one": lambda: [jn.train.run(program, key=key) for program in programs for key in keys],
    }
    cold = {
        "sweep, side by side": all_at_once("vmap"),
        "sweep, measured first": all_at_once("measure"),
        "fit, one by one": lambda: [
            jn.train.run(program, key=key) for program in [trial({"lr": rate}) for rate in RATES] for key in keys
        ],
    }
    print(f"64 MLPs, {EPOCHS} epochs of {len(train[0])} digits; {jax.devices()[0].device_kind}, {rounds} rounds\n")
    report("without compilation", {name: timed(work) for name, work in warm.items()}, rounds)
    report("with compilation", {name: timed(work, forget=True) for name, work in cold.items()}, max(2, rounds // 2))


def timed(work: Callable[[], object], *, forget: bool = False) -> Callable[[], float]:
    """Return a function that does the work and returns its seconds."""

    def contestant() -> float:
        if forget:
            jax.clear_caches()
            strategy._measured.clear()
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return contestant


def report(title: str, contestants: dict[str, Callable[[], float]], rounds: int) -> None:
    """Time the contestants in turn and print medians, and ratios to the last."""
    seconds = interleaved(contestants, rounds=rounds)
    last = list(seconds)[-1]
    print(title)
    for name, took in seconds.items():
        times, low, high = ratio(seconds[last], took)
        print(
            f"  {name:<24}{np.median(took):7.2f} s   {last} takes {times:.2f} times as long ({low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
