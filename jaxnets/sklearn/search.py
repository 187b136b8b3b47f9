"""Grid search with cross-validation in which one compiled sweep trains candidates and folds together."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any, Self

import joblib
import numpy as np
from sklearn import get_config
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, ParameterGrid
from sklearn.pipeline import Pipeline
from sklearn.utils import indexable
from sklearn.utils.metadata_routing import process_routing
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _check_method_params

from jaxnets.core.errors import NetError, labeled_as
from jaxnets.sklearn.hooks import SEARCH, Search
from jaxnets.sklearn.together import Preparation, Recorder, Trained, Trial, groups_of
from jaxnets.sweeps.strategy import Strategy


class SweepSearchCV(GridSearchCV):
    """Grid search."""

    # One process: the sweep uses the whole machine.
    n_jobs = 1
    pre_dispatch = "2*n_jobs"

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        scoring: Any = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        strategy: Strategy | None = None,
        chunk: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.param_grid = param_grid
        self.scoring = scoring
        self.refit = refit
        self.cv = cv
        self.verbose = verbose
        self.error_score = error_score
        self.return_train_score = return_train_score
        self.strategy = strategy
        self.chunk = chunk

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Train and score all candidates on all folds, then fit the best one to all data.

        Args:
            X: the inputs, of any form that the estimator takes.
            y: the targets.
            **params: `groups` for the splitter, and what the estimator's `fit` takes; of arrays with as many rows as
                `X`, such as `sample_weight`, each fold gets its part.
        """
        given, remembers = self.estimator, None
        if isinstance(given, Pipeline) and given.memory is None:
            # Transformers are fitted once for each fold and setting, not for each candidate.
            remembers = _Memory()
            self.estimator = clone(given).set_params(memory=remembers)
        self._data = X, y, params
        try:
            super().fit(X, y, **params)
        finally:
            self.estimator = given
            del self._data
        if remembers is not None and hasattr(self, "best_estimator_"):
            self.best_estimator_.set_params(memory=None)
        return self

    def _run_search(self, evaluate_candidates: Callable[..., dict[str, Any]]) -> None:
        candidates, splits, trials = self._recorded()
        groups = groups_of([trial for trial in trials if trial is not None], self._preparation)
        del self._preparation
        for group in groups:
            with labeled_as("SweepSearchCV", keep=True):
                try:
                    group.train({"strategy": self.strategy, "chunk": self.chunk})
                except NetError as error:
                    _warn(f"trains {len(group.trials)} fits one by one, as they can't be trained together: {error}")
                    continue
            for place, trial in enumerate(group.trials):
                trial.group, trial.place = group, place
        together = [trial for trial in trials if trial is not None and trial.group is not None]
        with _within(Trained(together)):
            results = evaluate_candidates(candidates, cv=_Splits(splits))
        # Each trial took an equal part of the time of its sweep.
        seconds = [trial.group.seconds / len(trial.group.trials) if trial in together else 0.0 for trial in trials]
        share = np.reshape(seconds, (len(candidates), len(splits)))
        results["mean_fit_time"] += share.mean(1)
        results["std_fit_time"] = np.hypot(results["std_fit_time"], share.std(1))

    def _recorded(self) -> tuple[list[dict[str, Any]], list[Any], list[Trial | None]]:
        """Return candidates, splits, and for each candidate and split what is to be trained; `None` if unknown."""
        (X, y, params), routed = self._data, {"groups": self._data[2].get("groups")}
        fit_params = {name: value for name, value in params.items() if name != "groups"}
        if get_config()["enable_metadata_routing"]:
            routing = process_routing(self, "fit", **params)
            routed, fit_params = routing["splitter"]["split"], routing["estimator"]["fit"]
        X, y = indexable(X, y)
        splits = list(self._checked_cv_orig.split(X, y, **routed))
        # Each part is made once, so that its trials are known to share it.
        parts = [
            (*_safe_split(self.estimator, X, y, train), _check_method_params(X, fit_params, indices=train))
            for train, _ in splits
        ]
        self._preparation = Preparation(X, {id(part[0]): train for part, (train, _) in zip(parts, splits)})
        candidates = list(ParameterGrid(self.param_grid))
        recorder, trials, why = Recorder(), list[Trial | None](), ""
        with _within(recorder):
            for candidate, (X_train, y_train, fitting) in product(candidates, parts):
                trials.append(None)
                try:
                    estimator = clone(self.estimator).set_params(**clone(candidate, safe=False))
                    if not why:
                        trials[-1] = recorder.record(estimator, X_train, y_train, **fitting)
                except NetError as error:
                    why = str(error)
                except Exception:
                    continue
        if why:
            _warn(f"{why}: fits them one by one")
        return candidates, splits, trials


class _Splits:
    """A splitter that returns splits which are drawn already."""

    def __init__(self, splits: list[Any]) -> None:
        self.splits = splits

    def split(self, *args: Any, **kwargs: Any) -> list[Any]:
        return self.splits


class _Memory:
    """A cache of fitted transformers for `Pipeline(memory=...)`, as long as the search runs."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}

    def __sklearn_clone__(self) -> "_Memory":
        return self

    def cache(self, function: Callable[..., Any], ignore: Sequence[str] | None = None) -> Callable[..., Any]:
        return partial(self._call, function, ignore or ())

    def _call(self, function: Callable[..., Any], ignore: Sequence[str], *args: Any, **kwargs: Any) -> Any:
        try:
            key: Any = joblib.hash((args, {name: value for name, value in kwargs.items() if name not in ignore}))
        except Exception:  # not everything can be pickled
            return function(*args, **kwargs)
        if key not in self.known:
            self.known[key] = function(*args, **kwargs)
        return self.known[key]


@contextmanager
def _within(search: Search) -> Iterator[None]:
    token = SEARCH.set(search)
    try:
        yield
    finally:
        SEARCH.reset(token)


def _warn(text: str) -> None:
    warnings.warn(f"SweepSearchCV: {text}", stacklevel=4)
