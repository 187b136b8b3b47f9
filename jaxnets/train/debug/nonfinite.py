"""Find where in a step the first non-finite value occurs."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.compiled import compiled
from jaxnets.core.errors import NetError
from jaxnets.core.example_weights import example_weights
from jaxnets.core.paths import paths
from jaxnets.train.epoch import Recipe
from jaxnets.train.evaluation import gather_batch
from jaxnets.train.program import Program
from jaxnets.train.state import Batch, TrainState
from jaxnets.train.step import join_frozen, split_frozen

if TYPE_CHECKING:
    from jaxnets.tracing.operation import Operation, Value
    from jaxnets.tracing.replay import Live, Replay

NETWORK, OBJECTIVE = "network", "objective"  # the scopes of a step
PARTS = ("inputs", "targets", "weights")  # of a batch
# Operations that are not defined on all of ℝ.
DOMAINS = ("acos", "acosh", "asin", "atanh", "div", "log", "log1p", "pow", "integer_pow", "rsqrt", "sqrt")
HUGE = 1e6  # larger operands come from parameters that grew, not from the edge of a domain
WORDS = {
    "conv_general_dilated": "convolution", "dot_general": "matrix product", "mul": "product", "div": "quotient",
    "add": "sum", "add_any": "sum", "reduce_sum": "sum", "sub": "difference", "integer_pow": "power", "pow": "power",
    "select_n": "choice", "convert_element_type": "conversion",
}  # fmt: skip

_least_and_largest = jax.jit(lambda array: jnp.stack([array.min(), array.max()]))


def find_nonfinite(program: Program, state: TrainState) -> str:
    """Say where the first non-finite value occurred in a run that halted at one.

    The failing step is computed again operation by operation, from the train state's parameters, batch and key: the
    network, the objective, then the gradients. From the first of these results that is not finite, the search goes back
    through non-finite operands to an operation whose operands are all finite, or to an input of the step. Values that
    never reach a result, such as a mask of -inf, are not reported.

    Args:
        program: what was run.
        state: a train state whose `failed` is a step, such as that of a `NonFiniteError`.

    Returns:
        A sentence with the step (from 0), the epoch (from 1), the layer, the operation with the range of its operands,
        the iteration (from 0) of a loop such as that of `recurrent` or `repeat`, and a hint; for data, the example. A
        loop of a thousand iterations takes a few seconds.

    Raises:
        NetError: if the run had no such value.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, numpy as np, optax
    >>> net = jn.serial(hidden=jn.dense(4), log=jnp.log)
    >>> data = np.ones((8, 3), np.float32), np.zeros(8, int)
    >>> program = jn.train.program(net, jn.losses.cross_entropy, optax.sgd(0.1), data, epochs=1, batch_size=4)
    >>> try:
    ...     jn.train.run(program, key=jax.random.key(1))
    ... except jn.train.NonFiniteError as error:
    ...     print(find_nonfinite(program, error.state))
    stops at step 0 (epoch 1), where the loss is nan: the first value that is not finite is made in log: ...
    """
    if state.failed is None or int(state.failed) < 0:
        raise NetError("finds no step that failed; pass the state of a NonFiniteError", label="find_nonfinite")
    # The batch of the failing step, before it is augmented, and the number of each of its examples.
    if program.stream is None:
        arrays = state, program.train
        numbers, weights = compiled(Recipe.next_rows, [program.recipe], arrays)(*arrays)
        raw = gather_batch(program.train, numbers, weights)
    else:
        numbers, raw = program.stream.numbers(state), Batch(*program.stream.at(state))
    batch = compiled(Recipe.prepare, [program.recipe], (state, raw))(state, raw)
    step = int(state.failed)
    epoch = step // -(-program.examples // len(batch.weights)) + 1
    if step > int(state.step):
        where = "the train state is that of the epoch's beginning"
        why = f"an update makes parameters that are not finite; {where}; {_growth(state)}"
        return f"stops at step {step} (epoch {epoch}), where {why}"
    # The first pass with a non-finite result, or the last one.
    passes = _passes(program, state, batch)
    one = next(passes)
    while not one.bad and (following := next(passes, None)) is not None:
        one = following
    what = f"the loss is {one.loss:.4g}"
    if not one.bad:
        edge = "so the update makes parameters that are not, or a value is at the edge of its range"
        why = f"computed again, every value is finite, {edge}; {_growth(state)}"
    else:
        what += " and its gradient not finite" if np.isfinite(one.loss) else ""
        why = _story(state, one, lambda part: _example(program, raw, numbers, part))
    return f"stops at step {step} (epoch {epoch}), where {what}: {why}"


class _Pass(NamedTuple):
    """Results of a replay: the loss, the inputs by name, the non-finite results, and whether they are gradients."""

    loss: float
    replay: "Replay"
    given: dict["Value", str]
    bad: list["Value"]
    backward: bool


def _passes(program: Program, state: TrainState, batch: Batch) -> Iterator[_Pass]:
    """Yield the outputs, the parts of the loss, the loss, then the gradients, for each part of a batch in turn."""
    from jaxnets.tracing.operation import Place  # imported here, as the import is slow
    from jaxnets.tracing.replay import Replay

    recipe, count = program.recipe, program.recipe.options.accumulate
    learned, frozen = split_frozen(state.params, recipe.options.freeze)
    key, network_state = jax.random.fold_in(state.key, state.step), state.state

    def forward(learned: Any, frozen: Any, state: Any, batch: Batch, key: Any) -> Any:
        params = join_frozen(learned, frozen)
        weights = batch.weights if recipe.options.weighted else None
        with jax.named_scope(NETWORK), example_weights(weights):
            outputs, state = recipe.net.apply(params, state, batch.x, key=key, train=True)
        with jax.named_scope(OBJECTIVE):
            loss, parts = recipe.objective(params, outputs, batch.y, batch.weights)
        return loss, state, outputs, parts

    def backward(*args: Any) -> Any:
        def scaled(learned: Any) -> jax.Array:
            loss = forward(learned, *args[1:])[0]
            return loss if state.scale is None else loss * state.scale.factor.astype(loss.dtype)

        return jax.grad(scaled)(args[0])

    def replayed(function: Any, args: Any) -> tuple[Any, Replay, dict["Value", str], list["Live"]]:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        replay = Replay(_extent)
        given = [replay.live(leaf, "input") for leaf in jax.tree.leaves(args)]
        made = replay.run(closed, given, Place())
        results = jax.tree.unflatten(jax.tree.structure(shapes), made)
        return results, replay, {each.value: name for each, name in zip(given, _names(args))}, made

    for number in range(count):
        part = jax.tree.map(lambda leaf, number=number: leaf.reshape(count, -1, *leaf.shape[1:])[number], batch)
        args = (learned, frozen, network_state, part, key if count == 1 else jax.random.fold_in(key, number))
        (loss, after, *results), replay, given, _ = replayed(forward, args)
        network_state = jax.tree.map(lambda each: each.array, after, is_leaf=_is_live)
        total = float(loss.array)
        # Outputs, then the parts of the loss, then the loss: the first is the nearest to the cause.
        for result in (*results, loss):
            yield _Pass(total, replay, given, _not_finite(replay, result), False)
        _, replay, given, made = replayed(backward, args)
        yield _Pass(total, replay, given, _not_finite(replay, made), True)


def _names(args: Any) -> Iterator[str]:
    """Yield a name for each leaf of a step's inputs."""
    learned, frozen, state, batch, _ = args
    for tree, kind in ((learned, "parameter"), (frozen, "parameter"), (state, "state")):
        yield from (f"{kind} {path}".strip() for path in paths(tree))
    for tree, kind in zip((batch.x, batch.y, batch.weights), PARTS):
        yield from (kind for _ in jax.tree.leaves(tree))
    yield "key"


