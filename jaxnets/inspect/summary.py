"""`summary`: the counts of a model layer by layer, by tracing."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError
from jaxnets.core.net import Net
from jaxnets.core.paths import paths
from jaxnets.inspect import trace
from jaxnets.inspect.connections import by_layer
from jaxnets.inspect.receptive_field.field import receptive_field
from jaxnets.inspect.report import COLUMNS, Row, Summary
from jaxnets.tracing import jaxprs, layers
from jaxnets.tracing.costs import assumed, flops_of, multiply_adds_of
from jaxnets.tracing.operation import Path

DEFAULT = ("kind", "output", "parameters", "multiply_adds", "flops", "memory", "receptive_field")


def summary(
    model: Any,
    *inputs: Any,
    params: Any = None,
    state: Any = None,
    depth: int | None = None,
    columns: Sequence[str] | None = None,
    train: bool = False,
    trips: int | None = None,
) -> Summary:
    """Summarize a model layer by layer, by tracing it on shapes: nothing is compiled or allocated.

    The counts of a layer include those of the layers inside it. Multiply-adds are those of convolutions and matrix
    products; FLOPs are twice these and all other arithmetic (see `jn.inspect.flops`). A layer in a `repeat` or an
    `ensemble` has one row, which counts all copies. The layers of a Flax module are its submodules, those of a function
    its scopes (`jax.named_scope`).

    Args:
        model: a network; a Flax module, Linen or NNX; or any function JAX can trace.
        *inputs: arrays, `jax.ShapeDtypeStruct`s, or shapes such as `(1, 28, 28, 1)` for float32, batch axis first; one
            for a network.
        params: a tree of parameters or of their shapes; default: those of an abstract initialization of the network or
            module. A function gets it as its first argument.
        state: the state of a network with `params`, or the other collections of a Linen module.
        depth: number of levels of layers to show, 0 for the total alone; default: all.
        columns: any of "kind", "output", "parameters", "multiply_adds", "flops", "memory" (bytes of the layers'
            outputs), "receptive_field" (for images), "connections" (LeNet's), and for a training step "train_flops"
            and "train_memory" (bytes of residuals for the backward pass); default: the first seven.
        train: whether to count a forward pass in training mode.
        trips: number of iterations of loops of unknown length (`jax.lax.while_loop`); default: 1, and the counts are
            marked by ≥ and explained in a note.

    Returns:
        A `Summary`: `print` it, or read `.rows`, `.total`, `.records()` or `.markdown()`.

    Raises:
        NetError: for an unknown column or a negative depth; by the layer, for an input of a wrong shape.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = jn.serial(conv=jn.conv(8, 3), relu=jax.nn.relu, pool=jn.max_pool(2), flatten=jn.flatten, fc=jn.dense(10))
    >>> print(summary(net, jax.ShapeDtypeStruct((1, 10, 10, 3), jnp.float32)))
    serial
    ───────────────────────────────────────────────────────────────────────────────────
    layer    kind      output        parameters  multiply-adds   FLOPs    memory  field
    ───────────────────────────────────────────────────────────────────────────────────
    conv     conv      (1, 8, 8, 8)         224         13.8 k  28.2 k  2.00 KiB  3×3
    relu     relu      (1, 8, 8, 8)           0              0     512  2.00 KiB  3×3
    pool     max_pool  (1, 4, 4, 8)           0              0     384     512 B  4×4
    flatten  flatten   (1, 128)               0              0       0     512 B  4×4
    fc       dense     (1, 10)            1,290         1.28 k  2.57 k      40 B  10×10
    ───────────────────────────────────────────────────────────────────────────────────
    total    serial    (1, 10)            1,514         15.1 k  31.6 k  5.04 KiB  10×10
    """
    if unknown := [name for name in columns or () if name not in COLUMNS]:
        raise NetError(
            f"expects columns among {', '.join(COLUMNS)}, got {', '.join(map(repr, unknown))}", label="summary"
        )
    if depth is not None and not (hasattr(depth, "__index__") and depth >= 0):
        raise NetError(f"expects depth as an integer ≥ 0, got {depth!r}; None shows all levels", label="summary")
    model = trace.model_of(model, *inputs, params=params, state=state)
    shown = tuple(columns or (DEFAULT if model.net is not None else DEFAULT[1:]))
    program = trace.forward(model, train=train, trips=trips)
    found: dict[str, dict[Path, Any]] = {"parameters": _parameters(model)}
    unsure: dict[str, Path] = {}
    guessed: set[str] = set()
    for column, cost in (("multiply_adds", multiply_adds_of), ("flops", flops_of)):
        if column in shown:
            found[column] = layers.costs(program, cost)
            unsure |= layers.unknowns(program, cost)
    if "flops" in shown:
        guessed |= assumed(program.operations)
    if "memory" in shown:
        found["memory"] = layers.activations(program)
    if "connections" in shown:
        found["connections"] = by_layer(model.net, program)
    if "train_flops" in shown:
        step = trace.training_step(model, trips=trips)
        found["train_flops"] = layers.costs(step, flops_of)
        unsure |= layers.unknowns(step, flops_of)
        guessed |= assumed(step.operations)
    jaxprs.warn_assumed(guessed, stacklevel=2)
    if "train_memory" in shown:
        found["train_memory"] = layers.residuals(trace.residuals(model, trips=trips))
    if "receptive_field" in shown:
        found["receptive_field"] = _receptive_fields(model)
        if columns is None and not found["receptive_field"]:
            shown = tuple(name for name in shown if name != "receptive_field")
    shapes, often = _shapes(model, program), layers.times(program)

    def row(path: Path) -> Row:
        full = model.scope + path if path else ()
        node = node_at(model.net, path)
        copies = often.get(full, 1) // often.get(full[:-1], 1) if node is None else max(1, node.copies)
        counts = {name: values.get(full, None if name == "receptive_field" else 0) for name, values in found.items()}
        sure = not any(place[: len(full)] == full for place in unsure.values())
        kind = "" if node is None else node.kind
        return Row("/".join(path), copies, kind, shapes.get(full, ()), **counts, unsure=not sure)

    chosen = [path for path in _rows(model, program, found["parameters"]) if depth is None or len(path) <= depth]
    return Summary(model.name, tuple(map(row, chosen)), row(()), shown, tuple(unsure))


def _parameters(model: trace.Model) -> dict[Path, int]:
    totals: dict[Path, int] = {(): 0}
    for name, leaf in paths(model.params).items():
        # Flax NNX stores an array as the value of a variable.
        *place, _ = name.removesuffix("/value").split("/")
        for path in dict.fromkeys([(), *layers.upwards((*model.scope, *place))]):
            totals[path] = totals.get(path, 0) + leaf.size
    return totals


def _receptive_fields(model: trace.Model) -> dict[Path, tuple[int, ...]]:
    x = model.inputs[0] if len(model.inputs) == 1 else None
    if not isinstance(x, jax.ShapeDtypeStruct) or len(x.shape) < 3 or not jnp.issubdtype(x.dtype, jnp.inexact):
        return {}
    try:
        whole = receptive_field(
            model.net or (lambda x, p, s: model.call(p, s, None, x, train=False)[0]),
            x,
            *(() if model.net else (model.params, model.state)),
            **({"params": model.params, "state": model.state} if model.net else {}),
        )
    except NetError:
        # Nothing in the output depends on the input.
        return {}
    return {(): whole.size, **{tuple(path.split("/")): field.size for path, field in whole.layers.items()}}


def _shapes(model: trace.Model, program: trace.Program) -> dict[Path, tuple[tuple[int, ...], ...]]:
    """Return the output shapes of each layer; a layer without an operation returns what it reads."""
    given = layers.outputs(program)
    shapes = {path: tuple(tuple(value.aval.shape) for value in values) for path, values in given.items()}

    def fill(net: Net, path: Path, before: tuple[tuple[int, ...], ...]) -> None:
        got = before
        for name, child in net.children.items():
            own = (*path, name)
            # Children of such a network run in order; the layer of a shortcut reads the block's input.
            inline = net.cut is not None and name != "downsample"
            if own not in shapes and not child.children and own not in parameters and path in shapes:
                shapes[own] = got if inline else before
            fill(child, own, got if inline else before)
            got = shapes.get(own, got)

    if model.net is not None:
        parameters = _parameters(model)
        fill(model.net, (), tuple(tuple(leaf.shape) for leaf in jax.tree.leaves(model.inputs)))
    return shapes


def _rows(model: trace.Model, program: trace.Program, parameters: dict[Path, int]) -> Iterator[Path]:
    """Return the paths of layers: those of the network, then other scopes that ran or have parameters."""
    tree: dict[str, Any] = {}

    def add(path: Path) -> None:
        node = tree
        for name in path:
            node = node.setdefault(name, {})

    def add_children(net: Net, path: Path) -> None:
        for name, child in net.children.items():
            add((*path, name))
            add_children(child, (*path, name))

    def walk(node: dict[str, Any], path: Path) -> Iterator[Path]:
        for name, inner in node.items():
            yield (*path, name)
            yield from walk(inner, (*path, name))

    if model.net is not None:
        add_children(model.net, ())
    length = len(model.scope)
    for path in [*layers.times(program), *(() if model.net is not None else parameters)]:
        if path[:length] == model.scope:
            add(path[length:])
    return walk(tree, ())


def node_at(net: Net | None, path: Path) -> Net | None:
    """Return the network at a path below another one; `None` where the layer is a scope or a submodule."""
    for name in path:
        net = None if net is None else net.children.get(name)
    return net
