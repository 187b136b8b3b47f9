"""Convolution and its gradients as three primitives, each the transpose of the others.

⟨dy, conv(x, w)⟩ is linear in each of x, w and dy. Its gradient with respect to one of them is a bilinear map of the
other two: the output, of x and w; the input gradient, of dy and w; the kernel gradient, of x and dy. As primitives that
are each other's transposes, the three maps have derivatives of any order in forward and reverse mode; `jax.custom_vjp`
would rule out forward mode. When a map is lowered, the platform determines the formulation. The parameter `jaxpr` of
each primitive holds the equivalent plain operations, for code that analyzes programs.
"""

from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Primitive
from jax.interpreters import ad, batching, mlir

from jaxnets.ops.conv import native, onednn
from jaxnets.ops.conv.dispatch import Form, Map, formulation, match_varying
from jaxnets.ops.geometry import Geometry
from jaxnets.ops.plain import is_plain

MAPS: tuple[Map, ...] = ("forward", "to_input", "to_kernel")


def bind(map_: Map, left: jax.Array, right: jax.Array, geometry: Geometry, form: Form | None) -> jax.Array:
    """Compute one of the maps.

    Args:
        map_: "forward" of x and w, "to_input" of dy and w, or "to_kernel" of x and dy.
        left: the first operand. Both operands may have another leading axis, over independent pairs: the result of
            `vmap` over both.
        right: the second operand.
        geometry: the geometry of the convolution.
        form: the formulation on CPU; the fastest by measurement if `None`.
    """
    left, right = match_varying(left, right)
    if is_plain():
        return _elsewhere(map_, left, right, geometry=geometry, jaxpr=None)
    # The cache of jaxprs compares only shapes and dtypes.
    operands = ((x.shape, str(x.dtype)) for x in (left, right))
    jaxpr = _plain_jaxpr(map_, geometry, _stacked(left, geometry), *operands)
    return _primitives[map_].bind(left, right, geometry=geometry, form=form, jaxpr=jaxpr)


def _stacked(left: jax.Array, geometry: Geometry) -> bool:
    """Return whether an operand has an axis of independent pairs before the batch: `(pairs, batch, *spatial, c)`."""
    return left.ndim == len(geometry.window) + 3


@lru_cache(maxsize=4096)
def _plain_jaxpr(map_: Map, geometry: Geometry, stacked: bool, *operands: tuple[tuple[int, ...], str]) -> ClosedJaxpr:
    """Return the map as a jaxpr of plain operations."""
    plain: Any = partial(getattr(native, map_), geometry=geometry)
    return jax.make_jaxpr(jax.vmap(plain) if stacked else plain)(*(jax.ShapeDtypeStruct(*each) for each in operands))


def _abstract(left: Any, right: Any, *, geometry: Geometry, form: Form | None, jaxpr: ClosedJaxpr) -> Any:
    (out,) = jaxpr.out_avals
    # Updating an operand's aval keeps the mesh axes that it varies over; the rank is the same.
    return left.update(shape=out.shape, weak_type=False)


def _lower_on_cpu(
    map_: Map, context: mlir.LoweringRuleContext, *operands: Any, jaxpr: ClosedJaxpr, **params: Any
) -> Any:
    # Only here is it known what the program is for.
    library = onednn.is_usable(context.module_context, jaxpr.in_avals[0].dtype)
    return mlir.lower_fun(partial(_on_cpu, map_, library), multiple_results=False)(
        context, *operands, jaxpr=jaxpr, **params
    )


def _on_cpu(map_: Map, library: bool, left: jax.Array, right: jax.Array, *, geometry: Geometry, form: Any, **_) -> Any:
    stacked = _stacked(left, geometry)
    batch = left.shape[1 if stacked else 0]
    compute = formulation(map_, geometry, batch, left.dtype, form, library=library)
    # One pair after another: a batched product or convolution is 2 to 8 times slower on CPU.
    return lax.map(lambda pair: compute(*pair), (left, right)) if stacked else compute(left, right)


