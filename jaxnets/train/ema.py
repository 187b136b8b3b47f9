"""The moving average of parameters, and batch-norm statistics for averaged parameters."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from jaxnets.core.compiled import computed
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.example_weights import example_weights
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.sharding import automatic, batch_sharding_of, constrained
from jaxnets.ops.sums import add, as_sum
from jaxnets.train.arguments import check_examples
from jaxnets.train.evaluation import batch_indices
from jaxnets.train.state import TrainState


def estimate_statistics(
    net: Net,
    params: Params,
    state: State,
    x: Any,
    *,
    key: Key,
    batch_size: int = 256,
    weights: Any = None,
    batch_sharding: NamedSharding | None = None,
) -> State:
    """Return the state as plain means over batches of data, such as the batch-norm statistics of averaged parameters.

    In training, a layer's state moves by s ← d s + (1 - d) b towards the statistics b of a batch. Here all batches
    count equally: a step from s = 0 yields (1 - d) b, and its derivative is d. The last batch is left out if it is
    incomplete, unless it is the only one. The state of a layer that never moves (d = 1) becomes NaN. The vectors of
    `jn.spectral_norm` are no statistics: they move on from batch to batch.

    Args:
        net: the network, run in training mode.
        params: its parameters.
        state: its state; the floating leaves are estimated, the others are kept.
        x: inputs, a pytree with the examples along the first axis.
        key: the random key, for dropout and other random layers.
        batch_size: the number of examples computed at once.
        weights: the weights of the examples, `(examples,)`, ≥ 0, if they differ; a batch then counts by their sum.
        batch_sharding: the sharding of the rows of a batch; by default that of `x`, if it is concrete.

    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization" (2018), section 3.3.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, x = jn.batch_norm(), jnp.array([[1.0], [3.0]])
    >>> params, state = net.init(jax.random.key(0), x)
    >>> round(estimate_statistics(net, params, state, x, key=jax.random.key(1))["mean"].item(), 4)
    2.0
    """
    if not jax.tree.leaves(state):
        return state
    x = automatic(x)
    static = [net, batch_size, batch_sharding or batch_sharding_of(x)]
    return computed(_means_of_state, static, params, state, x, key, weights)


def _means_of_state(
    net: Net,
    batch_size: int,
    batch_sharding: NamedSharding | None,
    params: Params,
    state: State,
    x: Any,
    key: Key,
    weights: Any,
) -> State:
    examples = len(jax.tree.leaves(x)[0])
    size = min(batch_size, examples)
    index, _ = batch_indices(examples, size)
    index = index[: examples // size]  # complete batches only: (batches, batch)

    leaves, structure = jax.tree.flatten(state)
    carried = jax.tree.leaves(_carried(net, state))
    moving = [jnp.issubdtype(leaf.dtype, jnp.inexact) and not own for leaf, own in zip(leaves, carried)]
    zeros = [jnp.zeros_like(leaf) for leaf, moves in zip(leaves, moving) if moves]

    def add_batch(carry: Any, batch: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        (sums, vectors), (rows, number) = carry, batch
        chosen = constrained(jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], x), batch_sharding)
        row_weights = None if weights is None else jnp.asarray(weights)[rows]
        share = 1 if row_weights is None else row_weights.sum()

        def state_after(before: list[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
            """Return the moving leaves after a training step from the given ones, and the carried leaves."""
            own = structure.unflatten(_put(_put(leaves, moving, before), carried, vectors))
            with example_weights(row_weights):
                _, new = net.apply(params, own, chosen, key=jax.random.fold_in(key, number), train=True)
            return _taken(jax.tree.leaves(new), moving), _taken(jax.tree.leaves(new), carried)

        # Value (1 - d) b and derivative d of the update at s = 0.
        ones = [jnp.ones_like(leaf) for leaf in zeros]
        moved, decay, vectors = jax.jvp(state_after, (zeros,), (ones,), has_aux=True)
        # A batch with too few examples leaves a statistic unchanged, d = 1, and does not count.
        counted = [jnp.where(d < 1, jnp.asarray(share, d.dtype), 0) for d in decay]
        means = [jnp.where(d < 1, m / (1 - d), 0) for m, d in zip(moved, decay)]
        sums = add(sums, [(as_sum(c * m), as_sum(c)) for c, m in zip(counted, means)])
        return (sums, vectors), None

    nothing = [(as_sum(zero), as_sum(zero)) for zero in zeros], _taken(leaves, carried)
    (sums, vectors), _ = jax.lax.scan(add_batch, nothing, (index, jnp.arange(len(index))))
    means = [(total.value / count.value).astype(zero.dtype) for (total, count), zero in zip(sums, zeros)]
    return structure.unflatten(_put(_put(leaves, moving, means), carried, vectors))


def _carried(net: Net, state: State) -> Any:
    """Return for each leaf of a state whether it is a vector of a power iteration."""
    if net.children:
        return {name: _carried(net[name], own) for name, own in state.items()}
    if net.inner is not None and net.kind != "spectral_norm":
        return _carried(net.inner, state)
    return jax.tree.map(lambda _: net.kind == "spectral_norm", state)


def _taken(leaves: list[Any], which: list[bool]) -> list[Any]:
    return [leaf for leaf, chosen in zip(leaves, which) if chosen]


def _put(leaves: list[Any], which: list[bool], new: list[Any]) -> list[Any]:
    """Return leaves with new ones in the place of the chosen ones."""
    rest = iter(new)
    return [next(rest) if chosen else leaf for leaf, chosen in zip(leaves, which)]


def ema_params(
    net: Net, state: TrainState, x: Any, *, batch_size: int = 256, weights: Any = None
) -> tuple[Params, State]:
    """Return the moving average of a run's parameters, and the network's state with the statistics of the average.

    Args:
        net: the network.
        state: the train state of a program with `ema_decay=`.
        x: the training inputs.
        batch_size: the number of examples computed at once.
        weights: the weights of the examples, `(examples,)`, if they differ.

    Raises:
        NetError: if the train state has no average, and for `x` and `batch_size` as `jn.predict`.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> net, data = jn.dense(2), (jnp.ones((8, 3)), jnp.zeros(8, int))
    >>> program = jn.train.program(net, jn.losses.cross_entropy, optax.sgd(0.1), data, epochs=1, batch_size=4,
    ...                            ema_decay=0.99)
    >>> params, state = ema_params(net, program(jax.random.key(0))[0], data[0])
    >>> params["kernel"].shape
    (3, 2)
    """
    with labeled_as("ema_params"):
        check_examples("x", inputs=x)
        check_count("batch_size", batch_size)
        if state.ema is None:
            raise NetError("finds no moving average in the train state; give the program ema_decay=0.999")
    how: Any = {"key": state.key, "batch_size": batch_size, "weights": weights}
    return state.ema, estimate_statistics(net, state.ema, state.state, x, **how)
