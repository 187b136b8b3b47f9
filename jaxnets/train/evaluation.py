"""Exact means and metrics over data that come in batches.

The *totals* of some batches are the sums from which their means and metrics are computed: the sum of the example
weights, the weighted sums of the objective's parts, and the sums of each metric.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from jaxnets.core.checks import variables
from jaxnets.core.compiled import computed
from jaxnets.core.errors import check_count, labeled_as
from jaxnets.core.foreign import arrays
from jaxnets.core.keywords import explained
from jaxnets.core.net import Net, Params, State
from jaxnets.core.sharding import automatic, batch_sharding_of, constrained, parts_of
from jaxnets.losses.masking import fill_masked
from jaxnets.metrics import Metric
from jaxnets.metrics.metric import collect
from jaxnets.ops.sums import add, as_sum, total
from jaxnets.train import arguments
from jaxnets.train.arguments import check_data, check_examples
from jaxnets.train.labels import check_labels
from jaxnets.train.names import check_names, merge_unique
from jaxnets.train.objective import Loss
from jaxnets.train.state import Batch, Data
from jaxnets.train.step import ObjectiveFunction

Totals = dict[str, Any]


def batch_totals(metrics: Mapping[str, Metric], outputs: Any, batch: Batch, parts: Mapping[str, jax.Array]) -> Totals:
    """Return the totals of one batch: its weight, the objective's parts times the weight, and the metrics' sums."""
    weight = total(batch.weights)
    return {
        "weight": weight,
        # The parts are means over the batch, so their product with the weight is a sum again.
        "parts": {name: as_sum(part * weight.value) for name, part in parts.items()},
        "metrics": {name: metric.measure(outputs, batch.y, batch.weights) for name, metric in metrics.items()},
    }


def evaluate_batch(
    net: Net,
    params: Params,
    state: State,
    batch: Batch,
    metrics: Mapping[str, Metric],
    objective: ObjectiveFunction | None,
) -> Totals:
    """Return the totals of one batch in evaluation mode."""
    outputs, _ = net.apply(params, state, batch.x)
    parts = {}
    if objective is not None:
        loss, parts = objective(params, outputs, batch.y, batch.weights)
        parts = merge_unique({"loss": loss}, parts)
    return batch_totals(metrics, outputs, batch, parts)


def zero_totals(shapes: Totals) -> Totals:
    """Return totals of zero, with the shapes and dtypes of those of a batch."""
    return jax.tree.map(jnp.zeros_like, shapes)


def merge_totals(metrics: Mapping[str, Metric], a: Totals, b: Totals) -> Totals:
    """Return the totals of two sets of batches taken together."""
    return {
        "weight": a["weight"] + b["weight"],
        "parts": add(a["parts"], b["parts"]),
        "metrics": {name: metric.merge(a["metrics"][name], b["metrics"][name]) for name, metric in metrics.items()},
    }


def reported_values(metrics: Mapping[str, Metric], totals: Totals) -> dict[str, jax.Array]:
    """Return the means of the objective's parts and the metrics' values, by name."""
    # The weighted sums of the parts over all batches, divided by the total weight
    means = {name: each.value / totals["weight"].value for name, each in totals["parts"].items()}
    return merge_unique(means, {name: metric.value(totals["metrics"][name]) for name, metric in metrics.items()})


def scan_batches(
    metrics: Mapping[str, Metric], one_batch: Callable[[Any, Any], tuple[Any, Totals]], carry: Any, batches: Any
) -> tuple[Any, dict[str, jax.Array]]:
    """Scan `one_batch(carry, batch) -> (carry, totals)` over batches; return the carry and the values of all of them.

    Args:
        metrics: by name.
        one_batch: what is done with a batch.
        carry: what it starts with.
        batches: a pytree of arrays `(batches, ...)`.
    """
    # Sums that grow with each batch are stacked by the scan, the others are added up in its carry.
    added = {name: metric for name, metric in metrics.items() if metric.merge is not collect}

    def split_batch(carry: Any, batch: Any) -> tuple[Any, Totals, Any]:
        carry, totals = one_batch(carry, batch)
        sums = totals["metrics"]
        grown = {name: sums[name] for name in metrics if name not in added}
        return carry, totals | {"metrics": {name: sums[name] for name in added}}, grown

    # A scan needs its carry's shapes before the first batch.
    first = jax.tree.map(lambda leaf: leaf[0], batches)
    nothing = zero_totals(jax.eval_shape(split_batch, carry, first)[1])

    def body(both: tuple[Any, Totals], batch: Any) -> tuple[tuple[Any, Totals], Any]:
        carry, totals = both
        carry, new, grown = split_batch(carry, batch)
        return (carry, merge_totals(added, totals, new)), grown

    (carry, totals), grown = jax.lax.scan(body, (carry, nothing), batches)
    # (batches, items, ...) -> (batches · items, ...)
    grown = jax.tree.map(lambda leaf: leaf.reshape((-1, *leaf.shape[2:])), grown)
    return carry, reported_values(metrics, totals | {"metrics": totals["metrics"] | grown})


def batch_indices(examples: int, batch_size: int) -> tuple[jax.Array, jax.Array]:
    """Return indices `(batches, batch)` that cover 0 … examples-1 once, and the weight 1 or 0 of each.

    The last batch is filled up from the beginning, with weight 0.
    """
    # Rounded up
    batches = -(-examples // batch_size)
    index = jnp.arange(batches * batch_size).reshape(batches, batch_size)
    return index % examples, (index < examples).astype(jnp.float32)


def gather_batch(
    data: Data, index: jax.Array, weights: jax.Array, batch_sharding: NamedSharding | None = None
) -> Batch:
    """Return the examples at some indices as a batch; weights of the data, if any, multiply those given.

    Inputs of weight 0 are replaced by another example's: in the network's derivatives 0 · ∞ would be NaN. With
    `batch_sharding`, each device holds its part of the rows.
    """
    # (examples, ...) → (batch, ...)
    x, y, *own = jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], data)
    if own:
        weights = weights * own[0].astype(weights.dtype)
        x = jax.tree.map(lambda leaf: fill_masked(weights > 0, leaf), x)
    return constrained(Batch(x, y, weights), batch_sharding)


@explained
def evaluate(
    net: Net,
    state: Any,
    data: Any,
    metrics: arguments.Metrics,
    objective: ObjectiveFunction | Loss | None = None,
    *,
    batch_size: int = 256,
    batch_sharding: NamedSharding | None = None,
) -> dict[str, jax.Array]:
    """Return metrics, and the objective's parts if one is given, over every example of the data exactly once.

    The values do not depend on the batch size, except for rounding. This is a pure function: jit or vmap it. Called on
    concrete arrays, it is compiled once for each network, set of metrics and shapes.

    Args:
        net: the network, run in evaluation mode.
        state: a `TrainState`, what `jn.load` returns, or a pair `(params, state)`.
        data: inputs, targets and, if any, weights: pytrees with the examples along the first axis.
        metrics: one of `jn.metrics`, a list, or a dict by the names to report.
        objective: `(params, outputs, targets, weights) -> (scalar, parts)`, or a loss.
        batch_size: the number of examples computed at once.
        batch_sharding: the sharding of the rows of a batch; by default that of the data, if concrete.

    Raises:
        NetError: for what `program` does not accept: data without examples, inputs, targets and weights of different
            lengths, a negative weight, no weight above 0, a batch size below 1, or two values under one name.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = jn.dense(2)
    >>> x, y = jnp.ones((5, 3)), jnp.zeros(5, int)
    >>> state = net.init(jax.random.key(0), x)
    >>> sorted(evaluate(net, state, (x, y), {"accuracy": jn.metrics.accuracy}, batch_size=2))
    ['accuracy']
    """
    with labeled_as("evaluate"):
        params, state = variables(state)
        net, chosen, data = arguments.network(net), arguments.metrics_of(metrics), arguments.pair("data", data)
        objective = None if objective is None else arguments.objective_of(objective)
        check_data("data", data, finite=False)
        check_count("batch_size", batch_size)
        check_names(chosen, objective)
    check_labels(net, objective, chosen, {"data": data})
    data = automatic(data)
    static = [net, chosen, objective, batch_size, batch_sharding or batch_sharding_of(data)]
    return computed(evaluate_data, static, params, state, data)


def evaluate_data(
    net: Net,
    metrics: Mapping[str, Metric],
    objective: ObjectiveFunction | None,
    batch_size: int,
    batch_sharding: NamedSharding | None,
    params: Params,
    state: State,
    data: Data,
) -> dict[str, jax.Array]:
    """Return what `evaluate` returns, for arguments that have been checked."""
    examples = len(jax.tree.leaves(data)[0])

    def one_batch(_: None, rows: tuple[jax.Array, jax.Array]) -> tuple[None, Totals]:
        return None, evaluate_batch(net, params, state, gather_batch(data, *rows, batch_sharding), metrics, objective)

    # Indices and weights, (batches, batch) each
    batches = batch_indices(examples, _even_size(batch_size, examples, batch_sharding))
    return scan_batches(metrics, one_batch, None, batches)[1]


def _even_size(batch_size: int, examples: int, batch_sharding: NamedSharding | None) -> int:
    """Return the smaller of batch size and examples, rounded up to a multiple of the number of devices."""
    parts = parts_of(batch_sharding)
    return -(-min(batch_size, examples) // parts) * parts


@explained
def predict(net: Net, state: Any, x: Any, *, batch_size: int = 256) -> Any:
    """Return a network's outputs in evaluation mode for every example, computed batch by batch.

    Args:
        net: the network.
        state: a `TrainState`, what `jn.load` returns, or a pair `(params, state)`.
        x: inputs, a pytree with the examples along the first axis, or anything that `np.asarray` converts to an array.
        batch_size: the number of examples computed at once.

    Raises:
        NetError: for no examples, arrays of different lengths, or a batch size below 1.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, x = jn.dense(2), jnp.ones((5, 3))
    >>> predict(net, net.init(jax.random.key(0), x), x, batch_size=2).shape
    (5, 2)
    """
    with labeled_as("predict"):
        params, state = variables(state)
        net, x = arguments.network(net), arrays("x", x)
        check_examples("x", inputs=x)
        check_count("batch_size", batch_size)
    x = automatic(x)
    return computed(_predict, [net, batch_size, batch_sharding_of(x)], params, state, x)


def _predict(
    net: Net, batch_size: int, batch_sharding: NamedSharding | None, params: Params, state: State, x: Any
) -> Any:
    examples = len(jax.tree.leaves(x)[0])
    # (batches, batch)
    index, _ = batch_indices(examples, _even_size(batch_size, examples, batch_sharding))

    def one_batch(rows: jax.Array) -> Any:
        chosen = constrained(jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], x), batch_sharding)
        return net.apply(params, state, chosen)[0]

    outputs = jax.lax.map(one_batch, index)
    # (batches, batch, ...) -> (examples, ...), without the rows that fill up the last batch
    return jax.tree.map(lambda leaf: leaf.reshape((-1, *leaf.shape[2:]))[:examples], outputs)
