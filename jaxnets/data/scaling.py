"""Standardization and rescaling of inputs, by statistics of the training part."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError, known, labeled_as
from jaxnets.core.padded import Padded


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scaling:
    """An affine change of units, z = (x - offset) / scale, as a callable pytree; see `standardize` and `rescale`.

    Attributes:
        offset: the value that is mapped to 0, in the shape of one example, with length 1 along axes that share a value;
            a tree of such arrays for a tree of inputs.
        scale: the difference that is mapped to 1, in the same shape.
    """

    offset: Any
    scale: Any

    def __call__(self, x: Any) -> Any:
        """Return z for one example or a batch, in a floating dtype; NumPy arrays remain NumPy arrays."""
        return self._map(lambda x, offset, scale: (x - offset) / scale, x)

    def inverse(self, z: Any) -> Any:
        """Return x = z · scale + offset, in the original units."""
        return self._map(lambda z, offset, scale: z * scale + offset, z)

    def _map(self, change: Callable[..., Any], x: Any) -> Any:
        def one(x: Any, offset: Any, scale: Any) -> Any:
            if isinstance(x, Padded):
                return x.with_values(one(x.values, offset, scale))
            host = all(isinstance(each, np.ndarray | np.generic) for each in (x, offset, scale))
            x = x if host else jnp.asarray(x)
            # Compare from the last axis: x may have leading batch axes.
            lengths = zip(x.shape[::-1], offset.shape[::-1])
            if x.ndim < offset.ndim or any(b not in (a, 1) for a, b in lengths):
                raise NetError(f"expects examples of shape {offset.shape}, got {x.shape}", label="Scaling")
            dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32
            # In float64, subtracting a large offset costs no digits.
            wide = np.float64 if host else dtype
            rank = (1,) * (x.ndim - offset.ndim) + offset.shape
            offset, scale = (each.reshape(rank).astype(wide) for each in (offset, scale))
            return change(x.astype(wide), offset, scale).astype(dtype)

        return jax.tree.map(one, x, self.offset, self.scale, is_leaf=_is_padded)


def standardize(x: Any, *, axis: int | Sequence[int] = 0, weights: Any = None) -> Scaling:
    """Measure the mean and standard deviation of training data, for z = (x - mean) / deviation.

    Call it only with the training part, and apply the result to every part; otherwise the test set leaks into training.
    The deviation divides by n, not n - 1; a constant feature keeps its scale. Sums are in float64 for known values and
    in the input's dtype for traced ones. The variance is E[(x - mean)²], which avoids the cancellation of
    E[x²] - E[x]².

    Args:
        x: the training inputs (or targets), a pytree of arrays with the examples along the first axis. `Padded`
            sequences are measured over their real steps.
        axis: the axes to compute statistics over, including 0: 0 for features, `(0, 1, 2)` for the channels of images,
            `(0, 1)` for the features of series. `Padded` always includes the first two.
        weights: `(examples,)`, ≥ 0, how much each example counts; 0 for padding rows.

    Returns:
        A `Scaling` with the mean as offset and the deviation as scale.

    Raises:
        NetError: for no examples, NaN or infinite values (where they are known), or an axis that does not exist.

    >>> import numpy as np
    >>> scaling = standardize(np.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> print(scaling(np.array([[1.0, 5.0], [5.0, 6.0]])))
    [[-1.  0.]
     [ 3.  1.]]
    >>> print(scaling.inverse(np.array([3.0, 1.0])))
    [5. 6.]
    """
    return _measure("standardize", _mean_and_deviation, x, axis, weights)


def rescale(x: Any, *, axis: int | Sequence[int] = 0, weights: Any = None) -> Scaling:
    """Measure the minimum and maximum of training data, for z = (x - min) / (max - min).

    The training part is mapped onto [0, 1]; values outside its range map outside. Everything else is as for
    `standardize`.

    Args:
        x: as for `standardize`.
        axis: as for `standardize`.
        weights: `(examples,)`; rows of weight 0 are ignored.

    Returns:
        A `Scaling` with the minimum as offset and the range as scale.

    Raises:
        NetError: as in `standardize`.

    >>> import numpy as np
    >>> print(rescale(np.array([2.0, 4.0, 10.0]))(np.array([2.0, 4.0, 12.0])))
    [0.   0.25 1.25]
    """
    return _measure("rescale", _min_and_range, x, axis, weights)


def _measure(label: str, statistics: Callable[..., Any], x: Any, axis: int | Sequence[int], weights: Any) -> Scaling:
    # In NumPy, and float64, where all values are known; in JAX otherwise.
    host = all(known(leaf) is not None for leaf in jax.tree.leaves((x, weights)))
    xp: Any = np if host else jnp

    def one(leaf: Any) -> tuple[Any, Any]:
        padded = isinstance(leaf, Padded)
        values = xp.asarray(leaf.values if padded else leaf)
        axes = tuple(sorted({0, 1} | asked if padded else asked))
        if 0 not in axes or axes[0] < 0 or axes[-1] >= values.ndim:
            raise NetError(f"expects axes of {values.shape}, 0 among them, got axis={axis}")
        if not values.size:
            raise NetError(f"expects at least one example, got {values.shape}")
        exact = jnp.issubdtype(values.dtype, jnp.floating)
        values = values.astype(np.float64 if host else values.dtype if exact else np.float32)
        counted = _counted(xp, values, weights, leaf.mask if padded else None)
        # Padding and rows of weight 0 may hold anything, even NaN.
        real = counted > 0
        if host and not real.any():
            raise NetError("expects an example of weight > 0, got none")
        values = xp.where(real, values, 0)
        if host and not np.isfinite(values).all():
            raise NetError("expects finite values, got NaN or infinity; np.isfinite(x) finds them")
        low = xp.where(real, values, np.inf).min(axes, keepdims=True)
        high = xp.where(real, values, -np.inf).max(axes, keepdims=True)
        offset, scale = statistics(xp, values, counted, axes, low, high)
        # Drop the axis of the examples.
        return offset[0], scale[0]

    asked = {axis} if isinstance(axis, int) else {*axis}
    with labeled_as(label):
        leaves, structure = jax.tree.flatten(x, is_leaf=_is_padded)
        offsets, scales = zip(*map(one, leaves))
    return Scaling(jax.tree.unflatten(structure, offsets), jax.tree.unflatten(structure, scales))


def _mean_and_deviation(xp: Any, values: Any, counted: Any, axes: Any, low: Any, high: Any) -> tuple[Any, Any]:
    def mean(x: Any) -> Any:
        return (counted * x).sum(axes, keepdims=True) / counted.sum(axes, keepdims=True)

    rough = mean(values)
    # A second pass corrects the rounding error of a large mean.
    exact = rough + mean(values - rough)
    variance = mean((values - exact) ** 2)
    return exact, xp.sqrt(xp.where((high > low) & (variance > 0), variance, 1))


def _min_and_range(xp: Any, values: Any, counted: Any, axes: Any, low: Any, high: Any) -> tuple[Any, Any]:
    return low, xp.where(high > low, high - low, 1)


def _counted(xp: Any, values: Any, weights: Any, mask: Any) -> Any:
    """Return how much each value counts, in the shape of the values."""

    def spread(each: Any) -> Any:
        each = xp.asarray(each).astype(values.dtype)
        return xp.broadcast_to(each.reshape(each.shape + (1,) * (values.ndim - each.ndim)), values.shape)

    if weights is not None and np.shape(weights) != values.shape[:1]:
        raise NetError(f"expects weights {values.shape[:1]}, got {np.shape(weights)}; one for each example")
    counted = xp.ones(values.shape, values.dtype) if weights is None else spread(weights)
    return counted if mask is None else counted * spread(mask)


def _is_padded(x: Any) -> bool:
    return isinstance(x, Padded)
