"""Classification by a network, with scikit-learn's interface."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import numpy as np
import optax
from scipy import sparse, special
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import column_or_1d

from jaxnets import losses, models
from jaxnets.core.checks import name_of, unwrapped
from jaxnets.core.errors import NetError
from jaxnets.core.net import Net
from jaxnets.data.class_balance import class_weights
from jaxnets.sklearn.estimator import Estimator

# Losses of a single output for each label: with targets of 0 and 1, and of −1 and 1.
ZERO_ONE = (losses.binary_cross_entropy, losses.focal)
SIGNS = (losses.hinge, losses.squared_hinge, losses.perceptron, losses.exponential)
WITHOUT_PROBABILITIES = (*SIGNS, losses.multiclass_hinge, losses.crammer_singer_hinge)


def _bare(loss: Any) -> Any:
    return unwrapped(getattr(loss, "loss", loss))


def _has_probabilities(estimator: "Classifier") -> bool:
    return _bare(estimator.loss) not in WITHOUT_PROBABILITIES


class Classifier(ClassifierMixin, Estimator):
    """A classifier that trains a network: one class for each example, or several labels as zeros and ones.

    With equal seeds it has the parameters of `jn.fit(net, loss, optimizer(learning_rate), (x, y), epochs=epochs,
    key=jax.random.key(random_state))` for `x` in float32 and `y` as numbers of the classes, bit for bit. What has been
    compiled for one fit serves all others with equal parameters and shapes. Inputs are tables, arrays, sparse matrices
    (made dense), or arrays of more axes such as images. Standardize them in a pipeline.

    Args:
        net: the network, or a function of the number of outputs that makes it, such as `jn.dense` or
            `lambda outputs: jn.models.mlp((64,), outputs)`; by default a multilayer perceptron with 100 hidden units.
            A ready network has one output for each class or label; one output can decide between two classes.
        loss: by default `jn.losses.cross_entropy`, or `jn.losses.binary_cross_entropy` for several labels or a single
            output. Losses of signs, such as `jn.losses.hinge`, take two classes or several labels. Or
            `jn.objective(loss, ...)`.
        optimizer: a function of the learning rate, such as `optax.adam`, or an Optax optimizer that is ready. Only the
            former can be pickled; `functools.partial(optax.adam, b1=0.8)` can, too.
        learning_rate: the argument of `optimizer`: ≥ 0, or an Optax schedule; not read if the optimizer is ready.
        l2: λ ≥ 0 of `jn.regularizers.l2`, which is λ Σ w² over all kernels.
        regularizer: another regularizer, or a list of them.
        epochs: how many times every example is seen, at most.
        batch_size: examples per step; all of them if there are fewer, or for `None`.
        metrics: `jn.metrics` to report in `history_`.
        callbacks: `jn.train` callbacks.
        class_weight: weights of examples by class, `{class: weight}`, 1 for classes that are absent; or "balanced",
            which gives all classes the same total weight.
        validation_fraction: the fraction of the examples in [0, 1) that `fit` holds out, with the classes in
            proportion; `history_` has their values as `validation/…`.
        patience: stop after so many epochs without a smaller `validation/loss`, or `loss` if nothing is held out, and
            restore the best epoch.
        warm_start: whether another `fit` goes on where the last one ended, with the optimizer's state.
        random_state: an integer is the seed of the random key; `None` or a `RandomState` draws one.
        dtype: what inputs are converted to. "float64" computes in double precision, "int32" keeps the indices that
            `jn.embed` takes.
        fit_options: further arguments of `jn.train.program`, such as `{"augment": jn.data.shift(1)}`.
        verbose: whether to show `jn.train.progress()`.

    Attributes:
        classes_: the classes, sorted; for several labels their numbers.
        net_: the network.
        params_: its parameters, nested dicts of NumPy arrays.
        state_: its state.
        history_: an array `(epochs,)` for each reported name, as `jn.fit` returns it.
        n_iter_: the number of epochs, those of all calls of `partial_fit` or warm starts together.
        n_features_in_: the number of features.
        feature_names_in_: their names, if X was a table.
        input_shape_: the shape of one input.

    Raises:
        NetError: from `fit`, for a network with another number of outputs, a loss that does not fit, an unknown class,
            a single class, columns that hold no numbers, and what `jn.fit` raises.

    >>> from jaxnets.sklearn import Classifier
    >>> from sklearn.datasets import load_iris
    >>> x, y = load_iris(return_X_y=True)
    >>> classifier = Classifier(epochs=40, learning_rate=0.01, random_state=0).fit(x, y)
    >>> bool(classifier.score(x, y) > 0.95), classifier.predict_proba(x[:5]).shape
    (True, (5, 3))
    """

    classification = True
    classes_: np.ndarray

    def __init__(
        self,
        net: Any = None,
        *,
        loss: Any = None,
        optimizer: Any = optax.adam,
        learning_rate: Any = 1e-3,
        l2: Any = 0.0,
        regularizer: Any = None,
        epochs: int = 100,
        batch_size: int | None = 64,
        metrics: Any = None,
        callbacks: Any = (),
        class_weight: Mapping[Any, float] | str | None = None,
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
        self.class_weight = class_weight

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the network, with early stopping if it is asked for.

        Args:
            X: `(examples, features)`, or with more axes.
            y: classes `(examples,)` of any type, or zeros and ones `(examples, labels)`.
            sample_weight: `(examples,)`, ≥ 0; the loss of a batch is the weighted mean.
        """
        return self._fit(X, y, sample_weight)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train the network for one epoch on some examples, from where it is.

        Args:
            X: as in `fit`.
            y: as in `fit`.
            classes: all classes, needed in the first call.
            sample_weight: as in `fit`.
        """
        return self._fit(X, y, sample_weight, one_epoch=True, classes=classes, partial_fit=True)

    def _prepare(
        self, X: Any, y: Any, sample_weight: Any = None, *, anew: bool = True, **given: Any
    ) -> tuple[Net, Any, tuple[Any, ...]]:
        x, y = self._inputs(X, y, anew=anew)
        labels = self._labels(y, anew, **given)
        self._several = labels.ndim == 2
        weights = self._weighted(labels, self._weights(sample_weight, x))
        several, count = labels.ndim == 2, len(self.classes_)
        signs, zero_one = _bare(self.loss) in SIGNS, _bare(self.loss) in ZERO_ONE
        wanted = 1 if count == 2 and (signs or zero_one) and not several else count
        net, shape = self._network(x, wanted, partial(models.mlp, (100,)))
        if shape == (1,) and count == 2 and self.loss is None and not several:
            wanted = 1  # a single output may decide between two classes
        if shape != (wanted,):
            what = "labels" if several else f"classes, {', '.join(map(str, self.classes_[:5]))}{', …' * (count > 5)}"
            hint = "a function gives it as many as there are, net=lambda outputs: jn.models.mlp((100,), outputs)"
            raise NetError(f"expects a network with {wanted} outputs for {count} {what}; got {shape}; {hint}")
        binary = losses.binary_cross_entropy if several or wanted == 1 else losses.cross_entropy
        loss = binary if self.loss is None else self.loss
        self._check_loss(loss, several)
        if several or wanted == 1:
            targets = (2 * labels - 1 if signs else labels).astype(self._real).reshape(-1, wanted)
        else:
            targets = labels.astype(np.int32)
        return net, loss, (x, targets) if weights is None else (x, targets, weights)

    def _check_loss(self, loss: Any, several: bool) -> None:
        """Check that a loss takes logits and, for many labels at once, one output for each."""
        if getattr(getattr(loss, "loss", loss), "keywords", {}).get("from_logits") is False:
            raise NetError("expects a loss of logits, got from_logits=False; leave it out, and the sigmoid too")
        single = {name_of(each): each for each in ZERO_ONE + SIGNS}
        bare = _bare(loss)
        if bare in vars(losses).values():
            if several and bare not in single.values():
                raise NetError(f"expects a loss of independent labels, {', '.join(single)}, got {name_of(loss)}")
            if not several and len(self.classes_) > 2 and bare in single.values():
                hint = "cross_entropy or multiclass_hinge takes more"
                raise NetError(f"gets {len(self.classes_)} classes, but {name_of(loss)} takes two; {hint}")

    def _labels(self, y: Any, anew: bool, classes: Any = None, partial_fit: bool = False) -> np.ndarray:
        """Return the number of the class of each example, or zeros and ones `(examples, labels)`; set `classes_`.

        Raises:
            NetError: for one class, a class that is not among those of before, or several targets of many classes.
        """
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y")
        if kind == "multilabel-indicator":
            y = np.asarray(y.toarray() if sparse.issparse(y) else y)
            if anew:
                self.classes_ = np.arange(y.shape[1])
            self._check_classes(np.arange(y.shape[1]), classes)
            return y
        if kind == "multiclass-multioutput":
            hint = "sklearn.multioutput.MultiOutputClassifier(Classifier()) fits one network for each"
            raise NetError(f"expects one class for each example, or zeros and ones, got y of shape {y.shape}; {hint}")
        y = column_or_1d(y, warn=True)
        if anew and partial_fit and classes is None:
            raise NetError("expects classes at the first call of partial_fit, all that will come: classes=np.unique(y)")
        if anew:
            self.classes_ = unique_labels(y if classes is None else classes)
        self._check_classes(y, classes)
        if len(self.classes_) < 2:
            raise NetError(f"expects at least 2 classes in y, got 1 class, {self.classes_.tolist()[0]!r}")
        return np.searchsorted(self.classes_, y)

    def _check_classes(self, found: np.ndarray, classes: Any) -> None:
        known = self.classes_
        if classes is not None and not np.array_equal(given := unique_labels(classes), known):
            raise NetError(f"expects the classes of the first call, {known.tolist()}, got {given.tolist()}")
        if len(unknown := np.setdiff1d(found, known)):
            hint = "name all of them at the first call, partial_fit(X, y, classes=[...])"
            raise NetError(f"knows the classes {known.tolist()}, got {unknown.tolist()} in y; {hint}")

    def _weighted(self, labels: np.ndarray, weights: np.ndarray | None) -> np.ndarray | None:
        """Return the weights of examples times those of their classes."""
        given = self.class_weight
        if given is None:
            return weights
        if labels.ndim == 2:
            raise NetError("takes class_weight for one class per example, got several labels; use sample_weight")
        if isinstance(given, str):
            if given != "balanced":
                raise NetError(f"expects class_weight='balanced' or a dict by class, got {given!r}")
            by_class = np.asarray(class_weights(labels.astype(np.int32), len(self.classes_), weights=weights))
        else:
            if unknown := [each for each in given if each not in self.classes_]:
                raise NetError(f"expects class_weight of the classes {self.classes_.tolist()}, got one of {unknown}")
            by_class = np.array([given.get(each, 1.0) for each in self.classes_.tolist()])
        return by_class[labels].astype(self._real) * (1 if weights is None else weights)

    def _logits(self, X: Any) -> np.ndarray:
        """Return one logit for each class or label, float64."""
        logits = self._outputs(X).astype(np.float64)
        return np.concatenate([0 * logits, logits], 1) if logits.shape[1] == 1 < len(self.classes_) else logits

    def decision_function(self, X: Any) -> np.ndarray:
        """Return a score for each class, above 0 for the second of two classes, or for each label."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 and not self._several else logits

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class, or 0 or 1 for each label."""
        scores = self.decision_function(X)
        if self._several:
            return (scores > 0).astype(int)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]

    @available_if(_has_probabilities)
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, or of each label."""
        logits = self._logits(X)
        return special.expit(logits) if self._several else special.softmax(logits, axis=1)

    @available_if(_has_probabilities)
    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithm of the probability of each class, or of each label."""
        logits = self._logits(X)
        return special.log_expit(logits) if self._several else special.log_softmax(logits, axis=1)
