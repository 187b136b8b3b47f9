"""The formulation of a convolution that is fastest on a CPU, by a small table of measurements.

`python -m experiments.benchmarks.convolutions` repeats the measurements.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.core.errors import NetError
from jaxnets.ops.conv import depthwise, eigen, groups, native, patches, phases, shifts
from jaxnets.ops.geometry import Geometry

Form = Literal["native", "eigen", "patches", "shifts", "depthwise", "groups"]
Map = Literal["forward", "to_input", "to_kernel"]  # x, w → y; dy, w → dx; x, dy → dw
Bilinear = Callable[[jax.Array, jax.Array], jax.Array]

FAST_COLUMNS = 24
"""Columns that a matrix needs for a product at full speed."""

FEW_CHANNELS = 8
"""With at most this many channels, patches win: XLA's own convolution is slow there."""

NARROW = 16
"""For a map with at most this many output channels, XLA's own convolution beats Eigen."""

WIDE, SMALL_MAP = 256, 16
"""With at least `WIDE` channels and features, shifts no longer win.

Patches do for at most `SMALL_MAP` output positions, XLA's own convolution for more.
"""

DEPTHWISE_ELEMENTS = 64
"""Largest depthwise kernel computed as a sum over its elements: compile time grows with their number."""

CHUNK_BYTES = 8 * 2**20
"""Bytes of patches to hold at a time: a batch that needs more is computed chunk by chunk."""


def formulation(map_: Map, geometry: Geometry, batch: int, itemsize: int, form: Form | None = None) -> Bilinear:
    """Return the function that computes one of the three maps on a CPU; `form` overrides the choice."""
    g, name = geometry, form or choose(map_, geometry, itemsize)
    if not applies(name, map_, g):
        raise NetError(f"expects a convolution that the form {name!r} can compute, got {g}")
    # Neither writes patches, so the batch needs no chunks.
    if name in ("native", "depthwise"):
        return partial(getattr(native if name == "native" else depthwise, map_), geometry=g)
    if name == "groups":
        # Each convolution of the loop gets the form that is fastest for it.
        one_group = formulation(map_, groups.per_product(g), batch, itemsize)
        return partial(getattr(groups, map_), geometry=g, compute=one_group)

    module: Any = {"patches": patches, "shifts": shifts, "eigen": eigen}[name]
    settings = {"block": block(g)} if name == "patches" else {}
    if name == "patches" and map_ == "to_input":
        # With windows at every position, patches are added where they overlap; anything else goes phase by phase.
        if g.unit_stride:
            return partial(patches.to_input, geometry=g, **settings)
        return _by_chunks(partial(phases.to_input, geometry=g), _chunks(batch, phases.written(g) * itemsize))

    # With a window at every position the input gradient is itself a convolution, of the flipped kernel.
    computed = g.transposed() if map_ == "to_input" else g
    # Eigen writes no patches.
    chunks = 1 if name == "eigen" else _chunks(batch, module.written(computed, **settings) * itemsize)
    # The kernel gradient sums over the batch, so its chunks are added, not joined.
    if map_ == "to_kernel":
        return _summed_by_chunks(partial(module.to_kernel, geometry=g, **settings), chunks)
    compute = partial(module.forward, geometry=computed, **settings)
    return _by_chunks((lambda dy, w: compute(dy, flipped(w))) if map_ == "to_input" else compute, chunks)


def applies(form: Form, map_: Map, geometry: Geometry) -> bool:
    """Return whether a formulation can compute one of the three maps."""
    g = geometry
    if form == "eigen":
        # The input gradient is then a convolution of this geometry.
        return eigen.applies(g.transposed() if map_ == "to_input" and g.unit_stride else g)
    return {
        "native": True,
        "patches": g.groups == 1,
        "shifts": g.unit_stride,
        "depthwise": g.groups == g.channels,
        "groups": g.groups > 1,
    }[form]


