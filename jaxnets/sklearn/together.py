"""Estimators that are trained together: one compiled sweep for equal settings and shapes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import clone

from jaxnets import regularizers
from jaxnets.core.compiled import compiled
from jaxnets.core.equality import Ingredients
from jaxnets.core.errors import NetError, check_positive, labeled_as
from jaxnets.core.net import Net
from jaxnets.sklearn.estimator import BLOCK, Estimator, seed_of
from jaxnets.sklearn.training import precision, program_of, to_host
from jaxnets.sweeps.execution import Builder
from jaxnets.sweeps.loop import run_sweep
from jaxnets.sweeps.space import Design, inputs
from jaxnets.sweeps.strategy import ExecutionOptions, prepare
from jaxnets.train.callbacks.early_stopping import EarlyStopping
from jaxnets.train.evaluation import _predict
from jaxnets.train.interruption import interrupts
from jaxnets.train.program import Program

# Parameters of estimators that may differ between the trials of one sweep, if they are numbers.
TRACED = ("learning_rate", "l2")
# Outputs of more numbers than this are computed for one estimator at a time.
MOST_OUTPUTS = 2**26


@dataclass(eq=False)
class Trial:
    """An estimator to be fitted to data.

    Attributes:
        estimator: it, not fitted.
        X: the inputs, as given to its `fit`.
        y: the targets.
        sample_weight: the weights.
        seed: the seed that its random state gives.
        key: what trials with equal parameters have in common.
        fold: the `Fold` prepared for its network, once it is to be trained with others.
        group: the `Group` it was trained with.
        place: its number among these.
    """

    estimator: Estimator
    X: Any
    y: Any
    sample_weight: Any
    seed: int
    key: Ingredients
    fold: Any = None
    group: Any = None
    place: int = -1

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the estimator by name."""
        return self.estimator.get_params(deep=False)

    def is_of(self, X: Any, y: Any, sample_weight: Any) -> bool:
        """Tell whether data are those of this trial."""
        given = (X, y, sample_weight), (self.X, self.y, self.sample_weight)
        return all(equal(new, own) for new, own in zip(*given))


@dataclass(eq=False)
class Fold:
    """Data prepared for training.

    Attributes:
        net: the network.
        loss: its loss.
        known: what the estimator has learned of the data, by attribute.
        x: the inputs that the rows belong to.
        rows: the examples to train on, and those held out, if any.
        targets: targets and, if any, weights of both; targets are `None` if they are the inputs.
        rule: when to stop early.
    """

    net: Net
    loss: Any
    known: dict[str, Any]
    x: np.ndarray
    rows: list[np.ndarray]
    targets: list[list[Any]]
    rule: EarlyStopping | None

    @cached_property
    def kind(self) -> Ingredients:
        """What is equal for folds of equal shapes whose trials are compiled as one."""
        shapes = [[None if each is None else (each.shape, each.dtype) for each in part] for part in self.targets]
        shapes = repr((self.x.shape[1:], self.x.dtype, [len(rows) for rows in self.rows], shapes))
        return Ingredients(self.net, self.loss, self.rule, values=shapes)


def key_of(estimator: Estimator) -> Ingredients:
    """Return a key that is equal for estimators with equal parameters; drawn random states don't count."""
    params = estimator.get_params(deep=False)
    if not isinstance(params["random_state"], int | np.integer):
        del params["random_state"]
    return Ingredients(type(estimator), params)


def equal(one: Any, other: Any) -> bool:
    """Tell whether data are equal: arrays, tables, sparse matrices or lists."""
    if one is other:
        return True
    if type(one) is not type(other) or np.shape(one) != np.shape(other):
        return False
    if hasattr(one, "equals"):  # a table or a series
        return bool(one.equals(other))
    if hasattr(one, "tocsr"):
        return (one != other).nnz == 0
    return bool(np.all(np.asarray(one) == np.asarray(other)))


def traced(params: dict[str, Any], *, penalized: bool) -> dict[str, float]:
    """Return the parameters that may differ within a sweep, as numbers; `l2` only if any trial has one.

    Raises:
        NetError: for a number out of range.
    """
    found = {name: params[name] for name in TRACED if isinstance(params[name], int | float | np.number)}
    if not penalized:
        found.pop("l2", None)
    for name, value in found.items():
        check_positive(name, value, zero=True)
    if "l2" in found:
        regularizers.l2(found["l2"])
    return {name: float(value) for name, value in found.items()}


