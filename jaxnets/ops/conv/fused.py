"""Convolution, bias, residual sum and ReLU in one operation, for networks that are evaluated and not trained.

On a CPU, oneDNN computes them in one pass over the output. XLA cannot merge an elementwise operation with a convolution
or a matrix product, and so reads and writes the output once more. oneDNN's ReLU makes 0 of a NaN; `fold_batch_norm`,
which uses this operation, sees to it that none is lost.
"""

from functools import partial
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxnets.ops.conv import dispatch, onednn
from jaxnets.ops.conv.forward import conv
from jaxnets.ops.geometry import Geometry
from jaxnets.ops.plain import is_plain


def conv_fused(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, residual: jax.Array | None, geometry: Geometry, *, relu: bool
) -> jax.Array:
    """Return σ(conv(x, kernel) + bias + residual), where σ is ReLU or the identity.

    Args:
        x: `(batch, *spatial, channels)`, floating; the other arrays have the same dtype.
        kernel: `(*window, channels / groups, features)`.
        bias: `(features,)`.
        residual: `(batch, *out, features)`, or `None`.
        geometry: of the convolution.
        relu: whether σ is ReLU.

    >>> import jax.numpy as jnp
    >>> geometry = Geometry((3,), (3,), 1, 1, (1,), ((1, 1),), (1,))
    >>> x, kernel, bias = jnp.array([[[1.0], [2.0], [-9.0]]]), jnp.ones((3, 1, 1)), jnp.ones(1)
    >>> print(conv_fused(x, kernel, bias, None, geometry, relu=True).ravel())
    [4. 0. 0.]
    """
    operands = (x, kernel, bias) if residual is None else (x, kernel, bias, residual)
    if is_plain():
        return in_steps(*operands, geometry=geometry, relu=relu)
    jaxpr = jax.make_jaxpr(partial(in_steps, geometry=geometry, relu=relu))(*operands)
    return _primitive.bind(*operands, geometry=geometry, relu=relu, jaxpr=jaxpr)


def in_steps(*operands: jax.Array, geometry: Geometry, relu: bool, **_: Any) -> jax.Array:
    """Compute one operation after another."""
    x, kernel, bias, *residual = operands
    g = geometry
    y = conv(x, kernel, g.stride, g.padding, g.dilation, g.groups)
    return onednn.finished(y, bias, *residual, relu=relu)


def by_onednn(*operands: jax.Array, geometry: Geometry, relu: bool, **_: Any) -> jax.Array:
    """Compute everything by one call of oneDNN."""
    x, kernel, *rest = operands
    g = geometry
    return onednn.convolve(x, kernel, g.stride, g.padding, g.dilation, *rest, relu=relu)


def _abstract(x: Any, *_: Any, jaxpr: Any, **__: Any) -> Any:
    # Updating an operand's aval keeps the mesh axes that it varies over; the rank is the same.
    return x.update(shape=jaxpr.out_avals[0].shape, weak_type=False)


def _lower_on_cpu(context: mlir.LoweringRuleContext, *operands: Any, **params: Any) -> Any:
    x: Any = context.avals_in[0]
    usable = onednn.is_usable(context.module_context, x.dtype)
    compute = by_onednn if usable and dispatch.fuses(params["geometry"], x.dtype) else in_steps
    return mlir.lower_fun(compute, multiple_results=False)(context, *operands, **params)


def _jvp(primals: Any, tangents: Any, **params: Any) -> Any:
    return jax.jvp(partial(in_steps, **params), primals, tuple(map(ad.instantiate_zeros, tangents)))


def _batched(operands: Any, axes: Any, **params: Any) -> Any:
    return jax.vmap(partial(in_steps, **params), axes)(*operands), 0


_primitive = Primitive("conv_fused")
_primitive.def_impl(in_steps)
_primitive.def_abstract_eval(_abstract)
ad.primitive_jvps[_primitive] = _jvp
batching.primitive_batchers[_primitive] = _batched
mlir.register_lowering(_primitive, mlir.lower_fun(in_steps, multiple_results=False))
mlir.register_lowering(_primitive, _lower_on_cpu, platform="cpu")