def choose(map_: Map, geometry: Geometry, itemsize: int = 4) -> Form:
    """Return the name of the fastest formulation measured for such shapes and numbers of `itemsize` bytes."""
    g = geometry
    if g.groups > 1:
        return "depthwise" if g.groups == g.channels and math.prod(g.window) <= DEPTHWISE_ELEMENTS else "groups"
    # With a stride, neither shifts nor Eigen apply.
    if g.channels <= FEW_CHANNELS or not g.unit_stride:
        return "patches"
    if min(g.channels, g.features) >= WIDE:
        return "patches" if math.prod(g.out) <= SMALL_MAP else "native"
    # The output channels of a map: dx has those of x; y and dw have the features.
    out_channels = g.channels if map_ == "to_input" else g.features
    if out_channels <= NARROW:
        return "shifts" if map_ == "to_kernel" and g.channels <= NARROW else "native"
    # Only float32 has an Eigen kernel that is faster.
    return "eigen" if itemsize == 4 and applies("eigen", map_, g) else "shifts"


def block(geometry: Geometry) -> int:
    """Return how many neighboring positions share one patch; 1 with more than `FEW_CHANNELS` channels.

    It is the smallest block above 1 whose matrix has `FAST_COLUMNS` columns, or the largest block if none has.
    """
    g = geometry
    if g.channels > FEW_CHANNELS:
        return 1
    # Blocks must tile the output, and their windows must overlap.
    blocks = [b for b in range(1, g.out[-1] + 1) if g.out[-1] % b == 0 and (b - 1) * g.stride[-1] < g.reach[-1]]
    # The matrix of a block has block · features columns.
    return next((b for b in blocks if b > 1 and b * g.features >= FAST_COLUMNS), blocks[-1])


def flipped(kernel: jax.Array) -> jax.Array:
    """Return the kernel of the input gradient: spatially flipped, `(*window, features, channels)`."""
    return jnp.swapaxes(jnp.flip(kernel, range(kernel.ndim - 2)), -2, -1)


def check_form(form: str | None) -> None:
    """Raise if there is no such formulation."""
    if form not in (None, *get_args(Form)):
        raise NetError(f"expects a form among {', '.join(get_args(Form))}, got {form!r}")


def match_varying(left: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cast two arrays inside `jax.shard_map` so that both vary over the same mesh axes."""
    axes = [_varying_axes(each) for each in (left, right)]
    # Each operand is cast along the axes over which only the other one varies.
    left, right = (
        lax.pcast(each, tuple(sorted(other - own)), to="varying") if other - own else each
        for each, own, other in zip((left, right), axes, reversed(axes), strict=True)
    )
    return left, right


def _varying_axes(x: jax.Array) -> frozenset[Any]:
    """Return the mesh axes over which an array's values differ."""
    aval = jax.typeof(x)
    # Newer versions of JAX keep them in `manual_axis_type`.
    return getattr(aval, "vma", None) or getattr(getattr(aval, "manual_axis_type", None), "varying", frozenset())


def _by_chunks(compute: Bilinear, chunks: int) -> Bilinear:
    """Return a map of x and w that computes the batch in equal chunks, one after another."""

    def computed(x: jax.Array, kernel: jax.Array) -> jax.Array:
        # (batch, ...) → (chunks, batch / chunks, ...)
        y = lax.map(lambda part: compute(part, kernel), x.reshape(chunks, -1, *x.shape[1:]))
        return y.reshape(-1, *y.shape[2:])

    return compute if chunks == 1 else computed


def _summed_by_chunks(compute: Bilinear, chunks: int) -> Bilinear:
    """Return a map that sums over the batch, computed in equal chunks."""

    def computed(x: jax.Array, dy: jax.Array) -> jax.Array:
        parts = tuple(each.reshape(chunks, -1, *each.shape[1:]) for each in (x, dy))
        total = jax.eval_shape(compute, *(part[0] for part in parts))
        # Inside `shard_map` the carry of a scan must vary over the same mesh axes as what is added to it.
        zeros, _ = match_varying(jnp.zeros(total.shape, total.dtype), x)
        return lax.scan(lambda total, each: (total + compute(*each), None), zeros, parts)[0]

    return compute if chunks == 1 else computed


def _chunks(batch: int, bytes_per_example: int) -> int:
    """Return the number of equal chunks of a batch that keep what is written under `CHUNK_BYTES`."""
    # The batch size is symbolic in a program exported for any batch.
    if not isinstance(batch, int):
        return 1
    # The fewest equal chunks that are small enough, at least one example each.
    counts = (
        n
        for n in range(1, batch + 1)
        if batch % n == 0 and (batch // n * bytes_per_example <= CHUNK_BYTES or n == batch)
    )
    # An empty batch has no divisors.
    return next(counts, 1)
