"""The objective of training: a loss averaged over examples, plus regularizers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets import losses
from jaxnets.core.checks import name_of
from jaxnets.core.equality import Ingredients
from jaxnets.core.errors import NetError, is_traced, labeled_as, shown
from jaxnets.core.foreign import library
from jaxnets.core.keywords import explained
from jaxnets.losses.masking import check_by_example, masked_rows, weighted_mean
from jaxnets.regularizers import Regularizer

Loss = Callable[[Any, Any], jax.Array]


@dataclass(frozen=True, eq=False, repr=False)
class Objective:
    """A loss and regularizers, called as `(params, outputs, targets, weights=None) -> (scalar, parts)`.

    `objective` makes it. Objectives of the same loss and regularizers are equal, so that what is compiled for one is
    reused for the other.

    Attributes:
        loss: `(outputs, targets) -> (batch,)`.
        regularizers: the regularizers that are added to its mean.
        names: the names under which the parts are reported, the loss's first.
    """

    loss: Loss
    regularizers: tuple[Regularizer, ...]
    names: tuple[str, ...]

    @cached_property
    def ingredients(self) -> Ingredients:
        """The key by which objectives are compared."""
        return Ingredients(self.loss, self.regularizers, self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Objective) and self.ingredients == other.ingredients

    def __hash__(self) -> int:
        return hash(self.ingredients)

    def __call__(
        self, params: Any, outputs: Any, targets: Any, weights: Any = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the objective for a batch, and its parts by name.

        Args:
            params: the network's parameters.
            outputs: its outputs, an array or a pytree of arrays with the batch axis first.
            targets: the targets, in the same form.
            weights: `(batch,)`, ≥ 0; by default all 1. A traced negative one makes the result NaN.

        Raises:
            NetError: for weights of another shape, negative ones, outputs and targets of different batch sizes, a loss
                that does not return one value per example, or a regularizer of parameters that does not return a
                scalar.
        """
        with labeled_as("objective"):
            outputs, targets, weights = masked_rows(outputs, targets, weights)

        def mean(name: str, values: jax.Array) -> jax.Array:
            with labeled_as("objective"):
                check_by_example(name, values, outputs)
                if not jnp.issubdtype(jnp.result_type(values), jnp.floating):
                    hint = "counts have no gradient; report them as a metric, jn.metrics.mean(function)"
                    raise NetError(f"expects {name} to return real numbers, got {jnp.result_type(values)}; {hint}")
            return values.mean() if weights is None else weighted_mean(values, weights)

        data = mean(self.names[0], self.loss(outputs, targets))
        parts = {self.names[0]: data}
        for name, regularizer in zip(self.names[1:], self.regularizers, strict=True):
            part = regularizer(params if regularizer.of == "params" else outputs)
            if regularizer.of == "outputs":
                part = mean(name, part)
            elif np.shape(part):
                raise NetError(f"expects {name} to return a scalar, got {np.shape(part)}", label="objective")
            parts[name] = jnp.asarray(part, data.dtype)  # regularizers follow the precision of the loss
        return sum(parts.values(), start=jnp.zeros((), data.dtype)), parts

    def __repr__(self) -> str:
        return f"objective({', '.join([_written(self.loss), *map(repr, self.regularizers)])})"


@explained
def objective(loss: Loss, *regularizers: Regularizer | Callable[[Any], jax.Array]) -> Objective:
    """Compose a loss and regularizers into the objective Σ_i w_i l_i / Σ_i w_i + Σ_j r_j.

    Example weights mask the rows that fill up a batch: a row of weight 0 contributes nothing to value or gradient,
    even if it holds NaN or a label out of range, so a mean over data of any size is exact. To this end, such rows are
    replaced before they reach the loss, outputs by zeros and targets by another row's, and no gradient flows back to
    them. One gap remains: if the loss of zeros is not finite, derivatives with respect to what the loss itself holds,
    such as a traced option, are not finite either. With all weights 0 the mean is 0, and with a traced negative one it
    is NaN. Non-finite *inputs* of such a row must be replaced before the network, in whose derivatives 0 · ∞ is NaN;
    `jn.train` does so.

    Args:
        loss: `(outputs, targets) -> (batch,)`, one of `jn.losses`, a `functools.partial` of one, or a custom function.
        *regularizers: regularizers of `jn.regularizers`, or callables `params -> scalar`. Those of outputs are averaged
            with the same weights.

    Returns:
        `(params, outputs, targets, weights=None) -> (scalar, parts)`. `parts` has each term by name, a scalar: the
        loss under its function's name, a regularizer under its own, a second one of the same name as `l2_2`. The name
        `loss` is reserved for the sum: a function of this name, or a `lambda`, is reported as `data`.

    Raises:
        NetError: if the loss or a regularizer can't be called, or if they are swapped.

    >>> import jax.numpy as jnp, jaxnets as jn
    >>> total = objective(jn.losses.squared_error, jn.regularizers.l2(0.5, on="**"))
    >>> total
    objective(squared_error, l2(0.5, on='**'))
    >>> value, parts = total({"w": jnp.array([2.0])}, jnp.array([1.0, jnp.nan]), jnp.zeros(2), jnp.array([1.0, 0.0]))
    >>> value.item(), {name: part.item() for name, part in parts.items()}
    (3.0, {'squared_error': 1.0, 'l2': 2.0})
    """
    with labeled_as("objective"):
        for each in (loss, *regularizers):
            if not callable(each):
                hint = "; unpack it with *" if isinstance(each, list | tuple) else ""
                hint = f"; jn.losses.{each}" if isinstance(each, str) and hasattr(losses, each) else hint
                raise NetError(f"expects a loss and regularizers, got {shown(each)}{hint}")
            if library(each):
                raise NetError(f"expects functions of JAX arrays, got {shown(each)} of {library(each)}")
        for regularizer in regularizers:
            if getattr(regularizer, "__module__", "").startswith("jaxnets.losses"):
                hint = "add them up, lambda outputs, targets: one(outputs, targets) + other(outputs, targets)"
                raise NetError(f"takes one loss, got another, {name_of(regularizer)}; {hint}")
        if isinstance(loss, Regularizer):
            raise NetError(f"expects the loss first, got the regularizer {loss!r}")
    terms = [
        term if isinstance(term, Regularizer) else Regularizer(term, name_of(term), label=_written(term))
        for term in regularizers
    ]
    first = name_of(loss)
    names = _distinct(["data" if first in ("loss", "lambda") else first, *(term.name for term in terms)])
    return Objective(loss, tuple(terms), names)


def _written(function: Any) -> str:
    options = getattr(function, "keywords", {})  # of a functools.partial
    shown = ", ".join(f"{key}={'traced' if is_traced(value) else value}" for key, value in options.items())
    return name_of(function) + (f"({shown})" if shown else "")


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return names with a number appended to every repetition; `loss` is reserved."""
    taken: list[str] = ["loss"]
    for name in names:
        number, free = 1, name
        while free in taken:
            number += 1
            free = f"{name}_{number}"
        taken.append(free)
    return tuple(taken[1:])
