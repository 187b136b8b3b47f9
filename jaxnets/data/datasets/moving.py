"""Films of small pictures that move in a box and bounce off its walls."""

import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as, shown


@labeled_as("moving_pictures")
def moving_pictures(
    pictures: np.ndarray,
    examples: int,
    frames: int = 20,
    *,
    size: int = 64,
    count: int = 2,
    speed: tuple[float, float] = (2.0, 5.0),
    seed: int = 0,
) -> np.ndarray:
    """Return films in which pictures, such as digits, move straight on and bounce off the walls: moving MNIST.

    Each film has `count` pictures, drawn with equal probability. Each starts anywhere in the box with a velocity of any
    direction, whose length is drawn uniformly from `speed`, in pixels a frame; its component across a wall changes its
    sign there. A position is rounded to whole pixels for each frame. Of overlapping pixels the brighter one is shown.

    Args:
        pictures: `(n, side, side, channels)`, floating.
        examples: the number of films.
        frames: the number of frames in each.
        size: height and width of a frame, larger than those of a picture.
        count: how many pictures move.
        speed: the least and the largest speed, at most the space that a picture has to move in.
        seed: the same seed gives the same films on every machine.

    Returns:
        Films `(examples, frames, size, size, channels)`, in the dtype of the pictures.

    Raises:
        NetError: for pictures of another shape or dtype, no picture, a number below 1, or a size or speed out of range.

    Srivastava, Mansimov and Salakhutdinov, "Unsupervised Learning of Video Representations using LSTMs" (2015), section
    4.2: 20 frames of 64 × 64 pixels with two digits of 28 × 28.

    >>> films = moving_pictures(np.ones((1, 2, 2, 1), np.float32), 3, 5, size=8, count=1, speed=(1, 2))
    >>> films.shape, films.sum((2, 3, 4)).tolist()[0]
    ((3, 5, 8, 8, 1), [4.0, 4.0, 4.0, 4.0, 4.0])
    """
    for name, value in {"examples": examples, "frames": frames, "size": size, "count": count}.items():
        check_count(name, value)
    if not hasattr(pictures, "ndim") or pictures.ndim != 4 or not len(pictures) or pictures.dtype.kind != "f":
        raise NetError(f"expects floating pictures (n, side, side, channels), got {shown(pictures)}")
    space = np.array([size - pictures.shape[1], size - pictures.shape[2]], float)
    if space.min() < 1:
        raise NetError(f"expects size > {max(pictures.shape[1:3])}, that of the pictures, got {size}")
    if not 0 <= speed[0] <= speed[1] <= space.min():
        raise NetError(f"expects 0 ≤ least ≤ largest speed ≤ {space.min():g}, got {speed!r}")
    random = np.random.default_rng(seed)
    chosen = random.integers(len(pictures), size=(examples, count))
    start = random.random((examples, count, 1, 2)) * space
    angle, length = random.random((examples, count)) * 2 * np.pi, random.uniform(*speed, (examples, count))
    velocity = (length * np.stack([np.sin(angle), np.cos(angle)]))[..., None].transpose(1, 2, 3, 0)
    # Walls are mirrors: where it would be without them, folded back into the box.
    far = (start + velocity * np.arange(frames)[:, None]) % (2 * space)
    place = np.round(np.minimum(far, 2 * space - far)).astype(int)  # (examples, count, frames, 2)
    films = np.zeros((examples, frames, size, size, pictures.shape[3]), pictures.dtype)
    rows, columns = np.arange(pictures.shape[1])[:, None], np.arange(pictures.shape[2])
    film, frame = np.arange(examples)[:, None, None, None], np.arange(frames)[:, None, None]
    for each in range(count):
        top, left = place[:, each, :, 0, None, None], place[:, each, :, 1, None, None]
        there = film, frame, top + rows, left + columns
        films[there] = np.maximum(films[there], pictures[chosen[:, each], None])
    return films
