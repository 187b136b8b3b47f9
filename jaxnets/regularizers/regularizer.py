"""The record `Regularizer`, and helpers to build one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError, check_positive, concrete, labeled_as
from jaxnets.core.paths import Pattern


@dataclass(frozen=True, eq=False, repr=False)
class Regularizer:
    """A term that an objective adds to the loss.

    Attributes:
        function: `params -> scalar`, or `outputs -> (batch,)`; the latter is averaged like the loss.
        name: the name under which its value is reported.
        of: the argument of the function, "params" or "outputs".
        label: how it was written, `l2(0.0001, on='**/kernel')`.

    >>> import jax.numpy as jnp
    >>> Regularizer(lambda params: params["bias"].sum(), "bias_sum")({"bias": jnp.ones(3)}).item()
    3.0
    """

    function: Callable[[Any], jax.Array]
    name: str
    of: Literal["params", "outputs"] = "params"
    label: str = ""

    def __call__(self, x: Any) -> jax.Array:
        """Return the penalty on parameters or outputs."""
        with labeled_as(self.label or self.name):
            return self.function(x)

    def __repr__(self) -> str:
        return self.label or self.name


def describe(name: str, numbers: Mapping[str, Any], on: Pattern | None = None) -> str:
    """Return how a regularizer was written: `l2(0.0001, on='**/kernel')`."""
    shown = {key: "traced" if (value := concrete(number)) is None else f"{value:g}" for key, number in numbers.items()}
    written = [text if len(shown) == 1 else f"{key}={text}" for key, text in shown.items()]
    return f"{name}({', '.join(written + ([] if on is None else [f'on={on!r}']))})"


def make_regularizer(
    name: str,
    strengths: Mapping[str, Any],
    function: Callable[[Any], jax.Array],
    of: Literal["params", "outputs"],
    on: Pattern | None = None,
) -> Regularizer:
    """Make a regularizer after checking its strengths.

    Raises:
        NetError: if a known strength is negative.
    """
    with labeled_as(name):
        for key, strength in strengths.items():
            check_positive(key, strength, zero=True)
    return Regularizer(function, name, of, describe(name, strengths, on))


def scale(strength: Any, value: jax.Array) -> jax.Array:
    """Return strength · value in the dtype of the value; the strength may be traced."""
    return jnp.asarray(strength, value.dtype) * value


def axes_within(x: jax.Array, axis: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes within a group: all except `axis`, which enumerates the groups.

    Raises:
        NetError: if the array lacks one of the axes in `axis`.
    """
    enumerating = (axis,) if isinstance(axis, int) else axis
    if any(not -x.ndim <= a < x.ndim for a in enumerating):
        raise NetError(
            f"expects parameters with axis {axis}, which enumerates the groups, got {x.shape}; choose parameters by on="
        )
    return tuple(a for a in range(x.ndim) if a not in {b % x.ndim for b in enumerating})


def norm(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Return the Euclidean norm along axes, which remain with length 1. Its gradient at 0 is 0, not NaN."""
    square = jnp.square(x).sum(axis=axes, keepdims=True)
    # The inner `where` keeps √0, whose derivative is infinite, out of the gradient.
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
