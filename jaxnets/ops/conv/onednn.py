"""2-D convolution and its gradients by oneDNN, the library behind PyTorch's, which jaxlib's CPU wheel contains.

XLA on CPU executes the custom call "__onednn$convolution" whoever writes it. No JAX operation does, so this module
writes it. All three maps of a convolution are forward convolutions: the input gradient of the flipped kernel, phase by
phase where there is a stride, and the kernel gradient of tiles of the output, whose positions act as a kernel's.

The call is a private contract of each version of jaxlib: what it does not know may end the process. So it is written
only where `is_usable` says so, and only for shapes for which `applies` does.
"""

import functools
import itertools
import json
import os
import platform
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
from jax import lax
from jax.interpreters import mlir

from jaxnets.ops.conv.phases import taps_of_phases
from jaxnets.ops.geometry import Geometry, Pairs, Sizes, padded

PROVED = frozenset({"0.10.0", "0.10.2", "0.12.0.1"})
"""Versions of jaxlib that `tests/ops/test_onednn.py` was run with."""

NEEDS = {"float32": "avx2", "bfloat16": "avx512_bf16"}
"""For each dtype, the feature of the processor, as Linux names it, with which the call was proved."""

TILE = 8
"""Positions along each side of a tile in the kernel gradient, at most, where they divide the output."""


def is_usable(context: mlir.ModuleContext, dtype: Any) -> bool:
    """Return whether a program that is being lowered may contain the call for operands of a dtype.

    Its machine must be one for which the call was proved. The call cannot be exported, is not partitioned by automatic
    sharding, and is not written to the persistent compilation cache.
    """
    if jaxlib.version.__version__ not in PROVED or os.environ.get("JAXNETS_ONEDNN", "1") == "0":
        return False
    config: Any = jax.config
    cached = bool(config.jax_enable_compilation_cache and config.jax_compilation_cache_dir)
    if cached or context.lowering_parameters.for_export or not _runs_per_device(context.axis_context):
        return False
    return NEEDS.get(jnp.dtype(dtype).name) in _processor_features()


@functools.cache
def _processor_features() -> frozenset[str]:
    """Return the features of an x86-64 processor on Linux; none elsewhere."""
    information = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not information.is_file():
        return frozenset()
    lines = (line.partition(":") for line in information.read_text().splitlines())
    return next((frozenset(value.split()) for name, _, value in lines if name.strip() == "flags"), frozenset())


def _runs_per_device(axes: Any) -> bool:
    """Tell whether each device runs the program on arrays of its own: there is one, or `shard_map` is manual."""
    # Lowered under `jit`: the number of devices; inside `shard_map`: the mesh and its manual axes.
    if hasattr(axes, "num_devices"):
        return axes.num_devices in (None, 1)
    return frozenset(axes.mesh.axis_names) == frozenset(axes.manual_axes)


def applies(map_: str, geometry: Geometry) -> bool:
    """Return whether oneDNN has a fast routine for a convolution and its gradients."""
    return len(geometry.window) == 2 and geometry.groups == 1


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return y, `(batch, *out, features)`."""
    return convolve(x, kernel, geometry.stride, geometry.padding, geometry.dilation)


def to_input(dy: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the input gradient, `(batch, *spatial, channels)`.

    dx[i] = Σ_j dy[(i + low − j · dilation) / stride] w[j], over the j for which the division is exact. For
    i = stride · q + r these j are the same for all q: each phase r is a convolution of `dy` with some of the kernel.
    """
    g = geometry
    # Exchange features and channels.
    kernel = jnp.swapaxes(kernel, -2, -1)
    sizes = [-(-n // s) for n, s in zip(g.spatial, g.stride)]
    phases = []
    for axes in itertools.product(*taps_of_phases(g)):
        if not all(axes):
            phases.append(jnp.zeros((dy.shape[0], *sizes, g.channels), dy.dtype))
            continue
        # In order of the offset: the elements of the window descend.
        elements = [[j for j, _ in reversed(taps)] for taps in axes]
        offsets = [[offset for _, offset in reversed(taps)] for taps in axes]
        part = kernel
        for axis, chosen in enumerate(elements):
            step = chosen[0] - chosen[1] if len(chosen) > 1 else 1
            part = lax.rev(lax.slice_in_dim(part, chosen[-1], chosen[0] + 1, step, axis), (axis,))
        dilation = tuple(each[1] - each[0] if len(each) > 1 else 1 for each in offsets)
        # From the first offset of q = 0 to the last of the last q.
        padding = [(-each[0], q - 1 + each[-1] - (n - 1)) for each, q, n in zip(offsets, sizes, g.out)]
        # oneDNN takes no negative padding: it is cropped here.
        crops = [(min(low, 0), min(high, 0), 0) for low, high in padding]
        cropped = lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), *crops, (0, 0, 0)])
        padding = tuple((max(low, 0), max(high, 0)) for low, high in padding)
        phases.append(convolve(cropped, part, (1, 1), padding, dilation))
    if len(phases) == 1:
        return phases[0]
    # (phases of rows, phases of columns, batch, rows, columns, channels) → (batch, rows, columns, channels)
    dx = jnp.stack(phases).reshape(*g.stride, dy.shape[0], *sizes, g.channels).transpose(2, 3, 0, 4, 1, 5)
    dx = dx.reshape(dy.shape[0], *(q * s for q, s in zip(sizes, g.stride)), g.channels)
    # q · stride may exceed the size of the input.
    return dx[:, : g.spatial[0], : g.spatial[1]]


