"""Inputs brought to a common scale by statistics of the training part alone."""

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
    """A change of units, z = (x - offset) / scale: a pytree, and a function of whatever was measured.

    `standardize` and `rescale` make it.

    Attributes:
        offset: what becomes 0, of the shape of one example with 1 for the axes that share a value; a tree of such
            for a tree of inputs.
        scale: what becomes 1 beyond it, likewise.
    """

    offset: Any
    scale: Any

    def __call__(self, x: Any) -> Any:
        """Return z of examples, a batch of them or one; floating, NumPy arrays as NumPy arrays."""
        return self._map(lambda x, offset, scale: (x - offset) / scale, x)

    def inverse(self, z: Any) -> Any:
        """Return x = z · scale + offset, in the units before."""
        return self._map(lambda z, offset, scale: z * scale + offset, z)

    def _map(self, change: Callable[..., Any], x: Any) -> Any:
        def one(x: Any, offset: Any, scale: Any) -> Any:
            if isinstance(x, Padded):
                return Padded(one(x.values, offset, scale), x.lengths)
            host = all(isinstance(each, np.ndarray | np.generic) for each in (x, offset, scale))
            x = x if host else jnp.asarray(x)
            fits = zip(x.shape[::-1], offset.shape[::-1])
            if x.ndim < offset.ndim or any(there not in (here, 1) for here, there in fits):
                raise NetError(f"expects examples of shape {offset.shape}, got {x.shape}", label="Scaling")
            dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32
            wide = np.float64 if host else dtype  # a large offset costs no digits on the host
            rank = (1,) * (x.ndim - offset.ndim) + offset.shape
            offset, scale = (each.reshape(rank).astype(wide) for each in (offset, scale))
            return change(x.astype(wide), offset, scale).astype(dtype)

        return jax.tree.map(one, x, self.offset, self.scale, is_leaf=_is_padded)


def standardize(x: Any, *, axis: int | Sequence[int] = 0, weights: Any = None) -> Scaling:
    """Measure the mean and the standard deviation of training data: z = (x - mean) / deviation.

    Call it with the training part alone, and what it returns with every part: else the test set takes part in
    training. The deviation is the root of the mean square (divided by n, not n - 1); a feature that never changes
    keeps its scale. Of values that are known the sums are taken in float64, of traced ones in their own dtype, and
    the variance without E[x²] - E[x]².

    Args:
        x: the training inputs (or targets), a pytree of arrays with the examples along the first axis. `Padded`
            sequences are measured over their real steps.
        axis: the axes whose values share their statistics, 0 among them: 0 alone for features, `(0, 1, 2)` for the
            channels of images, `(0, 1)` for the features of series. Of `Padded` the first two are among them always.
        weights: `(examples,)`, ≥ 0, how often each example counts; 0 for rows that fill up.

    Returns:
        A `Scaling` with the mean as its offset.

    Raises:
        NetError: for no examples, NaN or infinite values (where they are known), or an axis that is missing.

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
    """Measure the least and the greatest value of training data: z = (x - least) / (greatest - least).

    The training part comes to lie in [0, 1]; values outside its range lie outside. Everything else is as with
    `standardize`.

    Args:
        x: as for `standardize`.
        axis: as for `standardize`.
        weights: `(examples,)`; rows of weight 0 are passed over.

    Returns:
        A `Scaling` with the least value as its offset.

    Raises:
        NetError: as `standardize`.

    >>> import numpy as np
    >>> print(rescale(np.array([2.0, 4.0, 10.0]))(np.array([2.0, 4.0, 12.0])))
    [0.   0.25 1.25]
    """
    return _measure("rescale", _least_and_range, x, axis, weights)


def _measure(label: str, statistics: Callable[..., Any], x: Any, axis: int | Sequence[int], weights: Any) -> Scaling:
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
        real = counted > 0
        if host and not real.any():
            raise NetError("expects an example of weight > 0, got none")
        values = xp.where(real, values, 0)
        if host and not np.isfinite(values).all():
            raise NetError("expects finite values, got NaN or infinity; np.isfinite(x) finds them")
        least, most = (
            getattr(xp.where(real, values, sign * np.inf), name)(axes, keepdims=True)
            for name, sign in (("min", 1), ("max", -1))
        )
        offset, scale = statistics(xp, values, counted, axes, least, most)
        return offset[0], scale[0]

    asked = {axis} if isinstance(axis, int) else {*axis}
    with labeled_as(label):
        leaves, structure = jax.tree.flatten(x, is_leaf=_is_padded)
        offsets, scales = zip(*map(one, leaves))
    return Scaling(jax.tree.unflatten(structure, offsets), jax.tree.unflatten(structure, scales))


def _mean_and_deviation(xp: Any, values: Any, counted: Any, axes: Any, least: Any, most: Any) -> tuple[Any, Any]:
    def mean(x: Any) -> Any:
        return (counted * x).sum(axes, keepdims=True) / counted.sum(axes, keepdims=True)

    rough = mean(values)
    exact = rough + mean(values - rough)  # the mean of what is left over: rounding, beside a large mean
    variance = mean((values - exact) ** 2)
    return exact, xp.sqrt(xp.where((most > least) & (variance > 0), variance, 1))


def _least_and_range(xp: Any, values: Any, counted: Any, axes: Any, least: Any, most: Any) -> tuple[Any, Any]:
    return least, xp.where(most > least, most - least, 1)


def _counted(xp: Any, values: Any, weights: Any, mask: Any) -> Any:
    """Return how much each value counts, of the values' shape."""

    def spread(each: Any) -> Any:
        each = xp.asarray(each).astype(values.dtype)
        return xp.broadcast_to(each.reshape(each.shape + (1,) * (values.ndim - each.ndim)), values.shape)

    if weights is not None and np.shape(weights) != values.shape[:1]:
        raise NetError(f"expects weights {values.shape[:1]}, got {np.shape(weights)}; one for each example")
    counted = xp.ones(values.shape, values.dtype) if weights is None else spread(weights)
    return counted if mask is None else counted * spread(mask)


def _is_padded(x: Any) -> bool:
    return isinstance(x, Padded)
