"""Films of moving pictures: straight lines between mirrors."""

from typing import Any

import numpy as np
import pytest

import jaxnets as jn

DOT = np.ones((1, 1, 1, 1), np.float32)


def test_a_picture_moves_straight_on_and_bounces():
    """Against a loop that turns the velocity at each wall, as the paper describes it."""
    films = jn.data.moving_pictures(DOT, 20, 30, size=12, count=1, speed=(0.5, 3.0))
    places = np.stack(np.nonzero(films[..., 0])[2:], -1).reshape(20, 30, 2)  # the dot is in one place in each frame
    assert (films.sum((2, 3, 4)) == 1).all()
    random = np.random.default_rng(0)
    random.integers(1, size=(20, 1))
    start = random.random((20, 1, 1, 2))[:, 0, 0] * 11
    angle, length = random.random((20, 1))[:, 0] * 2 * np.pi, random.uniform(0.5, 3.0, (20, 1))[:, 0]
    for film in range(20):
        place, velocity = start[film], length[film] * np.array([np.sin(angle[film]), np.cos(angle[film])])
        for frame in range(30):
            assert np.abs(place - places[film, frame]).max() <= 0.5 + 1e-9
            place = place + velocity
            over, under = place > 11, place < 0
            place = np.where(over, 22 - place, np.where(under, -place, place))
            velocity = np.where(over | under, -velocity, velocity)


def test_pictures_are_shown_whole_and_the_brighter_one_where_they_overlap():
    pictures = np.stack([np.full((3, 3, 2), 0.25), np.full((3, 3, 2), 1.0)]).astype(np.float32)
    films = jn.data.moving_pictures(pictures, 50, 4, size=5, count=2, speed=(0, 2))
    assert films.shape == (50, 4, 5, 5, 2)
    assert films.dtype == np.float32
    assert set(np.unique(films)) == {0.0, 0.25, 1.0}
    bright = (films == 1).sum((2, 3, 4))
    assert set(np.unique(bright)) <= {0, *range(18, 37)}  # never fewer than a whole picture, once there is one
    assert (bright == 0).any()
    np.testing.assert_array_equal(films, jn.data.moving_pictures(pictures, 50, 4, size=5, count=2, speed=(0, 2)))
    other = jn.data.moving_pictures(pictures, 50, 4, size=5, count=2, speed=(0, 2), seed=1)
    assert not np.array_equal(films, other)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pictures": np.ones((1, 28, 28), np.float32)}, "expects floating pictures"),
        ({"pictures": np.ones((1, 2, 2, 1), int)}, "expects floating pictures"),
        ({"pictures": np.ones((0, 2, 2, 1), np.float32)}, "expects floating pictures"),
        ({"size": 1}, "expects size > 1"),
        ({"examples": 0}, "expects examples"),
        ({"speed": (3.0, 2.0)}, "speed ≤ 7"),
        ({"speed": (1.0, 9.0)}, "speed ≤ 7"),
    ],
)
def test_mistakes(options: dict[str, Any], says: str):
    with pytest.raises(jn.NetError, match=f"moving_pictures {says}" if "speed" not in options else says):
        jn.data.moving_pictures(**({"pictures": DOT, "examples": 2, "size": 8} | options))
