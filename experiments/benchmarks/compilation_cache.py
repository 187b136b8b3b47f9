"""Seconds from a traced function to its first result, in new processes, without the compilation cache and with it.

    python -m experiments.benchmarks.compilation_cache [--rounds 3]

A training step of ResNet-50, 64×64, batch 2: traced and lowered, compiled or read, run. `emptied` has an empty folder
to write to, `filled` finds what `emptied` has written.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial

import numpy as np

WAYS = ("without", "emptied", "filled")
PARTS = ("trace", "compile", "run")


def main(rounds: int = 3) -> None:
    """Time and print."""
    took: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for way in WAYS:
                took[way].append(_child("" if way == "without" else folder))
    print(f"{'':<10}" + "".join(f"{part:>10}" for part in (*PARTS, "sum")))
    for way, seconds in took.items():
        medians = [*np.median(seconds, 0), np.median(np.sum(seconds, 1))]
        print(f"{way:<10}" + "".join(f"{each:>10.2f}" for each in medians))


def _child(folder: str) -> list[float]:
    command = [sys.executable, "-m", "experiments.benchmarks.compilation_cache", "--child", folder]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def first_step(folder: str) -> list[float]:
    """Return the seconds of tracing, of compiling or reading, and of the first run."""
    import jax
    import jax.numpy as jnp

    import jaxnets as jn
    from experiments.benchmarks import ours
    from experiments.benchmarks.peers import stepping
    from experiments.benchmarks.rows.training import resnet50

    if folder:
        jn.enable_compilation_cache(folder, verify=False)
    work = resnet50(2, 1)
    net, objective, optimizer = ours.net_of(work), jn.objective(jn.losses.cross_entropy), stepping.optimizer(work)
    step = jn.train.make_train_step(net, objective, optimizer)
    batch = jn.train.Batch(jnp.asarray(work.x), jnp.asarray(work.y), jnp.ones(2))
    run = jax.block_until_ready(jax.jit(partial(jn.train.start, net, optimizer))(jax.random.key(0), batch.x))
    times = [time.perf_counter()]
    lowered = jax.jit(step).lower(run, batch)
    times.append(time.perf_counter())
    compiled = lowered.compile()
    times.append(time.perf_counter())
    jax.block_until_ready(compiled(run, batch))
    times.append(time.perf_counter())
    return np.diff(times).tolist()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="First calls without the compilation cache and with it.")
    parser.add_argument("--rounds", type=int, default=3, help="how many turns count")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is None:
        main(arguments.rounds)
    else:
        print(json.dumps(first_step(arguments.child)))
