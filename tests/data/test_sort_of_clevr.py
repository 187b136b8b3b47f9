"""Sort-of-CLEVR against answers found one by one in the pixels alone."""

import numpy as np
import pytest

import jaxnets as jn

PAINTS = [(1, 0, 0), (0, 0, 1), (0, 0.8, 0), (1, 0.6, 0), (1, 1, 0), (0.5, 0.5, 0.5)]


def objects(image):
    """Return center, and whether its corners are filled, of the object of each color."""
    found = []
    for paint in PAINTS:
        pixels = [tuple(each) for each in np.argwhere((image == np.float32(paint)).all(-1)).tolist()]
        rows, columns = zip(*pixels, strict=True)
        top, left, bottom, right = min(rows), min(columns), max(rows), max(columns)
        assert (bottom - top, right - left) == (6, 6)
        square = (top, left) in pixels
        assert len(pixels) == (49 if square else 29)
        found.append(((top + bottom) / 2, (left + right) / 2, square))
    return found


def answer(things, question, size):
    color, kind, which = (int(np.flatnonzero(part)[0]) for part in np.split(question, [6, 8]))
    row, column, square = things[color]
    if kind == 0:
        truth = {1: column < (size - 1) / 2, 2: row < (size - 1) / 2}
        return ("square" if square else "circle") if which == 0 else "yes" if truth[which] else "no"
    if which == 2:
        return sum(other[2] == square for other in things)
    others = [other for place, other in enumerate(things) if place != color]
    distance = {other: np.hypot(other[0] - row, other[1] - column) for other in others}
    extreme = (min if which == 0 else max)(distance.values())
    (shape,) = {other[2] for other in others if abs(distance[other] - extreme) < 1e-9}
    return "square" if shape else "circle"


@pytest.mark.parametrize(("size", "pictures"), [(32, 60), (47, 6)])
def test_answers_are_those_that_the_pixels_give(size, pictures):
    (images, questions), answers = jn.data.sort_of_clevr(pictures, questions=8, size=size, seed=3)
    assert images.shape == (pictures, size, size, 3)
    assert (images.dtype, questions.dtype, answers.dtype) == (np.float32, np.float32, np.int32)
    names = ["yes", "no", "square", "circle", 1, 2, 3, 4, 5, 6]
    asked = set()
    for image, some, codes in zip(images, questions, answers, strict=True):
        things = objects(image)
        assert [names[code] for code in codes] == [answer(things, question, size) for question in some]
        asked |= {tuple(question) for question in some}
    np.testing.assert_array_equal(questions[:, :8, 6], 1)
    np.testing.assert_array_equal(questions[:, 8:, 7], 1)
    assert len(asked) == 36 or pictures < 60


def test_chances_and_seeds():
    (images, questions), answers = jn.data.sort_of_clevr(500, questions=40)
    same, other = jn.data.sort_of_clevr(500, questions=40), jn.data.sort_of_clevr(20, questions=40, seed=1)
    np.testing.assert_array_equal(images, same[0][0])
    np.testing.assert_array_equal(answers, same[1])
    assert not np.array_equal(images[:20], other[0][0])
    # 20,000 questions of a type: 5 standard errors. Shapes are as often squares as circles, also of the closest.
    np.testing.assert_allclose(questions[..., :6].mean((0, 1)), 1 / 6, atol=0.01)
    for kind in (0, 1):
        for which in (0, 1, 2):
            asked = (questions[..., 6 + kind] == 1) & (questions[..., 8 + which] == 1)
            np.testing.assert_allclose(asked.mean(), 1 / 6, atol=0.01)
            if which < 1 + kind:
                np.testing.assert_allclose((answers[asked] == 2).mean(), 0.5, atol=0.05)


@pytest.mark.parametrize("options", [{"pictures": 0}, {"questions": 0}, {"size": 27}])
def test_it_rejects(options):
    with pytest.raises(jn.NetError, match=f"^sort_of_clevr expects {next(iter(options))} ≥"):
        jn.data.sort_of_clevr(**options)
