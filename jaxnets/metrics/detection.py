"""Mean average precision of detected boxes, as COCO defines it."""

from typing import Any, NamedTuple

import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)


class AveragePrecision(NamedTuple):
    """What `mean_average_precision` returns: shares in [0, 1], NaN without a single true box.

    Attributes:
        mean: over IoU 0.50, 0.55, …, 0.95 and classes.
        at_50: at IoU 0.50 alone.
        at_75: at IoU 0.75 alone.
        classes: `(classes,)`, over all IoU; NaN for a class without true boxes.
    """

    mean: float
    at_50: float
    at_75: float
    classes: np.ndarray


def mean_average_precision(detections: Any, targets: Any, *, classes: int, most: int = 100) -> AveragePrecision:
    """Return the mean average precision of detected boxes over IoU thresholds 0.50 … 0.95 and classes.

    In each image, and for each class, detections take the true box of the largest IoU that is left, from the highest
    score; they are right if it is at least the threshold. Average precision is the mean over the recalls 0, 0.01, …, 1
    of the largest precision at that recall or a higher one. A class without true boxes does not count; one without
    detections counts 0. It runs on the host, in float64.

    Args:
        detections: `boxes` `(images, n, 4)` as x1, y1, x2, y2, `scores` `(images, n)` and integer `labels`
            `(images, n)`, −1 for padding, as `jn.models.detect` returns. Of equal scores the first counts first.
        targets: `boxes` `(images, m, 4)` and integer `labels` `(images, m)`, −1 for padding.
        classes: how many there are.
        most: how many detections of a class count in each image, those of the highest scores.

    Returns:
        The mean, at 0.50 and at 0.75, and for each class.

    Raises:
        NetError: for other names or shapes, another number of images, a label out of range, a NaN among scores, boxes
            that are not finite or have x2 < x1 or y2 < y1.

    Lin and others, "Microsoft COCO" (2014); pycocotools, all areas, without crowds.

    >>> import numpy as np
    >>> box = np.array([[[0.0, 0.0, 10.0, 10.0]]])
    >>> found = {"boxes": box + [0, 0, 0, 2], "scores": np.array([[0.9]]), "labels": np.array([[0]])}
    >>> value = mean_average_precision(found, {"boxes": box, "labels": np.array([[0]])}, classes=1)
    >>> round(value.mean, 6), round(value.at_50, 6), round(value.at_75, 6)
    (0.7, 1.0, 1.0)
    """
    with labeled_as("mean_average_precision"):
        check_count("classes", classes)
        check_count("most", most)
        found = _arrays("detections", detections, ("boxes", "labels", "scores"), classes)
        truth = _arrays("targets", targets, ("boxes", "labels"), classes)
        if len(found["labels"]) != len(truth["labels"]):
            raise NetError(
                f"expects as many images in both, got {len(found['labels'])} with detections and {len(truth['labels'])}"
            )
    precision = np.stack([_of_class(each, found, truth, most) for each in range(classes)])  # (classes, thresholds)
    real = ~np.isnan(precision[:, 0])

    def mean(values: np.ndarray) -> float:
        return float(values.mean()) if values.size else float("nan")

    return AveragePrecision(
        mean(precision[real]), mean(precision[real, 0]), mean(precision[real, 5]), precision.mean(axis=1)
    )


def _of_class(label: int, found: dict[str, np.ndarray], truth: dict[str, np.ndarray], most: int) -> np.ndarray:
    """Return the average precision of a class at each threshold, NaN without a true box."""
    total = int((truth["labels"] == label).sum())
    if not total:
        return np.full(len(THRESHOLDS), np.nan)
    scores, right = [np.zeros(0)], [np.zeros((len(THRESHOLDS), 0), bool)]
    for image in range(len(found["labels"])):
        own = found["labels"][image] == label
        order = np.argsort(-found["scores"][image, own], kind="stable")[:most]
        scores.append(found["scores"][image, own][order])
        boxes = truth["boxes"][image, truth["labels"][image] == label]
        right.append(_matched(_overlaps(found["boxes"][image, own][order], boxes)))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hits = np.cumsum(np.concatenate(right, axis=1)[:, order], axis=1).astype(np.float64)
    precisions = hits / (np.arange(1, len(order) + 1) + np.spacing(1))
    # The largest precision at that recall or a higher one.
    envelope = np.maximum.accumulate(precisions[:, ::-1], axis=1)[:, ::-1]
    result = np.zeros((len(THRESHOLDS), len(RECALLS)))
    for row, (hit, values) in enumerate(zip(hits, envelope, strict=True)):
        place = np.searchsorted(hit / total, RECALLS, side="left")
        reached = place < len(values)
        result[row, reached] = values[place[reached]]
    return result.mean(axis=1)


def _matched(overlaps: np.ndarray) -> np.ndarray:
    """Return which detections `(n, m)` take a true box at each threshold, `(thresholds, n)`."""
    right = np.zeros((len(THRESHOLDS), len(overlaps)), bool)
    for row, threshold in enumerate(THRESHOLDS):
        free = np.ones(overlaps.shape[1], bool)
        for place, each in enumerate(overlaps):
            best, chosen = min(threshold, 1 - 1e-10), -1
            for box in np.flatnonzero(free):
                # Of equal overlaps the last counts, as in pycocotools.
                if each[box] >= best:
                    best, chosen = each[box], box
            if chosen >= 0:
                free[chosen], right[row, place] = False, True
    return right


def _overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the IoU `(n, m)` in float64; 0 where both are empty."""
    one, other = first[:, None], second[None]
    size = np.maximum(np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2]), 0)
    both = size.prod(-1)
    union = (one[..., 2:] - one[..., :2]).prod(-1) + (other[..., 2:] - other[..., :2]).prod(-1) - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def _arrays(what: str, given: Any, names: tuple[str, ...], classes: int) -> dict[str, np.ndarray]:
    """Return checked arrays by name, boxes and scores in float64, with harmless numbers in place of padding."""
    if not isinstance(given, dict) or not set(names) <= set(given):
        raise NetError(f"expects {what} as a dict of {', '.join(names)}, got {type(given).__name__}")
    arrays = {name: np.asarray(given[name]) for name in names}
    labels = arrays["labels"]
    if labels.ndim != 2 or any(x.shape != labels.shape + (4,) * (name == "boxes") for name, x in arrays.items()):
        shapes = ", ".join(f"{name} {x.shape}" for name, x in arrays.items())
        raise NetError(f"expects {what} with labels (images, n) and boxes (images, n, 4), got {shapes}")
    if not np.issubdtype(labels.dtype, np.integer) or (labels < -1).any() or (labels >= classes).any():
        raise NetError(f"expects integer labels of {what} from 0 to {classes - 1}, or -1 for padding")
    real = labels >= 0
    boxes = np.where(real[..., None], arrays["boxes"], 0).astype(np.float64)
    if not np.isfinite(boxes).all() or (boxes[..., 2:] < boxes[..., :2]).any():
        raise NetError(f"expects finite boxes of {what} with x1 ≤ x2 and y1 ≤ y2; the label of padding is -1")
    arrays["boxes"] = boxes
    if "scores" in arrays:
        arrays["scores"] = np.where(real, arrays["scores"], 0).astype(np.float64)
        if np.isnan(arrays["scores"]).any():
            raise NetError(f"expects scores of {what}, got NaN")
    return arrays