def to_kernel(x: jax.Array, dy: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the kernel gradient, `(*window, channels, features)`.

    dw[j, c, o] = Σ_{n, i} x[n, i · stride + j · dilation − padding, c] dy[n, i, o]: a convolution whose batch are the
    channels, whose channels are the batch, and whose window are all positions i. A window that large is slow, so the
    positions are cut into tiles, which join the batch n, each with the part of the input that it sees.
    """
    g, tile = geometry, tuple(map(_tile, geometry.out))
    whole, counts = tile == g.out, [n // t for n, t in zip(g.out, tile)]
    if not whole:
        x = padded(x, g)
        # What one tile sees along each axis.
        seen = [(t - 1) * s + reach for t, s, reach in zip(tile, g.stride, g.reach)]
        for axis, (count, size) in enumerate(zip(counts, seen)):
            # (batch, [tiles of rows, rows], …) → the new axis of tiles stands before the axis it was cut from.
            along, step = 1 + 2 * axis, tile[axis] * g.stride[axis]
            parts = [lax.slice_in_dim(x, n * step, n * step + size, axis=along) for n in range(count)]
            x = jnp.stack(parts, along)
        # (batch, rows of tiles, rows, columns of tiles, columns, channels) → (channels, rows, columns, tiles)
        x = x.transpose(5, 2, 4, 0, 1, 3).reshape(g.channels, *seen, -1)
        dy = dy.reshape(dy.shape[0], counts[0], tile[0], counts[1], tile[1], g.features)
        # (rows, columns, tiles, features)
        dy = dy.transpose(2, 4, 0, 1, 3, 5).reshape(*tile, -1, g.features)
        padding: Pairs = ((0, 0), (0, 0))
    else:
        # (channels, rows, columns, batch) and (rows, columns, batch, features)
        x, dy, padding = jnp.moveaxis(x, (0, -1), (-1, 0)), jnp.moveaxis(dy, 0, -2), g.padding
    dkernel = convolve(x, dy, g.dilation, padding, g.stride)
    # Windows that end before the array does: what the rest would be the gradient of does not exist.
    dkernel = dkernel[:, : g.window[0], : g.window[1]]
    # (channels, *window, features) → (*window, channels, features)
    return jnp.moveaxis(dkernel, 0, -2)


def _tile(size: int) -> int:
    """Return the largest divisor of an output's size that is at most `TILE`; the size itself if it has only small."""
    fits = next(t for t in range(min(size, TILE), 0, -1) if size % t == 0)
    return fits if fits >= TILE // 2 else size


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    stride: Sizes,
    padding: Any,
    dilation: Sizes,
    bias: jax.Array | None = None,
    residual: jax.Array | None = None,
    *,
    relu: bool = False,
) -> jax.Array:
    """Convolve `(batch, rows, columns, channels)` with `(*window, channels, features)`; no padding is negative.

    The same pass over the output adds `bias` and `residual`, and takes the positive part if `relu`.
    """
    reach = [d * (w - 1) + 1 for w, d in zip(kernel.shape, dilation)]
    out = [(n + sum(pair) - r) // s + 1 for n, pair, r, s in zip(x.shape[1:], padding, reach, stride)]
    y = jax.ShapeDtypeStruct((x.shape[0], *out, kernel.shape[-1]), x.dtype)
    # Arrays without elements need no library.
    if 0 in (*x.shape, *kernel.shape):
        return finished(jnp.zeros(y.shape, y.dtype), bias, residual, relu=relu)
    array = {"dims": "4", "data": {"batch_dim": "0", "feature_dim": "3", "spatial_dims": ["1", "2"]}}
    axes = {"input_feature_dim": "2", "output_feature_dim": "3", "spatial_dims": ["0", "1"]}
    config = {
        "dims": "4",
        "feature_groups": "1",
        "input": array,
        "output": array,
        "kernel": {"dims": "4", "filter": axes},
        "window": {
            "pad_left": [str(low) for low, _ in padding],
            "pad_right": [str(high) for _, high in padding],
            "strides": [str(each) for each in stride],
            "window_dilations": [str(each) for each in dilation],
        },
    }
    # What is done with each element of the output, in this order; the operands are in the order of their operations.
    operations = {"BIAS": bias is not None, "BINARY_ADD": residual is not None, "RELU": relu}
    if any(operations.values()):
        config["fusions"] = {"ops": [name for name, wanted in operations.items() if wanted]}
        config["optimization_config"] = {"bias_broadcast": True}
    return jax.ffi.ffi_call(
        "__onednn$convolution",
        y,
        custom_call_api_version=2,
        legacy_backend_config=json.dumps({"onednn_conv_config": config}),
    )(x, kernel, *(each for each in (bias, residual) if each is not None))


def finished(
    y: jax.Array, bias: jax.Array | None = None, residual: jax.Array | None = None, *, relu: bool = False
) -> jax.Array:
    """Add the bias and the residual to the output of a convolution, and take the positive part if `relu`."""
    y = y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)
    y = y if residual is None else y + residual
    return jax.nn.relu(y) if relu else y
