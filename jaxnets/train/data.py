"""Checks of training data: inputs and targets, and optionally example weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError, is_traced
from jaxnets.core.paths import paths

Data = tuple[Any, ...]


def check_data(name: str, data: Any, *, finite: bool = True) -> int:
    """Check data and return the number of examples.

    Args:
        name: what the data are called in an error.
        data: `(inputs, targets)` or `(inputs, targets, weights)`.
        finite: whether NaN is an error; infinity never is, since it may be meant.

    Raises:
        NetError: for anything else, no examples, different lengths, weights of another shape, negative ones or none
            above 0, or NaN in examples whose weight is not 0.
    """
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        got = f"a tuple of {len(data)}" if isinstance(data, tuple) else type(data).__name__
        raise NetError(f"expects {name} as (inputs, targets) or (inputs, targets, weights), got {got}")
    parts = dict(zip(("inputs", "targets", "weights"), data))
    examples = check_examples(name, **parts)
    if len(data) == 3:
        _check_weights(name, data[2])
    if finite:
        for what, part in parts.items():
            _check_numbers(f"the {what} of {name}", part, parts.get("weights"))
    return examples


def check_examples(name: str, **parts: Any) -> int:
    """Return the number of examples in pytrees of arrays.

    Args:
        name: what they are called together in an error.
        **parts: pytrees by what each is called, `inputs=x, targets=y`.

    Raises:
        NetError: for no examples, different lengths, or an array without an axis of examples.
    """
    shapes = {what: [jnp.shape(leaf) for leaf in jax.tree.leaves(part)] for what, part in parts.items()}
    lengths = {shape[:1] for part in shapes.values() for shape in part}
    if () in lengths or not all(shapes.values()):
        raise NetError(f"expects arrays with the examples along the first axis in {name}")
    if len(lengths) > 1:
        found = ", ".join(f"{what} {shape}" for what, shape in shapes.items())
        raise NetError(f"expects as many {' as '.join(list(parts)[:2])} in {name}, got {found}")
    if (0,) in lengths:
        raise NetError(f"expects at least one example in {name}, got none")
    return lengths.pop()[0]


def _check_weights(name: str, weights: Any) -> None:
    if jnp.ndim(weights) != 1:
        raise NetError(f"expects weights (examples,) in {name}, got {jnp.shape(weights)}")
    if is_traced(weights):
        return
    if (least := float(jnp.min(weights))) < 0:
        raise NetError(f"expects weights ≥ 0 in {name}, got {least}")
    if float(jnp.max(weights)) == 0:
        raise NetError(f"expects some weight above 0 in {name}, got 0 for every example: there is nothing to average")


def _check_numbers(name: str, part: Any, weights: Any = None) -> None:
    """Check that there is no NaN, except in examples of weight 0."""
    excluded = None if weights is None or is_traced(weights) else weights == 0
    for path, leaf in paths(part).items():
        if is_traced(leaf) or not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            continue
        # An array that is spread over several processes is searched by all of them together.
        addressable = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
        bad = np.isnan(np.asarray(leaf)) if addressable else jnp.isnan(leaf)
        if excluded is not None:
            bad = bad & ~excluded.reshape(-1, *[1] * (bad.ndim - 1))
        if bad.any():
            first = int(bad.reshape(len(bad), -1).any(1).argmax())
            where = f"{name} ({path})" if path else name
            hint = "leave such examples out or fill them in; halt_on_nonfinite=False takes them anyway"
            raise NetError(f"finds {int(bad.sum())} NaN in {where}, the first in example {first}; {hint}")
