"""The choice of the formulation of a convolution that is fastest on a CPU, by a small table of measurements.

`python -m experiments.benchmarks.convolutions` repeats the measurements.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import jaxlib.version
from jax import lax

from jaxnets.core.errors import NetError
from jaxnets.ops.conv import depthwise, eigen, groups, native, onednn, patches, shifts
from jaxnets.ops.geometry import Geometry

Form = Literal["native", "eigen", "onednn", "patches", "shifts", "depthwise", "groups"]
Map = Literal["forward", "to_input", "to_kernel"]  # x, w → y; dy, w → dx; x, dy → dw
Bilinear = Callable[[jax.Array, jax.Array], jax.Array]

FORMS: dict[Form, Any] = {
    "native": native,
    "eigen": eigen,
    "onednn": onednn,
    "patches": patches,
    "shifts": shifts,
    "depthwise": depthwise,
    "groups": groups,
}
"""One module for each formulation: the three maps, `applies(map_, geometry)`, and where a map writes more than its
result, `written(map_, geometry)`: how many numbers, for one example. The batch is then computed in chunks."""

NARROW = 16
"""For a kernel gradient with at most this many features, XLA's own convolution or shifts beat Eigen."""

NATIVE_UP_TO = 16 if jaxlib.version.__version_info__ < (0, 11) else 128
"""For an output or an input gradient with at most this many channels, XLA's own convolution beats Eigen.

Measured with jaxlib 0.10.2 and 0.12.0.1. XLA's own became nearly twice as fast in between; a later version is taken to
be as 0.12.
"""

LIBRARY_WIDE, LIBRARY_DENSE, LIBRARY_TILE = 256, 128, 64
"""oneDNN is fastest up to `LIBRARY_WIDE` channels and features; beyond, it reorders a large kernel at every call.

Its kernel gradient is fastest up to `LIBRARY_DENSE` of them, for at most `LIBRARY_TILE` output positions.
"""

LIBRARY_POINTWISE = 2**16
"""oneDNN multiplies fastest by a 1×1 kernel of up to this many numbers, if it also computes what follows."""

WIDE, SMALL_MAP = 256, 16
"""With at least `WIDE` channels and features, shifts are not the fastest.

Patches are for at most `SMALL_MAP` output positions, XLA's own convolution for more.
"""

DEPTHWISE_ELEMENTS = 64
"""Largest depthwise kernel computed as a sum over its elements: compile time grows with their number."""

CHUNK_BYTES = 8 * 2**20
"""Bytes of patches held at a time: a batch that needs more is computed chunk by chunk."""


def formulation(
    map_: Map, geometry: Geometry, batch: int, dtype: Any, form: Form | None = None, *, library: bool = False
) -> Bilinear:
    """Return the function that computes one of the three maps on a CPU.

    Args:
        map_: the map.
        geometry: of the convolution.
        batch: number of examples.
        dtype: of the operands.
        form: overrides the choice.
        library: whether the program may call oneDNN; without, "onednn" counts as `None`.
    """
    if form == "onednn" and not library:
        form = None
    g, name, itemsize = geometry, form or choose(map_, geometry, dtype, library=library), jnp.dtype(dtype).itemsize
    if not applies(name, map_, g):
        raise NetError(f"expects a convolution that the form {name!r} can compute, got {g}")
    module = FORMS[name]
    if name == "groups":
        # Each convolution of the loop gets the form that is fastest for it.
        one_group = formulation(map_, groups.per_product(g), batch, dtype, library=library)
        return partial(getattr(groups, map_), geometry=g, compute=one_group)
    compute = partial(getattr(module, map_), geometry=g)
    chunks = _chunks(batch, module.written(map_, g) * itemsize) if hasattr(module, "written") else 1
    # The kernel gradient sums over the batch, so its chunks are added, not joined.
    return (_summed_by_chunks if map_ == "to_kernel" else _by_chunks)(compute, chunks)


def applies(form: Form, map_: Map, geometry: Geometry) -> bool:
    """Return whether a formulation can compute one of the three maps."""
    return FORMS[form].applies(map_, geometry)


