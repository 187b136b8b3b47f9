"""Figures of a classifier's mistakes and of convolution kernels. Each returns a matplotlib `Figure`.

matplotlib is in the extra `experiments` and is imported when a figure is drawn.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnets.core.errors import NetError
from jaxnets.plot.style import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def confusion(matrix: Any, classes: Sequence[str] | None = None) -> "Figure":
    """Draw a confusion matrix with its counts: rows are the true classes, columns the predicted ones.

    The diagonal has no color, so that colors show the mistakes.

    Args:
        matrix: `(classes, classes)`, counts.
        classes: their names; default: their numbers.

    Raises:
        NetError: if the matrix is not square.

    >>> len(confusion([[9, 1], [0, 10]]).axes[0].texts)  # zeros are not written
    3
    """
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise NetError(f"expects a square matrix of counts, got {matrix.shape}", label="confusion")
    mistakes = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    figure = canvas(1.6 + 0.42 * len(matrix), 1.4 + 0.42 * len(matrix))
    axes = figure.subplots()
    axes.imshow(mistakes, cmap="Blues", vmin=0, vmax=max(1, mistakes.max()))
    for row, column in np.ndindex(*matrix.shape):
        count, right = matrix[row, column], row == column
        if count:
            # White is legible only on the darkest colors.
            dark = mistakes[row, column] > 0.6 * mistakes.max()
            color = "white" if dark and not right else "black"
            weight = "bold" if right else "normal"
            axes.text(column, row, f"{count:g}", ha="center", va="center", color=color, weight=weight, fontsize=8)
    names = [str(each) for each in (range(len(matrix)) if classes is None else classes)]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    total = matrix.sum()
    axes.set_title(f"{np.trace(matrix):g} of {total:g} right; color counts mistakes", fontsize=9)
    return figure


def misclassified(images: Any, labels: Any, probabilities: Any, *, most: int = 24) -> "Figure":
    r"""Draw the images that a classifier gets wrong, the most confident mistakes first.

    Args:
        images: `(examples, height, width, channels)` or `(examples, height, width)`, in [0, 1].
        labels: `(examples,)`, the true classes.
        probabilities: `(examples, classes)`, the classifier's output.
        most: the most images to draw.

    >>> figure = misclassified(np.zeros((2, 4, 4)), [0, 1], [[0.9, 0.1], [0.8, 0.2]])
    >>> figure.axes[0].get_title()
    '1, said 0\n80 %'
    """
    images, labels, probabilities = np.asarray(images), np.asarray(labels), np.asarray(probabilities)
    said, confidence = probabilities.argmax(-1), probabilities.max(-1)
    wrong = np.flatnonzero(said != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    shown = wrong[:most]
    columns = min(8, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure = canvas(max(3.0, 1.1 * columns), 0.5 + 1.4 * rows)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, index in zip(figure.axes, shown, strict=False):
        image = images[index]
        image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(f"{labels[index]}, said {said[index]}\n{100 * confidence[index]:.0f} %", fontsize=8)
    count = f"{len(wrong)} of {len(labels)} wrong"
    figure.suptitle(count + (f", the {most} most confident" if len(wrong) > most else ""), fontsize=9)
    return figure


def kernels(kernel: Any) -> "Figure":
    """Draw the kernels of a convolution on one color scale, a picture for each pair of input and output channel.

    Args:
        kernel: `(height, width, in, out)`, such as `params["conv1"]["kernel"]`. Three input channels are drawn as
            one color picture.

    Raises:
        NetError: for anything but a kernel of a 2-D convolution.

    >>> len(kernels(np.ones((5, 5, 1, 6))).axes)
    7
    """
    kernel = np.asarray(kernel, np.float32)
    if kernel.ndim != 4:
        raise NetError(f"expects a kernel (height, width, in, out), got {kernel.shape}", label="kernels")
    limit = float(np.abs(kernel).max()) or 1.0
    color = kernel.shape[2] == 3
    if color:
        # Zero becomes gray. (out, height, width, 3)
        pictures = 0.5 + 0.5 * kernel.transpose(3, 0, 1, 2) / limit
    else:
        # (in · out, height, width)
        pictures = kernel.transpose(2, 3, 0, 1).reshape(-1, *kernel.shape[:2])
    columns = min(16, kernel.shape[3], len(pictures))
    rows = -(-len(pictures) // columns)
    figure = canvas(1.1 * columns + 1.0, 1.1 * rows + 0.6)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    drawn = None
    for number, axes in enumerate(grid):
        axes.set_axis_off()
        if number < len(pictures):
            drawn = axes.imshow(pictures[number], cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
            axes.set_title(str(number % kernel.shape[3]), fontsize=8)
    if drawn is not None and not color:
        figure.colorbar(drawn, ax=list(grid), label="weight", shrink=0.8)
    size = "×".join(map(str, kernel.shape[:2]))
    figure.suptitle(f"{kernel.shape[3]} kernels {size} by output channel", fontsize=9)
    return figure
