"""Sweeps: many training runs compiled as one, over seeds and over grids, random draws or lists of hyperparameters."""

from jaxnets.sweeps.cross_validation import cross_validate
from jaxnets.sweeps.halving import halving
from jaxnets.sweeps.optuna import search
from jaxnets.sweeps.result import Best, SweepResult
from jaxnets.sweeps.space import Space, choice, integers, log_uniform, uniform
from jaxnets.sweeps.sweep import sweep

__all__ = [
    "Best",
    "Space",
    "SweepResult",
    "choice",
    "cross_validate",
    "halving",
    "integers",
    "log_uniform",
    "search",
    "sweep",
    "uniform",
]
