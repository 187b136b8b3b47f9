"""For each layer of a traced program: how often it runs, what it returns, what it costs."""

from collections.abc import Callable, Container, Iterable, Mapping
from typing import TypeVar

from jaxnets.core.errors import NetError
from jaxnets.core.net import Net
from jaxnets.tracing.operation import Operation, Path, Program, Value

T = TypeVar("T")


def upwards(path: Path) -> Iterable[Path]:
    """Return a path and all paths above it, beginning with the outermost, `()`.

    >>> list(upwards(("layer1", "conv1")))
    [(), ('layer1',), ('layer1', 'conv1')]
    """
    return (path[:length] for length in range(len(path) + 1))


def shared(left: Path, right: Path) -> int:
    """Return how many layers two paths have in common, beginning with the outermost."""
    length = 0
    for one, other in zip(left, right):
        if one != other:
            break
        length += 1
    return length


def totals(amounts: Iterable[tuple[Path, int]]) -> dict[Path, int]:
    """Add up amounts by layer; the amount of a layer includes those of the layers inside it."""
    found: dict[Path, int] = {(): 0}
    for inner, amount in amounts:
        for path in upwards(inner):
            found[path] = found.get(path, 0) + amount
    return found


def costs(program: Program, cost: Callable[[Operation], int | None]) -> dict[Path, int]:
    """Return the cost of each layer with the layers inside it; an operation without a rule costs nothing."""
    return totals((each.path, (cost(each) or 0) * each.times) for each in program.operations)


def unknowns(program: Program, cost: Callable[[Operation], int | None]) -> dict[str, Path]:
    """Return messages about unknown costs, with their layers: operations without a rule, loops of unknown length."""
    found = {}
    for operation in program.operations:
        amount, where = cost(operation), "/".join(operation.path) or "the function"
        if amount is None:
            found[f"{operation.name} in {where} has no known cost"] = operation.path
        elif amount and not operation.place.known:
            found[f"a loop in {where} has no known length; give it by trips="] = operation.path
    return found


def total(program: Program, cost: Callable[[Operation], int | None]) -> int:
    """Return the cost of the whole program.

    Raises:
        NetError: if the cost is unknown.
    """
    if found := unknowns(program, cost):
        raise NetError("can't be counted: " + "; ".join(found) + "; jn.summary counts what is known")
    return costs(program, cost)[()]


def times(program: Program) -> dict[Path, int]:
    """Return how often each layer runs: as often as its operation that runs least often."""
    least: dict[Path, int] = {(): 1}
    for operation in program.operations:
        for path in upwards(operation.path):
            least[path] = min(least.get(path, operation.times), operation.times)
    return least


def outputs(program: Program) -> dict[Path, list[Value]]:
    """Return the outputs of each layer: the values made in it that an operation outside reads, if the outputs need it.

    Layers are in the order in which they first run.
    """
    found: dict[Path, list[Value]] = {path: [] for each in program.operations for path in upwards(each.path)}
    found[()] = list(dict.fromkeys(program.outputs))
    for operation in program.operations:
        for value in operation.outputs:
            # The value is an output of each layer around it that has a reader outside.
            paths = [() if reader is None else reader.path for reader in program.readers.get(value, ())]
            outermost = min((shared(operation.path, path) for path in paths), default=len(operation.path))
            for path in upwards(operation.path):
                if len(path) > outermost:
                    found[path].append(value)
    return found


def of_network(net: Net, found: Mapping[Path, T], given: T, parameters: Container[Path]) -> dict[Path, T]:
    """Return a quantity for each layer of a network.

    A layer without an operation, such as dropout in evaluation, has the quantity of its input; a layer with parameters
    that does not run has none.

    Args:
        net: the network.
        found: the quantity by path, as found in a program.
        given: the quantity of the network's input.
        parameters: the paths of layers with parameters.
    """
    rows: dict[Path, T] = {}

    def visit(net: Net, path: Path, given: T) -> None:
        before = given
        for name, child in net.children.items():
            own = (*path, name)
            # Children of a network with `cut` run in order; the layer of a shortcut reads the block's input.
            reads = before if net.cut is not None and name != "downsample" else given
            if own in found or (own not in parameters and (not path or path in rows)):
                rows[own] = found.get(own, reads)
            visit(child, own, reads)
            before = rows.get(own, before)

    visit(net, (), given)
    return rows


def activations(program: Program) -> dict[Path, int]:
    """Return the bytes of the outputs of each layer, including those of the layers inside it.

    Each value counts once, in the layer that made it; in a scan, once for each step.
    """
    return totals(
        (path, value.nbytes * program.maker[value].times)
        for path, values in outputs(program).items()
        for value in values
        # An output made by an inner layer is counted there.
        if value in program.maker and program.maker[value].path == path
    )


def residuals(program: Program) -> dict[Path, int]:
    """Return the bytes of the residuals that each layer made, for a program whose outputs are the residuals.

    Parameters and inputs exist anyway and do not count, nor do values that depend on neither an input nor a key.
    """
    # Each residual once, and only those that an operation made.
    made = [value for value in dict.fromkeys(program.outputs) if value in program.maker]
    return totals((value.path, value.nbytes) for value in made if value.source == "input")
