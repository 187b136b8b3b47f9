"""One step of gradient descent as a pure function."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from jaxnets.core.checks import check_function
from jaxnets.core.errors import NetError, check_count, check_fraction, labeled_as, shown
from jaxnets.core.example_weights import example_weights
from jaxnets.core.net import Key, Net, Params, State, fold, spec
from jaxnets.core.paths import Pattern
from jaxnets.core.sharding import constrained
from jaxnets.train.freezing import check_patterns, join_frozen, keep_state, split_frozen
from jaxnets.train.loss_scale import LossScale
from jaxnets.train.names import together
from jaxnets.train.optimizers import begin, descend, unrounded, widened
from jaxnets.train.state import Batch, TrainState

Parts = Mapping[str, jax.Array]
ObjectiveFunction = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]


@dataclass(frozen=True)
class StepInfo:
    """What `monitor` may look at in a step.

    Attributes:
        run: the run before the step.
        batch: what it learned from.
        key: the key that the network got.
        gradients: of the objective, with the parameters' structure; frozen ones are `None`.
        updates: what was added to the parameters, likewise; zeros where the step is not taken.
    """

    run: TrainState
    batch: Batch
    key: Any
    gradients: Any
    updates: Any


@dataclass(frozen=True)
class Options:
    """What a training step does beyond plain gradient descent.

    Attributes:
        accumulate: how many equal parts of a batch are computed one after another, their gradients summed: less
            memory, the same step except for layers that look at the whole batch.
        loss_scale: dynamic scaling of the loss, `LossScale()`, for networks that compute in float16.
        plateau: what `optax.contrib.reduce_on_plateau` looks at after every epoch, `("validation/loss",
            optax.contrib.reduce_on_plateau(patience=5))`: any value of the history for which lower is better. Its
            factor scales the updates of the next epoch. (Inside the optimizer's chain it sees each batch's loss.)
        monitor: gives more to report of every step, by name, such as `jn.train.norms()`.
        halt_on_nonfinite: whether training halts, at the parameters before it, when a step meets a loss or a gradient
            that is not finite, even where the optimizer would clip it, or gradients of one parameter whose sum
            overflows; `state.failed` has the step. Parameters that an update makes infinite are detected by the next
            step's loss, or at the end of the epoch, and the state is then that of the epoch's beginning. Data in
            memory are searched for NaN, too.
        freeze: which parameters stay as they are; `program` has an argument for it.
        ema_decay: decay of the moving average of the parameters, likewise.
        weighted: whether examples may have different weights, which batch statistics then follow.
    """

    accumulate: int = 1
    loss_scale: LossScale | None = None
    plateau: tuple[str, optax.GradientTransformationExtraArgs] | None = None
    monitor: Callable[[StepInfo], Parts] | None = None
    halt_on_nonfinite: bool = True
    freeze: Pattern | None = None
    ema_decay: Any = None
    weighted: bool = True

    def __post_init__(self) -> None:
        with labeled_as("Options"):
            check_count("accumulate", self.accumulate)
            check_function("monitor", self.monitor, "(info) -> values by name")
            check_patterns(self.freeze)
            if self.ema_decay is not None:
                check_fraction("ema_decay", self.ema_decay)
            if not isinstance(self.loss_scale, LossScale | None):
                raise NetError(f"expects loss_scale=jn.train.LossScale(), got {shown(self.loss_scale)}")
            if not isinstance(self.halt_on_nonfinite, bool):
                raise NetError(f"expects halt_on_nonfinite=True or False, got {shown(self.halt_on_nonfinite)}")
            plateau = self.plateau
            if plateau is not None and not (
                isinstance(plateau, tuple) and len(plateau) == 2 and isinstance(plateau[0], str)
            ):
                hint = '("validation/loss", optax.contrib.reduce_on_plateau(patience=5))'
                raise NetError(f"expects plateau={hint}, got {shown(plateau)}")


def start(
    net: Net, optimizer: optax.GradientTransformation, key: Key, x: Any, options: Options = Options()
) -> TrainState:
    """Return the run before its first step.

    Args:
        net: the network.
        optimizer: the Optax optimizer.
        key: initial values and all later randomness come from it.
        x: an input, read for its shape and dtype alone.
        options: those of the steps to come.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> run = start(jn.dense(2), optax.sgd(0.1), jax.random.key(0), jnp.ones((1, 3)))
    >>> int(run.step), run.params["kernel"].shape
    (0, (3, 2))
    """
    params, state = net.init(fold(key, "init"), spec(x))
    learned = split_frozen(params, options.freeze)[0]
    return TrainState(
        params,
        state,
        begin(optimizer, learned),
        fold(key, "train"),
        jnp.zeros((), jnp.int32),
        ema=None if options.ema_decay is None else jax.tree.map(jnp.copy, widened(params)),
        scale=None if options.loss_scale is None else options.loss_scale.start(),
        failed=jnp.full((), -1, jnp.int32) if options.halt_on_nonfinite else None,
        plateau=None if options.plateau is None else options.plateau[1].init(widened(learned)),
    )


def make_train_step(
    net: Net,
    objective: ObjectiveFunction,
    optimizer: optax.GradientTransformation,
    options: Options = Options(),
    *,
    batch_sharding: NamedSharding | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Any, Parts]]:
    """Return the pure function of one step of gradient descent: `(run, batch) -> (run, outputs, parts)`.

    θ ← θ + u(∇ L(θ)), where L is the objective on the batch and u the optimizer's update. The network's
    randomness comes from the run's key folded by the number of the step.

    Args:
        net: the network.
        objective: `(params, outputs, targets, weights) -> (scalar, parts)`, as `jn.objective` makes.
        optimizer: the Optax optimizer.
        options: what a step does beyond; the run must have been started with the same.
        batch_sharding: how the rows of a batch lie on the devices, if it is sharded and computed in parts.

    Returns:
        A function that gives the next run, the batch's outputs, and the parts of the objective by name,
        the whole as `loss`.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> net, adam = jn.dense(2), optax.adam(1e-2)
    >>> one = jax.jit(make_train_step(net, jn.objective(jn.losses.cross_entropy), adam))
    >>> run = start(net, adam, jax.random.key(0), jnp.ones((4, 3)))
    >>> run, outputs, parts = one(run, Batch(jnp.ones((4, 3)), jnp.zeros(4, int), jnp.ones(4)))
    >>> int(run.step), sorted(parts)
    (1, ['cross_entropy', 'loss'])
    """

    def evaluate(run: TrainState, batch: Batch, key: Key) -> tuple[jax.Array, tuple[Any, State, dict[str, jax.Array]]]:
        with example_weights(batch.weights if options.weighted else None):
            outputs, state = net.apply(run.params, run.state, batch.x, key=key, train=True)
        total, parts = objective(run.params, outputs, batch.y, batch.weights)
        return total, (outputs, state, together({"loss": total}, parts))

    def gradients(run: TrainState, batch: Batch, key: Key) -> tuple[Any, tuple[Any, State, dict[str, jax.Array]]]:
        learned, frozen = split_frozen(run.params, options.freeze)

        def loss(learned: Any) -> tuple[jax.Array, tuple]:
            total, found = evaluate(replace(run, params=join_frozen(learned, frozen)), batch, key)
            return total if run.scale is None else total * run.scale.factor.astype(total.dtype), found

        grads, found = jax.grad(loss, has_aux=True)(learned)
        return grads if run.scale is None else _over(grads, run.scale.factor), found

    compute, again = gradients, evaluate
    if options.accumulate > 1:
        # An optimizer that searches along a line differentiates the value: each part anew, so that one is in memory.
        both = gradients, jax.checkpoint(evaluate)
        compute, again = (_in_parts(each, options.accumulate, batch_sharding) for each in both)

    def step_fn(run: TrainState, batch: Batch) -> tuple[TrainState, Any, Parts]:
        key = jax.random.fold_in(run.key, run.step)
        grads, (outputs, state, parts) = compute(run, batch, key)
        learned, frozen = split_frozen(run.params, options.freeze)

        def value(learned: Any) -> jax.Array:
            return again(replace(run, params=join_frozen(learned, frozen)), batch, key)[0]

        def moves() -> tuple[Any, Any]:
            factor = None if run.plateau is None else run.plateau.scale
            params, opt_state, updates = descend(
                optimizer, grads, run.opt_state, learned, parts["loss"], value, factor=factor
            )
            ema = run.ema
            if options.ema_decay is not None:
                exact = join_frozen(unrounded(opt_state, params), frozen)
                ema = _averaged(ema, exact, options.ema_decay, run.step)
            return (params, opt_state, ema), updates if options.monitor else None

        def stays() -> tuple[Any, Any]:
            shapes = jax.eval_shape(moves)[1] if options.monitor else None
            return (learned, run.opt_state, run.ema), jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)

        new = replace(run, state=keep_state(state, run.state, options.freeze), step=run.step + 1)
        if options.halt_on_nonfinite or options.loss_scale is not None:
            finite = _all_finite([parts["loss"], *jax.tree.leaves(grads)])
            new, taken = _verdict(options, run, new, parts["loss"], finite)
            # A branch, not a select for each leaf, which would hold old and new of all of them and read them again.
            (params, opt_state, ema), updates = jax.lax.cond(taken, moves, stays)
        else:
            (params, opt_state, ema), updates = moves()
        if options.monitor is not None:
            with example_weights(batch.weights if options.weighted else None):
                parts = together(parts, options.monitor(StepInfo(run, batch, key, grads, updates)))
        params = join_frozen(params, frozen)
        return replace(new, params=params, opt_state=opt_state, ema=ema), outputs, parts

    return step_fn


def _in_parts(gradients: Callable, parts: int, batch_sharding: NamedSharding | None) -> Callable:
    """Return a function like `gradients` that sees a batch in parts: means are weighted as in the whole batch."""

    def compute(run: TrainState, batch: Batch, key: Key) -> Any:
        pieces = constrained(
            jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), batch), batch_sharding, axis=1
        )
        whole = batch.weights.sum()
        whole = jnp.where(whole == 0, jnp.ones_like(whole), whole)

        def one(state: State, piece: tuple[Any, jax.Array]) -> tuple[State, Any]:
            part, number = piece
            grads, (outputs, state, values) = gradients(
                replace(run, state=state), part, jax.random.fold_in(key, number)
            )
            share = part.weights.sum() / whole
            shared = jax.tree.map(lambda leaf: leaf * share.astype(leaf.dtype), (grads, values))
            return state, (shared, outputs)

        state, (shared, outputs) = jax.lax.scan(one, run.state, (pieces, jnp.arange(parts)))
        grads, values = jax.tree.map(lambda leaf: leaf.sum(0), shared)
        outputs = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), outputs)
        return grads, (outputs, state, values)

    return compute


def settled(before: TrainState, run: TrainState) -> TrainState:
    """Return the run at an epoch's end, or, if its parameters are not finite any more, that at its beginning, failed.

    Within an epoch the next step's loss shows such parameters. Only at its end they would be reported and saved.
    """
    if run.failed is None:
        return run
    finite = _all_finite(jax.tree.leaves((run.params, run.ema)))
    failed = jnp.where(finite | (run.failed >= 0), run.failed, run.step - 1)
    both = replace(run, failed=failed), replace(before, failed=failed)
    return jax.tree.map(lambda after, first: jnp.where(finite, after, first), *both)


def _verdict(
    options: Options, run: TrainState, new: TrainState, loss: jax.Array, finite: jax.Array
) -> tuple[TrainState, jax.Array]:
    """Return what comes after a step but for what the optimizer makes, and whether the optimizer's step is taken."""
    stands = jnp.zeros((), bool)
    if options.halt_on_nonfinite:
        # With a scale, gradients that overflow are its business until it can go down no further; a loss is not.
        gives_up = True if run.scale is None else (run.scale.factor <= 1) | ~jnp.isfinite(loss)
        stands = (run.failed >= 0) | (~finite & gives_up)
        new = replace(new, failed=jnp.where(stands & (run.failed < 0), run.step, run.failed))
    taken = finite & ~stands
    state = jax.tree.map(lambda a, b: jnp.where(taken, a, b), new.state, run.state)
    new = replace(new, state=state, step=jnp.where(stands, run.step, new.step))
    if options.loss_scale is not None and run.scale is not None:
        scale = options.loss_scale.update(run.scale, finite)
        new = replace(new, scale=jax.tree.map(lambda a, b: jnp.where(stands, b, a), scale, run.scale))
    return new, taken


