"""Generated opinions: labels found again from the words, and the balance of forms."""

import numpy as np
import pytest

import jaxnets as jn
from jaxnets.data.datasets.opinions import BAD, FORMS, GOOD

TEXTS, LABELS = jn.data.opinions(400, seed=3)


def clause(words: list[str]) -> bool:
    (adjective,) = (word for word in words if word in GOOD + BAD)
    return (adjective in GOOD) != any(word in words for word in ("not", "never", "hardly", "far"))


def test_labels_are_those_of_the_clause_that_counts():
    for text, label in zip(TEXTS, LABELS, strict=True):
        clauses = [clause(part.split()) for part in text.split(" , ")]
        assert clauses[-1] == label
        assert len(clauses) == 1 or clauses[0] != clauses[1]


def test_forms_labels_and_seeds():
    kinds = {"but": " but ", "although": "although"}
    counts = [sum(sign in text for text in TEXTS) for sign in kinds.values()]
    assert all(70 < count < 130 for count in counts)
    assert LABELS.dtype == np.int32
    assert 160 < LABELS.sum() < 240
    assert jn.data.opinions(400, seed=3)[0] == TEXTS
    assert jn.data.opinions(400, seed=4)[0] != TEXTS
    assert all(" but " in text for text in jn.data.opinions(20, forms=("but",))[0])
    assert len({*TEXTS}) > 300
    assert set(FORMS) > set(kinds)


@pytest.mark.parametrize("options", [{"forms": ()}, {"forms": ("ironic",)}, {"examples": 0}])
def test_mistakes_are_told(options):
    with pytest.raises(jn.NetError, match="opinions"):
        jn.data.opinions(**{"examples": 3, **options})
