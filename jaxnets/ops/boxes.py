"""Boxes `(x1, y1, x2, y2)` in pixels: areas, overlaps, clipping, and non-maximum suppression of fixed shapes."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from jaxnets.core.dtypes import wide
from jaxnets.core.errors import NetError, check_count, check_fraction, known, labeled_as

P = ParamSpec("P")
R = TypeVar("R")


def _named(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that its errors start with its name."""

    @functools.wraps(function)
    def named(*args: P.args, **kwargs: P.kwargs) -> R:
        with labeled_as(function.__name__):
            return function(*args, **kwargs)

    return named


@_named
def box_area(boxes: Any) -> jax.Array:
    """Return the areas (x2 − x1)(y2 − y1) of boxes.

    Args:
        boxes: `(..., 4)`, left, top, right and bottom edge.

    Returns:
        `(...)`, float32 or wider; negative for a box with only one pair of edges out of order.

    Raises:
        NetError: if the last axis is not 4.

    >>> import jax.numpy as jnp
    >>> box_area(jnp.array([1.0, 1.0, 4.0, 3.0])).item()
    6.0
    """
    x1, y1, x2, y2 = _edges(boxes)
    return (x2 - x1) * (y2 - y1)


@_named
def box_iou(first: Any, second: Any) -> jax.Array:
    """Return the intersection over union |A ∩ B| / |A ∪ B| of all pairs of boxes.

    Args:
        first: boxes `(..., n, 4)`.
        second: boxes `(..., m, 4)`.

    Returns:
        `(..., n, m)` in [0, 1], float32 or wider; 0 where both boxes are empty.

    Raises:
        NetError: if a last axis is not 4.

    >>> import jax.numpy as jnp
    >>> print(box_iou(jnp.array([[0.0, 0.0, 2.0, 2.0]]), jnp.array([[1.0, 0.0, 3.0, 2.0], [5.0, 5.0, 6.0, 6.0]])))
    [[0.33333334 0.        ]]
    """
    return _overlap(*_pairs(first, second))[0]


@_named
def generalized_box_iou(first: Any, second: Any) -> jax.Array:
    """Return the generalized IoU, |A ∩ B| / |A ∪ B| − (|C| − |A ∪ B|) / |C|, of all pairs; C is the box around both.

    Args:
        first: boxes `(..., n, 4)`.
        second: boxes `(..., m, 4)`.

    Returns:
        `(..., n, m)` in [−1, 1], float32 or wider; 0 where C is empty.

    Raises:
        NetError: if a last axis is not 4.

    Rezatofighi and others, "Generalized Intersection over Union" (2019), algorithm 1.

    >>> import jax.numpy as jnp
    >>> generalized_box_iou(jnp.array([[0.0, 0.0, 1.0, 1.0]]), jnp.array([[3.0, 0.0, 4.0, 1.0]])).item()
    -0.5
    """
    return paired_giou(*_pairs(first, second))


def paired_giou(first: jax.Array, second: jax.Array, epsilon: float = 0.0) -> jax.Array:
    """Return the generalized IoU of boxes with boxes of a shape that broadcasts; `epsilon` is added to the areas."""
    iou, union = _overlap(first, second, epsilon)
    size = jnp.maximum(first[..., 2:], second[..., 2:]) - jnp.minimum(first[..., :2], second[..., :2])
    around = size[..., 0] * size[..., 1]
    whole = around + epsilon
    return iou - jnp.where(whole == 0, 0, (around - union) / jnp.where(whole == 0, 1, whole))


@_named
def clip_boxes(boxes: Any, size: tuple[Any, Any]) -> jax.Array:
    """Return boxes cut off at the edges of an image.

    Args:
        boxes: `(..., 4)`.
        size: height and width of the image; may be traced.

    Returns:
        `(..., 4)`, float32 or wider. A box outside becomes an empty one at the edge.

    Raises:
        NetError: if the last axis is not 4.

    >>> import jax.numpy as jnp
    >>> print(clip_boxes(jnp.array([-1.0, 2.0, 9.0, 30.0]), (20, 10)))
    [ 0.  2.  9. 20.]
    """
    x1, y1, x2, y2 = _edges(boxes)
    height, width = size
    return jnp.stack([jnp.clip(x1, 0, width), jnp.clip(y1, 0, height), jnp.clip(x2, 0, width),
                      jnp.clip(y2, 0, height)], axis=-1)  # fmt: skip


