"""Tracing with standard operations of JAX alone, for tools that read programs."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

# Part of the key under which `jax.jit` keeps what it traced and compiled.
_only_standard: Any = jax.make_user_context(False)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Trace convolutions as `lax.conv_general_dilated`, and pooling as `lax.reduce_window`, inside a `with` block.

    Elsewhere a convolution is a primitive of this library, whose formulation is chosen when the program is lowered for
    its platform, a 1×1 convolution is a matrix product, and pooling reads slices of its input. Tools that read a jaxpr,
    such as converters to other formats, quantizers and curvature libraries, know none of these or would rather have the
    whole. Values and derivatives agree up to rounding; on a CPU the program is slower. Functions that were traced
    outside the block are traced again inside.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, x = jn.conv(4, 3), jnp.ones((1, 8, 8, 3))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> with jn.ops.plain():
    ...     program = jax.make_jaxpr(lambda x: net.apply(params, state, x)[0])(x)
    >>> "conv_general_dilated" in str(program), "conv_forward" in str(program)
    (True, False)
    """
    with _only_standard(True):
        yield


def is_plain() -> bool:
    """Tell whether the code runs inside `plain`."""
    return _only_standard.value
