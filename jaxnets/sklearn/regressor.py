"""Regression by a network, with scikit-learn's interface."""

from functools import partial
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin

from jaxnets import losses, models
from jaxnets.core.errors import NetError
from jaxnets.core.net import Net
from jaxnets.sklearn.estimator import Estimator


class Regressor(RegressorMixin, Estimator):
    """A regressor that trains a network, for one target or several.

    Its parameters are those of `Classifier`, except for `class_weight`. A network made by a function gets the number
    of targets; the default loss is `jn.losses.squared_error`. Networks learn best from targets of variance 1:
    `sklearn.compose.TransformedTargetRegressor(Regressor(), transformer=StandardScaler())`.

    Raises:
        NetError: from `fit`, for a network with another number of outputs, and what `jn.fit` raises.

    >>> from jaxnets.sklearn import Regressor
    >>> from sklearn.datasets import make_regression
    >>> x, y = make_regression(100, 4, random_state=0)
    >>> regressor = Regressor(epochs=100, learning_rate=0.01, random_state=0).fit(x, y / y.std())
    >>> bool(regressor.score(x, y / y.std()) > 0.95), regressor.predict(x).shape
    (True, (100,))
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the network on inputs and targets `(examples,)` or `(examples, targets)`."""
        return self._fit(X, y, sample_weight)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the network for one epoch on some examples."""
        return self._fit(X, y, sample_weight, one_epoch=True)

    def _prepare(
        self, X: Any, y: Any, sample_weight: Any = None, *, anew: bool = True, **given: Any
    ) -> tuple[Net, Any, tuple[Any, ...]]:
        x, y = self._inputs(X, y, anew=anew)
        targets = np.asarray(y, self._real)
        if anew:
            self._target = targets.shape[1:]
        elif targets.shape[1:] != self._target:
            raise NetError(f"expects as many targets as in the first fit, {self._target}, got {targets.shape[1:]}")
        outputs = targets.shape[1] if targets.ndim == 2 else 1
        net, shape = self._network(x, outputs, partial(models.mlp, (100,)))
        if shape not in ((outputs,), () if outputs == 1 else (outputs,)):
            hint = "a function gives it as many as there are, net=lambda outputs: jn.models.mlp((100,), outputs)"
            raise NetError(f"expects a network with {outputs} outputs for y {targets.shape}, got {shape}; {hint}")
        data = x, targets.reshape(len(x), *shape)
        weights = self._weights(sample_weight, x)
        return net, self.loss or losses.squared_error, data if weights is None else (*data, weights)

    def predict(self, X: Any) -> np.ndarray:
        """Return the outputs of the network, float64."""
        outputs = self._outputs(X).astype(np.float64)
        return outputs.reshape(len(outputs), *self._target)
