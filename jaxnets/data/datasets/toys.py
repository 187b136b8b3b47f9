"""Toy classification problems in the plane."""

from collections.abc import Callable

import numpy as np

from jaxnets.core.errors import NetError, check_count, check_positive, labeled_as

Points = tuple[np.ndarray, np.ndarray]
Place = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def moons(examples: int = 1000, *, noise: float = 0.1, seed: int = 0) -> Points:
    """Return points on two interleaved half circles of radius 1: (cos t, sin t) and (1 - cos t, 1/2 - sin t).

    Args:
        examples: the number of points, half of each class; class 0 gets the odd one.
        noise: the standard deviation of the noise added to each coordinate, at least 0.
        seed: the same seed gives the same points on every machine.

    Returns:
        Points `(examples, 2)` float32 and classes `(examples,)` int32, 0 or 1, in random order.

    Raises:
        NetError: if `examples` < 2 or `noise` < 0.

    >>> x, y = moons(100, noise=0.0)
    >>> x.shape, y.sum().item(), ((x[y == 0] ** 2).sum(1) - 1).round(5).any().item()
    ((100, 2), 50, False)
    """

    def place(label: np.ndarray, along: np.ndarray, random: np.random.Generator) -> np.ndarray:
        x, y = np.cos(np.pi * along), np.sin(np.pi * along)
        return np.where(label[:, None] == 0, np.stack([x, y], 1), np.stack([1 - x, 0.5 - y], 1))

    return _make_points("moons", examples, 2, noise, seed, place)


def circles(examples: int = 1000, *, inner: float = 0.5, noise: float = 0.1, seed: int = 0) -> Points:
    """Return points on the unit circle, class 0, and on a smaller circle inside it, class 1.

    Args:
        examples: the number of points, half of each class; class 0 gets the odd one.
        inner: radius of the inner circle, between 0 and 1.
        noise: the standard deviation of the noise added to each coordinate, at least 0.
        seed: the same seed gives the same points on every machine.

    Returns:
        Points `(examples, 2)` float32 and classes `(examples,)` int32, 0 or 1, in random order.

    Raises:
        NetError: if `examples` < 2, `noise` < 0, or `inner` lies outside (0, 1).

    >>> x, y = circles(100, noise=0.0)
    >>> sorted(set((x ** 2).sum(1).round(5).tolist()))
    [0.25, 1.0]
    """
    if not 0 < inner < 1:
        raise NetError(f"expects inner between 0 and 1, got {inner}", label="circles")

    def place(label: np.ndarray, along: np.ndarray, random: np.random.Generator) -> np.ndarray:
        angle, radius = 2 * np.pi * along, np.where(label == 0, 1.0, inner)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)

    return _make_points("circles", examples, 2, noise, seed, place)


def spirals(
    examples: int = 1000, *, classes: int = 2, turns: float = 1.75, noise: float = 0.02, seed: int = 0
) -> Points:
    """Return points on spiral arms that wind around each other, a classic hard problem for small networks.

    A point of arm *k* of *K* is at radius r, uniform in [0, 1], and angle 2π (turns · r + k / K).

    Args:
        examples: the number of points, as equally many per class as possible.
        classes: the number of arms, at least 2.
        turns: the number of turns of each arm, positive.
        noise: the standard deviation of the noise added to each coordinate, at least 0.
        seed: the same seed gives the same points on every machine.

    Returns:
        Points `(examples, 2)` float32 and classes `(examples,)` int32, in random order.

    Raises:
        NetError: if there are fewer examples than classes, fewer than 2 classes, or for a number out of range.

    After Lang and Witbrock, "Learning to tell two spirals apart" (1988).

    >>> x, y = spirals(99, classes=3)
    >>> x.shape, y.max().item()
    ((99, 2), 2)
    """
    with labeled_as("spirals"):
        check_positive("turns", turns)

    def place(label: np.ndarray, along: np.ndarray, random: np.random.Generator) -> np.ndarray:
        angle = 2 * np.pi * (turns * along + label / classes)
        return along[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)

    return _make_points("spirals", examples, classes, noise, seed, place)


