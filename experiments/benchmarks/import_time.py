"""The time of `import jaxnets` compared with `import jax, optax`: `python -m experiments.benchmarks.import_time`."""

import subprocess
import sys
from functools import partial

import numpy as np

from experiments.benchmarks.timing import interleaved, ratio

CODE = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def seconds(modules: str) -> float:
    """Return how long a fresh interpreter takes to import some modules."""
    shown = subprocess.run([sys.executable, "-c", CODE.format(modules)], capture_output=True, text=True, check=True)
    return float(shown.stdout)


def main(rounds: int = 15) -> None:
    """Measure and print."""
    peer, ours = "jax, optax", "jaxnets"
    took = interleaved({name: partial(seconds, name) for name in (peer, ours)}, rounds=rounds)
    for name, values in took.items():
        print(f"import {name:12s} {1000 * np.median(values):6.0f} ms")
    middle, low, high = ratio(took[ours], took[peer])
    print(f"ratio {middle:.2f} (95 % interval {low:.2f} to {high:.2f}; goal: less than 1.5)")


if __name__ == "__main__":
    main()
