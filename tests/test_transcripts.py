"""Error rates of transcripts against jiwer."""

import importlib.util

import numpy as np
import pytest

import jaxnets as jn
from jaxnets.metrics import character_error_rate, word_error_rate
from tests.oracle import witness


def sentences(seed):
    """Return random sentences of few words and letters, with what a recognizer could have made of them."""
    random = np.random.default_rng(seed)
    words = ["a", "ab", "abc", "ba", "cab"]

    def drawn():
        return [" ".join(random.choice(words, random.integers(0, 6))) for _ in range(8)]

    return drawn(), drawn()


CASES = {
    **{f"random {seed}": sentences(seed) for seed in range(12)},
    "empty hypothesis": ("", "one two"),
    "empty reference": ("one two", ""),
    "both empty": ("", ""),
    "one of them empty": (["x", "one"], ["", "one two"]),
    "spaces": ("  one   two ", "one two"),
    "case": ("One two.", "one two"),
    "ε": ("naïve café", "naive cafe"),
}


def by_jiwer():
    import jiwer  # pyright: ignore[reportMissingImports]

    return {
        name: np.array([jiwer.wer(said, ours), jiwer.cer(said, ours)], float) for name, (ours, said) in CASES.items()
    }


def test_equal_to_jiwer():
    want = witness("transcripts", by_jiwer, installed=importlib.util.find_spec("jiwer") is not None)
    for name, (ours, said) in CASES.items():
        found = word_error_rate(ours, said), character_error_rate(ours, said)
        np.testing.assert_allclose(found, want[name], rtol=1e-12, err_msg=name)


def test_a_tab_separates_words():
    assert word_error_rate("one\ttwo\nsix", "one two six") == 0


def test_mistakes_are_told():
    with pytest.raises(jn.NetError, match="word_error_rate expects a hypothesis for each reference, got 1 and 2"):
        word_error_rate(["a"], ["a", "b"])
    with pytest.raises(jn.NetError, match="character_error_rate expects at least one reference, got none"):
        character_error_rate([], [])
    wrong: list = [["a", "b"]]
    with pytest.raises(jn.NetError, match="expects texts as references, got list"):
        word_error_rate(["a"], wrong)
    number: list = [3]
    with pytest.raises(jn.NetError, match="expects texts as hypotheses, got int 3"):
        word_error_rate(number, ["a"])
