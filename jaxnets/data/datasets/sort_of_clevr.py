"""Pictures of six objects, and questions about one of them or about how it relates to the others."""

import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as

COLORS = np.array([[1, 0, 0], [0, 0, 1], [0, 0.8, 0], [1, 0.6, 0], [1, 1, 0], [0.5, 0.5, 0.5]], np.float32)
RADIUS = 3


def sort_of_clevr(
    pictures: int = 1000, *, questions: int = 10, size: int = 32, seed: int = 0
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Generate Sort-of-CLEVR: pictures of six colored squares and circles, and questions about them with answers.

    Each picture has one object of each color, red, blue, green, orange, yellow and gray in this order, on white; each
    is a square or a circle by chance, 7 pixels wide, and none overlaps another. A question is 11 bits: 6 that name a
    color, 2 for the type, not relational or relational, and 3 for one of the three questions of this type:

    - not relational: what is the object's shape? is it in the left half? is it in the upper half?
    - relational: what is the shape of the object that is closest to it? of that farthest from it? how many objects
      have its shape, itself included?

    Answers are coded 0 yes, 1 no, 2 square, 3 circle, and 4 to 9 for the counts 1 to 6. The shape, the sides, the
    color of a question and which of the three it is are drawn with equal chances. Distances are those between centers;
    a picture in which two shapes are equally close to an object, or equally far, is drawn again. The authors' pictures
    are of 75 × 75 pixels, with objects 10 pixels wide.

    Args:
        pictures: the number of pictures, at least 1.
        questions: the number of questions of each type about each picture, at least 1.
        size: height and width of a picture in pixels, at least 28.
        seed: the same seed gives the same pictures and questions.

    Returns:
        `((images, questions), answers)`: `(pictures, size, size, 3)` float32 from 0 to 1;
        `(pictures, 2 · questions, 11)` float32, those that are not relational first; and `(pictures, 2 · questions)`
        int32.

    Raises:
        NetError: for `pictures` or `questions` < 1, or `size` < 28, where six objects may find no room.

    Santoro et al., "A simple neural network module for relational reasoning" (2017), section 4.2 and its supplement.

    >>> (images, questions), answers = sort_of_clevr(5)
    >>> images.shape, questions.shape, answers.shape
    ((5, 32, 32, 3), (5, 20, 11), (5, 20))
    """
    with labeled_as("sort_of_clevr"):
        check_count("pictures", pictures)
        check_count("questions", questions)
        check_count("size", size)
        if size < 28:
            raise NetError(f"expects size ≥ 28 for six objects that do not overlap, got {size}")
    random = np.random.default_rng(seed)
    places, shapes = np.zeros((pictures, 6, 2), int), np.zeros((pictures, 6), int)
    again = np.arange(pictures)
    while again.size:
        places[again] = random.integers(RADIUS, size - RADIUS, (again.size, 6, 2))
        shapes[again] = random.integers(2, size=(again.size, 6))
        again = again[_refused(places[again], shapes[again])]
    images = _draw(places, shapes, size)
    color = random.integers(6, size=(pictures, 2 * questions))
    which = random.integers(3, size=color.shape)
    relational = np.broadcast_to(np.arange(2 * questions)[None] >= questions, color.shape).astype(int)
    every = _answers(places, shapes, size)
    answers = every[np.arange(pictures)[:, None], color, relational, which]
    bits = np.concatenate([np.eye(6)[color], np.eye(2)[relational], np.eye(3)[which]], -1)
    return (images, bits.astype(np.float32)), answers.astype(np.int32)


def _distances(places: np.ndarray) -> np.ndarray:
    """Return the squared distances between objects, `(pictures, 6, 6)`."""
    return ((places[:, :, None] - places[:, None]) ** 2).sum(-1)


def _refused(places: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Tell which pictures have objects that overlap, or a question with two answers."""
    apart = np.abs(places[:, :, None] - places[:, None]).max(-1)
    same = np.eye(6, dtype=bool)[None]
    overlap = (apart <= 2 * RADIUS) & ~same
    squared, found = _distances(places), overlap.any((1, 2))
    for extreme in (np.where(same, squared.max() + 1, squared).min(-1), squared.max(-1)):
        # (pictures, 6, 6): the objects at the extreme distance
        there = (squared == extreme[..., None]) & ~same
        circles = (there & (shapes[:, None] == 1)).any(-1)
        found |= (circles & (there & (shapes[:, None] == 0)).any(-1)).any(-1)
    return found


def _draw(places: np.ndarray, shapes: np.ndarray, size: int) -> np.ndarray:
    images, side = np.ones((len(places), size, size, 3), np.float32), np.arange(-RADIUS, RADIUS + 1)
    row, column = (each.ravel() for each in np.meshgrid(side, side, indexing="ij"))
    # A circle has the pixels whose centers it holds.
    inside = np.stack([np.full(row.shape, True), row**2 + column**2 <= RADIUS**2])[shapes]
    picture, thing, pixel = np.nonzero(inside)
    y, x = (places[picture, thing] + np.stack([row, column], 1)[pixel]).T
    images[picture, y, x] = COLORS[thing]
    return images


def _answers(places: np.ndarray, shapes: np.ndarray, size: int) -> np.ndarray:
    """Return the answers to all questions, `(pictures, 6 colors, 2 types, 3 questions)`."""
    row, column = places[..., 0], places[..., 1]
    squared, same = _distances(places), np.eye(6, dtype=bool)[None]
    closest = np.where(same, squared.max() + 1, squared).argmin(-1)
    alike = (shapes[:, :, None] == shapes[:, None]).sum(-1)
    plain = [2 + shapes, 2 * column >= size, 2 * row >= size]
    related = [2 + np.take_along_axis(shapes, each, 1) for each in (closest, squared.argmax(-1))]
    return np.stack([np.stack(plain, -1), np.stack([*related, 3 + alike], -1)], -2)
