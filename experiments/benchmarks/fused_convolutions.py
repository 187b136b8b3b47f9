"""A convolution with bias, shortcut and ReLU, as one call of oneDNN and as one operation after another.

`python -m experiments.benchmarks.fused_convolutions` prints milliseconds, the median of interleaved turns.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.data import noise
from experiments.benchmarks.timing import interleaved, timed
from jaxnets.ops.conv import fused
from jaxnets.ops.geometry import Geometry

# (batch, size, channels, features, window)
SHAPES = (
    (16, 56, 64, 256, 1),
    (16, 28, 128, 512, 1),
    (16, 14, 256, 1024, 1),
    (16, 56, 64, 64, 3),
    (16, 14, 256, 256, 3),
)


def measure(batch: int, size: int, channels: int, features: int, window: int, *, shortcut: bool) -> dict[str, float]:
    """Return the milliseconds of both ways."""
    pad = window // 2
    spatial, kernel_size = (size, size), (window, window)
    geometry = Geometry(spatial, kernel_size, channels, features, (1, 1), ((pad, pad),) * 2, (1, 1))
    shapes = [(batch, *spatial, channels), (*kernel_size, channels, features), (features,)]
    shapes += [(batch, *spatial, features)] if shortcut else []
    operands = [jnp.asarray(noise(*shape)) for shape in shapes]
    turns = {}
    for name, way in (("separate", fused.in_steps), ("one call", fused.by_onednn)):
        compiled = jax.jit(partial(way, geometry=geometry, relu=True)).lower(*operands).compile()
        turns[name] = timed(lambda compiled=compiled: jax.block_until_ready(compiled(*operands)), lambda: None)
    return {name: 1e3 * float(np.median(seconds)) for name, seconds in interleaved(turns, rounds=30).items()}


def main() -> None:
    """Measure and print."""
    for shape in SHAPES:
        for shortcut in (False, True):
            found = measure(*shape, shortcut=shortcut)
            batch, size, channels, features, window = shape
            what = f"{batch} × {size}² × {channels} → {features}, {window}×{window}" + ", shortcut" * shortcut
            print(f"{what:44s}" + "   ".join(f"{name} {took:6.2f}" for name, took in found.items()))


if __name__ == "__main__":
    main()
