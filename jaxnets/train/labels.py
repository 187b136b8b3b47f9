"""Checks of labels against the outputs of a network, before a run begins."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import name_of
from jaxnets.core.compiled import compiled
from jaxnets.core.errors import NetError, known, labeled_as
from jaxnets.core.net import Key, Net
from jaxnets.core.padded import Padded
from jaxnets.losses.labels import Labels, labels_of, targets_check_of
from jaxnets.metrics import Metric
from jaxnets.train.state import Data

Check = Callable[[str, Any, Any], None]  # of a name, targets and weights


def label_check(net: Net, objective: Any, metrics: Mapping[str, Metric], x: Any) -> Check | None:
    """Return a function `(name, targets, weights)` that raises an error for labels without an output of the network.

    Args:
        net: the network.
        objective: what is minimized, or `None`.
        metrics: what is reported.
        x: inputs; only their shapes and dtypes are read.

    Returns:
        The function, or `None` if neither loss nor metrics take labels (see `jn.losses.labels`). It raises a
        `NetError` for concrete integer targets out of range, except for padding, examples of weight 0, and labels that
        the loss ignores.
    """
    wanted = [labels for taker in _takers(objective, metrics) if (labels := labels_of(taker)) is not None]
    if not wanted:
        return None
    outputs = outputs_of(net, x)
    outputs = outputs.values if isinstance(outputs, Padded) else outputs
    if not hasattr(outputs, "shape") or len(outputs.shape) < 2 or outputs.shape[-1] < 2:
        return None  # the loss itself raises the error
    shape = outputs.shape

    def check(name: str, targets: Any, weights: Any) -> None:
        for labels in dict.fromkeys(wanted):
            _check_range(name, labels, shape, targets, weights)

    return check


def _takers(objective: Any, metrics: Mapping[str, Metric]) -> list[Any]:
    """Return the functions that take outputs and targets."""
    return [getattr(objective, "loss", objective), *(metric.measure for metric in metrics.values())]


def outputs_of(net: Net, x: Any) -> Any:
    """Return the shape and dtype of a network's outputs, or its logits, in evaluation for one row of inputs."""
    row = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *np.shape(leaf)[1:]), jnp.result_type(leaf)), x)
    # JAX caches the trace, since a large network takes seconds to trace; the function is never compiled.
    # The key is an argument: where a sweep builds programs, JAX computes what depends on known values.
    key = jax.random.key(0)
    outputs: Any = compiled(_apply_fresh, [net, row], [key]).trace(key).out_info
    return outputs.get("logits") if isinstance(outputs, Mapping) else outputs


def _apply_fresh(net: Net, row: Any, key: Key) -> Any:
    return net.init_with_output(key, row)[2]


def check_augmented(net: Net, augment: Callable[[Any, Any], Any] | None, x: Any) -> None:
    """Check that a network, initialized for inputs as they are, accepts them augmented, if their shapes differ.

    Raises:
        NetError: if it does not, with both shapes.
    """
    if augment is None:
        return
    row = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *np.shape(leaf)[1:]), jnp.result_type(leaf)), x)
    after = jax.eval_shape(jax.vmap(augment), jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1)), row)
    before, changed = ([leaf.shape[1:] for leaf in jax.tree.leaves(each)] for each in (row, after))
    if before == changed:
        return
    variables = jax.eval_shape(net.init, jax.random.key(0), row)
    try:
        jax.eval_shape(net.apply, *variables, after)
    except NetError as error:
        was, now = (", ".join(map(str, each)) for each in (before, changed))
        hint = "augment to the size of the data, or use a network for any size, by jn.global_avg_pool"
        raise NetError(
            f"expects the shape of an example from augment, got {now} for {was}, and the network is made for {was}; "
            f"{hint}: {error}"
        ) from None


def check_labels(net: Net, objective: Any, metrics: Mapping[str, Metric], sets: Mapping[str, Data]) -> None:
    """Check the targets of sets of data, by name, whose inputs have the same shape.

    Raises:
        NetError: for targets that a loss or a metric does not accept, and for labels as in `label_check`.
    """
    for taker in _takers(objective, metrics):
        if (check := targets_check_of(taker)) is not None:
            for name, data in sets.items():
                label = f"{name_of(taker).strip('_')}, of the targets of {name},"
                _check_values(label, check, outputs_of(net, data[0]), *data[1:])
    sets = {name: data for name, data in sets.items() if known_labels(data[1]) is not None}
    check = label_check(net, objective, metrics, next(iter(sets.values()))[0]) if sets else None
    if check is not None:
        for name, data in sets.items():
            check(name, data[1], data[2] if len(data) > 2 else None)


def _check_values(label: str, check: Callable, outputs: Any, targets: Any, weights: Any = None) -> None:
    """Check that concrete targets, except for those of weight 0, meet the requirements of a loss or metric.

    Raises:
        NetError: as the loss itself does when it is called, with the name of the data.
    """
    nested = isinstance(targets, Padded | Mapping | tuple | list)
    if nested or isinstance(outputs, Padded) or np.shape(targets)[1:] != getattr(outputs, "shape", ())[1:]:
        return  # for another shape the loss itself raises the error
    found, counted = known(targets), np.ones(()) if weights is None else known(weights)
    if found is None or counted is None:
        return
    found = found[counted > 0] if counted.ndim else found
    # NaN has raised an error before, unless the user allows it.
    if not np.isnan(found).any():
        with labeled_as(label):
            check(found)


def known_labels(targets: Any) -> np.ndarray | None:
    """Return targets if they are a single concrete array of integers; those of `Padded` are `(batch, time)`."""
    targets = targets.values if isinstance(targets, Padded) else targets
    if isinstance(targets, Mapping | tuple | list) or not jnp.issubdtype(jnp.result_type(targets), jnp.integer):
        return None
    return known(targets)


def _check_range(name: str, labels: Labels, shape: tuple[int, ...], targets: Any, weights: Any) -> None:
    """Check that labels with nonzero weight are in the range of outputs of shape `(batch, ..., classes)`."""
    found, classes = known_labels(targets), shape[-1]
    if found is None or (labels.first == 0 and found.ndim != len(shape) - 1):
        return
    counted: Any = ~np.isin(found, labels.none) if labels.none else np.ones((), bool)
    for mask in (targets.mask if isinstance(targets, Padded) else None, None if weights is None else weights):
        if mask is not None:
            mask = known(mask)
            if mask is None:
                return
            # A mask (batch,) or (batch, time) is broadcast over the labels' further axes.
            counted = counted & (mask > 0).reshape(mask.shape + (1,) * (found.ndim - mask.ndim))
    kept = found if not np.ndim(counted) else found[np.broadcast_to(counted, found.shape)]
    if not kept.size:
        return
    low, high, first = int(kept.min()), int(kept.max()), labels.first
    if low >= first and high < classes:
        return
    if low > first and high - low < classes - first:
        hint = f"subtract {low - first}"
    elif low >= first:
        hint = f"give the network {high + 1} outputs"
    else:
        hint = "leave out what has no label, by weights of 0 or jn.losses.ignoring(loss, label)"
    blank = " (0 is the blank)" if first else ""
    raise NetError(
        f"labels of {name} range from {low} to {high}, but the network has {classes} outputs; classes are counted from "
        f"{first} to {classes - 1}{blank}: {hint}"
    )
