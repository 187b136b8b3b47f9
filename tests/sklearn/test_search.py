"""`SweepSearchCV` beside `GridSearchCV`, which trains one by one; what is compiled; what fails."""

import pickle
import warnings
from typing import Any

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import FitFailedWarning
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

import jaxnets as jn
from jaxnets.sklearn import Classifier, Regressor, SweepSearchCV, estimator, together

pytestmark = pytest.mark.promotes
# 48 rows, 16 of each class
SOME = np.r_[0:48:3, 50:98:3, 100:148:3]
X, Y = (np.asarray(each)[SOME].astype(np.float32) for each in load_iris(return_X_y=True))
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y.astype(int)]
FEW: Any = Classifier(jn.dense, epochs=2, batch_size=16, random_state=0)
# In double precision sums in another order don't show, nor do they end a fit at another epoch.
DOUBLE: Any = Classifier(jn.dense, epochs=2, batch_size=16, random_state=0, dtype="float64")
RATES = {"learning_rate": [0.01, 0.1]}
TWO = KFold(2, shuffle=True, random_state=0)


def both(given: Any, grid: Any, x: Any = X, y: Any = NAMES, params: Any = (), **options: Any) -> SweepSearchCV:
    """Fit both searches, compare all they report, and return ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = SweepSearchCV(given, grid, **options).fit(x, y, **dict(params))
    peer = GridSearchCV(given, grid, **options).fit(x, y, **dict(params))
    assert list(ours.cv_results_) == list(peer.cv_results_)
    for name, wanted in peer.cv_results_.items():
        found = ours.cv_results_[name]
        assert type(found) is type(wanted), name
        if "_time" in name:
            assert found.shape == wanted.shape
            assert (found >= 0).all()
        elif name == "params":
            assert found == wanted
        else:
            assert found.dtype == wanted.dtype, name
            (assert_allclose if wanted.dtype.kind == "f" else assert_array_equal)(found, wanted, err_msg=name)
    own, others = ({name for name in vars(each) if name.endswith("_") and name[0] != "_"} for each in (ours, peer))
    assert own == others
    assert (ours.best_index_, ours.best_params_, ours.n_splits_) == (
        peer.best_index_,
        peer.best_params_,
        peer.n_splits_,
    )
    if ours.refit:
        assert_array_equal(ours.predict(x), peer.predict(x))
    return ours


@pytest.fixture
def alone(monkeypatch):
    """Count the networks that train themselves."""
    counted, run = [], estimator.run
    monkeypatch.setattr(estimator, "run", lambda *args, **given: counted.append(1) or run(*args, **given))
    return counted


@pytest.mark.parametrize("grid", [RATES, pytest.param({**RATES, "l2": [0.0, 0.1]}, marks=pytest.mark.slow)])
def test_classes_as_text(alone, grid):
    count = 2 * len(grid)
    ours = both(FEW, grid, cv=StratifiedKFold(2, shuffle=True, random_state=1), return_train_score=True)
    assert len(alone) == 2 + 2 * count  # both refit; one by one, the peer trains all
    assert_array_equal(ours.classes_, np.unique(NAMES))
    assert ours.n_features_in_ == 4
    assert ours.score(X, NAMES) == ours.best_estimator_.score(X, NAMES)
    assert ours.cv_results_["mean_fit_time"].min() > 0
    assert ours.estimator is FEW
    assert_allclose(ours.predict_proba(X[:5]).sum(1), 1)
    again = pickle.loads(pickle.dumps(ours))
    assert_array_equal(again.predict(X), ours.predict(X))
    copy: Any = clone(ours)
    assert copy.get_params()["param_grid"] == grid


@pytest.mark.slow
def test_regression_with_a_part_held_out_and_early_stopping(alone):
    x, y = (np.asarray(each)[:100] for each in load_diabetes(return_X_y=True))
    network = Regressor(jn.dense, epochs=12, random_state=0, validation_fraction=0.2, patience=1, dtype="float64")
    grid = {"learning_rate": [0.03, 1.0], "random_state": [0, 1]}
    epochs = []

    def scorer(fitted: Any, x: Any, y: Any) -> dict[str, float]:
        epochs.append(fitted.n_iter_)
        return {"r2": fitted.score(x, y), "epochs": fitted.n_iter_, "sum": fitted.predict(x).sum()}

    both(network, grid, x, y / 100, cv=2, scoring=scorer, refit="r2")
    assert len(alone) == 2 + 8
    assert min(epochs) < 12  # some stop early
    assert len({*epochs}) > 1


@pytest.mark.slow
def test_weights_groups_and_balanced_classes_in_folds_of_several_sizes(alone):
    params = {"groups": np.arange(48) % 7, "sample_weight": np.linspace(0.1, 2, 48)}
    balanced: Any = Classifier(
        jn.dense, epochs=2, batch_size=16, random_state=0, class_weight="balanced", dtype="float64"
    )
    both(balanced, RATES, params=params, cv=GroupKFold(3), scoring="neg_log_loss")
    assert len(alone) == 2 + 6


@pytest.mark.slow
def test_a_class_that_a_fold_has_not(alone):
    splits = [(np.arange(1, 33), np.arange(1)), (np.arange(32), np.arange(32, 33))]  # row 32 is the only virginica
    ours = both(FEW, RATES, X[:33], NAMES[:33], cv=splits)
    assert len(alone) == 2 + 4
    assert ours.cv_results_["split1_test_score"].max() == 0


FITTED = list[int]()


class Counted(StandardScaler):
    """Count how often it is fitted."""

    def fit(self, *args: Any, **given: Any) -> Any:
        FITTED.append(1)
        return super().fit(*args, **given)


@pytest.mark.slow
def test_pipeline():
    FITTED.clear()
    grid = {"select__k": [2, 3], "net__learning_rate": [0.01, 0.1]}
    pipeline = Pipeline([("scale", Counted()), ("select", SelectKBest(k=2)), ("net", FEW)])
    ours = SweepSearchCV(pipeline, grid, cv=TWO).fit(X, NAMES)
    assert len(FITTED) == 2 + 1  # once for each fold, and for the refit
    assert ours.best_estimator_.memory is None
    assert pipeline.memory is None
    peer = GridSearchCV(pipeline, grid, cv=TWO).fit(X, NAMES)
    assert_allclose(ours.cv_results_["mean_test_score"], peer.cv_results_["mean_test_score"])
    assert_array_equal(ours.predict(X), peer.predict(X))


def test_refit_by_a_function_and_a_scorer_of_ones_own():
    def scorer(fitted: Any, x: Any, y: Any) -> dict[str, float]:
        assert isinstance(fitted, Classifier)
        return {"sum": float(fitted.decision_function(x).sum()), "accuracy": fitted.score(x, y)}

    assert both(DOUBLE, RATES, cv=TWO, scoring=scorer, refit=lambda results: 1).best_index_ == 1


@pytest.mark.slow
def test_each_setting_and_size_is_compiled_once():
    compiled = list[str]()

    def listen(event: str, duration_secs: float, **about: Any) -> None:
        if "backend_compile" in event:
            compiled.append(about["fun_name"])

    grid = {"learning_rate": [0.01, 0.02, 0.03], "l2": [0.0, 0.1], "batch_size": [8, 16]}
    search: Any = SweepSearchCV(FEW, grid, cv=KFold(4, shuffle=True, random_state=0), refit=False)
    x, names = X[:42], NAMES[:42]
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        search.fit(x, names)
        assert sum("run_epoch" in name for name in compiled) == 4  # two batch sizes, folds of 31 and of 32 examples
        compiled.clear()
        search.set_params(param_grid={**grid, "learning_rate": [0.1, 0.2, 0.4]}).fit(x, names)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not compiled


@pytest.mark.parametrize("search", [SweepSearchCV, GridSearchCV])
@pytest.mark.slow
def test_fits_that_fail(search):
    network = Regressor(jn.dense, epochs=2, batch_size=16, random_state=0)
    tried = search(network, {"learning_rate": [0.01, 1e38]}, cv=TWO, error_score=-1e6)
    with pytest.warns(FitFailedWarning, match="(?s)2 fits failed out of a total of 4.*NonFiniteError.*at step"):
        tried.fit(X, Y)
    assert tried.best_index_ == 0
    assert tried.cv_results_["mean_test_score"][1] == -1e6
    with pytest.raises(jn.NetError, match=r"training stops at step 1 .*makes parameters that are not finite"):
        tried.set_params(error_score="raise").fit(X, Y)
    with pytest.warns(FitFailedWarning, match="(?s)2 fits failed out of a total of 4.*learning_rate"):
        search(FEW, {"learning_rate": [-1.0, 0.01]}, cv=TWO, error_score=-7.0).fit(X, NAMES)


def test_what_is_not_trained_together(alone):
    epochs = []
    callbacks = [jn.train.Callback(on_epoch_end=lambda *_: epochs.append(1))]
    both(FEW, {"callbacks": [callbacks]}, cv=TWO, refit=False)
    assert len(alone) == 2 + 2
    assert len(epochs) == 2 * 4
    with pytest.warns(UserWarning, match="no network"):
        SweepSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(X, NAMES)
    strategy: Any = "fast"
    with pytest.raises(jn.NetError, match="SweepSearchCV expects strategy 'vmap'"):
        SweepSearchCV(FEW, RATES, cv=TWO, strategy=strategy).fit(X, NAMES)


def test_outputs_belong_to_their_inputs():
    # A scorer may ask for outputs on other inputs than its own, and fit the estimator again.
    def scorer(fitted: Any, x: Any, y: Any) -> float:
        other = fitted.predict_proba(X[::-1])
        assert_allclose(fitted.predict_proba(X)[::-1], other)
        before = fitted.predict_proba(x)
        after = fitted.partial_fit(x, y).predict_proba(x)
        assert np.abs(after - before).max() > 0
        again = fitted.set_params(epochs=1).fit(x, y).predict_proba(x)
        assert np.abs(after - again).max() > 0
        return float(after.sum() + (again**2).sum())

    both(DOUBLE, RATES, cv=TWO, scoring=scorer, refit=False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_data_are_compared(dtype):
    one = np.array([[1.0, 2.0]], dtype)
    assert together.equal(None, None)
    assert together.equal(one, one.copy())
    assert together.equal([1.0], [1.0])
    for other in (None, one + 1, one[:, :1], [[1.0, 2.0]]):
        assert not together.equal(one, other)