def blobs(examples: int = 1000, *, classes: int = 3, noise: float = 0.3, seed: int = 0) -> Points:
    """Return Gaussian clouds with centers spaced evenly on the unit circle, the first at (1, 0).

    Args:
        examples: the number of points, as equally many per class as possible.
        classes: the number of clouds, at least 2.
        noise: standard deviation of each cloud along each coordinate, at least 0.
        seed: the same seed gives the same points on every machine.

    Returns:
        Points `(examples, 2)` float32 and classes `(examples,)` int32, in random order.

    Raises:
        NetError: if there are fewer examples than classes, fewer than 2 classes, or `noise` < 0.

    >>> x, y = blobs(8, classes=4, noise=0.0)
    >>> sorted(set(map(tuple, x.round(5).tolist())))
    [(-1.0, 0.0), (-0.0, -1.0), (0.0, 1.0), (1.0, 0.0)]
    """

    def place(label: np.ndarray, along: np.ndarray, random: np.random.Generator) -> np.ndarray:
        angle = 2 * np.pi * label / classes
        return np.stack([np.cos(angle), np.sin(angle)], 1)

    return _make_points("blobs", examples, classes, noise, seed, place)


def xor(examples: int = 1000, *, noise: float = 0.0, seed: int = 0) -> Points:
    """Return points uniform in the square [-1, 1)², of class 1 where the coordinates differ in sign.

    No line separates the classes: this is the smallest problem that a single-layer network can't solve.

    Args:
        examples: the number of points, half of each class; class 0 gets the odd one.
        noise: the standard deviation of the noise added to each coordinate after labeling, at least 0.
        seed: the same seed gives the same points on every machine.

    Returns:
        Points `(examples, 2)` float32 and classes `(examples,)` int32, 0 or 1, in random order.

    Raises:
        NetError: if `examples` < 2 or `noise` < 0.

    Minsky and Papert, "Perceptrons" (1969).

    >>> x, y = xor(100)
    >>> ((x[:, 0] * x[:, 1] < 0) == y).all().item()
    True
    """
    return _make_points("xor", examples, 2, noise, seed, _on_squares(2))


def checkerboard(examples: int = 1000, *, squares: int = 4, noise: float = 0.0, seed: int = 0) -> Points:
    """Return points uniform in the square [-1, 1)², labeled by the color of their square on a checkerboard.

    Args:
        examples: the number of points, half of each class; class 0 gets the odd one.
        squares: the number of squares along each side, at least 2. The square at (-1, -1) has class 0.
        noise: the standard deviation of the noise added to each coordinate after labeling, at least 0.
        seed: the same seed gives the same points on every machine.

    Returns:
        Points `(examples, 2)` float32 and classes `(examples,)` int32, 0 or 1, in random order.

    Raises:
        NetError: if `examples` < 2, `squares` < 2, or `noise` < 0.

    >>> import numpy as np
    >>> x, y = checkerboard(100, squares=3)
    >>> (np.floor((x + 1) * 1.5).sum(1) % 2 == y).all().item()
    True
    """
    if squares < 2:
        raise NetError(f"expects at least 2 squares per side, got {squares}", label="checkerboard")
    return _make_points("checkerboard", examples, 2, noise, seed, _on_squares(squares))


def _on_squares(squares: int) -> Place:
    rows, columns = np.divmod(np.arange(squares**2), squares)
    of_class = [np.flatnonzero((rows + columns) % 2 == label) for label in range(2)]

    def place(label: np.ndarray, along: np.ndarray, random: np.random.Generator) -> np.ndarray:
        square = np.where(label == 0, random.choice(of_class[0], len(label)), random.choice(of_class[1], len(label)))
        corner = np.stack(np.divmod(square, squares), 1)
        # Avoid the edges, where rounding to float32 could move a point into the next square.
        return (corner + random.uniform(1e-6, 1 - 1e-6, corner.shape)) * 2 / squares - 1

    return place


def _make_points(name: str, examples: int, classes: int, noise: float, seed: int, place: Place) -> Points:
    """Return points, placed by `place(labels, along, random)` with `along` uniform in [0, 1), plus noise."""
    with labeled_as(name):
        check_count("examples", examples)
        check_positive("noise", noise, zero=True)
        check_count("classes", classes)
        if classes < 2 or examples < classes:
            raise NetError(f"expects at least 2 classes and an example of each, got {classes} and {examples}")
    random = np.random.default_rng(seed)
    label = np.arange(examples) % classes
    points = place(label, random.random(examples), random)
    points = points + noise * random.standard_normal(points.shape)
    order = random.permutation(examples)
    return points[order].astype(np.float32), label[order].astype(np.int32)
