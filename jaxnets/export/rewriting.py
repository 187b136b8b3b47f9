"""A traced function in operations that ONNX has: calls are opened, and some operations replaced by others."""

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import jax
from jax import lax
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr

from jaxnets.core.errors import NetError
from jaxnets.tracing import jaxprs
from jaxnets.tracing.interpreter import Interpreter
from jaxnets.tracing.operation import Place

Rule = Callable[..., Any]  # (*inputs, **parameters) -> an output, or a list of them


def rewritten(
    jaxpr: ClosedJaxpr, specs: Sequence[jax.ShapeDtypeStruct], rules: Mapping[str, Rule], known: Container[str]
) -> ClosedJaxpr:
    """Return a jaxpr whose operations are all known.

    Args:
        jaxpr: the traced function.
        specs: the shapes and dtypes of its inputs.
        rules: what replaces an operation, by the name of its primitive.
        known: the names of the primitives that may remain.

    Raises:
        NetError: for an operation that is neither replaced nor known, or makes numbers of another precision than
            float32; with its layer.
    """
    # The second time, what the rules have left unused is left out.
    for interpreter in (_Rewriting(rules, known), _Rewriting({}, known)):
        jaxpr = jax.make_jaxpr(partial(_run, interpreter, jaxpr))(*specs)
    return jaxpr


def _run(interpreter: Interpreter[Any], jaxpr: ClosedJaxpr, *leaves: Any) -> list[Any]:
    return interpreter.run(jaxpr, leaves, Place())


class _Rewriting(Interpreter[Any]):
    """Evaluates a jaxpr on tracers, so that a new one results.

    Calls are opened; of branches for different platforms the default is taken; loops and other branches remain, but a
    reverse scan becomes a scan of flipped arrays, and one of layers with caches is unrolled. An operation of constants
    alone is computed if its result is not larger than they are, so that the file holds, for example, a normalized
    kernel.
    """

    skips_unused = True

    def __init__(self, rules: Mapping[str, Rule], known: Container[str]) -> None:
        self.rules, self.known = rules, known

    def _constant(self, data: Any, place: Place) -> Any:
        return data

    def _operation(self, equation: Any, inputs: list[Any], place: Place) -> list[Any]:
        name, layer = equation.primitive.name, "/".join(place.path)
        constant = inputs and not any(isinstance(each, Tracer) for each in inputs)
        if constant and _is_smaller(equation.outvars, equation.invars):
            with jax.ensure_compile_time_eval():
                return jaxprs.bind(equation, *inputs)
        self._check(equation, f"{name} in {layer}" if layer else name)
        # Errors of the conversion find the layer in the names of operations.
        with jax.named_scope(layer) if layer else nullcontext():
            if name not in self.rules:
                return jaxprs.bind(equation, *inputs)
            made = self.rules[name](*inputs, **equation.params)
        return [*made] if isinstance(made, list) else [made]

    def _check(self, equation: Any, what: str) -> None:
        if equation.primitive.name not in self.rules and equation.primitive.name not in self.known:
            raise NetError(f"can't convert {what}: neither jax2onnx nor jaxnets knows it as operations of ONNX")
        for var in equation.outvars:
            if (dtype := var.aval.dtype).name in _OTHERS:
                hint = "export the network without jn.cast" if dtype.itemsize == 2 else "turn jax_enable_x64 off"
                raise NetError(f"expects float32 throughout, got {dtype.name} of {what}; {hint}")

    def _scan(self, equation: Any, inputs: list[Any], place: Place) -> list[Any]:
        scan = jaxprs.scan_parts(equation)
        if any(name.startswith("scatter") for name in jaxprs.primitives(scan.body)):
            # Layers that write into their caches: jax2onnx gives their loop arrays of a wrong batch size.
            return super()._scan(equation, inputs, place)
        constants, first, stacked = scan.inputs(inputs)

        def body(carry: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
            return scan.outputs(self.run(scan.body, [*constants, *carry, *slices], place))

        def turned(each: Any) -> Any:
            return lax.rev(each, (0,)) if scan.reverse else each

        last, rows = lax.scan(body, first, [*map(turned, stacked)], length=scan.length)
        return [*last, *map(turned, rows)]

    def _slice(self, stacked: Any, step: int, place: Place) -> Any:
        return lax.index_in_dim(stacked, step, keepdims=False)

    def _stack(self, rows: list[Any], aval: Any, place: Place) -> Any:
        return lax.concatenate([lax.expand_dims(row, (0,)) for row in rows], 0)

    def _while_loop(self, equation: Any, inputs: list[Any], place: Place) -> list[Any]:
        loop = jaxprs.while_parts(equation)
        asked, constants, first = loop.inputs(inputs)
        return lax.while_loop(
            lambda carry: self.run(loop.condition, [*asked, *carry], place)[0],
            lambda carry: self.run(loop.body, [*constants, *carry], place),
            first,
        )

    def _cond(self, equation: Any, inputs: list[Any], place: Place) -> list[Any]:
        index, *operands = inputs
        ways = [lambda *given, each=each: self.run(each, given, place) for each in jaxprs.branches_of(equation)]
        return ways[0](*operands) if len(ways) == 1 else lax.switch(index, ways, *operands)


def _is_smaller(made: Any, given: Any) -> bool:
    """Tell whether arrays of known shapes are at most as large as others."""
    # A free batch size is no integer.
    if not all(isinstance(size, int) for atom in (*made, *given) for size in atom.aval.shape):
        return False
    first, second = (sum(atom.aval.size * atom.aval.dtype.itemsize for atom in atoms) for atoms in (made, given))
    return first <= second


_OTHERS = ("bfloat16", "float16", "float64", "complex64", "complex128")