class Preparation:
    """Prepares the data of trials, each training set once.

    Args:
        whole: the whole inputs of a search.
        parts: the rows in it of inputs that are part of it, by their identity.
    """

    def __init__(self, whole: Any, parts: dict[int, np.ndarray]) -> None:
        self.whole, self.parts = whole, parts
        self.folds: dict[Any, Fold] = {}
        self.converted: dict[Any, np.ndarray | None] = {}

    def fold(self, trial: Trial, static: Any) -> Fold:
        """Return the data of a trial, prepared for its network.

        Raises:
            Exception: what `fit` raises.
        """
        seed = trial.seed if trial.estimator.validation_fraction else None
        identity = id(trial.X), id(trial.y), id(trial.sample_weight), seed
        key = identity, type(trial.estimator), static
        if key not in self.folds:
            with labeled_as(type(trial.estimator).__name__, keep=True), precision(trial.estimator.dtype):
                self.folds[key] = self._prepare(trial)
        return self.folds[key]

    def _prepare(self, trial: Trial) -> Fold:
        estimator: Any = clone(trial.estimator)
        net, loss, (x, y, *weights) = estimator._prepare(trial.X, trial.y, trial.sample_weight)
        train, held_out = estimator._hold_out((x, y, *weights, np.arange(len(x))), trial.seed)
        parts = [train] if held_out is None else [train, held_out]
        params = estimator.get_params(deep=False)
        known = {name: value for name, value in vars(estimator).items() if name not in params}
        base, rows = self._base(trial, estimator, x)
        targets = [[None if y is x else part[1], *part[2:-1]] for part in parts]
        rule = estimator._stopping(held_out)
        return Fold(net, loss, known, base, [rows[part[-1]] for part in parts], targets, rule)

    def _base(self, trial: Trial, estimator: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the inputs that all folds share, if these are part of them, and the numbers of the rows."""
        part = self.parts.get(id(trial.X))
        if part is not None:
            dtype = np.dtype(estimator.dtype)
            if dtype not in self.converted:
                fresh: Any = clone(estimator)
                try:
                    self.converted[dtype] = fresh._inputs(self.whole, anew=True)
                except Exception:  # other rows are not valid
                    self.converted[dtype] = None
            whole = self.converted[dtype]
            if whole is not None and np.array_equal(whole[part], x):
                return whole, np.arange(len(whole))[part]
        return x, np.arange(len(x))


@dataclass(frozen=True)
class TrialBuilder(Builder):
    """Builds the program of a trial from the data of all folds.

    Attributes:
        params: the parameters of the estimator, without those of `TRACED` that differ.
        net: the network.
        loss: its loss.
        rule: when to stop early.
    """

    params: dict[str, Any]
    net: Net
    loss: Any
    rule: EarlyStopping | None

    data_inputs = ("fold",)

    @cached_property
    def ingredients(self) -> Ingredients:
        """The key by which builders are compared."""
        return Ingredients(self.trial_fn, self.params, self.net, self.loss, self.rule)

    def inputs(self, design: Design) -> Any:
        """Return the traced parameters and the number of the fold of each trial."""
        return {"hp": inputs(design.hp), "fold": design.labels["fold"].astype(np.int32)}

    def __call__(self, extra: Any, inputs: dict[str, Any]) -> Program:
        """Return the program of one trial."""
        fold, parts = inputs["fold"], list[tuple[Any, ...]]()
        for rows, (y, *weights) in zip(extra["rows"], extra["targets"]):
            x = extra["x"][rows[fold]]
            parts.append((x, x if y is None else y[fold], *(each[fold] for each in weights)))
        train, validation = parts[0], parts[1] if len(parts) == 2 else None
        params = {**self.params, **inputs["hp"]}
        return self.trial_fn(params, self.net, self.loss, train, validation, stopping=self.rule)


class Group:
    """Trials that one sweep trains.

    Args:
        trials: at least one; they have equal parameters, except for those of `TRACED`, and folds of one kind.
        hp: the traced parameters of each.
    """

    def __init__(self, trials: Sequence[Trial], hp: Sequence[dict[str, float]]) -> None:
        self.trials, self.hp = trials, hp
        self.folds: list[Fold] = [*dict.fromkeys(trial.fold for trial in trials)]
        self.net: Net = self.folds[0].net
        self.seconds = 0.0
        self.runs: Any = None
        self.peers = {id(fold): [trial for trial in trials if trial.fold is fold] for fold in self.folds}
        # By fold: inputs, and the outputs of its trials
        self.known: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}

    def _extra(self) -> dict[str, Any]:
        """Return the data of all folds: the inputs once, and the rows and targets of each fold, stacked."""
        bases = {id(fold.x): fold.x for fold in self.folds}
        begin = dict(zip(bases, np.cumsum([0, *map(len, bases.values())])))
        rows = [[part + begin[id(fold.x)] for part in fold.rows] for fold in self.folds]
        stacked = partial(jax.tree.map, lambda *leaves: np.stack(leaves))
        return {
            "x": next(iter(bases.values())) if len(bases) == 1 else np.concatenate([*bases.values()]),
            "rows": [np.stack(part).astype(np.int32) for part in zip(*rows)],
            "targets": stacked(*[fold.targets for fold in self.folds]),
        }

    def train(self, options: ExecutionOptions) -> None:
        """Train all trials.

        Raises:
            NetError: what `fit` raises.
            KeyboardInterrupt: on Ctrl-C, after the current epoch.
        """
        began, first = time.perf_counter(), self.trials[0]
        params = {name: value for name, value in first.params.items() if name not in (*self.hp[0], "random_state")}
        with precision(first.estimator.dtype), interrupts() as stop:
            builder = TrialBuilder(program_of, params, self.net, self.folds[0].loss, self.folds[0].rule)
            seeds, which = np.unique([trial.seed for trial in self.trials], return_inverse=True)
            keys = jnp.stack([jax.random.key(int(seed)) for seed in seeds])[which]
            numbers = {id(fold): number for number, fold in enumerate(self.folds)}
            labels = {"seed": seeds[which], "fold": np.array([numbers[id(trial.fold)] for trial in self.trials])}
            hp = {name: np.array([each[name] for each in self.hp]) for name in self.hp[0]}
            design = Design(hp, np.arange(len(self.trials)), labels, keys)
            make_plan = partial(prepare, builder, self._extra(), design)
            result = run_sweep("search", make_plan, options, False, None, None, None, interrupted=stop)
            if stop:
                raise KeyboardInterrupt
            self.runs, self.result = to_host(result.runs), result
        self.seconds = time.perf_counter() - began

    def fit(self, trial: Trial, estimator: Estimator) -> bool:
        """Set what training sets, unless the trial halted at a value that is not finite: by itself it says where."""
        place, result = trial.place, self.result
        if result.failed[place] >= 0:
            return False
        history = {name: rows[place, : int(result.epochs[place])] for name, rows in result.history.items()}
        vars(estimator).update(trial.fold.known)
        estimator._finish(self.net, jax.tree.map(lambda leaf: np.asarray(leaf[place]), self.runs), history)
        return True

    def outputs(self, trial: Trial, x: np.ndarray) -> np.ndarray | None:
        """Return the outputs of a trial's network; those of all trials of its fold are computed at once."""
        peers, known = self.peers[id(trial.fold)], self.known.setdefault(id(trial.fold), [])
        found = next((outputs for each, outputs in known if equal(each, x)), None)
        if found is None:
            if len(peers) == 1 or len(x) * len(peers) * _size_of_outputs(self.net, self.runs, x) > MOST_OUTPUTS:
                return None
            places = [each.place for each in peers]
            states = jax.tree.map(lambda leaf: leaf[places], (self.runs.params, self.runs.state))
            blocks = np.concatenate([x, np.zeros((-len(x) % BLOCK, *x.shape[1:]), x.dtype)])
            found = np.asarray(compiled(all_outputs, [self.net], (states, blocks))(states, blocks))[:, : len(x)]
            # Those of the last two sets of inputs are kept, such as the test set and the training set.
            self.known[id(trial.fold)] = [*known[-1:], (x, found)]
        return found[peers.index(trial)]


def all_outputs(net: Net, states: Any, x: Any) -> Any:
    """Return the outputs `(trials, examples, ...)` of networks with stacked parameters."""
    return jax.lax.map(lambda each: _predict(net, BLOCK, None, each[0], each[1], x), states)


def _size_of_outputs(net: Net, runs: Any, x: np.ndarray) -> int:
    """Return how many numbers a network returns for one example."""
    one = jax.tree.map(lambda leaf: leaf[0], (runs.params, runs.state))
    shapes = jax.eval_shape(lambda state, x: net.apply(state[0], state[1], x)[0], one, x[:1])
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def groups_of(trials: Sequence[Trial], preparation: Preparation) -> list[Group]:
    """Return the groups of the trials that can be trained together; the others train themselves."""
    penalized = any(trial.estimator.l2 for trial in trials if isinstance(trial.estimator.l2, int | float | np.number))
    groups: dict[Any, list[tuple[Trial, dict[str, float]]]] = {}
    for trial in trials:
        params = trial.params
        if params["callbacks"] not in ([], (), None) or params["verbose"]:
            continue
        try:
            hp = traced(params, penalized=penalized)
            static = {name: value for name, value in params.items() if name not in (*hp, "random_state")}
            static = Ingredients(static)
            trial.fold = fold = preparation.fold(trial, static)
        except Exception:  # it raises the same when it trains itself
            continue
        key = type(trial.estimator), tuple(hp), static, fold.kind
        groups.setdefault(key, []).append((trial, hp))
    return [Group(*map(list, zip(*group))) for group in groups.values()]


class Trained:
    """The search in which estimators find themselves trained, see `Search`.

    Args:
        trials: those that are trained.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.waiting: dict[Ingredients, list[Trial]] = {}
        for trial in trials:
            self.waiting.setdefault(trial.key, []).append(trial)
        # The estimator that was fitted last, the parameters it got, and its trial.
        self.last: tuple[Any, Any, Trial] | None = None

    def fit(self, estimator: Any, X: Any, y: Any, sample_weight: Any) -> bool:
        """Set what training has set, if an estimator with these parameters and data was trained."""
        waiting = self.waiting.get(key_of(estimator), [])
        trial = next((trial for trial in waiting if trial.is_of(X, y, sample_weight)), None)
        if trial is None:
            return False
        waiting.remove(trial)
        done = trial.group.fit(trial, estimator)
        self.last = (estimator, estimator.params_, trial) if done else None
        return done

    def outputs(self, estimator: Any, x: np.ndarray) -> np.ndarray | None:
        """Return the outputs of a network of this search, unless it was trained again since then."""
        if self.last is None or self.last[0] is not estimator or self.last[1] is not estimator.params_:
            return None
        return self.last[2].group.outputs(self.last[2], x)


class _Recorded(BaseException):
    """Leaves `fit` where training would begin."""


class Recorder:
    """The search in which estimators say what they are to be trained on, see `Search`."""

    def __init__(self) -> None:
        self.trials: list[Trial] = []

    def record(self, estimator: Any, X: Any, y: Any, **params: Any) -> Trial | None:
        """Call `fit`, and return what the first network inside would be trained on; `None` if it raised.

        Raises:
            NetError: if nothing was to be trained.
        """
        count = len(self.trials)
        try:
            estimator.fit(X, **({} if y is None else {"y": y}), **params)
        except _Recorded:
            return self.trials[count]
        except Exception:  # it raises the same when it is fitted by itself
            return None
        raise NetError("finds no network in the estimator, or one that another process trains")

    def fit(self, estimator: Any, X: Any, y: Any, sample_weight: Any) -> bool:
        """Record what an estimator is to be trained on."""
        seed = seed_of(estimator.random_state)
        self.trials.append(Trial(estimator, X, y, sample_weight, seed, key_of(estimator)))
        raise _Recorded

    def outputs(self, estimator: Any, x: np.ndarray) -> np.ndarray | None:
        """Return nothing: no estimator is fitted."""
        return None
