"""The loss of a network with auxiliary heads."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import name_of
from jaxnets.core.errors import NetError, check_positive, labeled_as
from jaxnets.losses.checks import option
from jaxnets.losses.labels import labels_of, takes_labels
from jaxnets.losses.sequences import Loss


def auxiliary_loss(loss: Loss, /, **weights: Any) -> Loss:
    """Add up a loss over the outputs of `jn.auxiliary_heads`: l(logits) + Σ_k w_k l(head k).

    In evaluation, where the output is the logits alone, it is the loss of these. A training run that reports both
    thus compares the whole sum in training with the main output's share in evaluation.

    Args:
        loss: `(outputs, targets) -> (batch,)`, of one output.
        **weights: w_k ≥ 0 for each head by name; may be traced. 0 computes a head and does not train it.

    Returns:
        A loss `(outputs, targets) -> (batch,)`, reported under the name of `loss`. Outputs are a dict with `logits`
        and all the heads, or what `loss` takes. All outputs have the same targets.

    Raises:
        NetError: for a negative weight, or without weights; when called, for a dict that has other heads.

    Szegedy and others, "Going Deeper with Convolutions" (2015), section 5, with w = 0.3.

    >>> import jax.numpy as jnp, jaxnets as jn
    >>> loss = auxiliary_loss(jn.losses.cross_entropy, aux1=0.3, aux2=0.3)
    >>> logits, labels = jnp.zeros((2, 4)), jnp.array([0, 3])
    >>> print(loss(logits, labels).round(2), loss({"logits": logits, "aux1": logits, "aux2": logits}, labels).round(2))
    [1.39 1.39] [2.22 2.22]
    """
    name = name_of(loss)
    label = f"auxiliary_loss({name})"
    if not weights:
        raise NetError("expects a weight for each head, aux1=0.3", label=label)
    for head, weight in weights.items():
        with labeled_as(label):
            check_positive(f"the weight of {head}", weight, zero=True)

    def heads_loss(outputs: Any, targets: Any) -> jax.Array:
        if not isinstance(outputs, Mapping):
            return loss(outputs, targets)
        if set(outputs) != {"logits", *weights}:
            wanted, came = ", ".join(["logits", *weights]), ", ".join(map(str, outputs)) or "none"
            raise NetError(f"expects the outputs {wanted}, got {came}; give each head its weight", label=label)
        total = loss(outputs["logits"], targets)
        for head, weight in weights.items():
            total = jnp.add(total, option(weight, total) * loss(outputs[head], targets))
        return total

    heads_loss.__name__ = name
    return takes_labels(heads_loss, labels_of(loss))
