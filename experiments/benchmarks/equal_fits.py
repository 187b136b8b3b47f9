"""A loop of 12 equal small fits, each program built again, in two versions of the library.

`python -m experiments.benchmarks.equal_fits FOLDER`, where FOLDER is a checkout of the version to compare with. Each
turn is a fresh process, and compilation is part of what is timed: it is what equal programs share. Imports and
reading the data are not counted.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np

from experiments.benchmarks.timing import interleaved, ratio

FITS = 12
CODE = f"""
import time
import jax, optax, jaxnets as jn
x, y = jn.data.wine()
# Earlier versions have other names.
scaling = getattr(jn.data, "standardize", None) or getattr(jn.data, "standardise")
run = jn.train.run if callable(getattr(jn.train, "run", None)) else lambda program, key: jn.train.fit(program, key)
x = scaling(x)(x)
began = time.perf_counter()
for number in range({FITS}):
    objective = jn.objective(jn.losses.cross_entropy, jn.regularizers.l2(1e-4))
    program = jn.train.program(
        jn.models.mlp([16], 3), objective, optax.adam(0.01), (x, y), epochs=5, batch_size=32,
        metrics=dict(accuracy=jn.metrics.accuracy),
    )
    run(program, key=jax.random.key(number))
print(time.perf_counter() - began)
"""


def seconds(folder: Path) -> float:
    """Return the seconds of the loop in a fresh interpreter with the library of a folder."""
    ended = subprocess.run([sys.executable, "-c", CODE], cwd=folder, capture_output=True, text=True, check=True)
    return float(ended.stdout)


def main(before: Path, rounds: int = 5) -> None:
    """Measure and print."""
    folders = {"before": before.resolve(), "now": Path.cwd()}
    took = interleaved({name: partial(seconds, folder) for name, folder in folders.items()}, rounds=rounds)
    for name, values in took.items():
        print(f"{FITS} fits, {name:6s} {np.median(values):6.2f} s")
    middle, low, high = ratio(took["before"], took["now"])
    print(f"ratio {middle:.1f} (95 % interval {low:.1f} to {high:.1f}; goal: 8)")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
