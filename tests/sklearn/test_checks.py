"""scikit-learn's own checks of estimators."""

from typing import Any

import pytest
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import estimator_checks_generator

from jaxnets.sklearn import AnomalyDetector, Classifier, Regressor, Transformer
from tests.sklearn.order import in_order

pytestmark = pytest.mark.promotes


# In float64 and full batches: an example of weight 2 must be as two examples, to a relative 1e-7.
GIVEN: dict[str, Any] = {
    "epochs": 60, "learning_rate": 0.03, "batch_size": None, "dtype": "float64", "fit_options": {"sampler": in_order},
}  # fmt: skip
ESTIMATORS = [
    Classifier(**GIVEN),
    Regressor(**GIVEN),
    AnomalyDetector(**GIVEN),
    Transformer(Classifier(random_state=0, **GIVEN)),
]
# Checks that fit nothing.
QUICK = (
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_get_params_invariance",
    "check_estimators_unfitted",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_estimator_cloneable",
)


def named(pair: Any) -> Any:
    """Return a pair of an estimator and a check by their names, not by their settings, which hold an address."""
    estimator, check = pair
    return pytest.param(*pair, id=f"{type(estimator).__name__}-{getattr(check, 'func', check).__name__}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "check"), [named(pair) for each in ESTIMATORS for pair in estimator_checks_generator(each)]
)
def test_scikit_learns_check(estimator: Any, check: Any):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("name", QUICK)
def test_a_check_that_fits_nothing(estimator: Any, name: str):
    getattr(estimator_checks, name)(type(estimator).__name__, estimator)


@pytest.mark.parametrize("name", ["check_estimators_pickle", "check_dtype_object", "check_fit2d_predict1d"])
def test_a_check_of_a_fit_in_float32(name: str):
    estimator = Classifier(epochs=3, fit_options={"sampler": in_order})
    getattr(estimator_checks, name)("Classifier", estimator)