def choose(map_: Map, geometry: Geometry, dtype: Any = jnp.float32, *, library: bool = False) -> Form:
    """Return the name of the formulation that was measured to be fastest; `library`: whether oneDNN may be called."""
    g = geometry
    if library and _suits_library(map_, g, dtype):
        return "onednn"
    if g.groups > 1:
        return "depthwise" if g.groups == g.channels and math.prod(g.window) <= DEPTHWISE_ELEMENTS else "groups"
    # XLA swaps a kernel larger than its input with the input, and then is ten times slower.
    if g.channels <= patches.FEW_CHANNELS or math.prod(g.window) > math.prod(g.spatial):
        return "patches"
    wide = min(g.channels, g.features) >= WIDE
    # With a stride, neither shifts nor Eigen apply.
    if not g.unit_stride:
        return "native" if map_ == "forward" and not wide else "patches"
    if wide:
        return "patches" if math.prod(g.out) <= SMALL_MAP else "native"
    # The output channels of a map: dx has those of x; y and dw have the features.
    out_channels = g.channels if map_ == "to_input" else g.features
    if out_channels <= (NARROW if map_ == "to_kernel" else NATIVE_UP_TO):
        return "shifts" if map_ == "to_kernel" and g.channels <= NARROW else "native"
    # Eigen is faster only in float32.
    return "eigen" if jnp.dtype(dtype).itemsize == 4 and applies("eigen", map_, g) else "shifts"


def _suits_library(map_: Map, geometry: Geometry, dtype: Any) -> bool:
    """Return whether oneDNN was measured to be the fastest."""
    g = geometry
    if not applies("onednn", map_, g) or g.channels <= (1 if map_ == "forward" else patches.FEW_CHANNELS):
        return False
    # Nothing else uses the processor's instructions for bfloat16.
    if jnp.dtype(dtype) == jnp.bfloat16:
        return True
    if map_ == "to_kernel":
        # One tile for the whole output, so nothing is copied.
        return math.prod(g.out) <= LIBRARY_TILE and NARROW < max(g.channels, g.features) <= LIBRARY_DENSE
    return max(g.channels, g.features) <= LIBRARY_WIDE


def fuses(geometry: Geometry, dtype: Any) -> bool:
    """Return whether oneDNN is fastest for a convolution together with its bias, residual sum and ReLU."""
    g = geometry
    if applies("onednn", "forward", g) and math.prod(g.window) == 1:
        return jnp.dtype(dtype) == jnp.bfloat16 or g.channels * g.features <= LIBRARY_POINTWISE
    return _suits_library("forward", g, dtype)


def check_form(form: str | None) -> None:
    """Raise if there is no such formulation."""
    if form not in (None, *FORMS):
        raise NetError(f"expects a form among {', '.join(FORMS)}, got {form!r}")


def match_varying(left: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cast two arrays inside `jax.shard_map` so that they vary over the same mesh axes."""
    axes = [_varying_axes(each) for each in (left, right)]
    # Each operand is cast to vary over the axes over which only the other one varies.
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
        y = lax.map(lambda n: compute(_chunk(x, n, chunks), kernel), jnp.arange(chunks))
        # (chunks, batch / chunks, ...) → (batch, ...)
        return y.reshape(-1, *y.shape[2:])

    return compute if chunks == 1 else computed


def _summed_by_chunks(compute: Bilinear, chunks: int) -> Bilinear:
    """Return a map that sums over the batch, computed in equal chunks."""

    def computed(x: jax.Array, dy: jax.Array) -> jax.Array:
        def of_chunk(n: Any) -> jax.Array:
            return compute(_chunk(x, n, chunks), _chunk(dy, n, chunks))

        total = jax.eval_shape(of_chunk, 0)
        # Inside `shard_map` the carry of a scan must vary over the same mesh axes as what is added to it.
        zeros, _ = match_varying(jnp.zeros(total.shape, total.dtype), x)
        return lax.fori_loop(0, chunks, lambda n, total: total + of_chunk(n), zeros)

    return compute if chunks == 1 else computed


def _chunk(x: jax.Array, n: Any, chunks: int) -> jax.Array:
    """Return one of equal chunks of a batch.

    Not by `x.reshape(chunks, ...)`: XLA would compute what makes `x` once more, in that shape.
    """
    size = x.shape[0] // chunks
    return lax.dynamic_slice_in_dim(x, n * size, size)


def _chunks(batch: int, bytes_per_example: int) -> int:
    """Return the number of equal chunks of a batch, each of which writes at most `CHUNK_BYTES`."""
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
