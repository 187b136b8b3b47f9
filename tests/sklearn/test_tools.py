"""The estimators inside scikit-learn's own tools, on its data."""

import io
from functools import partial
from typing import Any

import jax
import joblib
import numpy as np
import optax
import pandas
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_diabetes, load_digits, load_iris, load_wine
from sklearn.ensemble import StackingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # makes HalvingGridSearchCV importable
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

import jaxnets as jn
from jaxnets.sklearn import AnomalyDetector, Classifier, Regressor, Transformer
from jaxnets.sklearn.search import SweepSearchCV
from tests.sklearn.order import in_order
from tests.test_bad_input import untyped

pytestmark = [pytest.mark.promotes, pytest.mark.slow]
IRIS, WINE = untyped(load_iris(return_X_y=True)), untyped(load_wine(return_X_y=True))
GIVEN: dict[str, Any] = {
    "learning_rate": 0.05,
    "epochs": 20,
    "batch_size": None,
    "random_state": 0,
    "fit_options": {"sampler": in_order},
}
FOLDS = StratifiedKFold(3, shuffle=True, random_state=0)


def piped(estimator: Any) -> Pipeline:
    return make_pipeline(StandardScaler(), estimator)


def test_a_pipeline_survives_joblib():
    x, y = WINE
    pipeline = piped(Classifier(jn.dense, **GIVEN)).fit(x, y)
    file = io.BytesIO()
    joblib.dump(pipeline, file)
    file.seek(0)
    restored = joblib.load(file)
    assert_array_equal(restored.predict_proba(x), pipeline.predict_proba(x))
    assert restored.score(x, y) > 0.97


def test_columns_of_several_kinds():
    x, y = WINE
    frame = pandas.DataFrame(x[:, :3], columns=["alcohol", "acid", "ash"])
    frame["origin"] = np.array(["north", "south", "east"])[y]
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["alcohol", "acid", "ash"]),
            ("categories", OneHotEncoder(), ["origin"]),
        ]
    )
    columns.set_output(transform="default")
    pipeline = make_pipeline(columns, Classifier(jn.dense, **{**GIVEN, "epochs": 100})).fit(frame, y)
    assert pipeline.score(frame, y) == 1  # the origin is the class
    without = make_pipeline(ColumnTransformer(columns.transformers[:1]), Classifier(jn.dense, **GIVEN)).fit(frame, y)
    assert 0.6 < without.score(frame, y) < 0.95


def test_cross_val_score_is_fit_by_hand():
    x, y = WINE
    found = cross_val_score(piped(Classifier(jn.dense, **GIVEN)), x, y, cv=FOLDS)
    for score, (train, test) in zip(found, FOLDS.split(x, y), strict=True):
        scale = jn.data.standardize(x[train].astype(np.float32))
        data = scale(x[train].astype(np.float32)), y[train].astype(np.int32)
        state, _ = jn.fit(
            jn.dense(3), jn.losses.cross_entropy, optax.adam(0.05), data, epochs=20, batch_size=None,
            key=jax.random.key(0), sampler=in_order,
        )  # fmt: skip
        outputs = jn.predict(jn.dense(3), state, scale(x[test].astype(np.float32)))
        assert_allclose(score, (np.asarray(outputs).argmax(1) == y[test]).mean())
    assert found.mean() > 0.95


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search(n_jobs: int):
    x, y = IRIS
    grid = {"learning_rate": [1e-4, 0.1], "net": [jn.dense, lambda outputs: jn.models.mlp((8,), outputs)]}
    search = GridSearchCV(Classifier(**{**GIVEN, "epochs": 40}), grid, cv=FOLDS, n_jobs=n_jobs).fit(x, y)
    scores = search.cv_results_["mean_test_score"]
    assert (scores[:2] < 0.8).all()
    assert (scores[2:] > 0.8).all()
    assert search.best_params_["learning_rate"] == 0.1
    one = cross_val_score(Classifier(jn.dense, **{**GIVEN, "epochs": 40, "learning_rate": 0.1}), x, y, cv=FOLDS)
    assert_allclose(scores[2], one.mean())


