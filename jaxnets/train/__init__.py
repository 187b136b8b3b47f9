"""Training runs as pure programs, and the host's loop around them."""

from jaxnets.train.average import averaged, reestimate
from jaxnets.train.blame import blame
from jaxnets.train.checkpoint import checkpoint
from jaxnets.train.fit import Callback, Diverged, fit
from jaxnets.train.freezing import multiply_updates
from jaxnets.train.greedy import greedy
from jaxnets.train.learning_rate import LearningRates, find_learning_rate
from jaxnets.train.load_checkpoint import load_checkpoint
from jaxnets.train.logs import csv, jsonl, tensorboard, wandb
from jaxnets.train.program import Program, Recipe, program
from jaxnets.train.progress import progress
from jaxnets.train.run import Batch, Run
from jaxnets.train.scaling import LossScale, Scale
from jaxnets.train.step import Options, Watched, start, step
from jaxnets.train.stopping import EarlyStopping, Stopping, early_stopping
from jaxnets.train.tally import evaluate, predict
from jaxnets.train.transfer import Transferred, pretrained, transfer
from jaxnets.train.watch import norms

__all__ = [
    "Batch",
    "Callback",
    "Diverged",
    "EarlyStopping",
    "LearningRates",
    "LossScale",
    "Options",
    "Program",
    "Recipe",
    "Run",
    "Scale",
    "Stopping",
    "Transferred",
    "Watched",
    "averaged",
    "blame",
    "checkpoint",
    "csv",
    "early_stopping",
    "evaluate",
    "find_learning_rate",
    "fit",
    "greedy",
    "jsonl",
    "load_checkpoint",
    "multiply_updates",
    "norms",
    "predict",
    "pretrained",
    "program",
    "progress",
    "reestimate",
    "start",
    "step",
    "tensorboard",
    "transfer",
    "wandb",
]
