"""Features of a network, with scikit-learn's interface."""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.net import Net
from jaxnets.sklearn.anomaly import AnomalyDetector
from jaxnets.sklearn.training import precision
from jaxnets.train.labels import outputs_of


class Transformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """The outputs of a layer of a network that another estimator trains: deep features.

    Args:
        estimator: a `Classifier`, `Regressor` or `AnomalyDetector`; by default `AnomalyDetector()`, whose features are
            the codes of an autoencoder. It is cloned and fitted; one that is fitted already goes in a
            `sklearn.frozen.FrozenEstimator`.
        layer: the path of the layer, as for `Net.upto`; by default the child before the last.

    Attributes:
        estimator_: the fitted estimator.
        net_: its network up to the layer, which takes the parameters `estimator_.params_`.

    Raises:
        NetError: from `fit`, if the network has no such layer, or runs no children in order.

    Yosinski and others, "How Transferable Are Features in Deep Neural Networks?" (2014).

    >>> from jaxnets.sklearn import Classifier, Transformer
    >>> from sklearn.datasets import load_iris
    >>> x, y = load_iris(return_X_y=True)
    >>> features = Transformer(Classifier(epochs=2, random_state=0), layer="act1")
    >>> features.fit_transform(x, y).shape, list(features.get_feature_names_out()[:2])
    ((150, 100), ['transformer0', 'transformer1'])
    """

    estimator_: Any
    net_: Net

    def __init__(self, estimator: Any = None, *, layer: str | None = None) -> None:
        self.estimator = estimator
        self.layer = layer

    def __sklearn_tags__(self) -> Any:
        tags, inner = super().__sklearn_tags__(), get_tags(self._unfitted())
        tags.input_tags, tags.target_tags = inner.input_tags, inner.target_tags
        tags.transformer_tags.preserves_dtype = [np.dtype(self._unfitted().dtype).name]
        return tags

    def _unfitted(self) -> Any:
        return AnomalyDetector() if self.estimator is None else self.estimator

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit a clone of the estimator, from which the features are taken."""
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        estimator: Any = clone(self._unfitted())
        self.estimator_ = estimator.fit(X, y, **weights)
        with labeled_as("Transformer", keep=True):
            net, names = self.estimator_.net_, [*self.estimator_.net_.children]
            if self.layer is None and len(names) < 2:
                raise NetError(f"finds no layer before the last in {net.label}; name one, layer=...")
            self.net_ = net.upto(names[-2] if self.layer is None else self.layer)
        self.n_features_in_ = self.estimator_.n_features_in_
        if hasattr(self.estimator_, "feature_names_in_"):
            self.feature_names_in_ = self.estimator_.feature_names_in_
        with precision(self.estimator_.dtype):
            one = np.empty((1, *self.estimator_.input_shape_), self.estimator_.dtype)
            self._n_features_out = int(np.prod(outputs_of(self.net_, one).shape))
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the features of each example, flattened to one axis."""
        check_is_fitted(self, "net_")
        features = self.estimator_._outputs(X, self.net_)
        return features.reshape(len(features), -1)
