"""Exact match and F1 against torchmetrics."""

import importlib.util

import numpy as np
import pytest

import jaxnets as jn
from tests.oracle import witness
from tests.peers import torchvision_models

ANSWERS = [
    *(
        ["The Eiffel Tower"],
        ["a cat.", "two cats"],
        ["in 1999", "1999"],
        ["well-known"],
        ["U.S.A.", "the United States"],
    ),
    *([""], ["New  York\tCity", "NYC"], ["no no yes"], ["theory of an atom"], ["Zoë's"], ["the"], ["x y z", "x y"]),
]
PREDICTED = [
    *("eiffel tower", "cats two", "1999!", "well known", "USA", "", "the new york", "no yes yes"),
    *("THE THEORY OF ATOMS", "zoës", "", "x"),
]


def by_torchmetrics():
    if importlib.util.find_spec("torchvision"):
        torchvision_models()  # torchmetrics imports torchvision
    from torchmetrics.functional.text import squad  # pyright: ignore[reportMissingImports]

    rng = np.random.default_rng(0)
    found = {}
    for name, (predicted, answers) in {"edges": (PREDICTED, ANSWERS), "random": drawn(rng)}.items():
        scores = []
        for one, several in zip(predicted, answers):
            wanted = {"answers": {"answer_start": [0] * len(several), "text": several}, "id": "0"}
            each = squad([{"prediction_text": one, "id": "0"}], [wanted])
            scores.append([float(each["exact_match"]), float(each["f1"])])
        found[name] = np.array(scores)
    return found


def drawn(rng):
    """Return random texts of few words, so that many words are shared."""
    words = np.array(["the", "a", "an", "red", "Red,", "old", "(old)", "cat", "CAT!", "1", "--", ""], object)

    def text():
        return " ".join(rng.choice(words, rng.integers(0, 6)))

    return [text() for _ in range(60)], [[text() for _ in range(rng.integers(1, 4))] for _ in range(60)]


def test_values_are_those_of_torchmetrics():
    installed = importlib.util.find_spec("torchmetrics") is not None
    wanted = witness("squad", by_torchmetrics, installed=installed)
    for name, (predicted, answers) in {
        "edges": (PREDICTED, ANSWERS),
        "random": drawn(np.random.default_rng(0)),
    }.items():
        found = np.stack(jn.metrics.squad(predicted, answers, by_question=True), 1)
        # The script leaves out answers without words beside others; torchmetrics, like that of SQuAD 1, does not.
        words = [[len(jn.metrics.squad.__globals__["_text"](each)) > 0 for each in several] for several in answers]
        same = np.array([all(each) or len(each) == 1 for each in words])
        assert same.sum() >= 12
        np.testing.assert_allclose(found[same], wanted[name][same], rtol=1e-6)
        np.testing.assert_allclose(jn.metrics.squad(predicted, answers), found.mean(0), rtol=1e-12)


def test_several_answers_and_none():
    assert jn.metrics.squad(["rome", ""], [["paris", "Rome."], []]) == (100.0, 100.0)
    assert jn.metrics.squad(["rome", ""], [[], "paris"]) == (0.0, 0.0)
    assert jn.metrics.squad([""], [["the", "rome"]]) == (0.0, 0.0)  # "the" is no answer beside another
    assert jn.metrics.squad(["red big cat"], ["big cat cat"]).f1 == pytest.approx(200 / 3)


@pytest.mark.parametrize(
    ("predictions", "answers", "message"),
    [
        (["a"], ["a", "b"], "expects answers for each of 1 predictions, got 2"),
        ([], [], "at least one question, got no predictions"),
        ("a", ["a"], "expects a list for predictions"),
        ([None], ["a"], "expects texts, got None"),
        (["a"], [3], "expects a text or a list of texts as the answers"),
    ],
)
def test_mistakes_are_told(predictions, answers, message):
    with pytest.raises(jn.NetError, match=message):
        jn.metrics.squad(predictions, answers)
