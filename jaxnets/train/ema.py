"""Statistics for parameters that the network was not trained with, such as averages of them."""

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
from jaxnets.train import evaluation
from jaxnets.train.data import check_examples
from jaxnets.train.state import TrainState


def reestimate(
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
    """Return the state as plain means over batches of data: batch-norm statistics that belong to other parameters.

    In training a layer's state moves by s ← d s + (1 - d) b towards what a batch shows. Here each batch counts alike:
    a step from s = 0 gives (1 - d) b, its derivative d. The last batch is left out if it is not full, unless it is
    the only one. A layer whose state never moves (d = 1) gets NaN.

    Args:
        net: the network, run in training.
        params: its parameters.
        state: its state; its floating leaves are estimated anew, all else stays as it is.
        x: inputs, a pytree with the examples along the first axis.
        key: dropout's, if there is any.
        batch_size: how many examples are computed at once.
        weights: of the examples, `(examples,)`, ≥ 0, if not all count alike; a batch then counts by their sum.
        batch_sharding: how the rows of a batch are shared out to devices; as those of `x` where these are known arrays.

    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization" (2018), section 3.3.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, x = jn.batch_norm(), jnp.array([[1.0], [3.0]])
    >>> params, state = net.init(jax.random.key(0), x)
    >>> round(reestimate(net, params, state, x, key=jax.random.key(1))["mean"].item(), 4)
    2.0
    """
    if not jax.tree.leaves(state):
        return state
    x = automatic(x)
    batch_sharding = batch_sharding or batch_sharding_of(x)
    examples = len(jax.tree.leaves(x)[0])
    size = min(batch_size, examples)
    index, _ = evaluation.rows(examples, size)
    index = index[: examples // size]

    leaves, structure = jax.tree.flatten(state)
    moving = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
    zeros = [jnp.zeros_like(leaf) for leaf, moves in zip(leaves, moving) if moves]

    def one(sums: Any, batch: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        rows, number = batch
        chosen = constrained(jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], x), batch_sharding)
        own_weights = None if weights is None else jnp.asarray(weights)[rows]
        share = 1 if own_weights is None else own_weights.sum()

        def after(before: list[jax.Array]) -> list[jax.Array]:
            given = iter(before)
            own = structure.unflatten([next(given) if moves else leaf for leaf, moves in zip(leaves, moving)])
            with example_weights(own_weights):
                _, new = net.apply(params, own, chosen, key=jax.random.fold_in(key, number), train=True)
            return [leaf for leaf, moves in zip(jax.tree.leaves(new), moving) if moves]

        moved, decay = jax.jvp(after, (zeros,), ([jnp.ones_like(leaf) for leaf in zeros],))  # (1 - d) b and d
        counted = [jnp.where(d < 1, jnp.asarray(share, d.dtype), 0) for d in decay]  # not where too little moves it
        means = [jnp.where(d < 1, m / (1 - d), 0) for m, d in zip(moved, decay)]
        return add(sums, [(as_sum(c * m), as_sum(c)) for c, m in zip(counted, means)]), None

    nothing = [(as_sum(zero), as_sum(zero)) for zero in zeros]
    sums, _ = jax.lax.scan(one, nothing, (index, jnp.arange(len(index))))
    means = iter([(total.value / count.value).astype(zero.dtype) for (total, count), zero in zip(sums, zeros)])
    return structure.unflatten([next(means) if moves else leaf for leaf, moves in zip(leaves, moving)])


def averaged(net: Net, run: TrainState, x: Any, *, batch_size: int = 256, weights: Any = None) -> tuple[Params, State]:
    """Return the moving average of a run's parameters, with batch-norm statistics that belong to it.

    Args:
        net: the network.
        run: a run of a program with `ema_decay=`.
        x: the training inputs.
        batch_size: how many examples are computed at once.
        weights: of the examples, `(examples,)`, if not all count alike.

    Raises:
        NetError: if the run keeps no average, and for `x` and `batch_size` as `jn.train.predict`.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> net, data = jn.dense(2), (jnp.ones((8, 3)), jnp.zeros(8, int))
    >>> one = jn.train.program(net, jn.objective(jn.losses.cross_entropy), optax.sgd(0.1), data, epochs=1,
    ...                        batch_size=4, ema_decay=0.99)
    >>> params, state = averaged(net, one(jax.random.key(0))[0], data[0])
    >>> params["kernel"].shape
    (3, 2)
    """
    with labeled_as("averaged"):
        check_examples("x", inputs=x)
        check_count("batch_size", batch_size)
    if run.ema is None:
        raise NetError("finds no average in the run; give the program ema_decay=0.999", label="averaged")
    x = automatic(x)
    static = [net, batch_size, batch_sharding_of(x)]
    return run.ema, computed(_reestimate, static, run.ema, run.state, x, run.key, weights)


def _reestimate(
    net: Net,
    batch_size: int,
    batch_sharding: NamedSharding | None,
    params: Params,
    state: State,
    x: Any,
    key: Key,
    weights: Any,
) -> State:
    return reestimate(
        net, params, state, x, key=key, batch_size=batch_size, weights=weights, batch_sharding=batch_sharding
    )
