"""The order of an epoch: our permutation beside JAX's, the same bits.

    python -m experiments.benchmarks.permutations [--rounds 7]

Microseconds a permutation, of 20 in a scan, medians of interleaved rounds; the ratio with a 95 % interval.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.timing import interleaved, ratio, timed
from jaxnets.ops.permutation import MOST, permutation

STEPS = 20


def main(rounds: int) -> None:
    """Measure and print."""
    print(f"{'examples':>9}{'JAX':>11}{'ours':>11}")
    for n in (1437, 5000, 20_000, MOST):
        contestants = {name: looped(draw, n) for name, draw in (("jax", jax.random.permutation), ("ours", permutation))}
        took = interleaved(contestants, rounds=rounds)
        theirs, ours = (1e6 * np.median(took[name]) / STEPS for name in ("jax", "ours"))
        middle, low, high = ratio(took["jax"], took["ours"])
        print(f"{n:>9,}{theirs:>8.0f} µs{ours:>8.0f} µs   {middle:.1f} times ({low:.1f} to {high:.1f})")


def looped(draw: Callable[..., jax.Array], n: int) -> Callable[[], float]:
    """Return a function that draws some in a scan, each from what the last one gave, and returns the seconds."""

    @jax.jit
    def many(key: jax.Array) -> Any:
        return jax.lax.scan(lambda key, _: (jax.random.fold_in(key, draw(key, n)[0]), None), key, length=STEPS)[0]

    return timed(lambda: jax.block_until_ready(many(jax.random.key(0))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    main(**vars(parser.parse_args()))
