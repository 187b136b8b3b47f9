"""Each layer of a traced program: how often it runs, what it returns, what it costs."""

from collections.abc import Callable, Iterable

from jaxnets.core.errors import NetError
from jaxnets.tracing.operation import Operation, Path, Program, Value


def upwards(path: Path) -> Iterable[Path]:
    """Return a path and all paths above it, from the outermost, `()`, on.

    >>> list(upwards(("layer1", "conv1")))
    [(), ('layer1',), ('layer1', 'conv1')]
    """
    return (path[:length] for length in range(len(path) + 1))


def shared(left: Path, right: Path) -> int:
    """Return how many layers two paths have in common, from the outermost on."""
    length = 0
    for one, other in zip(left, right):
        if one != other:
            break
        length += 1
    return length


def costs(program: Program, cost: Callable[[Operation], int | None]) -> dict[Path, int]:
    """Return the cost of each layer with the layers inside it; an operation without a rule costs nothing."""
    totals: dict[Path, int] = {(): 0}
    for operation in program.operations:
        amount = (cost(operation) or 0) * operation.times
        # A layer's cost includes that of the layers inside it.
        for path in upwards(operation.path):
            totals[path] = totals.get(path, 0) + amount
    return totals


def unknowns(program: Program, cost: Callable[[Operation], int | None]) -> dict[str, Path]:
    """Return messages about unknown costs, operations without a rule and loops of unknown length, with their layers."""
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
        NetError: if it is not known.
    """
    if found := unknowns(program, cost):
        raise NetError("can't be counted: " + "; ".join(found) + "; jn.summary counts what is known")
    return costs(program, cost)[()]


def times(program: Program) -> dict[Path, int]:
    """Return how often each layer runs: as often as the operation in it that runs least often."""
    least: dict[Path, int] = {(): 1}
    for operation in program.operations:
        for path in upwards(operation.path):
            least[path] = min(least.get(path, operation.times), operation.times)
    return least


def readers(program: Program) -> dict[Value, list[Operation | None]]:
    """Return the operations that read each value on the way to the outputs, and `None` for an output itself."""
    found: dict[Value, list[Operation | None]] = {value: [None] for value in program.outputs}
    # From the last operation back: only what leads to an output counts.
    for operation in reversed(program.operations):
        if any(value in found for value in operation.outputs):
            for value in (*operation.inputs, *operation.after):
                found.setdefault(value, []).append(operation)
    return found


def outputs(program: Program) -> dict[Path, list[Value]]:
    """Return the outputs of each layer: the values made in it that something outside reads on the way to the outputs.

    Layers are in the order in which they first run.
    """
    reading = readers(program)
    found: dict[Path, list[Value]] = {path: [] for each in program.operations for path in upwards(each.path)}
    found[()] = list(dict.fromkeys(program.outputs))
    for operation in program.operations:
        for value in operation.outputs:
            # The value is an output of those layers around it that some reader lies outside of.
            paths = [() if reader is None else reader.path for reader in reading.get(value, ())]
            outermost = min((shared(operation.path, path) for path in paths), default=len(operation.path))
            for path in upwards(operation.path):
                if len(path) > outermost:
                    found[path].append(value)
    return found


def activations(program: Program) -> dict[Path, int]:
    """Return the bytes of the outputs of each layer with the layers inside it.

    Each value counts once, in the layer that made it; in a scan, once for each step.
    """
    maker = {value: each for each in program.operations for value in each.outputs}
    totals: dict[Path, int] = {(): 0}
    for path, values in outputs(program).items():
        for value in values:
            # An output that an inner layer made is counted there.
            if value in maker and maker[value].path == path:
                for outer in upwards(path):
                    totals[outer] = totals.get(outer, 0) + value.nbytes * maker[value].times
    return totals


def residuals(program: Program) -> dict[Path, int]:
    """Return the bytes of the residuals that each layer made, for a program whose outputs are the residuals.

    Parameters and inputs exist anyway and do not count, nor do values that depend on neither an input nor a key.
    """
    known = kinds(program)
    totals: dict[Path, int] = {(): 0}
    # Each residual once, and only those that an operation made.
    for value in dict.fromkeys(program.outputs):
        if not value.source and known.get(value) == "input":
            for path in upwards(value.path):
                totals[path] = totals.get(path, 0) + value.nbytes
    return totals


def kinds(program: Program) -> dict[Value, str]:
    """Return what each value depends on: "input" (or a key), or else "params", or else "constant"."""
    found = {value: "constant" if value.source == "state" else value.source for value in program.inputs}
    for operation in program.operations:
        given = {found.get(value, "constant") for value in operation.inputs}
        kind = next((kind for kind in ("input", "params") if kind in given), "constant")
        found |= dict.fromkeys(operation.outputs, kind)
    return found
