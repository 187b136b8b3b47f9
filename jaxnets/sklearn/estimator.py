"""What the estimators share: validated data, the network, training, and the network's outputs."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import numpy as np
import optax
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from jaxnets.core.errors import NetError, check_fraction, labeled_as
from jaxnets.core.net import Net
from jaxnets.data.splits import split_indices
from jaxnets.sklearn.hooks import SEARCH
from jaxnets.sklearn.training import precision, program_of, resumed, to_host
from jaxnets.train import arguments
from jaxnets.train.callbacks.early_stopping import EarlyStopping, early_stopping
from jaxnets.train.callbacks.progress import progress
from jaxnets.train.evaluation import predict
from jaxnets.train.labels import outputs_of
from jaxnets.train.loop import Callback, run
from jaxnets.train.state import TrainState

# Rows are predicted in blocks of this size, so that few numbers of rows are compiled for.
BLOCK = 256
# What scikit-learn's functions take in place of targets where there are none.
WITHOUT: Any = "no_validation"


class Estimator(BaseEstimator):
    """An estimator that trains a network.

    Subclasses say what the network is trained on: `_prepare`.
    """

    classification = False
    params_: Any
    state_: Any
    net_: Net
    history_: dict[str, np.ndarray]
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray
    input_shape_: tuple[int, ...]
    _trained: TrainState

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
        validation_fraction: float = 0.0,
        patience: int | None = None,
        warm_start: bool = False,
        random_state: Any = None,
        dtype: Any = "float32",
        fit_options: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        self.net = net
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.l2 = l2
        self.regularizer = regularizer
        self.epochs = epochs
        self.batch_size = batch_size
        self.metrics = metrics
        self.callbacks = callbacks
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.warm_start = warm_start
        self.random_state = random_state
        self.dtype = dtype
        self.fit_options = fit_options
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        return tags

    def _prepare(
        self, X: Any, y: Any, sample_weight: Any = None, *, anew: bool = True, **given: Any
    ) -> tuple[Net, Any, tuple[Any, ...]]:
        """Return the network, the loss, and inputs, targets and, if any, weights; set what is known of the data.

        Args:
            X: the inputs as given to `fit`.
            y: the targets as given to `fit`.
            sample_weight: the weights as given to `fit`.
            anew: whether the data define features and classes, or must have those of before.
            **given: more of what was given to `fit` or `partial_fit`.
        """
        raise NotImplementedError

    def _fit(self, X: Any, y: Any, sample_weight: Any, *, one_epoch: bool = False, **given: Any) -> Self:
        """Train on data, from the beginning or from where the last fit ended."""
        anew = not (hasattr(self, "params_") and (one_epoch or self.warm_start))
        if anew:
            vars(self).pop("params_", None)  # if it fails, no parameters stay beside what is known of other data
        search = SEARCH.get()
        if search is not None and anew and not one_epoch and search.fit(self, X, y, sample_weight):
            return self
        seed = seed_of(self.random_state)
        watchers = self.callbacks if isinstance(self.callbacks, list | tuple) else [self.callbacks]
        callbacks, params, held_out, rule = [*watchers], self.get_params(deep=False), None, None
        with labeled_as(type(self).__name__, keep=True), precision(self.dtype):
            net, loss, data = self._prepare(X, y, sample_weight, anew=anew, **given)
            if one_epoch:
                params["epochs"] = 1
            else:
                data, held_out = self._hold_out(data, seed)
                rule = self._stopping(held_out)
            key = jax.random.key(seed)
            program = program_of(params, net, loss, data, held_out, stopping=rule)
            if not anew:
                callbacks.append(Callback(restore=lambda program, key: (resumed(program, self._trained, key), [])))
            if self.verbose:
                callbacks.append(progress())
            state, history = run(program, key=key, callbacks=callbacks)
            trained = to_host(state)
        if not anew:
            before = self.history_
            history = {name: np.append(before[name], rows, 0) for name, rows in history.items() if name in before}
        self._finish(net, trained, history)
        return self

    def _finish(self, net: Net, trained: TrainState, history: dict[str, np.ndarray]) -> None:
        """Set what training sets."""
        self.net_, self.history_, self.n_iter_ = net, history, len(history["loss"])
        self._trained, self.params_, self.state_ = trained, trained.params, trained.state

    def _stopping(self, held_out: tuple[Any, ...] | None) -> EarlyStopping | None:
        """Return the rule for early stopping, if any."""
        if self.patience is None:
            return None
        return early_stopping("loss" if held_out is None else "validation/loss", patience=self.patience)

    def _hold_out(self, data: tuple[Any, ...], seed: int) -> tuple[tuple[Any, ...], tuple[Any, ...] | None]:
        """Return the part to train on, and the part that is held out; classes keep their proportions."""
        check_fraction("validation_fraction", self.validation_fraction)
        if not self.validation_fraction:
            return data, None
        x, y = data[:2]
        labels = y.reshape(-1) if self.classification and y.size == len(y) else np.zeros(len(x))
        shares = (1 - self.validation_fraction, self.validation_fraction)
        rows, rest = split_indices(labels, shares, seed=seed)
        if len(np.unique(labels[rows])) < len(np.unique(labels)):
            hint = "make it smaller, or give more examples of each class"
            raise NetError(f"holds out all examples of a class, validation_fraction={self.validation_fraction}; {hint}")
        train, held_out = (tuple(each[part] for each in data) for part in (rows, rest))
        return train, held_out

    def _inputs(self, X: Any, y: Any = WITHOUT, *, anew: bool = False) -> Any:
        """Return inputs, or inputs and targets, as arrays; set or check the number, names and shape of the features."""
        self._check_columns(X)
        checks: dict[str, Any] = {"accept_sparse": "csr", "allow_nd": True, "dtype": (dtype := np.dtype(self.dtype))}
        if dtype.kind in "iu":  # converted below, as NumPy drops fractions and high bits
            checks["dtype"] = "numeric"
        if y is not WITHOUT:
            checks["multi_output"] = True
        found = validate_data(self, X, y, reset=anew, **checks)
        x, *targets = found if isinstance(found, tuple) else (found,)
        x: Any = x.toarray() if sparse.issparse(x) else x
        if dtype.kind in "iu":
            with np.errstate(invalid="ignore"):
                given, x = x, x.astype(dtype)
            if (wrong := given != x).any():
                raise NetError(
                    f"expects integers of {dtype.name} in X, got {given[wrong][0]}; dtype={self.dtype!r} is set"
                )
        if anew:
            self.input_shape_ = x.shape[1:]
        elif x.shape[1:] != self.input_shape_:
            raise NetError(f"expects X as {('n', *self.input_shape_)}, as in fit, got {x.shape}".replace("'n'", "n"))
        return (x, *targets) if targets else x

    def _check_columns(self, X: Any) -> None:
        """Check that a table holds numbers; NumPy would not say which column does not."""
        if not hasattr(X, "columns") or not hasattr(X, "dtypes"):
            return
        text = [str(name) for name in X.columns if np.asarray(X[name][:1]).dtype.kind not in "biuf"]
        if text := [name for name in text if not _is_numeric(X[name])]:
            hint = "OneHotEncoder or OrdinalEncoder in a ColumnTransformer makes numbers of them"
            raise NetError(f"expects columns of numbers, got other values in {', '.join(text)}; {hint}")

    def _weights(self, sample_weight: Any, x: np.ndarray) -> np.ndarray | None:
        """Return the weights of examples, `None` if none are given."""
        if sample_weight is None:
            return None
        weights = _check_sample_weight(sample_weight, x, dtype=self._real, ensure_non_negative=True)
        if not weights.any():
            raise NetError("expects some sample_weight above 0, got zero for every example")
        return weights

    @property
    def _real(self) -> Any:
        """The dtype of targets and weights."""
        return np.float64 if np.dtype(self.dtype) == np.float64 else np.float32

    def _network(self, x: np.ndarray, given: Any, default: Callable[[Any], Net]) -> tuple[Net, tuple[int, ...]]:
        """Return the network, and the shape of its output for one example.

        Args:
            x: the inputs.
            given: what a function that makes the network is called with.
            default: the function that makes it if there is none.
        """
        net = default if self.net is None else self.net
        if callable(net) and not isinstance(net, Net):
            net = net(given)
        net = arguments.network(net)
        return net, outputs_of(net, x).shape[1:]

    def _outputs(self, X: Any, net: Net | None = None) -> np.ndarray:
        """Return the outputs of the network, or of another with its parameters, computed in blocks of rows."""
        check_is_fitted(self, "params_")
        with labeled_as(type(self).__name__, keep=True), precision(self.dtype):
            x = self._inputs(X)
            if net is None and (search := SEARCH.get()) and (known := search.outputs(self, x)) is not None:
                return known
            rows = len(x)
            # Filled up by its own rows: to a power of two if there are few rows, otherwise to whole blocks.
            size = min(BLOCK, 1 << (rows - 1).bit_length())
            filled = np.concatenate([x, x[np.arange(-rows % size) % rows]])
            outputs = predict(net or self.net_, (self.params_, self.state_), filled, batch_size=size)
            return np.asarray(outputs)[:rows]


def seed_of(random_state: Any) -> int:
    """Return the seed of the random key: an integer itself, otherwise one that the random state draws."""
    drawn = check_random_state(random_state)
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(drawn.randint(np.iinfo(np.int32).max))


def _is_numeric(column: Any) -> bool:
    try:
        np.asarray(column, np.float64)
    except (TypeError, ValueError):
        return False
    return True