def _extent(array: jax.Array) -> Any:
    """Return the smallest and the largest number; NaN if there is one."""
    if array.nbytes > 2**20:
        return _least_and_largest(array)
    numbers = np.asarray(array)  # small: nothing to compile
    return np.stack([numbers.min(), numbers.max()])


def _is_live(node: Any) -> bool:
    return hasattr(node, "array")


def _not_finite(replay: "Replay", results: Any) -> list["Value"]:
    live = jax.tree.leaves(results, is_leaf=_is_live)
    return [each.value for each in live if not np.isfinite(_range(replay, each.value)).all()]


def _range(replay: "Replay", value: "Value") -> np.ndarray:
    """Return the smallest and the largest number of a value; 0 and 0 if it has no real numbers."""
    return np.asarray(replay.measured.get(value, np.zeros(2)), np.float64)


def _cause(replay: "Replay", bad: Sequence["Value"]) -> "int | Value":
    """Return the number of the operation that made the first non-finite value, or that value if it is an input."""
    maker = {value: number for number, each in enumerate(replay.operations) for value in each.outputs}
    seen, ahead, roots = set(), list(bad), []
    while ahead:
        value = ahead.pop()
        if value in seen:
            continue
        seen.add(value)
        if value not in maker:
            return value
        operands = [
            each
            for each in replay.operations[maker[value]].inputs
            if each.source != "constant" and not np.isfinite(_range(replay, each)).all()
        ]
        roots += [] if operands else [maker[value]]
        ahead += operands
    return min(roots)


