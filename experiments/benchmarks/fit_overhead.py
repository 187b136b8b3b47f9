"""The overhead of `fit` over a plain scan of the same program: `python -m experiments.benchmarks.fit_overhead`.

LeNet-5 on the 4,000 digits of `python -m experiments`, compiled before. The bare scan is `program(key)` under `jit`,
the whole run in one call. Beside it stand `fit` alone, and `fit` with a bar drawn as for a terminal, JSONL, CSV, and
checkpoints that keep the last three and the best. The goal for the last line is less than 1.05.
"""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import optax

import jaxnets as jn
from experiments.benchmarks.timing import interleaved, ratio


class Terminal(io.StringIO):
    """A terminal without an audience."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


def lenet(epochs: int) -> jn.train.Program:
    """Return the program of the digits run."""
    train, validation, _ = jn.data.split(jn.data.mnist5k(), (0.8, 0.1, 0.1), seed=0)
    return jn.train.program(
        jn.models.lenet5(),
        jn.objective(jn.losses.cross_entropy, jn.regularizers.l2(1e-4, on="**/kernel")),
        optax.adam(1e-3),
        train,
        epochs=epochs,
        batch_size=32,
        validation=validation,
        metrics={"accuracy": jn.metrics.accuracy},
        augment=jn.data.shift(1),
    )


def contestants(program: jn.train.Program) -> dict[str, Callable[[], float]]:
    """Return functions that run the program and return the seconds it took."""
    key = jax.random.key(0)
    scan = jax.jit(lambda program, key: program(key)).lower(program, key).compile()

    def timed(run: Callable[[], object]) -> Callable[[], float]:
        def seconds() -> float:
            began = time.perf_counter()
            jax.block_until_ready(run())
            return time.perf_counter() - began

        return seconds

    def watched() -> object:
        with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(Terminal()):
            folder = Path(name)
            callbacks = [
                jn.train.progress("digits"),
                jn.train.jsonl(folder / "metrics.jsonl"),
                jn.train.csv(folder / "metrics.csv"),
                jn.train.checkpoint(folder / "checkpoints", best="validation/loss"),
            ]
            return jn.train.run(program, key=key, callbacks=callbacks)

    return {
        "bare scan": timed(lambda: scan(program, key)),
        "fit": timed(lambda: jn.train.run(program, key=key)),
        "fit with all of it": timed(watched),
    }


def main(epochs: int = 12, rounds: int = 9) -> None:
    """Measure and print."""
    took = interleaved(contestants(lenet(epochs)), rounds=rounds)
    for name, values in took.items():
        middle, low, high = ratio(values, took["bare scan"])
        print(f"{name:18s} {np.median(values):6.2f} s, {middle:.3f} times the bare scan ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
