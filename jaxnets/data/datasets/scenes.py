"""Scenes for detection: several digits among clutter, with their boxes and classes."""

from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, check_count, check_fraction, labeled_as

INK = 0.3


def digit_scenes(
    digits: np.ndarray,
    labels: np.ndarray,
    count: int,
    *,
    size: int = 48,
    most: int = 3,
    scale: tuple[float, float] = (0.5, 0.9),
    clutter: int = 6,
    overlap: float = 0.1,
    seed: int = 0,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return images of several digits among pieces of others, with a box and a class for each digit.

    Each image has 0 to `most` digits, each number as likely as any other; a digit is made smaller by averaging, and its
    box is that of its ink. A place is drawn up to twenty times until the box overlaps no other by more than `overlap`
    (IoU); without one the digit is left out. Pieces of 7 × 7 pixels of other digits are clutter, as dark as they are.

    Args:
        digits: images `(n, height, width, 1)` from 0 (paper) to 1 (ink), such as those of `mnist5k`.
        labels: their classes `(n,)`, integers.
        count: how many images to make.
        size: their height and width, at least that of a digit.
        most: the largest number of digits in an image.
        scale: the smallest and the largest size of a digit, in sizes of the given ones; at most 1.
        clutter: the number of pieces.
        overlap: the largest IoU of two boxes, in [0, 1].
        seed: of all that is random.

    Returns:
        Images `(count, size, size, 1)` float32 from 0 to 1, and `{"boxes": (count, most, 4) float32, "labels":
        (count, most) int32}`; boxes are x1, y1, x2, y2 in pixels, and the class of padding is −1.

    Raises:
        NetError: for digits or labels of other shapes, a size smaller than a digit, or an option out of range.

    >>> import numpy as np
    >>> images, targets = digit_scenes(np.ones((2, 28, 28, 1)), np.array([3, 5]), 4, size=48, most=2)
    >>> images.shape, targets["boxes"].shape, targets["labels"].shape
    ((4, 48, 48, 1), (4, 2, 4), (4, 2))
    """
    with labeled_as("digit_scenes"):
        for name, value in {"count": count, "size": size, "most": most, "clutter": clutter + 1}.items():
            check_count(name, value)
        check_fraction("overlap", overlap, one=True)
        if digits.ndim != 4 or digits.shape[3] != 1 or labels.shape != digits.shape[:1] or not len(digits):
            raise NetError(f"expects digits (n, height, width, 1) and labels (n,), got {digits.shape}, {labels.shape}")
        if max(digits.shape[1:3]) > size or not 0 < scale[0] <= scale[1] <= 1:
            raise NetError(f"expects digits of at most {size} × {size} and 0 < scale ≤ 1, got {digits.shape}, {scale}")
    random = np.random.default_rng(seed)
    images = np.zeros((count, size, size), np.float32)
    boxes, classes = np.zeros((count, most, 4), np.float32), np.full((count, most), -1, np.int32)
    for image, own, kinds in zip(images, boxes, classes, strict=True):
        for _ in range(clutter):
            piece = digits[random.integers(len(digits)), :, :, 0]
            row, column = (random.integers(0, max(1, length - 6)) for length in piece.shape)
            _paste(image, piece[row : row + 7, column : column + 7], *random.integers(0, size - 6, 2))
        found = 0
        for _ in range(random.integers(0, most + 1)):
            chosen = random.integers(len(digits))
            digit = _shrunk(digits[chosen, :, :, 0], random.uniform(*scale))
            rows, columns = (np.flatnonzero((digit > INK).any(axis)) for axis in (1, 0))
            if not len(rows):
                continue
            extent = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            for _ in range(20):
                left, top = random.integers(0, size - digit.shape[1] + 1), random.integers(0, size - digit.shape[0] + 1)
                box = extent + np.array([left, top, left, top])
                if (_iou(box, own[:found]) <= overlap).all():
                    _paste(image, digit, top, left)
                    own[found], kinds[found] = box, labels[chosen]
                    found += 1
                    break
    return images[..., None], {"boxes": boxes, "labels": classes}


def _paste(image: np.ndarray, piece: np.ndarray, top: Any, left: Any) -> None:
    there = image[top : top + piece.shape[0], left : left + piece.shape[1]]
    np.maximum(there, piece[: there.shape[0], : there.shape[1]], out=there)


def _shrunk(digit: np.ndarray, scale: float) -> np.ndarray:
    """Return a digit made smaller: each new pixel is the mean of the area that it covers."""

    def weights(length: int) -> np.ndarray:
        edges = np.linspace(0, length, max(1, round(length * scale)) + 1)
        old = np.arange(length)
        cover = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
        return np.maximum(cover, 0) / (edges[1] - edges[0])

    return (weights(digit.shape[0]) @ digit @ weights(digit.shape[1]).T).astype(np.float32)


def _iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    size = np.maximum(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0)
    both = size.prod(1)
    return both / ((box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - both)
