"""Training runs as pure programs, and the host's loop around them."""

from jaxnets.train.average import averaged, reestimate
from jaxnets.train.checkpoints.checkpoint import checkpoint
from jaxnets.train.checkpoints.load import load_checkpoint
from jaxnets.train.checkpoints.transfer import Transferred, pretrained, transfer
from jaxnets.train.diagnostics.blame import blame
from jaxnets.train.diagnostics.diagnose import Diagnosis, diagnose
from jaxnets.train.diagnostics.learning_rate import LearningRates, find_learning_rate
from jaxnets.train.diagnostics.watch import norms
from jaxnets.train.fit import Callback, Diverged, fit
from jaxnets.train.freezing import multiply_updates
from jaxnets.train.greedy import greedy
from jaxnets.train.logs import csv, jsonl, tensorboard, wandb
from jaxnets.train.program import Program, Recipe, program
from jaxnets.train.progress import progress
from jaxnets.train.run import Batch, Run
from jaxnets.train.scaling import LossScale, Scale
from jaxnets.train.step import Options, Watched, start, step
from jaxnets.train.stopping import EarlyStopping, Stopping, early_stopping
from jaxnets.train.sweeps.cross_validation import cross_validate
from jaxnets.train.sweeps.designs import Space, choice, integers, log_uniform, uniform
from jaxnets.train.sweeps.halving import halving
from jaxnets.train.sweeps.result import Best, SweepResult
from jaxnets.train.sweeps.search import search
from jaxnets.train.sweeps.sweep import sweep
from jaxnets.train.tally import evaluate, predict

__all__ = [
    "Batch",
    "Best",
    "Callback",
    "Diagnosis",
    "Diverged",
    "EarlyStopping",
    "LearningRates",
    "LossScale",
    "Options",
    "Program",
    "Recipe",
    "Run",
    "Scale",
    "Space",
    "Stopping",
    "SweepResult",
    "Transferred",
    "Watched",
    "averaged",
    "blame",
    "checkpoint",
    "choice",
    "cross_validate",
    "csv",
    "diagnose",
    "early_stopping",
    "evaluate",
    "find_learning_rate",
    "fit",
    "greedy",
    "halving",
    "integers",
    "jsonl",
    "load_checkpoint",
    "log_uniform",
    "multiply_updates",
    "norms",
    "predict",
    "pretrained",
    "program",
    "progress",
    "reestimate",
    "search",
    "start",
    "step",
    "sweep",
    "tensorboard",
    "transfer",
    "uniform",
    "wandb",
]
