"""The time of `import jaxnets` compared with `import jax, optax`: `python -m experiments.benchmarks.import_time`.

All modules are read as bytecode, which pip writes when it installs a package: the first import of each is not counted.
"""

import os
import subprocess
import sys
from functools import partial
from tempfile import TemporaryDirectory

import numpy as np

from experiments.benchmarks.timing import interleaved, ratio

CODE = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def seconds(modules: str, folder: str) -> float:
    """Return how long a fresh interpreter takes to import some modules, whose bytecode is in a folder."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", CODE.format(modules)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout)


def main(rounds: int = 15) -> None:
    """Measure and print."""
    peer, ours = "jax, optax", "jaxnets"
    with TemporaryDirectory() as folder:
        turns = {name: partial(seconds, name, folder) for name in (peer, ours)}
        for turn in turns.values():
            turn()
        took = interleaved(turns, rounds=rounds)
    for name, values in took.items():
        print(f"import {name:12s} {1000 * np.median(values):6.0f} ms")
    middle, low, high = ratio(took[ours], took[peer])
    print(f"ratio {middle:.2f} (95 % interval {low:.2f} to {high:.2f}; goal: less than 1.3)")


if __name__ == "__main__":
    main()
