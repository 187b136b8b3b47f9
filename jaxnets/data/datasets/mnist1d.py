"""MNIST-1D: ten classes of short, distorted signals; a set that distinguishes architectures in seconds."""

import numpy as np

from jaxnets.core.errors import NetError, labeled_as

# One signal per digit, which the authors drew by hand to resemble it.
TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)
# The number of zeros to append, and the number of points before and after the last resampling.
PADDING, WIDE, FINAL = (36, 60), 72, 40
# The ranges of the scale and the slope, and the number of translations: 0 to 47.
SCALE, SHEAR, FARTHEST = 0.4, 0.75, 48
# The standard deviations of the smooth and the white noise.
CORRELATED, INDEPENDENT = 0.25, 0.02


@labeled_as("mnist1d")
def mnist1d(
    examples: int = 5000, *, train: int | None = None, seed: int = 42
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Generate MNIST-1D by the procedure of the paper: signals of 40 points in ten classes.

    A template of 12 points is padded with 36 to 60 zeros, stretched to 72 points, scaled by 0.8 to 1.2, and translated
    cyclically; zeros become smooth noise, white noise is added, a slope is subtracted, and the signal is resampled to
    40 points. As published, the signals are standardized by the mean and deviation of both parts together. Every seed
    returns the numbers that the authors' code generates from it; theirs is 42.

    Args:
        examples: the number of examples in both parts, equally many of each class.
        train: the number of examples in the training part. Default: four fifths, 4,000 of 5,000.
        seed: the same seed gives the same set on every machine.

    Returns:
        The training and the test part: signals `(examples, 40)` float32, and digits `(examples,)` int32 from 0 to 9.

    Raises:
        NetError: if `examples` is not a positive multiple of 10, or a part would be empty.

    Greydanus and Kobak, "Scaling down deep learning with MNIST-1D" (2020), Section 2.

    >>> (x, y), (x_test, y_test) = mnist1d(100)
    >>> x.shape, y_test.shape
    ((80, 40), (20,))
    """
    if examples < 10 or examples % 10:
        raise NetError(f"expects a positive multiple of 10 examples, got {examples}")
    train = examples * 4 // 5 if train is None else train
    if not 0 < train < examples:
        raise NetError(f"expects 0 < train < {examples} examples, got {train}")
    # The generator of the published set; NumPy has frozen its stream.
    random = np.random.RandomState(seed)
    templates = np.array(TEMPLATES, np.float64)
    templates = (templates - templates.mean(1, keepdims=True)) / templates.std(1, keepdims=True)
    templates = (templates - templates[:, :1]) / 6
    signals = np.stack([_distort(template, random) for template in np.repeat(templates, examples // 10, 0)])
    order = random.permutation(examples)
    x, y = signals[order], np.repeat(np.arange(10, dtype=np.int32), examples // 10)[order]
    x = ((x - x.mean()) / x.std()).astype(np.float32)
    return (x[:train], y[:train]), (x[train:], y[train:])


def _distort(template: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    low, high = PADDING
    zeros = np.zeros(low + int(random.rand() * (high - low + 1)))
    # The 1e-8 distinguishes zeros of the template from the padding, which noise replaces below.
    signal = _resample(np.concatenate([template + 1e-8, zeros]), WIDE)
    signal = signal * (1 + SCALE * (random.rand() - 0.5))
    signal = np.roll(signal, int(random.choice(FARTHEST)))
    smooth = gaussian_filter1d(CORRELATED * random.randn(WIDE), 2)
    signal = np.where(signal != 0, signal, smooth) + INDEPENDENT * random.randn(WIDE)
    slope = SHEAR * (random.rand() - 0.5)
    return _resample(signal - slope * np.linspace(-0.5, 0.5, WIDE), FINAL)


def _resample(signal: np.ndarray, points: int) -> np.ndarray:
    return np.interp(np.linspace(0, 1, points), np.linspace(0, 1, len(signal)), signal)
