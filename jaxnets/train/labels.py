"""Labels held against the outputs of a network, before a run is begun."""

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import name_of
from jaxnets.core.errors import NetError, known, labeled_as
from jaxnets.core.net import Net, spec
from jaxnets.core.padded import Padded
from jaxnets.losses.labels import Labels, labels_of, targets_check_of
from jaxnets.metrics import Metric
from jaxnets.train.data import Data

Check = Callable[[str, Any, Any], None]  # of a name, targets and weights


def label_check(net: Net, objective: Any, metrics: Mapping[str, Metric], x: Any) -> Check | None:
    """Return the function `(name, targets, weights)` that refuses labels which the network has no output for.

    Args:
        net: the network.
        objective: what is minimized, if anything.
        metrics: what is reported.
        x: inputs, read for their shapes alone.

    Returns:
        The function, or `None` where neither loss nor metrics take labels (see `jn.losses.labels`). It raises a
        `NetError` for known integer targets out of range, unless padding, a weight of 0 or a label that stands for
        none takes them out.
    """
    takers = [getattr(objective, "loss", objective), *(metric.measure for metric in metrics.values())]
    wanted = [labels for taker in takers if (labels := labels_of(taker)) is not None]
    if not wanted:
        return None
    outputs: Any = _outputs(net, x)
    if isinstance(outputs, Mapping):
        outputs = outputs.get("logits")
    outputs = outputs.values if isinstance(outputs, Padded) else outputs
    if not hasattr(outputs, "shape") or len(outputs.shape) < 2 or outputs.shape[-1] < 2:
        return None  # what the loss makes of it, it says itself
    shape = outputs.shape

    def check(name: str, targets: Any, weights: Any) -> None:
        for labels in dict.fromkeys(wanted):
            _refuse(name, labels, shape, targets, weights)

    return check


_seen: WeakKeyDictionary[Net, dict[Any, Any]] = WeakKeyDictionary()  # by network, as a trace may take seconds


def _outputs(net: Net, x: Any) -> Any:
    """Return the shapes and dtypes of what a network gives in evaluation for one row of inputs."""
    row = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *jnp.shape(leaf)[1:]), jnp.result_type(leaf)), x)
    leaves, structure = jax.tree.flatten(row)
    kind = structure, *((leaf.shape, leaf.dtype) for leaf in leaves)
    known_kinds = _seen.setdefault(net, {})
    if kind not in known_kinds:
        known_kinds[kind] = jax.eval_shape(lambda key: net.init_with_output(key, spec(row))[2], jax.random.key(0))
    return known_kinds[kind]


def check_labels(net: Net, objective: Any, metrics: Mapping[str, Metric], sets: Mapping[str, Data]) -> None:
    """Check the labels of sets of data by name, all with inputs of one kind.

    Raises:
        NetError: as `label_check` says.
    """
    takers = [getattr(objective, "loss", objective), *(metric.measure for metric in metrics.values())]
    asking = {name_of(each).strip("_"): check for each in takers if (check := targets_check_of(each)) is not None}
    if asking:
        for name, data in sets.items():
            _check_values(name, asking, _outputs(net, data[0]), *data[1:])
    sets = {name: data for name, data in sets.items() if known_labels(data[1]) is not None}
    check = label_check(net, objective, metrics, next(iter(sets.values()))[0]) if sets else None
    if check is not None:
        for name, data in sets.items():
            check(name, data[1], data[2] if len(data) > 2 else None)


def _check_values(name: str, checks: Mapping[str, Callable], outputs: Any, targets: Any, weights: Any = None) -> None:
    """Check what losses and metrics ask of their targets' values, where they are known, those of weight 0 left out.

    Raises:
        NetError: as a loss does when it is called by itself, with the name of the data.
    """
    outputs = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    if (
        isinstance(targets, Padded | Mapping | tuple | list)
        or jnp.shape(targets)[1:] != getattr(outputs, "shape", ())[1:]
    ):
        return  # what the loss makes of another shape, it says itself
    found, counted = known(targets), np.ones(()) if weights is None else known(weights)
    if found is None or counted is None:
        return
    kept = found[counted > 0] if counted.ndim else found
    if np.isnan(kept).any():  # said before, unless they are meant to be there
        return
    for taker, check in checks.items():
        with labeled_as(f"{taker}, of the targets of {name},"):
            check(kept)


def known_labels(targets: Any) -> np.ndarray | None:
    """Return targets that are one array of integers whose values are known; those of `Padded` in (batch, time)."""
    targets = targets.values if isinstance(targets, Padded) else targets
    if isinstance(targets, Mapping | tuple | list) or not jnp.issubdtype(jnp.result_type(targets), jnp.integer):
        return None
    return known(targets)


def _refuse(name: str, labels: Labels, shape: tuple[int, ...], targets: Any, weights: Any) -> None:
    found, classes = known_labels(targets), shape[-1]
    if found is None or (labels.first == 0 and found.ndim != len(shape) - 1):
        return
    counted: Any = ~np.isin(found, labels.none) if labels.none else np.ones((), bool)
    for real in (targets.mask if isinstance(targets, Padded) else None, None if weights is None else weights):
        if real is not None:
            real = known(real)
            if real is None:
                return
            counted = counted & (real > 0).reshape(real.shape + (1,) * (found.ndim - real.ndim))
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
