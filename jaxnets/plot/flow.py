"""The edges of a diagram: which layer reads the outputs of which other, found in the traced program."""

from collections.abc import Collection, Mapping, Sequence

import jax
import jax.numpy as jnp

from jaxnets.tracing.layers import upwards
from jaxnets.tracing.operation import Path, Program, Value

INPUT, OUTPUT, MERGE = "input/", "output/", "merge/"  # nodes that are not layers, whose names have no slash
WORDS = {"add_any": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "dot_general": "matmul"}

Edges = dict[tuple[Path, Path], None]  # an ordered set


def flow(
    program: Program, layers: Collection[Path], chains: Mapping[Path, Sequence[Path]]
) -> tuple[Edges, dict[Path, str]]:
    """Follow every value from the innermost drawn layer that made it to those that read it.

    An operation that is in a layer but in none of its children passes on its source, if it reads from only one. If it
    reads from several, it becomes a separate node, a merge. A layer without any operation, such as dropout in
    evaluation, is placed between its neighbors in a chain.

    Args:
        program: a forward pass.
        layers: paths of the drawn layers, including outer ones and the whole model.
        chains: for each layer that runs its children in order, their paths.

    Returns:
        The edges between nodes, and the labels of those nodes that are not layers: inputs, outputs and merges. A node
        is a path; that of a merge is inside the layer around it.
    """
    root = min(layers, key=len)
    # Layers with drawn layers inside them become subgraphs, without edges.
    parents = {path[:-1] for path in layers if path != root}
    data = [
        value
        for value in program.inputs
        if value.source == "input" and not jnp.issubdtype(value.aval.dtype, jax.dtypes.prng_key)
    ]
    origins: dict[Value, Path] = {value: (f"{INPUT}{number}",) for number, value in enumerate(data)}
    labels = {node: f"input {sizes(value.aval.shape)}".rstrip() for value, node in origins.items()}
    edges: Edges = {}
    ran = set()
    for operation in program.operations:
        node = max((path for path in upwards(operation.path) if path in layers), key=len, default=root)
        ran.add(node)
        sources = dict.fromkeys(origins[value] for value in operation.inputs if value in origins)
        # An operation without sources depends only on parameters and constants.
        if not sources:
            continue
        if node in parents:
            node = _continued(sources, edges) or (*node, f"{MERGE}{len(labels)}")
            if len(sources) > 1:
                labels.setdefault(node, WORDS.get(operation.name, operation.name))
        edges |= dict.fromkeys((source, node) for source in sources if source != node)
        origins |= dict.fromkeys(operation.outputs, node)
    if root not in parents | ran:
        # A single layer without any operation returns its input.
        edges |= dict.fromkeys((source, root) for source in labels)
        origins = dict.fromkeys(origins, root)
    for number, value in enumerate(dict.fromkeys(value for value in program.outputs if value in origins)):
        node = (f"{OUTPUT}{number}",)
        labels[node] = f"output {sizes(value.aval.shape)}".rstrip()
        edges[origins[value], node] = None
    idle = set(layers) - parents - ran
    return _through_idle(edges, chains, idle), labels


def _continued(sources: Collection[Path], edges: Edges) -> Path | None:
    """Return the source that an operation between layers continues, if there is one.

    That is the only source, or the merge of all others: `jnp.where(a > b, a, b)` merges a and b once.
    """
    for source in sources:
        merge = source[-1].startswith(MERGE)
        if len(sources) == 1 or (merge and all(other == source or (other, source) in edges for other in sources)):
            return source
    return None


def _through_idle(edges: Edges, chains: Mapping[Path, Sequence[Path]], idle: Collection[Path]) -> Edges:
    """Route each edge through the idle layers on its way."""
    led: Edges = {}
    for start, end in edges:
        shared = next((n for n, (a, b) in enumerate(zip(start, end)) if a != b), 0)
        # An edge leaves the layers around its start, crosses the innermost layer around both nodes, and enters those
        # around its end. In each of these layers it passes through the children between two others, or between one and
        # an end of the chain.
        way = [(start[:depth], None) for depth in range(len(start), shared + 1, -1)]
        way += [(start[: shared + 1], end[: shared + 1])]
        way += [(None, end[:depth]) for depth in range(shared + 2, len(end) + 1)]
        nodes = [start]
        for left, right in way:
            chain = list(chains.get((left or right or ())[:-1], ()))
            first = chain.index(left) + 1 if left in chain else 0
            last = chain.index(right) if right in chain else len(chain)
            if all(path in idle for path in chain[first:last]):
                nodes += chain[first:last]
        led |= dict.fromkeys(zip(nodes, [*nodes[1:], end]))
    return led


def sizes(shape: Sequence[int]) -> str:
    """Return a shape without its batch axis as text.

    >>> sizes((32, 28, 28, 1))
    '28×28×1'
    """
    return "×".join(map(str, shape[1:]))
