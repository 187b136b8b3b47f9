"""Losses of detectors: the generalized IoU of boxes, and that of FCOS, which assigns points to boxes."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import refuse
from jaxnets.core.dtypes import wide
from jaxnets.core.errors import NetError, check_positive, known
from jaxnets.losses.checks import binary_entropies, named, over_batch, same_shape
from jaxnets.losses.classification import focal
from jaxnets.losses.labels import takes_targets
from jaxnets.ops.boxes import paired_giou

POINTS = ("class_logits", "distances", "center_logits", "points")


@named
def giou(outputs: Any, targets: Any, *, epsilon: float = 1e-7) -> jax.Array:
    """Return the generalized IoU loss 1 − GIoU of boxes with the boxes of the same places.

    Args:
        outputs: boxes `(batch, ..., 4)` as x1, y1, x2, y2, floating.
        targets: boxes of the same shape.
        epsilon: added to the areas that are divided by.

    Returns:
        `(batch,)` in [0, 2], float32 or wider.

    Raises:
        NetError: if the shapes differ or the last axis is not 4; if a known target has x2 < x1 or y2 < y1.

    Rezatofighi and others, "Generalized Intersection over Union" (2019).

    >>> import jax.numpy as jnp
    >>> ones = jnp.array([[0.0, 0.0, 1.0, 1.0]] * 2)
    >>> [round(value.item(), 3) for value in giou(ones, jnp.array([[0, 0, 1, 1], [3, 0, 4, 1]]))]
    [0.0, 1.5]
    """
    check_positive("epsilon", epsilon)
    outputs, targets = same_shape(outputs, targets)
    if outputs.ndim < 2 or outputs.shape[-1] != 4:
        raise NetError(f"expects boxes (batch, ..., 4) as x1, y1, x2, y2, got {outputs.shape}")
    refuse(targets[..., 2:] - targets[..., :2], lambda size: size < 0, "expects x1 ≤ x2 and y1 ≤ y2, got the size {}")
    return over_batch(1 - paired_giou(outputs, targets, epsilon))


class Assignment(NamedTuple):
    """What each point learns from: arrays `(points, ...)`, whatever where `positive` is false."""

    positive: jax.Array
    boxes: jax.Array
    labels: jax.Array
    centerness: jax.Array


def check_boxes(targets: Any, size: Any = None, classes: int | None = None) -> None:
    """Check boxes and classes that are known: padding has the class −1.

    Args:
        targets: `{"boxes": (batch, most, 4), "labels": (batch, most)}`.
        size: height and width of the images, if they are known.
        classes: how many there are, if that is known.

    Raises:
        NetError: for anything else; a box without area, one that is not finite or reaches out of the image, a class
            out of range.

    >>> check_boxes({"boxes": np.array([[[5, 2, 3, 4]]]), "labels": np.array([[0]])})
    Traceback (most recent call last):
        ...
    jaxnets.core.errors.NetError: expects boxes with x1 < x2 and y1 < y2, got [5. 2. 3. 4.] in example 0; the class of \
