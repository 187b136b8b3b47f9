"""The reliability diagram of a classifier: how often it is right, by how sure it is."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.plot.style import BLUE, canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def calibration(probabilities: Any, labels: Any, *, bins: int = 15) -> "Figure":
    """Draw how often predictions are true against their confidence, with the number of examples in each bin.

    Above the diagonal a classifier is too cautious, below it too sure. The title has the expected calibration error,
    Σ_b n_b / n |accuracy_b − confidence_b|, as `jn.metrics.expected_calibration_error` computes it.

    Args:
        probabilities: `(examples, classes)`, of which the largest counts, or `(examples,)`, those of label 1.
        labels: `(examples,)`, integers.
        bins: the number of bins of equal width.

    Raises:
        NetError: for probabilities outside [0, 1], labels of another shape, or `bins` < 1.

    >>> figure = calibration([[0.75, 0.25], [0.25, 0.75]], [0, 0], bins=10)
    >>> figure.axes[0].get_title()
    'ECE 25.0 %; 50.0 % right, 75.0 % confident'
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    with labeled_as("calibration"):
        check_count("bins", bins)
        if probabilities.ndim not in (1, 2) or labels.shape != probabilities.shape[:1] or not labels.size:
            raise NetError(
                f"expects probabilities (examples, classes) or (examples,) and labels (examples,), got "
                f"{probabilities.shape} and {labels.shape}"
            )
        if not ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all():
            raise NetError("expects probabilities in [0, 1]; of logits take jax.nn.softmax or jax.nn.sigmoid")
    if probabilities.ndim == 1:
        confidence, right = probabilities, labels == 1
    else:
        confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges[1:-1], confidence, side="left")
    count, sure, true = (np.bincount(place, weights, bins) for weights in (None, confidence, right))
    used = count > 0
    figure = canvas(3.6, 4.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
    width, middle = 1 / bins, (edges[1:] + edges[:-1]) / 2
    above.bar(middle[used], true[used] / count[used], width, color=BLUE, alpha=0.3, edgecolor="white")
    above.plot(sure[used] / count[used], true[used] / count[used], color=BLUE, marker="o", markersize=3)
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="fraction that is true")
    error = 100 * np.abs(true - sure).sum() / len(labels)
    shares = f"{100 * right.mean():.1f} % right, {100 * confidence.mean():.1f} % confident"
    above.set_title(f"ECE {error:.1f} %; {shares}", fontsize=9)
    below.bar(middle, count, width, color=BLUE, edgecolor="white")
    below.set(xlabel="confidence" if probabilities.ndim == 2 else "probability of 1", ylabel="examples")
    return figure
