"""What training minimizes: a loss averaged over examples, and regularizers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

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

    `objective` makes it. Two of the same loss and regularizers are equal, so that what is compiled for one serves the
    other.

    Attributes:
        loss: `(outputs, targets) -> (batch,)`.
        regularizers: what is added.
        names: what the parts are reported under, the loss's first.
    """

    loss: Loss
    regularizers: tuple[Regularizer, ...]
    names: tuple[str, ...]

    @cached_property
    def ingredients(self) -> Ingredients:
        """What it is compared by."""
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
            targets: likewise.
            weights: `(batch,)`, ≥ 0; all 1 if not given. A traced negative one makes the result NaN.

        Raises:
            NetError: for weights of another shape, negative ones, outputs and targets of other batches, a loss that
                gives anything but one value an example, or a regularizer of parameters that gives no scalar.
        """
        with labeled_as("objective"):
            outputs, targets, weights = masked_rows(outputs, targets, weights)

        def averaged(name: str, values: jax.Array) -> jax.Array:
            with labeled_as("objective"):
                check_by_example(name, values, outputs)
                if not jnp.issubdtype(jnp.result_type(values), jnp.floating):
                    hint = "what is only counted has no gradient, and is a metric, jn.metrics.mean(function)"
                    raise NetError(f"expects {name} to give real numbers, got {jnp.result_type(values)}; {hint}")
            return values.mean() if weights is None else weighted_mean(values, weights)

        data = averaged(self.names[0], self.loss(outputs, targets))
        parts = {self.names[0]: data}
        for name, regularizer in zip(self.names[1:], self.regularizers, strict=True):
            part = regularizer(params if regularizer.of == "params" else outputs)
            if regularizer.of == "outputs":
                part = averaged(name, part)
            elif jnp.shape(part):
                raise NetError(f"expects {name} to give a scalar, got {jnp.shape(part)}", label="objective")
            parts[name] = jnp.asarray(part, data.dtype)
        return sum(parts.values(), start=jnp.zeros((), data.dtype)), parts

    def __repr__(self) -> str:
        return f"objective({', '.join([_written(self.loss), *map(repr, self.regularizers)])})"


@explained
def objective(loss: Loss, *regularizers: Regularizer | Callable[[Any], jax.Array]) -> Objective:
    """Compose a loss and regularizers into what training minimizes: Σ_i w_i l_i / Σ_i w_i + Σ_j r_j.

    Example weights mask rows that fill up a batch: a row of weight 0 counts for nothing in value or gradient,
    whatever stands in it, NaN or a label out of range too, and so a mean over data of any size is exact. To that
    end such rows are replaced before the loss sees them, outputs by zeros and targets by another row's, and
    nothing passes back to them. One gap is left: if the loss of zeros is not finite, so are derivatives with
    respect to what the loss holds itself, such as a traced option. With all weights 0 the mean is 0, and with a traced
    negative one it is NaN. What is not finite in the *inputs* of such a row has to be replaced before the network, in
    whose derivatives 0 · ∞ is NaN; `jn.train` does so.

    Args:
        loss: `(outputs, targets) -> (batch,)`, one of `jn.losses`, a `functools.partial` of one, or your own.
        *regularizers: of `jn.regularizers`, or callables `params -> scalar`. Those of outputs are averaged with the
            same weights.

    Returns:
        `(params, outputs, targets, weights=None) -> (scalar, parts)`. `parts` has each term by name, a scalar:
        the loss under its function's name, a regularizer under its own, a second one of a name as `l2_2`. The name
        `loss` is left for the whole: a function called so, or a `lambda`, is reported as `data`.

    Raises:
        NetError: if the loss or a regularizer can't be called, or they stand in each other's place.

    >>> import jax.numpy as jnp, jaxnets as jn
    >>> total = objective(jn.losses.squared_error, jn.regularizers.l2(0.5, on="**"))
    >>> total
    objective(squared_error, l2(0.5, on='**'))
    >>> value, parts = total({"w": jnp.array([2.0])}, jnp.array([1.0, jnp.nan]), jnp.zeros(2), jnp.array([1.0, 0.0]))
    >>> value.item(), {name: part.item() for name, part in parts.items()}
    (3.0, {'squared_error': 1.0, 'l2': 2.0})
    """
    for what in (loss, *regularizers):
        if not callable(what):
            hint = "; unpack it with *" if isinstance(what, list | tuple) else ""
            hint = f"; jn.losses.{what}" if isinstance(what, str) and hasattr(losses, what) else hint
            raise NetError(f"expects a loss and regularizers, got {shown(what)}{hint}", label="objective")
        if library(what):
            raise NetError(f"expects functions of JAX arrays, got {shown(what)} of {library(what)}", label="objective")
    for regularizer in regularizers:
        if getattr(regularizer, "__module__", "").startswith("jaxnets.losses"):
            hint = "add them up, lambda outputs, targets: one(outputs, targets) + other(outputs, targets)"
            raise NetError(f"takes one loss, got another, {name_of(regularizer)}; {hint}", label="objective")
    if isinstance(loss, Regularizer):
        raise NetError(f"expects the loss first, got the regularizer {loss!r}", label="objective")
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
    taken: list[str] = ["loss"]
    for name in names:
        number, free = 1, name
        while free in taken:
            number += 1
            free = f"{name}_{number}"
        taken.append(free)
    return tuple(taken[1:])
