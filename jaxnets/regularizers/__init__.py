"""Penalties that an objective adds to a loss, of parameters chosen by path or of outputs; and the max-norm constraint.

A strength may be a traced value, so that many are trained at once. Patterns are those of `jaxnets.core.paths`.
"""

from jaxnets.regularizers.constraints import max_norm
from jaxnets.regularizers.outputs import activity_l1, activity_l2, confidence
from jaxnets.regularizers.penalty import Penalty
from jaxnets.regularizers.weights import elastic_net, group_lasso, l1, l2, orthogonality

__all__ = [
    "Penalty",
    "activity_l1",
    "activity_l2",
    "confidence",
    "elastic_net",
    "group_lasso",
    "l1",
    "l2",
    "max_norm",
    "orthogonality",
]