@_named
def nms(
    boxes: Any, scores: Any, threshold: Any = 0.5, *, labels: Any = None, most: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """Return which boxes non-maximum suppression keeps: from the highest score, those that overlap none kept before.

    Shapes are fixed, so that it can be compiled and mapped: indices of the kept boxes are followed by −1.

    Args:
        boxes: `(n, 4)`.
        scores: `(n,)`. A box with the score −∞ is no box, and is never kept. Of equal scores the first is taken.
        threshold: a box is dropped if its IoU with a kept one is larger; in [0, 1], may be traced.
        labels: integer classes `(n,)`; boxes of different classes do not suppress each other. `None` for one class.
        most: how many boxes are kept at most; default: n.

    Returns:
        Indices `(most,)` int32 in descending order of the score, and how many there are, an int32 scalar.

    Raises:
        NetError: for boxes, scores or labels of another shape, a NaN among known scores, a threshold outside [0, 1], or
            `most` < 1.

    >>> import jax.numpy as jnp
    >>> boxes = jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.9], [6.0, 0.0, 9.0, 4.0]])
    >>> indices, count = nms(boxes, jnp.array([0.5, 0.9, 0.7]))
    >>> print(indices, count)
    [ 1  2 -1] 2
    """
    _edges(boxes)
    boxes, scores = wide(jnp.asarray(boxes)), jnp.asarray(scores)
    n = boxes.shape[0]
    given = None if labels is None else jnp.asarray(labels)
    if boxes.ndim != 2 or scores.shape != (n,) or (given is not None and given.shape != (n,)):
        got = f"{boxes.shape}, {scores.shape}" + ("" if given is None else f" and {given.shape}")
        raise NetError(f"expects boxes (n, 4) with scores and labels (n,), got {got}; jax.vmap maps over a batch")
    if (values := known(scores)) is not None and (values != values).any():
        raise NetError("expects scores, got NaN")
    check_fraction("threshold", threshold, one=True)
    if most is not None:
        check_count("most", most)
    if not n:
        return jnp.full((most or 0,), -1, jnp.int32), jnp.zeros((), jnp.int32)
    order = jnp.argsort(-scores, stable=True)
    ranked, possible = boxes[order], scores[order] > -jnp.inf
    clash = _overlap(ranked[:, None], ranked[None])[0] > threshold
    if given is not None:
        clash &= given[order][:, None] == given[order][None]
    place = jnp.arange(n, dtype=jnp.int32)

    def visit(each: Any, kept: jax.Array) -> jax.Array:
        # Only boxes of higher scores are decided already.
        return kept.at[each].set(possible[each] & ~(kept & clash[each] & (place < each)).any())

    kept = jax.lax.fori_loop(0, n, visit, jnp.zeros((n,), bool))
    count = min(n, n if most is None else most)
    first = jnp.argsort(~kept, stable=True)[:count]
    indices = jnp.where(kept[first], order[first].astype(jnp.int32), -1)
    indices = jnp.pad(indices, (0, (most or n) - count), constant_values=-1)
    return indices, (indices >= 0).sum(dtype=jnp.int32)


def _edges(boxes: Any) -> list[jax.Array]:
    boxes = jnp.asarray(boxes)
    if boxes.shape[-1:] != (4,):
        raise NetError(f"expects boxes (..., 4) as x1, y1, x2, y2, got {boxes.shape}")
    boxes = wide(boxes)
    return [boxes[..., each] for each in range(4)]


def _pairs(first: Any, second: Any) -> tuple[jax.Array, jax.Array]:
    one, other = (jnp.stack(_edges(boxes), axis=-1) for boxes in (first, second))
    if one.ndim < 2 or other.ndim < 2:
        raise NetError(f"expects boxes (..., n, 4) and (..., m, 4), got {one.shape} and {other.shape}")
    return one[..., :, None, :], other[..., None, :, :]


def _overlap(first: jax.Array, second: jax.Array, epsilon: float = 0.0) -> tuple[jax.Array, jax.Array]:
    """Return the IoU and the area of the union, of boxes of shapes that broadcast."""
    corner, end = jnp.maximum(first[..., :2], second[..., :2]), jnp.minimum(first[..., 2:], second[..., 2:])
    size = jnp.maximum(end - corner, 0)
    both = size[..., 0] * size[..., 1]
    areas = [(box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]) for box in (first, second)]
    union = areas[0] + areas[1] - both
    whole = union + epsilon
    return jnp.where(whole == 0, 0, both / jnp.where(whole == 0, 1, whole)), union
