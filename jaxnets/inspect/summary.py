"""`summary`: the counts of a model layer by layer, by tracing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax

from jaxnets.core.errors import NetError
from jaxnets.core.net import Net
from jaxnets.inspect import trace
from jaxnets.inspect.connections import by_layer
from jaxnets.inspect.receptive_field.field import sizes_by_layer
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
            module. It is the first argument of a function.
        state: the state of a network with `params`, or the other collections of a Linen module.
        depth: number of levels of layers to show, 0 for only the total; default: all.
        columns: any of "kind", "output", "parameters", "multiply_adds", "flops", "memory" (bytes of the layers'
            outputs), "receptive_field" (for images), "connections" (LeNet's), and for a training step "train_flops"
            and "train_memory" (bytes of residuals for the backward pass); default: the first seven.
        train: whether to count a forward pass in training mode.
        trips: number of iterations of loops of unknown length (`jax.lax.while_loop`); default: 1, and the counts are
            marked by ≥ and explained in a note.

    Returns:
        A `Summary`: `print` it, or read `.rows`, `.total`, `.records()` or `.markdown()`.

    Raises:
        NetError: for an unknown column or a negative depth; from the layer, for an input of a wrong shape.

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
    step = trace.training_step(model, trips=trips) if "train_flops" in shown else program
    between = trace.residuals(model, trips=trips) if "train_memory" in shown else program
    found: dict[str, Mapping[Path, Any]] = {"parameters": model.parameters}
    if "connections" in shown:
        found["connections"] = layers.totals(by_layer(model.net, program).items())
    guessed: set[str] = set()
    if "receptive_field" in shown:
        found["receptive_field"], guessed = sizes_by_layer(model)
        if columns is None and not found["receptive_field"]:
            shown = tuple(name for name in shown if name != "receptive_field")
    unsure: dict[str, Path] = {}
    costs = {
        "multiply_adds": (program, multiply_adds_of),
        "flops": (program, flops_of),
        "train_flops": (step, flops_of),
    }
    for column, (traced, cost) in costs.items():
        if column in shown:
            found[column] = layers.costs(traced, cost)
            unsure |= layers.unknowns(traced, cost)
    if "train_memory" in shown:
        found["train_memory"] = layers.residuals(between)
    if "memory" in shown:
        found["memory"] = layers.activations(program)
    shapes = {path: tuple(value.shape for value in values) for path, values in layers.outputs(program).items()}
    if model.net is not None:
        given = tuple(tuple(leaf.shape) for leaf in jax.tree.leaves(model.inputs))
        shapes |= layers.of_network(model.net, shapes, given, model.parameters)
    often = layers.times(program)
    for column, (traced, cost) in costs.items():
        guessed |= assumed(traced.operations) if column in shown and cost is flops_of else set()
    jaxprs.warn_assumed(guessed, stacklevel=2)

    def rows(tree: Mapping[str, Any], path: Path, net: Net | None) -> Iterator[Row]:
        """Yield the row of a layer, then those of the layers inside it; `net` is `None` for a scope or submodule."""
        full = model.scope + path if path else ()
        copies = often.get(full, 1) // often.get(full[:-1], 1) if net is None else max(1, net.copies)
        counts = {name: values.get(full, None if name == "receptive_field" else 0) for name, values in found.items()}
        sure = not any(place[: len(full)] == full for place in unsure.values())
        kind = "" if net is None else net.kind
        yield Row("/".join(path), copies, kind, shapes.get(full, ()), **counts, unsure=not sure)
        if depth is None or len(path) < depth:
            for name, inner in tree.items():
                yield from rows(inner, (*path, name), None if net is None else net.children.get(name))

    total, *inside = rows(_tree(model, often), (), model.net)
    return Summary(model.name, tuple(inside), total, shown, tuple(unsure))


def _tree(model: trace.Model, ran: Iterable[Path]) -> dict[str, Any]:
    """Return the layers inside each layer by name: those of the network, then other scopes."""

    def inside(net: Net) -> dict[str, Any]:
        return {name: inside(child) for name, child in net.children.items()}

    tree = {} if model.net is None else inside(model.net)
    for path in [*ran, *(() if model.net is not None else model.parameters)]:
        if path[: len(model.scope)] == model.scope:
            node = tree
            for name in path[len(model.scope) :]:
                node = node.setdefault(name, {})
    return tree
