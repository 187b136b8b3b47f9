"""Regularizers that an objective adds to a loss, and the max-norm constraint.

Regularizers of parameters select them by path, with the patterns of `jaxnets.core.paths`. Regularizers of outputs
return one value per example. A strength may be traced, so that networks with many strengths train at once.
"""

from jaxnets.regularizers.constraints import max_norm
from jaxnets.regularizers.outputs import activity_l1, activity_l2, confidence
from jaxnets.regularizers.regularizer import Regularizer
from jaxnets.regularizers.weights import elastic_net, group_lasso, l1, l2, orthogonality

__all__ = [
    "Regularizer",
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
