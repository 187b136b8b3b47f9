"""Which formulation of a convolution is fast on a CPU: a small table, from measurements.

`python -m experiments.benchmarks.convolutions` measures them all again.
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
from jaxnets.ops.conv.varying import alike
from jaxnets.ops.geometry import Geometry

Form = Literal["native", "eigen", "patches", "shifts", "depthwise", "groups"]
Map = Literal["forward", "to_input", "to_kernel"]  # x, w → y; dy, w → dx; x, dy → dw

COLUMNS = 24
"""How many columns a matrix should have for a product of full speed."""

FEW = 8
"""Up to how many channels patches are always cut: with so few, XLA's own convolution is slow."""

NARROW = 16
"""Up to how many channels of what is made XLA's own convolution is the faster one as it is."""

WIDE, SMALL = 256, 16
"""From how many channels shifts are no faster any more; up to how many places patches are faster then."""

TAPS = 64
"""Up to how many elements a depthwise kernel is a sum over them: compile time grows with their number."""

PIECE = 8 * 2**20
"""Bytes of patches up to which a batch is computed whole; beyond it in pieces, one after another."""

Bilinear = Callable[[jax.Array, jax.Array], jax.Array]


def formulation(map_: Map, geometry: Geometry, batch: int, itemsize: int, form: Form | None = None) -> Bilinear:
    """Return the function that computes one of the three maps on a CPU; `form` overrides the choice."""
    g, name = geometry, form or choose(map_, geometry, itemsize)
    if not applies(name, map_, g):
        raise NetError(f"expects a convolution that the form {name!r} can compute, got {g}")
    if name in ("native", "depthwise"):
        return partial(getattr(native if name == "native" else depthwise, map_), geometry=g)
    if name == "groups":
        each = formulation(map_, groups.one(g), batch, itemsize)
        return partial(getattr(groups, map_), geometry=g, compute=each)
    module: Any = {"patches": patches, "shifts": shifts, "eigen": eigen}[name]
    settings = {"block": block(g)} if name == "patches" else {}
    if name == "patches" and map_ == "to_input":
        if g.gathered:
            return partial(patches.to_input, geometry=g, **settings)
        return in_pieces(partial(phases.to_input, geometry=g), _pieces(batch, phases.written(g) * itemsize))
    other = g.turned() if map_ == "to_input" else g
    pieces = 1 if name == "eigen" else _pieces(batch, module.written(other, **settings) * itemsize)
    if map_ == "to_kernel":
        return in_pieces_added(partial(module.to_kernel, geometry=g, **settings), pieces)
    compute = partial(module.forward, geometry=other, **settings)
    # With a window at every place, the gradient by the input is such a convolution itself.
    return in_pieces((lambda dy, w: compute(dy, turn(w))) if map_ == "to_input" else compute, pieces)


def applies(form: Form, map_: Map, geometry: Geometry) -> bool:
    """Tell whether a formulation can compute one of the three maps."""
    g = geometry
    if form == "eigen":
        return eigen.suits(g.turned() if map_ == "to_input" and g.gathered else g)
    return {
        "native": True,
        "patches": g.groups == 1,
        "shifts": g.gathered,
        "depthwise": g.groups == g.channels,
        "groups": g.groups > 1,
    }[form]


def choose(map_: Map, geometry: Geometry, itemsize: int = 4) -> Form:
    """Return the name of the formulation that was fastest for such shapes, and numbers of so many bytes."""
    g = geometry
    if g.groups > 1:
        return "depthwise" if g.groups == g.channels and math.prod(g.window) <= TAPS else "groups"
    if g.channels <= FEW or not g.gathered:
        return "patches"
    if min(g.channels, g.features) >= WIDE:
        return "patches" if math.prod(g.out) <= SMALL else "native"
    made = g.channels if map_ == "to_input" else g.features
    if made <= NARROW:
        return "shifts" if map_ == "to_kernel" and g.channels <= NARROW else "native"
    return "eigen" if itemsize == 4 and applies("eigen", map_, g) else "shifts"


def block(geometry: Geometry) -> int:
    """Return for how many places one patch serves: with few channels two, or as many as give `COLUMNS`."""
    g = geometry
    if g.channels > FEW:
        return 1
    fit = [b for b in range(1, g.out[-1] + 1) if g.out[-1] % b == 0 and (b - 1) * g.stride[-1] < g.reach[-1]]
    return next((b for b in fit if b > 1 and b * g.features >= COLUMNS), fit[-1])


def turn(kernel: jax.Array) -> jax.Array:
    """Return the kernel of the gradient by the input: turned round, channels and features exchanged."""
    return jnp.swapaxes(jnp.flip(kernel, range(kernel.ndim - 2)), -2, -1)


def check_form(form: str | None) -> None:
    """Raise if there is no such formulation."""
    if form not in (None, *get_args(Form)):
        raise NetError(f"expects a form among {', '.join(get_args(Form))}, got {form!r}")


def in_pieces(compute: Bilinear, pieces: int) -> Bilinear:
    """Return a bilinear map of x and w that takes the batch in equal pieces, one after another."""

    def computed(x: jax.Array, kernel: jax.Array) -> jax.Array:
        y = lax.map(lambda part: compute(part, kernel), x.reshape(pieces, -1, *x.shape[1:]))
        return y.reshape(-1, *y.shape[2:])

    return compute if pieces == 1 else computed


def in_pieces_added(compute: Bilinear, pieces: int) -> Bilinear:
    """Return a bilinear map that sums over the batch, and takes it in equal pieces."""

    def computed(x: jax.Array, dy: jax.Array) -> jax.Array:
        parts = tuple(each.reshape(pieces, -1, *each.shape[1:]) for each in (x, dy))
        made = jax.eval_shape(compute, *(part[0] for part in parts))
        zeros, _ = alike(jnp.zeros(made.shape, made.dtype), x)
        return lax.scan(lambda total, each: (total + compute(*each), None), zeros, parts)[0]

    return compute if pieces == 1 else computed


def _pieces(batch: int, written: int) -> int:
    """Return into how many equal pieces a batch is cut, with so many bytes written for each example."""
    if not isinstance(batch, int):  # a symbol, in a program that is exported for any batch
        return 1
    cuts = (n for n in range(1, batch + 1) if batch % n == 0 and (batch // n * written <= PIECE or n == batch))
    return next(cuts, 1)
