"""The contents of a jaxpr's equations: the only module that reads what JAX does not document about them.

JAX documents `Jaxpr`, `ClosedJaxpr` and `Literal` (`jax.extend.core`) and how to evaluate equations ("Writing custom
Jaxpr interpreters"), but not the parameters of its primitives. Those of loops, branches and calls change between
versions and are read only here. The rules for single operations read parameters that have the names of the arguments
in `jax.lax`. `tests/tracing/test_jaxprs.py` lists everything the library relies on.
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
"""Primitives that work element by element."""


def opened(jaxpr: Jaxpr | ClosedJaxpr) -> tuple[Jaxpr, Sequence[Any]]:
    """Return a jaxpr and the values of its constants."""
    return (jaxpr.jaxpr, jaxpr.consts) if isinstance(jaxpr, ClosedJaxpr) else (jaxpr, ())


def _parts(given: Sequence[T], first: int, second: int) -> tuple[list[T], list[T], list[T]]:
    return [*given[:first]], [*given[first : first + second]], [*given[first + second :]]


class Scan(NamedTuple):
    """The parts of a `scan`, whose body takes constants, carries and one slice of each stacked input.

    Attributes:
        body: the jaxpr of one step.
        consts: the number of constants.
        carry: the number of carries.
        length: the number of steps.
        reverse: whether the scan starts at the last slice.
    """

    body: ClosedJaxpr
    consts: int
    carry: int
    length: int
    reverse: bool

    def inputs(self, given: Sequence[T]) -> tuple[list[T], list[T], list[T]]:
        """Split the inputs of the scan, or of its body, into constants, carries and stacked inputs (or slices)."""
        return _parts(given, self.consts, self.carry)

    def outputs(self, made: Sequence[T]) -> tuple[list[T], list[T]]:
        """Split the outputs of the scan, or of its body, into carries and stacked outputs (or rows)."""
        return [*made[: self.carry]], [*made[self.carry :]]


def scan_parts(equation: Any) -> Scan:
    """Return the parts of a `scan`."""
    params = equation.params
    # Since JAX 0.11 or 0.12: a tree (constants, carries, slices) whose leaves are counted.
    if "ft_in" in params:
        consts, carry, _ = map(len, params["ft_in"].unpack())
    else:
        consts, carry = params["num_consts"], params["num_carry"]
    return Scan(params["jaxpr"], consts, carry, params["length"], params["reverse"])


class While(NamedTuple):
    """The parts of a `while_loop`. Its inputs are constants of the condition, constants of the body, and carries."""

    condition: ClosedJaxpr
    body: ClosedJaxpr
    condition_consts: int
    body_consts: int

    def inputs(self, given: Sequence[T]) -> tuple[list[T], list[T], list[T]]:
        """Split the inputs into the constants of the condition, those of the body, and the carries."""
        return _parts(given, self.condition_consts, self.body_consts)


def while_parts(equation: Any) -> While:
    """Return the parts of a `while_loop`."""
    params = equation.params
    return While(params["cond_jaxpr"], params["body_jaxpr"], params["cond_nconsts"], params["body_nconsts"])


def branches_of(equation: Any, *, platforms: bool = False) -> list[ClosedJaxpr]:
    """Return the branches of a `cond`, each of which takes all inputs but the first, the index.

    If branches depend on the platform, only the default one is returned, unless `platforms` is true.
    """
    branches, names = equation.params["branches"], equation.params.get("branches_platforms")
    if names is None or platforms:
        return [*branches]
    # The default branch is named `None`; without one, the last branch is taken.
    return [branches[names.index(None) if None in names else -1]]


def body_of(equation: Any) -> Jaxpr | ClosedJaxpr | None:
    """Return the jaxpr that a call (`jit`, `checkpoint`, `custom_jvp`, `shard_map`, …) runs on its inputs.

    Returns `None` for anything else: loops, branches, and operations that hold a function of two scalars, such as
    `reduce`.
    """
    name = equation.primitive.name
    bodies = [value for value in equation.params.values() if isinstance(value, Jaxpr | ClosedJaxpr)]
    if len(bodies) != 1 or name in ("scan", "while", "cond"):
        return None
    inner, _ = opened(bodies[0])
    # The shapes of its body are those of one device's parts.
    if name == "shard_map":
        return bodies[0]
    # The inputs of a call and of its body have the same shapes; the function of a `reduce` takes scalars.
    alike = _shapes(inner.invars) == _shapes(equation.invars) and _shapes(inner.outvars) == _shapes(equation.outvars)
    return bodies[0] if alike and not name.startswith("reduce") else None


def shards_of(equation: Any) -> int:
    """Return the number of devices on which a `shard_map` runs its body."""
    return equation.params["mesh"].size


def called(equation: Any) -> str | None:
    """Return the name of the function that a `jit` calls, and `None` for anything else."""
    params = equation.params
    return params["name"] if "name" in params and "jaxpr" in params else None


def holds_program(equation: Any) -> bool:
    """Tell whether an operation contains a program: a kernel, a callback, or a function of two scalars."""
    parts = jax.tree.leaves(dict(equation.params), is_leaf=lambda leaf: isinstance(leaf, Jaxpr | ClosedJaxpr))
    # "call" is in the names of kernels and callbacks, such as `pallas_call` and `pure_callback`.
    return "call" in equation.primitive.name or any(isinstance(leaf, Jaxpr | ClosedJaxpr) for leaf in parts)


def primitives(jaxpr: Jaxpr | ClosedJaxpr) -> frozenset[str]:
    """Return the names of the primitives in a jaxpr and in all jaxprs inside its equations."""
    names, seen, waiting = set[str](), set[int](), [opened(jaxpr)[0]]
    while waiting:
        inner = waiting.pop()
        # Several equations may hold the same jaxpr.
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        for equation in inner.eqns:
            names.add(equation.primitive.name)
            parts = jax.tree.leaves(dict(equation.params), is_leaf=lambda leaf: isinstance(leaf, Jaxpr | ClosedJaxpr))
            waiting += [opened(part)[0] for part in parts if isinstance(part, Jaxpr | ClosedJaxpr)]
    return frozenset(names)


def bind(equation: Any, *arrays: Any) -> list[Any]:
    """Evaluate an equation on the given inputs."""
    # The settings under which the equation was traced.
    with equation.ctx.manager:
        made = equation.primitive.bind(*arrays, **equation.primitive.get_bind_params(equation.params))
    return [*made] if equation.primitive.multiple_results else [made]


def name_stack(equation: Any) -> list[tuple[str, bool]]:
    """Return the names under which an equation was traced, outermost first, and whether each is a named scope.

    The other names are transformations, such as `jvp` or `transpose`.
    """
    return [(part.name, type(part).__name__ == "Scope") for part in equation.source_info.name_stack.stack]


def is_elementwise(equation: Any) -> bool:
    """Tell whether an operation works element by element.

    A primitive that is not in `ELEMENTWISE` is assumed to do so if its outputs have the shape to which its inputs
    broadcast, no parameter names an axis, and it accepts scalars (a Cholesky decomposition does not).
    """
    if equation.primitive.name in ELEMENTWISE:
        return True
    given, made = _shapes(equation.invars), _shapes(equation.outvars)
    # Parameters such as `axis`, `axes`, `dimension`
    names_axis = any(word in key for key in equation.params for word in ("axis", "axes", "dim"))
    if not given or names_axis or holds_program(equation):
        return False
    try:
        # Traced on scalars, the operation must return scalars.
        whole = np.broadcast_shapes(*given)
        scalars = [jax.ShapeDtypeStruct((), atom.aval.dtype) for atom in equation.invars]
        answers = jax.eval_shape(lambda *numbers: bind(equation, *numbers), *scalars)
    except Exception:
        # A custom primitive may raise anything when it is given scalars.
        return False
    return all(shape == whole for shape in made) and all(answer.shape == () for answer in answers)


def warn_assumed(names: Iterable[str], *, stacklevel: int) -> None:
    """Warn about each primitive without a rule that `is_elementwise` has recognized."""
    for name in sorted(set(names)):
        warnings.warn(
            f"{name}, a primitive of JAX, has no rule; assumed to work element by element, one operation each",
            stacklevel=stacklevel + 1,
        )


def _shapes(atoms: Iterable[Any]) -> list[tuple[int, ...]]:
    return [getattr(atom.aval, "shape", ()) for atom in atoms]