def test_halving_by_epochs():
    x, y = IRIS
    search = untyped(HalvingGridSearchCV)(
        Classifier(jn.dense, **GIVEN), {"learning_rate": [1e-5, 1e-4, 0.05, 0.1]}, resource="epochs", min_resources=5,
        max_resources=20, factor=2, cv=FOLDS, random_state=0,
    ).fit(x, y)  # fmt: skip
    assert search.best_params_["learning_rate"] >= 0.05
    assert set(search.cv_results_["n_resources"]) == {5, 10, 20}
    assert search.best_estimator_.n_iter_ == max(search.cv_results_["n_resources"])


def test_calibration():
    """Trained with the wrong weights, the classifier expects class 1 too often; calibration puts that right."""
    x, y = WINE
    x, y = StandardScaler().fit_transform(x[:, :2]), (y == 1).astype(int)
    skewed = Classifier(jn.dense, class_weight={0: 1, 1: 8}, **GIVEN)
    before = skewed.fit(x, y).predict_proba(x)[:, 1].mean()
    calibrated = CalibratedClassifierCV(skewed, cv=FOLDS).fit(x, y)
    assert before > y.mean() + 0.1
    assert abs(calibrated.predict_proba(x)[:, 1].mean() - y.mean()) < 0.03
    margins = CalibratedClassifierCV(Classifier(jn.dense, loss=jn.losses.hinge, **GIVEN), cv=FOLDS).fit(x, y)
    assert abs(margins.predict_proba(x)[:, 1].mean() - y.mean()) < 0.03


def test_stacking():
    x, y = WINE
    parts = [("tree", DecisionTreeClassifier(max_depth=1)), ("net", piped(Classifier(jn.dense, **GIVEN)))]
    stacked = StackingClassifier(parts, LogisticRegression(), cv=FOLDS)
    assert cross_val_score(stacked, x, y, cv=FOLDS).mean() > 0.93
    assert cross_val_score(parts[0][1], x, y, cv=FOLDS).mean() < 0.75


def test_permutation_importance():
    x, _ = IRIS
    y = (x[:, 2] > np.median(x[:, 2])).astype(int)
    x = StandardScaler().fit_transform(x) * [1, 1, 1, 0]
    fitted = Classifier(jn.dense, **GIVEN).fit(x, y)
    importance = untyped(permutation_importance(fitted, x, y, n_repeats=3, random_state=0)).importances_mean
    assert importance[2] > 0.15
    assert abs(importance[1]) < 0.05
    assert importance[3] == 0


def test_a_swept_pipeline_is_grid_search():
    x, y = IRIS
    estimator = piped(Classifier(jn.dense, **{**GIVEN, "batch_size": np.int64(500), "epochs": 3}))
    grid = {"classifier__learning_rate": [0.01, 0.1]}
    found = [
        search(estimator, grid, cv=3, scoring="neg_log_loss").fit(x, y) for search in (GridSearchCV, SweepSearchCV)
    ]
    one, other = (each.cv_results_["mean_test_score"] for each in found)
    np.testing.assert_allclose(one, other, rtol=1e-5)
    np.testing.assert_array_equal(found[0].predict(x), found[1].predict(x))


def test_regression_of_unscaled_targets():
    x, y = untyped(load_diabetes(return_X_y=True))
    net = Regressor(partial(jn.models.mlp, (16,)), l2=1e-2, **{**GIVEN, "epochs": 60})
    scaled = TransformedTargetRegressor(piped(net), transformer=StandardScaler())
    assert cross_val_score(scaled, x, y, cv=3).mean() > 0.42
    assert cross_val_score(piped(net), x, y, cv=3).mean() < 0.3


def test_features_and_anomalies_of_digits():
    x, y = untyped(load_digits(return_X_y=True))
    x, y = (x[:900] / 16).astype(np.float32), y[:900]
    given = {**GIVEN, "epochs": 60, "learning_rate": 0.005, "batch_size": 100}
    codes = make_pipeline(Transformer(AnomalyDetector(**given)), LogisticRegression(max_iter=1000))
    assert cross_val_score(codes, x, y, cv=3).mean() > 0.8  # 8 numbers in place of 64
    # Trained on zeros alone, the detector finds other digits.
    detector = AnomalyDetector(contamination=0.05, **given).fit(x[y == 0][:60])
    assert (detector.predict(x[y != 0]) == -1).mean() > 0.95
    assert (detector.predict(x[y == 0][60:]) == -1).mean() < 0.5
