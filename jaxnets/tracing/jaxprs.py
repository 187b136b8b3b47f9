"""What the equations of a jaxpr hold: the one place that reads what JAX does not document of them.

JAX documents `Jaxpr`, `ClosedJaxpr` and `Literal` (`jax.extend.core`), and how their equations are evaluated ("Writing
custom Jaxpr interpreters"), but not the parameters of its primitives. Those of loops, branches and calls differ from
version to version and are read here alone; the rules for single operations read those that are named as the arguments
of the function in `jax.lax`. `tests/tracing/test_jaxprs.py` lists everything that is relied upon.
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

T = TypeVar("T")

_ELEMENTWISE = """
abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp clz complex conj
cos cosh digamma div eq eq_to erf erf_inv erfc exp exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag integer_pow
is_finite le le_to lgamma log log1p log2 logistic lt lt_to max min mul mulhi ne neg nextafter not one_minus_square or
polygamma polynomial population_count pow random_gamma random_gamma_grad real regularized_incomplete_beta rem round
rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt square sub tan tanh xor zeta
"""
ELEMENTWISE = frozenset(_ELEMENTWISE.split())
"""Primitives that compute each element of their output from the elements at its place."""


def opened(jaxpr: Jaxpr | ClosedJaxpr) -> tuple[Jaxpr, Sequence[Any]]:
    """Return a jaxpr and the values of its constants."""
    return (jaxpr.jaxpr, jaxpr.consts) if isinstance(jaxpr, ClosedJaxpr) else (jaxpr, ())


class Scan(NamedTuple):
    """A `scan`: its body takes constants, carries and one slice of each stacked input.

    Attributes:
        body: what it does in one turn.
        consts: the number of constants.
        carry: the number of carries.
        length: the number of turns.
        reverse: whether it starts at the last slice.
    """

    body: ClosedJaxpr
    consts: int
    carry: int
    length: int
    reverse: bool

    def inputs(self, given: Sequence[T]) -> tuple[list[T], list[T], list[T]]:
        """Split the inputs, of the loop or of its body, into constants, carries and what is sliced."""
        start, end = self.consts, self.consts + self.carry
        return [*given[:start]], [*given[start:end]], [*given[end:]]

    def outputs(self, made: Sequence[T]) -> tuple[list[T], list[T]]:
        """Split the outputs, of the loop or of its body, into carries and what is stacked."""
        return [*made[: self.carry]], [*made[self.carry :]]


def scan_parts(equation: Any) -> Scan:
    """Return what a `scan` is made of."""
    params = equation.params
    if "ft_in" in params:  # from JAX 0.11 or 0.12 on: (constants, carries, slices), a tree that counts its leaves
        consts, carry, _ = map(len, params["ft_in"].unpack())
    else:
        consts, carry = params["num_consts"], params["num_carry"]
    return Scan(params["jaxpr"], consts, carry, params["length"], params["reverse"])


class While(NamedTuple):
    """A `while_loop`: the constants of its question stand before those of its body, and these before the carries."""

    question: ClosedJaxpr
    body: ClosedJaxpr
    question_consts: int
    body_consts: int

    def inputs(self, given: Sequence[T]) -> tuple[list[T], list[T], list[T]]:
        """Split the inputs into the constants of the question, those of the body, and the carries."""
        start, end = self.question_consts, self.question_consts + self.body_consts
        return [*given[:start]], [*given[start:end]], [*given[end:]]


def while_parts(equation: Any) -> While:
    """Return what a `while_loop` is made of."""
    params = equation.params
    return While(params["cond_jaxpr"], params["body_jaxpr"], params["cond_nconsts"], params["body_nconsts"])


def branches_of(equation: Any, *, platforms: bool = False) -> list[ClosedJaxpr]:
    """Return the branches of a `cond`, which take all inputs but the first.

    Of those that differ by platform it is the one for all others, unless `platforms` asks for each.
    """
    branches, names = equation.params["branches"], equation.params.get("branches_platforms")
    if names is None or platforms:
        return [*branches]
    return [branches[names.index(None) if None in names else -1]]


def body_of(equation: Any) -> Jaxpr | ClosedJaxpr | None:
    """Return the jaxpr that a call (`jit`, `checkpoint`, `custom_jvp`, `shard_map`, …) runs on its inputs.

    `None` for anything else: loops and branches, and operations that hold a function of two numbers, as `reduce` does.
    """
    name = equation.primitive.name
    bodies = [value for value in equation.params.values() if isinstance(value, Jaxpr | ClosedJaxpr)]
    if len(bodies) != 1 or name in ("scan", "while", "cond"):
        return None
    inner, _ = opened(bodies[0])
    if name == "shard_map":  # its body sees a part of each
        return bodies[0]
    alike = _shapes(inner.invars) == _shapes(equation.invars) and _shapes(inner.outvars) == _shapes(equation.outvars)
    return bodies[0] if alike and not name.startswith("reduce") else None


def shards_of(equation: Any) -> int:
    """Return over how many devices a `shard_map` runs its body."""
    return equation.params["mesh"].size


def called(equation: Any) -> str | None:
    """Return the name of the function that a `jit` calls; `None` for anything else."""
    params = equation.params
    return params["name"] if "name" in params and "jaxpr" in params else None


def holds_program(equation: Any) -> bool:
    """Tell whether an operation runs a program of its own: a kernel, a callback, a function of two numbers."""
    inside = jax.tree.leaves(dict(equation.params), is_leaf=lambda leaf: isinstance(leaf, Jaxpr | ClosedJaxpr))
    return "call" in equation.primitive.name or any(isinstance(leaf, Jaxpr | ClosedJaxpr) for leaf in inside)


def bind(equation: Any, *arrays: Any) -> list[Any]:
    """Evaluate an equation on other inputs."""
    with equation.ctx.manager:
        made = equation.primitive.bind(*arrays, **equation.primitive.get_bind_params(equation.params))
    return [*made] if equation.primitive.multiple_results else [made]


def name_stack(equation: Any) -> list[tuple[str, bool]]:
    """Return the names under which an equation was traced, the outermost first, and whether each is a named scope.

    Those that are none are transformations, `jvp` or `transpose`.
    """
    return [(part.name, type(part).__name__ == "Scope") for part in equation.source_info.name_stack.stack]


def is_elementwise(equation: Any) -> bool:
    """Tell whether an operation computes each element of its outputs from the elements at its place.

    One that is not among `ELEMENTWISE` is taken to do so if its outputs have the shape to which its inputs are
    broadcast, no parameter names an axis, and it also takes scalars, as a Cholesky factor does not.
    """
    if equation.primitive.name in ELEMENTWISE:
        return True
    given, made = _shapes(equation.invars), _shapes(equation.outvars)
    names_axis = any(word in key for key in equation.params for word in ("axis", "axes", "dim"))
    if not given or names_axis or holds_program(equation):
        return False
    try:
        whole = np.broadcast_shapes(*given)
        scalars = [jax.ShapeDtypeStruct((), atom.aval.dtype) for atom in equation.invars]
        answers = jax.eval_shape(lambda *numbers: bind(equation, *numbers), *scalars)
    except Exception:  # somebody's primitive, called as it was not meant to be
        return False
    return all(shape == whole for shape in made) and all(answer.shape == () for answer in answers)


def warn_assumed(names: Iterable[str], *, stacklevel: int) -> None:
    """Warn of primitives without a rule that `is_elementwise` recognized, one by one."""
    for name in sorted(set(names)):
        warnings.warn(
            f"{name}, a primitive of JAX, has no rule: taken to work element by element, one operation for each",
            stacklevel=stacklevel + 1,
        )


def _shapes(atoms: Iterable[Any]) -> list[tuple[int, ...]]:
    return [getattr(atom.aval, "shape", ()) for atom in atoms]
