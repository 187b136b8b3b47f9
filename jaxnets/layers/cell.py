"""The record `Cell`, and how to make one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnets.core.checks import check_floating, check_params
from jaxnets.core.contract import check_key
from jaxnets.core.dtypes import param_dtype, to_dtype
from jaxnets.core.equality import Ingredients
from jaxnets.core.errors import NetError
from jaxnets.core.net import Key, Params, spec
from jaxnets.core.value import Value

Initializer = jax.nn.initializers.Initializer
Carry = Any  # a pytree of arrays, batch axis first


@dataclass(frozen=True, eq=False, repr=False)
class Cell(Value):
    """One step of a recurrence, as pure functions; `jn.recurrent(cell)` makes a network of it.

    The memory of a cell, its carry, is data that goes in and out, not a network's state: a pytree of arrays, batch axis
    first, whose structure, shapes and dtypes a step preserves.

    Attributes:
        init: `(key, x) -> params` for the input `(batch, in)` of one step; only its shape and dtype are read.
        step: `(params, carry, x) -> (carry, y)` with `x` `(batch, in)` and `y` `(batch, features)` in the dtype of `x`.
        initial_carry: `(batch, dtype) -> carry`, the carry before the first step, from the batch size and the dtype of
            the input.
        features: width of `y`.
        scan: `(params, carry, x, mask, reverse, unroll) -> (carry, y)`, an optional faster way to compute all steps,
            with `x` `(time, batch, in)`, `y` `(time, batch, features)`, and a mask `(time, batch)` of the real steps or
            `None`.
        label: how the cell was written, `lstm_cell(64)`.
        constructor: the function that made it, such as `jn.lstm_cell`, or `None` if unknown.
        arguments: the arguments of that call by name, including defaults.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> cell = jn.gru_cell(3)
    >>> x = jnp.ones((2, 4))
    >>> params = cell.init(jax.random.key(0), x)
    >>> carry, y = cell.step(params, cell.initial_carry(2, x.dtype), x)
    >>> cell, y.shape
    (gru_cell(3), (2, 3))
    """

    init: Callable[[Key, Any], Params]
    step: Callable[[Params, Carry, jax.Array], tuple[Carry, jax.Array]]
    initial_carry: Callable[[int, Any], Carry]
    features: int
    label: str = "cell"
    scan: Callable[..., tuple[Carry, jax.Array]] | None = None
    constructor: Callable[..., Any] | None = field(default=None, init=False)
    arguments: Mapping[str, Any] = field(default_factory=dict, init=False)

    @cached_property
    def ingredients(self) -> Ingredients:
        """What equality compares: the constructor and its arguments, or the functions if those are unknown."""
        if self.constructor is None:
            return Ingredients(self.init, self.step, self.initial_carry, self.features, self.scan)
        return Ingredients(self.constructor, self.arguments)

    def __repr__(self) -> str:
        return self.label


class Part(NamedTuple):
    """A parameter of several gates side by side: how one gate is drawn, its shape, and how many there are."""

    init: Initializer
    shape: tuple[int, ...]
    gates: int = 1


def make_cell(
    parts: Callable[[int], Mapping[str, Part]],
    step: Callable[[Params, Carry, Any], tuple[Carry, Any]],
    features: int,
    carry: Callable[[Any], Carry] = lambda hidden: hidden,
    scan: Callable[..., tuple[Carry, Any]] | None = None,
) -> Cell:
    """Make a cell that checks its arguments.

    Args:
        parts: the parameters by name, for an input width.
        step: as in `Cell`, with parameters in the dtype of the input.
        features: width of the output.
        carry: the spec of the carry, from the spec of the output h.
        scan: as in `Cell`, or `None`.
    """

    def init_fn(key: Key, x: Any) -> Params:
        check_key(key)
        x = spec(x)  # (batch, in)
        _check_step(x)
        wanted = parts(x.shape[-1])
        params = {}
        # Each parameter, and each gate of it, has its own key.
        for own, (name, part) in zip(jax.random.split(key, len(wanted)), wanted.items(), strict=True):
            draws = [part.init(each, part.shape, param_dtype(x)) for each in jax.random.split(own, part.gates)]
            params[name] = jnp.concatenate(draws, axis=-1)
        return params

    def checked(params: Params, carried: Carry, x: Any) -> tuple[Params, Carry]:
        _check_step(x)
        # Gates are concatenated along the last axis.
        shapes = {name: (*s[:-1], gates * s[-1]) for name, (_, s, gates) in parts(x.shape[-1]).items()}
        check_params(params, shapes, x)
        like = carry(jax.ShapeDtypeStruct((x.shape[0], features), x.dtype))
        return to_dtype(params, x.dtype), match_carry(carried, like)

    def step_fn(params: Params, carried: Carry, x: Any) -> tuple[Carry, Any]:
        params, carried = checked(params, carried, spec(x))
        return step(params, carried, jnp.asarray(x))

    def scan_fn(params: Params, carried: Carry, x: Any, mask: Any, *, reverse: bool, unroll: int) -> Any:
        assert scan is not None
        # x is (time, batch, in); a step sees (batch, in).
        params, carried = checked(params, carried, jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
        return scan(params, carried, x, mask, reverse=reverse, unroll=unroll)

    def initial_carry(batch: int, dtype: Any) -> Carry:
        if not jnp.issubdtype(dtype, jnp.floating):
            hint = "pass the dtype of the input, x.dtype"
            raise NetError(f"expects a floating dtype, got {jnp.dtype(dtype)}; {hint}", label="initial_carry")
        like = carry(jax.ShapeDtypeStruct((batch, features), jnp.dtype(dtype)))
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)

    return Cell(init_fn, step_fn, initial_carry, features, scan=scan_fn if scan else None)


def _check_step(x: Any) -> None:
    check_floating(x)
    if len(x.shape) != 2:
        raise NetError(f"expects one step (batch, features), got {x.shape}; run sequences with jn.recurrent(cell)")


def match_carry(carry: Carry, like: Carry) -> Carry:
    """Cast a carry to the dtypes of `like`, a pytree of `jax.ShapeDtypeStruct`.

    Raises:
        NetError: if the structures or the shapes differ.
    """

    def shapes(tree: Carry) -> Any:
        return jax.tree.map(jnp.shape, tree)

    if jax.tree.structure(carry) != jax.tree.structure(like) or shapes(carry) != shapes(like):
        raise NetError(
            f"expects the carry {shapes(like)}, got {shapes(carry)}; pass the carry that return_carry=True returned "
            f"for the same batch, or start from cell.initial_carry(batch, dtype)"
        )
    return jax.tree.map(lambda leaf, wanted: jnp.asarray(leaf, wanted.dtype), carry, like)
