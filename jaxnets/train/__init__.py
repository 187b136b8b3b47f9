"""Training runs as pure programs, and the host's loop around them."""

from jaxnets.train.callbacks import jsonl, progress
from jaxnets.train.fit import Callback, fit
from jaxnets.train.greedy import greedy
from jaxnets.train.program import Program, program
from jaxnets.train.run import Batch, Run, start, step
from jaxnets.train.tally import evaluate, predict

__all__ = [
    "Batch",
    "Callback",
    "Program",
    "Run",
    "evaluate",
    "fit",
    "greedy",
    "jsonl",
    "predict",
    "program",
    "progress",
    "start",
    "step",
]
