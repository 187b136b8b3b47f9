"""Convolution and its gradients as three primitives, each the transpose of the others.

⟨dy, conv(x, w)⟩ is linear in x, in w and in dy. Left open in one of them, it is one of three bilinear maps: the output
of x and w, the gradient by the input of dy and w, the gradient by the kernel of x and dy. So three primitives that know
each other give every derivative, forward and reverse, as often as one likes; `jax.custom_vjp` would forbid forward
mode. What is computed for a map is chosen when it is lowered, by platform. Each carries the plain operations that it
stands for as its parameter `jaxpr`, for those who read programs.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Primitive
from jax.interpreters import ad, batching, mlir

from jaxnets.ops.conv import native
from jaxnets.ops.conv.dispatch import Form, Map, formulation
from jaxnets.ops.conv.varying import alike
from jaxnets.ops.geometry import Geometry

MAPS: tuple[Map, ...] = ("forward", "to_input", "to_kernel")


def bind(map_: Map, left: jax.Array, right: jax.Array, geometry: Geometry, form: Form | None) -> jax.Array:
    """Compute one of the maps.

    Args:
        map_: "forward" of x and w, "to_input" of dy and w, or "to_kernel" of x and dy.
        left: the first operand; with a member axis before the batch, both have one.
        right: the second operand.
        geometry: of the convolution.
        form: the formulation on CPU; the fastest by measurement if `None`.
    """
    left, right = alike(left, right)
    members = left.ndim == len(geometry.window) + 3
    jaxpr = _meaning(map_, geometry, members, *((x.shape, str(x.dtype)) for x in (left, right)))
    return _primitives[map_].bind(left, right, geometry=geometry, form=form, jaxpr=jaxpr)


@lru_cache(maxsize=4096)
def _meaning(map_: Map, geometry: Geometry, members: bool, *operands: tuple[tuple[int, ...], str]) -> ClosedJaxpr:
    """Return the map in plain operations."""
    plain: Any = partial(getattr(native, map_), geometry=geometry)
    return jax.make_jaxpr(jax.vmap(plain) if members else plain)(*(jax.ShapeDtypeStruct(*each) for each in operands))


def _abstract(left: Any, right: Any, *, geometry: Geometry, form: Form | None, jaxpr: ClosedJaxpr) -> Any:
    (out,) = jaxpr.out_avals
    return left.update(shape=out.shape, weak_type=False)  # of the same rank, and varying over the same devices


def _on_cpu(map_: Map, left: jax.Array, right: jax.Array, *, geometry: Geometry, form: Form | None, jaxpr: Any) -> Any:
    members = left.ndim == len(geometry.window) + 3
    batch, itemsize = left.shape[1 if members else 0], left.dtype.itemsize
    computed = formulation(map_, geometry, batch, itemsize, form)
    # One after another: a batched product or convolution is 2 to 8 times slower there.
    return lax.map(lambda pair: computed(*pair), (left, right)) if members else computed(left, right)


def _elsewhere(map_: Map, left: jax.Array, right: jax.Array, *, geometry: Geometry, jaxpr: Any, **_: Any) -> Any:
    plain = partial(getattr(native, map_), geometry=geometry)
    return (jax.vmap(plain) if left.ndim == len(geometry.window) + 3 else plain)(left, right)


def _batched(map_: Map, operands: Any, axes: Any, *, geometry: Geometry, form: Form | None, jaxpr: Any) -> Any:
    """Compute many at once: as a longer batch or more features where an operand is the same, else as members."""
    (left, right), (left_axis, right_axis) = operands, axes
    size: int = left.shape[left_axis] if left_axis is not None else right.shape[right_axis]
    nested = right.ndim - (right_axis is not None) == len(geometry.window) + 3  # there are members already
    if left_axis is not None and right_axis is None and not nested and map_ != "to_kernel":  # a batch of batches
        left = jnp.moveaxis(left, left_axis, 0)
        y = bind(map_, left.reshape(-1, *left.shape[2:]), right, geometry, form)
        return y.reshape(size, -1, *y.shape[1:]), 0
    folds = map_ != "to_input" and geometry.groups == 1
    if left_axis is None and right_axis is not None and not nested and folds:  # more features
        right = jnp.moveaxis(right, right_axis, -2)
        wide = replace(geometry, features=size * geometry.features)
        y = bind(map_, left, right.reshape(*right.shape[:-2], -1), wide, form)
        return y.reshape(*y.shape[:-1], size, geometry.features), y.ndim - 1
    moved = [
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in ((left, left_axis), (right, right_axis))
    ]
    if not nested:
        return bind(map_, moved[0], moved[1], geometry, form), 0
    left, right = (x.reshape(-1, *x.shape[2:]) for x in moved)
    y = bind(map_, left, right, geometry, form)
    return y.reshape(size, -1, *y.shape[1:]), 0


def _primitive(map_: Map) -> Primitive:
    primitive = Primitive(f"conv_{map_}")
    primitive.def_impl(partial(_elsewhere, map_))  # outside jit; `conv` is jitted, so only under `jax.disable_jit`
    primitive.def_abstract_eval(_abstract)
    batching.primitive_batchers[primitive] = partial(_batched, map_)
    mlir.register_lowering(primitive, mlir.lower_fun(partial(_elsewhere, map_), multiple_results=False))
    mlir.register_lowering(primitive, mlir.lower_fun(partial(_on_cpu, map_), multiple_results=False), platform="cpu")
    return primitive


_primitives = {map_: _primitive(map_) for map_ in MAPS}


def _transposes(map_: Map, by_left: Callable[..., Any], by_right: Callable[..., Any]) -> None:
    """Declare a map bilinear, with its transposes: `(cotangent, other operand, geometry, form)`."""
    ad.defbilinear(
        _primitives[map_],
        lambda ct, _, right, *, geometry, form, jaxpr: by_left(ct, right, geometry, form),
        lambda ct, left, _, *, geometry, form, jaxpr: by_right(ct, left, geometry, form),
    )


_transposes(
    "forward",
    lambda dy, kernel, geometry, form: bind("to_input", dy, kernel, geometry, form),
    lambda dy, x, geometry, form: bind("to_kernel", x, dy, geometry, form),
)
_transposes(
    "to_input",
    lambda x, kernel, geometry, form: bind("forward", x, kernel, geometry, form),
    lambda x, dy, geometry, form: bind("to_kernel", x, dy, geometry, form),
)
_transposes(
    "to_kernel",
    lambda kernel, dy, geometry, form: bind("to_input", dy, kernel, geometry, form),
    lambda kernel, x, geometry, form: bind("forward", x, kernel, geometry, form),
)