def _story(state: TrainState, one: _Pass, example: Callable[[str], str]) -> str:
    """Say where a pass makes its first value that is not finite; `example` says which example has it."""
    replay, cause = one.replay, _cause(one.replay, one.bad)
    if not isinstance(cause, int):
        name = one.given[cause]
        if name in PARTS:
            return example(name)
        return f"the {name} is not finite already before it; {_growth(state)}"
    operation = replay.operations[cause]
    turns = operation.place.turns
    scope, *layer = operation.path or ("",)
    where = {NETWORK: "/".join(layer) or "the network", OBJECTIVE: "the objective"}.get(scope, "the step")
    if one.backward:
        where = f"the derivative of {where}"
    ranges = [_range(replay, value) for value in operation.inputs if value in replay.measured]
    result = next(_range(replay, value) for value in operation.outputs if value in replay.measured)
    kind = "nan" if np.isnan(result).any() else "inf" if np.isposinf(result).any() else "-inf"
    of = " and ".join(_written(*each) for each in ranges)
    turn = f" in turn {', '.join(map(str, turns))} of its loop" if turns else ""
    what = f"the {WORDS.get(operation.name, operation.name)} of {of} gives {kind}{turn}"
    large = max((np.abs(each).max() for each in ranges), default=0.0)
    hint = _growth(state) if operation.name not in DOMAINS or large > HUGE else _hint(operation, one.backward)
    return f"the first value that is not finite is made in {where}: {what}; {hint}"


def _written(low: float, high: float) -> str:
    return f"{low:.3g}" if low == high else f"{low:.3g} … {high:.3g}"


def _hint(operation: "Operation", backward: bool) -> str:
    if backward:
        shield = "jnp.where around it does not shield the gradient"
        return f"keep the layer's input from the edge, as in jnp.sqrt(x + 1e-6); {shield}"
    name = operation.name if operation.name in ("log", "sqrt", "rsqrt") else "f"
    return f"keep its operand where it is defined, as in {name}(jnp.maximum(x, 1e-6))"


def _growth(state: TrainState) -> str:
    """Say how large the parameters are, and how to keep them small."""
    sizes = {
        path: float(np.abs(np.asarray(leaf)).max())
        for path, leaf in paths(state.params).items()
        if leaf.size and jnp.issubdtype(leaf.dtype, jnp.inexact)
    }
    hint = "a smaller learning rate, or optax.clip_by_global_norm(1.0) in front of the optimizer, keeps values in range"
    if not sizes:
        return hint
    path = max(sizes, key=lambda each: np.inf if np.isnan(sizes[each]) else sizes[each])
    return f"parameters reach {sizes[path]:.3g}" + (f" ({path})" if path else "") + f"; {hint}"


def _example(program: Program, raw: Batch, numbers: Any, part: str) -> str:
    """Say which example of the data has a value that is not finite in a part of the batch."""
    place = PARTS.index(part)
    there = {int(numbers[row]) for row in np.flatnonzero(_bad_rows((raw.x, raw.y, raw.weights)[place]))}
    if not there:
        cause = f"augment or batch_augment puts a value that is not finite into the {part}"
        return f"{cause}; the data themselves are finite"
    count = len(there) if program.stream else int(_bad_rows(program.train[place]).sum())
    others = f", as {count} examples{' of the batch' if program.stream else ''} have" if count > 1 else ""
    found = f"example {min(there)} of the data has a value that is not finite among its {part}{others}"
    return f"{found}; leave it out or clip it"


def _bad_rows(tree: Any) -> np.ndarray:
    """Tell for each row of some arrays whether it has a value that is not finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return ~np.all([np.isfinite(np.asarray(leaf)).reshape(len(leaf), -1).all(1) for leaf in leaves], axis=0)
