"""`SweepSearchCV` beside `GridSearchCV`, which trains one by one; what is compiled; what fails."""

import pickle
import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import FitFailedWarning
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

import jaxnets as jn
from jaxnets.sklearn import Classifier, Regressor, SweepSearchCV
from jaxnets.sklearn import together
from jaxnets.sweeps import execution

pytestmark = pytest.mark.promotes
X, Y = load_iris(return_X_y=True)
X, NAMES = X.astype(np.float32), np.array(["setosa", "versicolor", "virginica"])[Y]
FEW = Classifier(jn.dense, epochs=3, batch_size=32, random_state=0)
RATES = {"learning_rate": [0.01, 0.1], "l2": [0.0, 0.01]}


def both(estimator: Any, grid: Any, x: Any = X, y: Any = NAMES, given: Any = (), **options: Any) -> SweepSearchCV:
    """Fit both searches, compare all they report, and return ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = SweepSearchCV(estimator, grid, **options).fit(x, y, **dict(given))
    peer = GridSearchCV(estimator, grid, **options).fit(x, y, **dict(given))
    assert list(ours.cv_results_) == list(peer.cv_results_)
    for name, wanted in peer.cv_results_.items():
        found = ours.cv_results_[name]
        assert type(found) is type(wanted), name
        if "_time" in name:
            assert found.shape == wanted.shape and (found >= 0).all()
        elif name == "params":
            assert found == wanted
        else:
            assert found.dtype == wanted.dtype, name
            (assert_allclose if wanted.dtype.kind == "f" else assert_array_equal)(found, wanted, err_msg=name)
    own, others = (
        {name for name in vars(each) if name.endswith("_") and name[0] != "_"} for each in (ours, peer)
    )
    assert own == others
    assert (ours.best_index_, ours.best_params_, ours.n_splits_) == (peer.best_index_, peer.best_params_, peer.n_splits_)
    if ours.refit:
        assert_array_equal(ours.predict(x), peer.predict(x))
    return ours


@pytest.fixture
def alone(monkeypatch):
    """Count the networks that train themselves."""
    counted = []
    from jaxnets.sklearn import estimator

    run = estimator.run
    monkeypatch.setattr(estimator, "run", lambda *args, **given: counted.append(1) or run(*args, **given))
    return counted


def test_classes_as_text_and_folds_of_two_sizes(alone):
    ours = both(FEW, RATES, cv=StratifiedKFold(4, shuffle=True, random_state=1), return_train_score=True)
    assert len(alone) == 2 + 4 * 4  # both refit; one by one, the peer trains all
    assert_array_equal(ours.classes_, np.unique(NAMES))
    assert ours.n_features_in_ == 4 and ours.score(X, NAMES) == ours.best_estimator_.score(X, NAMES)
    assert ours.cv_results_["mean_fit_time"].min() > 0 and ours.estimator is FEW
    assert_allclose(ours.predict_proba(X[:5]).sum(1), 1)
    again = pickle.loads(pickle.dumps(ours))
    assert_array_equal(again.predict(X), ours.predict(X))
    assert clone(ours).get_params()["param_grid"] == RATES


def test_regression_with_a_part_held_out_and_early_stopping():
    x, y = load_diabetes(return_X_y=True)
    x, y = x[:100].astype(np.float32), y[:100] / 100
    estimator = Regressor(jn.dense, epochs=12, random_state=0, validation_fraction=0.2, patience=1)
    grid = {"learning_rate": [0.03, 1.0], "random_state": [0, 1]}
    both(estimator, grid, x, y, cv=3, scoring=("r2", "neg_mean_squared_error"), refit="r2")


def test_weights_groups_and_balanced_classes():
    groups, weights = np.arange(150) % 7, np.linspace(0.1, 2, 150)
    given = {"groups": groups, "sample_weight": weights}
    both(clone(FEW).set_params(class_weight="balanced"), {"learning_rate": [0.01, 0.1]}, given=given, cv=GroupKFold(3))


def test_a_class_that_a_fold_has_not():
    x, y = X[:103], NAMES[:103]
    splits = [(np.r_[0:100], np.r_[100:103]), (np.r_[1:103], np.r_[0:1])]
    both(clone(FEW), {"learning_rate": [0.01, 0.1]}, x, y, cv=splits)


def test_pipeline():
    fitted = []

    class Counted(StandardScaler):
        def fit(self, *args: Any, **given: Any) -> Any:
            fitted.append(1)
            return super().fit(*args, **given)

    steps = [("scale", Counted()), ("select", SelectKBest(k=2)), ("net", FEW)]
    grid = {"select__k": [2, 3], "net__learning_rate": [0.01, 0.1, 1.0]}
    pipeline = Pipeline(steps)
    ours = SweepSearchCV(pipeline, grid, cv=3).fit(X, NAMES)
    assert len(fitted) == 3 + 0  # once for each fold; the refit finds none of them, as it has all rows
    assert ours.best_estimator_.memory is None and pipeline.memory is None
    peer = GridSearchCV(pipeline, grid, cv=3).fit(X, NAMES)
    assert_allclose(ours.cv_results_["mean_test_score"], peer.cv_results_["mean_test_score"])
    assert_array_equal(ours.predict(X), peer.predict(X))


def test_refit_by_a_function_and_a_scorer_of_ones_own():
    def slowest(results: dict[str, Any]) -> int:
        return int(results["mean_fit_time"].argmin() * 0 + 1)

    def scorer(estimator: Any, x: Any, y: Any) -> dict[str, float]:
        assert isinstance(estimator, Classifier)
        return {"sum": float(estimator.decision_function(x).sum()), "accuracy": estimator.score(x, y)}

    both(FEW, {"learning_rate": [0.01, 0.1]}, cv=2, refit=slowest)
    both(FEW, {"learning_rate": [0.01, 0.1]}, cv=2, scoring=scorer, refit="accuracy")
    both(FEW, {"learning_rate": [0.01, 0.1]}, cv=2, refit=False)


def test_each_setting_and_size_is_compiled_once(monkeypatch):
    built = []
    run_epoch = execution.run_epoch

    def counted(*args: Any) -> Any:
        built.append(1)
        return run_epoch(*args)

    monkeypatch.setattr(execution, "run_epoch", counted)
    estimator = clone(FEW).set_params(epochs=2)
    grid = {"learning_rate": [0.01, 0.02, 0.03], "l2": [0.0, 0.1], "batch_size": [16, 64]}
    search = SweepSearchCV(estimator, grid, cv=4).fit(X, Y)
    assert len(built) == 4  # two batch sizes, folds of 112 and of 113 examples
    clone(search).set_params(param_grid={**grid, "learning_rate": [0.1, 0.2, 0.4]}).fit(X, Y)
    assert len(built) == 4


def test_fits_that_fail():
    grid = {"learning_rate": [0.01, 1e30]}
    x = 1e10 * X
    for each in (SweepSearchCV, GridSearchCV):
        with pytest.warns(FitFailedWarning, match="2 fits failed out of a total of 4"):
            search = each(Regressor(jn.dense, epochs=3, random_state=0, learning_rate=0.01), grid, cv=2, error_score=-7.0)
            search.set_params(param_grid={"learning_rate": [1e-9, 1e38]}).fit(x, Y)
        assert search.best_index_ == 0 and search.cv_results_["mean_test_score"][1] == -7
        with pytest.raises(jn.NetError, match="not finite"):
            search.set_params(error_score="raise").fit(x, Y)
        with pytest.warns(FitFailedWarning, match="(?s)2 fits failed out of a total of 4.*learning_rate"):
            each(FEW, {"learning_rate": [-1.0, 0.01]}, cv=2).fit(X, NAMES)


def test_what_is_not_trained_together(alone):
    epochs = []
    watched = clone(FEW).set_params(callbacks=[jn.train.Callback(on_epoch_end=lambda *_: epochs.append(1))])
    grid = {"learning_rate": [0.01, 0.1]}
    with pytest.warns(UserWarning, match="4 of 4 fits one by one: they have callbacks"):
        ours = SweepSearchCV(watched, grid, cv=2).fit(X, NAMES)
    assert len(alone) == 5 and ours.best_index_ == GridSearchCV(FEW, grid, cv=2).fit(X, NAMES).best_index_
    with pytest.warns(UserWarning, match="no network"):
        SweepSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(X, NAMES)
    with pytest.raises(jn.NetError, match="strategy"):
        SweepSearchCV(FEW, grid, cv=2, strategy="fast").fit(X, NAMES)


def test_outputs_belong_to_their_inputs():
    # A scorer may ask for outputs on other inputs than its own, and fit the estimator again.
    def scorer(estimator: Any, x: Any, y: Any) -> float:
        other = estimator.predict_proba(X[::-1])
        assert_allclose(estimator.predict_proba(X)[::-1], other, rtol=1e-6)
        before = estimator.predict_proba(x)
        after = estimator.partial_fit(x, y).predict_proba(x)
        assert np.abs(after - before).max() > 0
        return float(after.sum() + (after**2).sum())

    both(FEW, {"learning_rate": [0.01, 0.1]}, cv=2, scoring=scorer)


@pytest.mark.parametrize("make", [np.asarray, partial(np.asarray, dtype=np.float64)])
def test_data_are_compared(make):
    one = make([[1.0, 2.0]])
    assert together.equal(one, one.copy()) and not together.equal(one, one + 1) and together.equal(None, None)
    assert not together.equal(one, None) and not together.equal(one, one[:, :1]) and not together.equal(one, [[1.0, 2.0]])