def _all_finite(leaves: list[jax.Array]) -> jax.Array:
    """Return whether all values are finite, by the sum of each array.

    A value that is not finite makes its sum so; finite ones do only where together they pass float32's 3e38. On CPU XLA
    sums floats several times as fast as it asks each of them, most so under `vmap`. The conjunction is the end of a
    running sum: XLA fuses one of scalars, or a reduction of them, into every operation that asks for it, and computes
    it there anew. This it leaves alone.
    """
    sums = [leaf.sum(dtype=jnp.promote_types(leaf.dtype, jnp.float32)) for leaf in leaves]
    return jnp.cumsum(~jnp.stack([jnp.isfinite(each) for each in sums]), dtype=jnp.int32)[-1] == 0


def _averaged(average: Params, params: Params, decay: Any, step: jax.Array) -> Params:
    """Return the moving average one step on; its decay begins at 0.1, so that first values soon count for little."""
    count = step.astype(jnp.float32)
    keep = jnp.minimum(jnp.asarray(decay, jnp.float32), (1 + count) / (10 + count))

    def move(old: jax.Array, new: jax.Array) -> jax.Array:
        new = new.astype(old.dtype)  # float32 at least: in half precision a small step is lost
        return new + (old - new) * keep.astype(old.dtype)

    return jax.tree.map(move, average, params)


def _over(tree: Any, factor: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: leaf / factor.astype(leaf.dtype), tree)