def _elsewhere(map_: Map, left: jax.Array, right: jax.Array, *, geometry: Geometry, jaxpr: Any, **_: Any) -> Any:
    plain = partial(getattr(native, map_), geometry=geometry)
    return (jax.vmap(plain) if _stacked(left, geometry) else plain)(left, right)


def _batched(map_: Map, operands: Any, axes: Any, *, geometry: Geometry, form: Form | None, jaxpr: Any) -> Any:
    """Batch a map: as a longer batch or more features where one operand is shared, otherwise as stacked pairs."""
    (left, right), (left_axis, right_axis) = operands, axes
    size: int = left.shape[left_axis] if left_axis is not None else right.shape[right_axis]
    # The rank without the new axis shows whether there is an axis of pairs already.
    already_stacked = right.ndim - (right_axis is not None) == len(geometry.window) + 3

    # A shared kernel: the new axis joins the batch, except in the kernel gradient, which sums over the batch.
    if left_axis is not None and right_axis is None and not already_stacked and map_ != "to_kernel":
        left = jnp.moveaxis(left, left_axis, 0)
        # (size, batch, ...) → (size · batch, ...)
        y = bind(map_, left.reshape(-1, *left.shape[2:]), right, geometry, form)
        return y.reshape(size, -1, *y.shape[1:]), 0

    # A shared input: the new axis joins the features, except in the input gradient, which sums over features.
    joins_features = map_ != "to_input" and geometry.groups == 1
    if left_axis is None and right_axis is not None and not already_stacked and joins_features:
        right = jnp.moveaxis(right, right_axis, -2)
        # (..., size, features) → (..., size · features)
        wide = replace(geometry, features=size * geometry.features)
        y = bind(map_, left, right.reshape(*right.shape[:-2], -1), wide, form)
        return y.reshape(*y.shape[:-1], size, geometry.features), y.ndim - 1

    # Otherwise, stack one pair for each element of the new axis; a shared operand is repeated.
    left, right = (
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in ((left, left_axis), (right, right_axis))
    )
    if not already_stacked:
        return bind(map_, left, right, geometry, form), 0
    # Merge the new axis with that of the pairs.
    left, right = (x.reshape(-1, *x.shape[2:]) for x in (left, right))
    y = bind(map_, left, right, geometry, form)
    return y.reshape(size, -1, *y.shape[1:]), 0


def _primitive(map_: Map) -> Primitive:
    primitive = Primitive(f"conv_{map_}")
    # Evaluation outside of jit, which happens only under `jax.disable_jit`, as `conv` is jitted.
    primitive.def_impl(partial(_elsewhere, map_))
    primitive.def_abstract_eval(_abstract)
    batching.primitive_batchers[primitive] = partial(_batched, map_)
    mlir.register_lowering(primitive, mlir.lower_fun(partial(_elsewhere, map_), multiple_results=False))
    mlir.register_lowering(primitive, partial(_lower_on_cpu, map_), platform="cpu")
    return primitive


_primitives = {map_: _primitive(map_) for map_ in MAPS}

# The transposes of each map with respect to its two operands, given the cotangent `ct` and the other operand.
ad.defbilinear(
    _primitives["forward"],
    lambda ct, x, kernel, *, geometry, form, jaxpr: bind("to_input", ct, kernel, geometry, form),
    lambda ct, x, kernel, *, geometry, form, jaxpr: bind("to_kernel", x, ct, geometry, form),
)
ad.defbilinear(
    _primitives["to_input"],
    lambda ct, dy, kernel, *, geometry, form, jaxpr: bind("forward", ct, kernel, geometry, form),
    lambda ct, dy, kernel, *, geometry, form, jaxpr: bind("to_kernel", ct, dy, geometry, form),
)
ad.defbilinear(
    _primitives["to_kernel"],
    lambda ct, x, dy, *, geometry, form, jaxpr: bind("to_input", dy, ct, geometry, form),
    lambda ct, x, dy, *, geometry, form, jaxpr: bind("forward", x, ct, geometry, form),
)
