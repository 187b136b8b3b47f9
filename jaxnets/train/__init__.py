"""Training: runs as pure programs, and the host's loop around them."""

from jaxnets.train.adversarial import adversarial
from jaxnets.train.callbacks.early_stopping import EarlyStopping, Stopping, early_stopping
from jaxnets.train.callbacks.loggers import csv, jsonl, tensorboard, wandb
from jaxnets.train.callbacks.progress import progress
from jaxnets.train.checkpoint.callback import checkpoint, load_checkpoint
from jaxnets.train.debug.fit_diagnosis import Diagnosis, diagnose
from jaxnets.train.debug.lr_finder import LearningRates, find_learning_rate
from jaxnets.train.debug.nonfinite import find_nonfinite
from jaxnets.train.debug.norms import norms
from jaxnets.train.ema import ema_params, estimate_statistics
from jaxnets.train.epoch import Recipe
from jaxnets.train.evaluation import evaluate, predict
from jaxnets.train.finetune import Transferred, pretrained, transfer
from jaxnets.train.loop import Callback, NonFiniteError, fit, run
from jaxnets.train.loss_scale import LossScale, Scale
from jaxnets.train.objective import objective
from jaxnets.train.options import Options, StepInfo
from jaxnets.train.players import Player
from jaxnets.train.pretrain import pretrain_layers
from jaxnets.train.program import Program, program
from jaxnets.train.schedules import inverse_square_root_schedule
from jaxnets.train.state import Batch, TrainState
from jaxnets.train.step import make_train_step, start

__all__ = [
    "Batch",
    "Callback",
    "Diagnosis",
    "EarlyStopping",
    "LearningRates",
    "LossScale",
    "NonFiniteError",
    "Options",
    "Player",
    "Program",
    "Recipe",
    "Scale",
    "StepInfo",
    "Stopping",
    "TrainState",
    "Transferred",
    "adversarial",
    "checkpoint",
    "csv",
    "diagnose",
    "early_stopping",
    "ema_params",
    "estimate_statistics",
    "evaluate",
    "find_learning_rate",
    "find_nonfinite",
    "fit",
    "inverse_square_root_schedule",
    "jsonl",
    "load_checkpoint",
    "make_train_step",
    "norms",
    "objective",
    "predict",
    "pretrain_layers",
    "pretrained",
    "program",
    "progress",
    "run",
    "start",
    "tensorboard",
    "transfer",
    "wandb",
]
