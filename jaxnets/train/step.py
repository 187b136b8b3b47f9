"""One step of gradient descent as a pure function."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from jaxnets.core.errors import NetError
from jaxnets.core.example_weights import example_weights
from jaxnets.core.net import Key, Net, Params, State, fold, spec
from jaxnets.core.paths import Pattern, matches, paths, select
from jaxnets.core.sharding import constrained
from jaxnets.train.names import merge_unique
from jaxnets.train.optimizers import init_optimizer, unrounded, update_params, widened
from jaxnets.train.options import Options, Parts, StepInfo
from jaxnets.train.state import Batch, TrainState

ObjectiveFunction = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]


def start(
    net: Net, optimizer: optax.GradientTransformation, x: Any, options: Options = Options(), *, key: Key
) -> TrainState:
    """Return the train state before the first step.

    Args:
        net: the network.
        optimizer: the Optax optimizer.
        x: an input; only its shape and dtype are read.
        options: the options of the steps to follow.
        key: the random key; initial values and all later randomness derive from it.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> state = start(jn.dense(2), optax.sgd(0.1), jnp.ones((1, 3)), key=jax.random.key(0))
    >>> int(state.step), state.params["kernel"].shape
    (0, (3, 2))
    """
    params, state = net.init(fold(key, "init"), spec(x))
    # Frozen parameters have no optimizer state.
    learned, _ = split_frozen(params, options.freeze)
    return TrainState(
        params,
        state,
        init_optimizer(optimizer, learned),
        fold(key, "train"),
        jnp.zeros((), jnp.int32),
        # A copy: parameters and average must not share memory, since both are donated to a compiled epoch.
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
    """Return the pure function of one step of gradient descent, `(state, batch) -> (state, outputs, parts)`.

    θ ← θ + u(∇ L(θ)), where L is the objective on the batch and u the optimizer's update. The network's random key is
    the train state's key with the number of the step folded in.

    Args:
        net: the network.
        objective: `(params, outputs, targets, weights) -> (scalar, parts)`, as `jn.objective` makes it.
        optimizer: the Optax optimizer.
        options: what a step does besides that; the train state must have been started with the same options.
        batch_sharding: the sharding of the rows of a batch, if it is sharded and computed in parts.

    Returns:
        A function that returns the next train state, the batch's outputs, and the parts of the objective by name,
        with the whole objective as `loss`.

    Raises:
        NetError: when a step is traced, for a train state that was started with other options, an error of the
            network, or an optimizer that needs unknown arguments.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> net, adam = jn.dense(2), optax.adam(1e-2)
    >>> train_step = jax.jit(make_train_step(net, jn.objective(jn.losses.cross_entropy), adam))
    >>> state = start(net, adam, jnp.ones((4, 3)), key=jax.random.key(0))
    >>> state, outputs, parts = train_step(state, Batch(jnp.ones((4, 3)), jnp.zeros(4, int), jnp.ones(4)))
    >>> int(state.step), sorted(parts)
    (1, ['cross_entropy', 'loss'])
    """

    def step_fn(before: TrainState, batch: Batch) -> tuple[TrainState, Any, Parts]:
        _check_started(options, before)
        key = jax.random.fold_in(before.key, before.step)
        learned, frozen = split_frozen(before.params, options.freeze)

        def evaluate(learned: Any, state: State, batch: Batch, key: Key) -> tuple[jax.Array, tuple[Any, State, Parts]]:
            params = join_frozen(learned, frozen)
            # Layers such as batch norm leave out the rows that fill up a batch.
            with example_weights(batch.weights if options.weighted else None):
                outputs, state = net.apply(params, state, batch.x, key=key, train=True)
            total, parts = objective(params, outputs, batch.y, batch.weights)
            return total, (outputs, state, merge_unique({"loss": total}, parts))

        def gradients(learned: Any, *rest: Any) -> tuple[Any, tuple[Any, State, Parts]]:
            # Only the learned parameters are differentiated.
            def scaled_loss(learned: Any) -> tuple[jax.Array, tuple]:
                total, aux = evaluate(learned, *rest)
                return total if before.scale is None else total * before.scale.factor.astype(total.dtype), aux

            grads, aux = jax.grad(scaled_loss, has_aux=True)(learned)
            if before.scale is not None:
                grads = jax.tree.map(lambda leaf: leaf / before.scale.factor.astype(leaf.dtype), grads)
            return grads, aux

        compute, recompute = gradients, evaluate
        if options.accumulate > 1:
            # An optimizer with a line search differentiates `value_fn`; `checkpoint` holds the residuals of only one
            # part at a time.
            compute = _in_parts(gradients, options.accumulate, batch_sharding)
            recompute = _in_parts(jax.checkpoint(evaluate), options.accumulate, batch_sharding)
        grads, (outputs, state, parts) = compute(learned, before.state, batch, key)

        def value_fn(learned: Any) -> jax.Array:
            # The same batch and key as above, for optimizers that evaluate the objective themselves.
            return recompute(learned, before.state, batch, key)[0]

        def take_step() -> tuple[Any, Any]:
            factor = None if before.plateau is None else before.plateau.scale
            params, opt_state, updates = update_params(
                optimizer, grads, before.opt_state, learned, parts["loss"], value_fn, factor=factor
            )
            ema = before.ema
            if options.ema_decay is not None:
                # The average is of the parameters before they are rounded to half precision.
                exact = join_frozen(unrounded(opt_state, params), frozen)
                ema = moving_average(ema, exact, options.ema_decay, before.step)
            return (params, opt_state, ema), updates if options.monitor else None

        def skip_step() -> tuple[Any, Any]:
            # Both branches of `cond` must return the same structure, so a monitor gets zero updates.
            shapes = jax.eval_shape(take_step)[1] if options.monitor else None
            return (learned, before.opt_state, before.ema), jax.tree.map(jnp.zeros_like, shapes)

        # The optimizer's part of the train state is set below.
        after = replace(before, state=keep_state(state, before.state, options.freeze), step=before.step + 1)
        if options.halt_on_nonfinite or options.loss_scale is not None:
            finite = all_finite([parts["loss"], *jax.tree.leaves(grads)])
            after, taken = check_step(options, before, after, parts["loss"], finite)
            # `cond`, since a `where` for each leaf would hold and read both the old and the new value of all of them.
            (params, opt_state, ema), updates = jax.lax.cond(taken, take_step, skip_step)
        else:
            (params, opt_state, ema), updates = take_step()
        if options.monitor is not None:
            with example_weights(batch.weights if options.weighted else None):
                parts = merge_unique(parts, options.monitor(StepInfo(before, batch, key, grads, updates)))
        params = join_frozen(params, frozen)
        return replace(after, params=params, opt_state=opt_state, ema=ema), outputs, parts

    return step_fn


def _in_parts(function: Callable, parts: int, batch_sharding: NamedSharding | None) -> Callable:
    """Return a function that computes a batch in parts, with means weighted as in the whole batch.

    Args:
        function: `(learned, state, batch, key) -> (mean, (outputs, state, means))`.
        parts: how many equal parts there are.
        batch_sharding: the sharding of the rows of a batch.
    """

    def compute(learned: Any, state: State, batch: Batch, key: Key) -> Any:
        # Each leaf: (batch, ...) -> (parts, batch / parts, ...)
        pieces = constrained(
            jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), batch), batch_sharding, axis=1
        )
        total_weight = batch.weights.sum()
        total_weight = jnp.where(total_weight == 0, jnp.ones_like(total_weight), total_weight)

        def compute_part(state: State, piece: tuple[Any, jax.Array]) -> tuple[State, Any]:
            part, number = piece
            mean, (outputs, state, means) = function(learned, state, part, jax.random.fold_in(key, number))
            # The mean over a part is weighted by the part's share of the weights.
            share = part.weights.sum() / total_weight
            weighted = jax.tree.map(lambda leaf: leaf * share.astype(leaf.dtype), (mean, means))
            return state, (weighted, outputs)

        # The network's state is passed from part to part, as from one smaller batch to the next.
        state, (weighted, outputs) = jax.lax.scan(compute_part, state, (pieces, jnp.arange(parts)))
        mean, means = jax.tree.map(lambda leaf: leaf.sum(0), weighted)
        # (parts, batch / parts, ...) -> (batch, ...)
        outputs = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), outputs)
        return mean, (outputs, state, means)

    return compute


def revert_nonfinite(before: TrainState, after: TrainState) -> TrainState:
    """Return the train state at an epoch's end or, if its parameters are not finite, the one at its beginning, failed.

    Within an epoch, the next step's loss reveals such parameters. After the last step they would be evaluated and
    saved.
    """
    if after.failed is None:
        return after
    finite = all_finite(jax.tree.leaves((after.params, after.ema)))
    failed = jnp.where(finite | (after.failed >= 0), after.failed, after.step - 1)
    both = replace(after, failed=failed), replace(before, failed=failed)
    return jax.tree.map(lambda last, first: jnp.where(finite, last, first), *both)


def _check_started(options: Options, state: TrainState) -> None:
    """Check that a train state has the parts that the options need."""
    needed = {
        "failed": options.halt_on_nonfinite,
        "scale": options.loss_scale is not None,
        "ema": options.ema_decay is not None,
        "plateau": options.plateau is not None,
    }
    if absent := [name for name, needs in needed.items() if needs and getattr(state, name) is None]:
        hint = "jn.train.start(net, optimizer, x, options, key=key) makes one; then replace its parts"
        raise NetError(
            f"expects a train state started with the same options, got one without {', '.join(absent)}; {hint}",
            label="make_train_step",
        )


def check_step(
    options: Options, before: TrainState, after: TrainState, loss: jax.Array, finite: jax.Array
) -> tuple[TrainState, jax.Array]:
    """Return the next train state, except for the optimizer's part, and whether the optimizer's step is taken."""
    halted = jnp.zeros((), bool)
    if options.halt_on_nonfinite:
        # A loss scale above 1 may be why gradients overflow: it shrinks, and training continues. It is never why the
        # loss, which is not scaled here, is not finite.
        final = True if before.scale is None else (before.scale.factor <= 1) | ~jnp.isfinite(loss)
        halted = (before.failed >= 0) | (~finite & final)
        # The first step that failed is recorded.
        after = replace(after, failed=jnp.where(halted & (before.failed < 0), before.step, before.failed))
    taken = finite & ~halted
    # A skipped step counts as a step, but keeps the network's state; a halted run counts no further steps.
    state = jax.tree.map(lambda new, old: jnp.where(taken, new, old), after.state, before.state)
    after = replace(after, state=state, step=jnp.where(halted, before.step, after.step))
    if options.loss_scale is not None and before.scale is not None:
        scale = options.loss_scale.update(before.scale, finite)
        after = replace(after, scale=jax.tree.map(lambda new, old: jnp.where(halted, old, new), scale, before.scale))
    return after, taken


def all_finite(leaves: list[jax.Array]) -> jax.Array:
    """Return whether all values are finite, judged by the sum of each array.

    A non-finite value makes the sum non-finite; finite values do so only if their sum exceeds float32's 3e38. On CPU,
    XLA sums floats several times as fast as it tests each of them, above all under `vmap`. The conjunction is the last
    element of a running sum, because XLA would fuse a plain conjunction or reduction into every operation that reads it
    and compute it again in each.
    """
    # In float32 or better: sums in float16 could overflow.
    sums = [leaf.sum(dtype=jnp.promote_types(leaf.dtype, jnp.float32)) for leaf in leaves]
    return jnp.cumsum(~jnp.stack([jnp.isfinite(each) for each in sums]), dtype=jnp.int32)[-1] == 0


def moving_average(average: Params, params: Params, decay: Any, step: jax.Array) -> Params:
    """Return the moving average after a step; its decay starts at 0.1, so that early values soon count little."""
    count = step.astype(jnp.float32)
    decay = jnp.minimum(jnp.asarray(decay, jnp.float32), (1 + count) / (10 + count))

    def move(old: jax.Array, new: jax.Array) -> jax.Array:
        # The average is in float32 or better: half precision would lose small steps.
        new = new.astype(old.dtype)
        return new + (old - new) * decay.astype(old.dtype)

    return jax.tree.map(move, average, params)


def split_frozen(params: Params, pattern: Pattern | None) -> tuple[Any, Any]:
    """Split parameters into trained and frozen ones, each tree with `None` in place of the other's leaves.

    JAX sees no leaf in `None`, so frozen parameters have no gradient and no optimizer state.

    Raises:
        NetError: if a pattern matches nothing, or everything.
    """
    if pattern is None:
        return params, None
    frozen, structure = select(params, pattern), jax.tree.structure(params)
    leaves = paths(params)
    if len(frozen) == len(leaves):
        hint = "exclude those to be trained, freeze=('**', '!head/**'), or evaluate the network without training"
        raise NetError(f"freezes all parameters by {pattern!r}, so that none would be trained; {hint}", label="program")
    learned = jax.tree.unflatten(structure, [None if path in frozen else leaf for path, leaf in leaves.items()])
    return learned, jax.tree.unflatten(structure, [frozen.get(path) for path in leaves])


def join_frozen(learned: Any, frozen: Any) -> Params:
    """Return the whole parameters from the two parts that `split_frozen` returns."""
    if frozen is None:
        return learned
    return jax.tree.map(lambda a, b: b if a is None else a, learned, frozen, is_leaf=lambda leaf: leaf is None)


def keep_state(new: State, old: State, pattern: Pattern | None) -> State:
    """Return the new state with the old leaves where a pattern matches, so that frozen layers keep their statistics."""
    if pattern is None:
        return new
    before = paths(old)
    leaves = [before[path] if matches(pattern, path) else leaf for path, leaf in paths(new).items()]
    return jax.tree.unflatten(jax.tree.structure(new), leaves)
