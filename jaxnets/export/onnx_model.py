"""Models of ONNX: what jax2onnx loads, outputs by name, files, and whose error it is."""

import importlib
import logging
import pkgutil
import warnings
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxnets.core.errors import NetError
from jaxnets.tracing import jaxprs

ONE_FILE = 2**31 - 2**20
"""The largest number of bytes of weights in one file: Protocol Buffers, the format of ONNX, end at 2 GiB."""


def save(model: Any, file: Path) -> list[Path]:
    """Write a model, and its weights into a second file if they are too large; return the files."""
    import onnx_ir
    from onnx import checker

    size = sum(each.const_value.nbytes for each in model.graph.initializers.values())
    data = f"{file.name}.data" if size > ONE_FILE else None
    with quiet():
        onnx_ir.save(model, file, external_data=data)
    with refused("the checker of onnx"):
        checker.check_model(str(file), full_check=True)
    return [file] if data is None else [file, file.with_name(data)]


def name_outputs(graph: Any, names: Iterable[str]) -> None:
    """Name the outputs, each a value of its own: one that is also an input, or another output, gets an operation."""
    import onnx_ir

    taken = {id(each) for each in graph.inputs} | {id(each) for each in graph.initializers.values()}
    for place, name in enumerate(names):
        value = graph.outputs[place]
        if id(value) in taken:
            node = onnx_ir.node("Identity", [value])
            graph.append(node)
            (copy,) = node.outputs
            copy.type, copy.shape = value.type, value.shape
            graph.outputs[place] = value = copy
        value.name = name
        taken.add(id(value))


def drop_unused(model: Any) -> None:
    """Drop the operations that nothing uses, and the constants, of which onnx_ir leaves those in loops."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)
    for graph in model.graph.subgraphs():
        kept = {id(each) for each in (*graph.inputs, *graph.outputs)}
        for name, value in list(graph.initializers.items()):
            if not value.uses() and id(value) not in kept:
                del graph.initializers[name]


def nodes(model: Any) -> Iterator[Any]:
    """Return all operations of a model, those in loops and branches included."""
    from onnx_ir.traversal import RecursiveGraphIterator

    for graph in (model.graph, *(each.graph for each in model.functions.values())):
        yield from RecursiveGraphIterator(graph)


def operations(model: Any) -> dict[str, int]:
    """Return how often a model holds each operation."""
    return dict(sorted(Counter(node.op_type for node in nodes(model)).items()))


def culprit(error: BaseException) -> str:
    """Return the operation that was being converted when an error was raised, and its layer."""
    found, trace = "the network", error.__traceback__
    while trace is not None:
        equation: Any = trace.tb_frame.f_locals.get("eqn")
        if hasattr(equation, "primitive"):
            layer = "/".join(name for name, scope in jaxprs.name_stack(equation) if scope)
            found = f"{equation.primitive.name} in {layer or 'the network'}"
        trace = trace.tb_next
    return found


def reason(error: Exception) -> str:
    """Return the first line of an error's text."""
    return str(error).partition("\n")[0]


@contextmanager
def refused(by: str) -> Iterator[None]:
    """Make a `NetError` of any error inside: those of onnx and onnxruntime have no common class."""
    try:
        yield
    except Exception as error:
        raise NetError(f"is converted into a file that {by} refuses: {error}") from error


@contextmanager
def lax_alone() -> Iterator[Container[str]]:
    """Let jax2onnx load what converts `jax.lax`, and return the names of these primitives.

    It would load its conversions and examples of other libraries, too, which makes networks and takes half a minute.
    """
    from jax2onnx.plugins import plugin_system
    from jax2onnx.plugins.jax import lax

    loaded = plugin_system._already_imported_plugins
    if not loaded:
        for module in pkgutil.iter_modules(lax.__path__, f"{lax.__name__}."):
            importlib.import_module(module.name)
    plugin_system._already_imported_plugins = True
    try:
        yield plugin_system.PLUGIN_REGISTRY
    finally:
        plugin_system._already_imported_plugins = loaded


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what onnx_ir logs of values whose shapes are not known, and that jax2onnx uses old names of JAX."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