padding is -1
    """
    if not isinstance(targets, dict) or not {"boxes", "labels"} <= set(targets):
        raise NetError(f'expects targets {{"boxes": ..., "labels": ...}}, got {type(targets).__name__}')
    shape, labels = np.shape(targets["boxes"]), np.shape(targets["labels"])
    if len(shape) != 3 or shape != (*labels, 4):
        raise NetError(f"expects boxes (batch, most, 4) and labels (batch, most), got {shape} and {labels}")
    for name in ("boxes", "labels"):
        if not hasattr(targets[name], "dtype"):
            raise NetError(f"expects arrays of boxes and labels, got {type(targets[name]).__name__} for {name}")
    boxes, named = (known(targets[name]) for name in ("boxes", "labels"))
    if not np.issubdtype(targets["labels"].dtype, np.integer):
        raise NetError(f"expects integer labels, got {targets['labels'].dtype}")
    if boxes is None or named is None:
        return
    boxes, real = np.asarray(boxes, np.float64), named >= 0
    hint = "; the class of padding is -1"
    limits = [
        (~(boxes[..., :2] < boxes[..., 2:]).all(-1), "boxes with x1 < x2 and y1 < y2"),
        (~np.isfinite(boxes).all(-1), "finite boxes"),
    ]
    if size is not None:
        height, width = size
        outside = (boxes < 0).any(-1) | (boxes > np.array([width, height, width, height])).any(-1)
        limits.append((outside, f"boxes inside the image of {height} × {width}"))
    for wrong, what in limits:
        if (wrong & real).any():
            row, place = np.argwhere(wrong & real)[0]
            raise NetError(f"expects {what}, got {boxes[row, place]} in example {row}{hint}")
    if (named < -1).any() or (classes is not None and (named >= classes).any()):
        bound = "" if classes is None else f" to {classes - 1}"
        raise NetError(f"expects classes from 0{bound}, got {named.min()} … {named.max()}{hint}")


@takes_targets(check_boxes)
@named
def fcos(
    outputs: Any, targets: Any, *, radius: float = 1.5, gamma: Any = 2.0, alpha: Any = 0.25, size: Any = None
) -> jax.Array:
    """Return the loss of FCOS: classes by `focal`, boxes by 1 − GIoU, and the cross entropy of center-ness.

    A point at (x, y) of stride s learns a box if it lies in it and within `radius` · s of its center along both axes,
    and the largest of its distances l, t, r, b to the edges lies between 4 s and 8 s; there is no lower bound for the
    smallest stride, and no upper one for the largest. Of several boxes it is the one of the smallest area. All other
    points are background. Center-ness is √(min(l, r) / max(l, r) · min(t, b) / max(t, b)). Sums over points are divided
    by the number of points with a box in that image, or 1 without any: such images train on background alone.

    Args:
        outputs: what `jn.models.fcos` returns: `class_logits` `(batch, points, classes)`, `distances` l, t, r, b
            `(batch, points, 4)`, `center_logits` `(batch, points)`, and `points` x, y, s `(batch, points, 3)`.
        targets: `boxes` `(batch, most, 4)` as x1, y1, x2, y2 in pixels, and integer `labels` `(batch, most)`, −1 for
            padding.
        radius: how far from the center of a box its points may lie, in strides.
        gamma: that of `focal`.
        alpha: that of `focal`.
        size: height and width of the images, in which known boxes must lie; `None` does not check it.

    Returns:
        `(batch,)`, the sum of the three parts, float32 or wider.

    Raises:
        NetError: for other names or shapes; a known box without area, not finite, or out of the image; a known class
            out of range.

    Tian and others, "FCOS: Fully Convolutional One-Stage Object Detection" (2019), with center sampling.

    >>> import jax.numpy as jnp
    >>> outputs = {"class_logits": jnp.zeros((1, 2, 3)), "distances": jnp.full((1, 2, 4), 4.0),
    ...     "center_logits": jnp.zeros((1, 2)), "points": jnp.array([[[4.0, 4.0, 8.0], [12.0, 4.0, 8.0]]])}
    >>> print(fcos(outputs, {"boxes": jnp.array([[[0, 0, 8, 8]]]), "labels": jnp.array([[1]])}).round(3))
    [1.386]
    """
    return sum(fcos_parts(outputs, targets, radius=radius, gamma=gamma, alpha=alpha, size=size).values(), jnp.zeros(()))


def fcos_parts(
    outputs: Any, targets: Any, *, radius: float = 1.5, gamma: Any = 2.0, alpha: Any = 0.25, size: Any = None
) -> dict[str, jax.Array]:
    """Return the parts of `fcos` by name, each `(batch,)`."""
    if not isinstance(outputs, dict) or not set(POINTS) <= set(outputs):
        raise NetError(
            f"expects outputs of jn.models.fcos, a dict of {', '.join(POINTS)}, got {type(outputs).__name__}"
        )
    logits, distances, centers, points = (wide(outputs[name]) for name in POINTS)
    shape = logits.shape[:2]
    if logits.ndim != 3 or (distances.shape, centers.shape, points.shape) != ((*shape, 4), shape, (*shape, 3)):
        raise NetError("expects " + ", ".join(POINTS) + " of the same batch and points, got " +
                       ", ".join(f"{outputs[name].shape}" for name in POINTS))  # fmt: skip
    classes = logits.shape[2]
    check_boxes(targets, size, classes)
    boxes, labels = wide(targets["boxes"]).astype(logits.dtype), jnp.asarray(targets["labels"]).astype(jnp.int32)
    if labels.shape[0] != shape[0]:
        raise NetError(f"expects targets of {shape[0]} images, got {labels.shape[0]}")
    if not labels.shape[1]:  # no row at all: one of padding
        boxes, labels = jnp.zeros((shape[0], 1, 4), boxes.dtype), jnp.full((shape[0], 1), -1, jnp.int32)
    found = jax.vmap(partial(assign, radius=radius))(points, boxes, labels)
    share = 1 / jnp.maximum(found.positive.sum(1), 1).astype(logits.dtype)
    hot = found.positive[..., None] & (found.labels[..., None] == jnp.arange(classes, dtype=jnp.int32)[None, None])
    entropies = focal(logits, hot.astype(logits.dtype), gamma=gamma, alpha=alpha) * (shape[1] * classes)
    overlap = 1 - paired_giou(decode(points, distances), found.boxes, 1e-7)
    middle = binary_entropies(centers, found.centerness)
    return {
        "classes": entropies * share,
        "boxes": jnp.where(found.positive, overlap, 0).sum(1) * share,
        "centerness": jnp.where(found.positive, middle, 0).sum(1) * share,
    }


def decode(points: jax.Array, distances: jax.Array) -> jax.Array:
    """Return the boxes `(..., 4)` of points `(..., 3)` at distances l, t, r, b from their edges."""
    return jnp.concatenate([points[..., :2] - distances[..., :2], points[..., :2] + distances[..., 2:]], axis=-1)


def assign(points: jax.Array, boxes: jax.Array, labels: jax.Array, *, radius: float = 1.5) -> Assignment:
    """Return which box each point `(points, 3)` learns, of boxes `(most, 4)` with classes `(most,)`."""
    place, stride = points[:, None, :2], points[:, None, 2]
    # (points, most, 4): l, t, r, b
    distances = jnp.concatenate([place - boxes[None, :, :2], boxes[None, :, 2:] - place], axis=-1)
    off = jnp.abs(place - (boxes[None, :, :2] + boxes[None, :, 2:]) / 2).max(-1)
    # Lowest and highest level have no bound on that side.
    farthest, low, high = distances.max(-1), points[:, 2].min(), points[:, 2].max()
    fits = (farthest > jnp.where(stride == low, 0, 4 * stride)) & (
        farthest < jnp.where(stride == high, jnp.inf, 8 * stride)
    )
    match = fits & (distances.min(-1) > 0) & (off < radius * stride) & (labels >= 0)[None]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    chosen = jnp.where(match, area[None], jnp.inf).argmin(1)
    positive = match.any(1)
    # Harmless numbers where nothing is learned, so that gradients stay finite.
    own = jnp.where(positive[:, None], distances[jnp.arange(points.shape[0]), chosen], 1)
    across, down = own[:, 0::2], own[:, 1::2]
    ratio = across.min(1) / across.max(1) * down.min(1) / down.max(1)
    own_boxes = jnp.where(positive[:, None], boxes[chosen], jnp.array([0, 0, 1, 1], boxes.dtype)[None])
    return Assignment(positive, own_boxes, labels[chosen], jnp.sqrt(ratio))
