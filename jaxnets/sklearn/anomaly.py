"""Anomalies as inputs that an autoencoder does not reconstruct."""

from collections.abc import Mapping
from typing import Any, Self

import jax
import numpy as np
import optax
from sklearn.base import OutlierMixin

from jaxnets import losses, models
from jaxnets.core.compiled import computed
from jaxnets.core.errors import NetError
from jaxnets.core.net import Net
from jaxnets.sklearn.estimator import Estimator
from jaxnets.sklearn.training import precision


class AnomalyDetector(OutlierMixin, Estimator):
    """An autoencoder whose loss tells which inputs are unlike those that it was trained on.

    Its parameters are those of `Classifier`, except for `class_weight`. A network made by a function gets the shape of
    one example, such as `jn.models.autoencoder` does; by default it has 64 hidden units and a code of up to 8. The
    default loss is `jn.losses.squared_error` of outputs and inputs.

    Args:
        contamination: the fraction in (0, 0.5] of the training examples, by weight, that are anomalies.

    Attributes:
        offset_: the score below which an input is an anomaly.

    Raises:
        NetError: from `fit`, for a network whose outputs have another shape than its inputs, and what `jn.fit` raises.

    Sakurada and Yairi, "Anomaly Detection Using Autoencoders with Nonlinear Dimensionality Reduction" (2014).

    >>> import numpy as np
    >>> from jaxnets.sklearn import AnomalyDetector
    >>> x = np.random.default_rng(0).normal(size=(200, 1)) * np.ones(6)
    >>> detector = AnomalyDetector(epochs=30, learning_rate=0.01, random_state=0).fit(x)
    >>> int((detector.predict(x) == -1).sum()), detector.predict([[1, 1, 1, 1, 1, 1], [3, -3, 3, -3, 3, -3]]).tolist()
    (20, [1, -1])
    """

    offset_: float

    def __init__(
        self,
        net: Any = None,
        *,
        contamination: float = 0.1,
        loss: Any = None,
        optimizer: Any = optax.adam,
        learning_rate: Any = 1e-3,
        l2: Any = 0.0,
        regularizer: Any = None,
        epochs: int = 100,
        batch_size: int | None = 64,
        metrics: Any = None,
        callbacks: Any = (),
        validation_fraction: float = 0.0,
        patience: int | None = None,
        warm_start: bool = False,
        random_state: Any = None,
        dtype: Any = "float32",
        fit_options: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            net,
            loss=loss,
            optimizer=optimizer,
            learning_rate=learning_rate,
            l2=l2,
            regularizer=regularizer,
            epochs=epochs,
            batch_size=batch_size,
            metrics=metrics,
            callbacks=callbacks,
            validation_fraction=validation_fraction,
            patience=patience,
            warm_start=warm_start,
            random_state=random_state,
            dtype=dtype,
            fit_options=fit_options,
            verbose=verbose,
        )
        self.contamination = contamination

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Train the autoencoder, and set the score below which an input is an anomaly; `y` is ignored."""
        if not (isinstance(self.contamination, int | float | np.number) and 0 < self.contamination <= 0.5):
            text = f"expects contamination above 0 and at most 0.5, got {self.contamination!r}"
            raise NetError(text, label="AnomalyDetector")
        self._fit(X, None, sample_weight)
        scores = self.score_samples(X)
        weights = np.ones(len(scores)) if sample_weight is None else np.asarray(sample_weight, np.float64)
        order = np.argsort(scores)
        order = order[weights[order] > 0]
        reached = np.cumsum(weights[order])
        # The first example that is none; the threshold is halfway to the scores below its own, apart from rounding.
        normal = scores[order[np.searchsorted(reached, self.contamination * reached[-1] * (1 + 1e-9), side="right")]]
        barely = normal - 1e-6 * abs(normal)
        below = scores[order][scores[order] < barely]
        self.offset_ = float((normal + below.max()) / 2 if len(below) else barely)
        return self

    def _prepare(
        self, X: Any, y: Any, sample_weight: Any = None, *, anew: bool = True, **given: Any
    ) -> tuple[Net, Any, tuple[Any, ...]]:
        x = self._inputs(X, anew=anew)
        net, shape = self._network(x, x.shape[1:], _autoencoder)
        if shape != x.shape[1:]:
            hint = "an autoencoder returns its input's shape, net=lambda shape: jn.models.autoencoder(shape, (64,), 8)"
            raise NetError(f"expects a network with outputs {x.shape[1:]}, as the inputs, got {shape}; {hint}")
        weights = self._weights(sample_weight, x)
        return net, self._loss, (x, x) if weights is None else (x, x, weights)

    @property
    def _loss(self) -> Any:
        return losses.squared_error if self.loss is None else self.loss

    def score_samples(self, X: Any) -> np.ndarray:
        """Return minus the loss of each example: the lower, the more abnormal."""
        outputs = self._outputs(X)
        with precision(self.dtype):
            loss = computed(_losses, [getattr(self._loss, "loss", self._loss)], outputs, self._inputs(X))
        return -np.asarray(loss, np.float64)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the score above the threshold: negative for anomalies."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """Return −1 for anomalies and 1 for all others."""
        return np.where(self.decision_function(X) < 0, -1, 1)


def _autoencoder(shape: tuple[int, ...]) -> Net:
    features = int(np.prod(shape))
    return models.autoencoder(shape, (64,), max(1, min(8, features // 2)))


def _losses(loss: Any, outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return loss(outputs, targets)
