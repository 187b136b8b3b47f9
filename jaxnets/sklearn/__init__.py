"""Estimators of scikit-learn that train networks: `pip install 'jaxnets[sklearn]'`."""

from jaxnets.core.errors import require

require("sklearn", "sklearn")

from jaxnets.sklearn.anomaly import AnomalyDetector  # noqa: E402  # they inherit from scikit-learn's classes
from jaxnets.sklearn.classifier import Classifier  # noqa: E402
from jaxnets.sklearn.regressor import Regressor  # noqa: E402
from jaxnets.sklearn.search import SweepSearchCV  # noqa: E402
from jaxnets.sklearn.transformer import Transformer  # noqa: E402

__all__ = ["AnomalyDetector", "Classifier", "Regressor", "SweepSearchCV", "Transformer"]
