"""Metrics of generated text against sacrebleu and rouge-score, and what they refuse."""

import importlib.util
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets import metrics
from tests.oracle import witness

INSTALLED = all(importlib.util.find_spec(name) for name in ("sacrebleu", "rouge_score"))
WORDS = [
    *[
        "the",
        "a",
        "cat",
        "Cat",
        "sat",
        "on",
        "mat",
        ".",
        ",",
        "!",
        "3.5",
        "1,000",
        "10-20",
        "-",
        "&",
        "&amp;",
        "&quot;so&quot;",
        "x=y",
        "(yes)",
        "«où»",
        "ça",
        "größer",
        "日本",
        "don't",
        "U.S.",
        "e.g.",
    ],
    "two-\nlines",
    "new\nline",
    "<skipped>",
    "tab\there",
    "%",
    "/a/b",
    "2nd",
    "ƒ(x)",
]
FIXED = [
    ("the cat sat on the mat.", ["the cat sat on the mat."]),
    ("", ["the cat"]),
    ("the cat", ["", "a"]),
    ("the cat sat", ["the cat sat on the mat", "a cat"]),
    ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
    ("a b c d e f", ["a b c d", "a b c d e f g h"]),  # two references that are equally close in length
    ("Zwei Wörter. ", ["zwei Wörter!", "ZWEI WÖRTER", " "]),
    ("nothing in common", ["日本"]),
]


def corpus() -> list[tuple[str, list[str]]]:
    """Return hypotheses with one to three references, many of which are alike."""
    draw = np.random.default_rng(0)

    def text(low: int) -> list[str]:
        return draw.choice(WORDS, draw.integers(low, 14)).tolist()

    def changed(words: list[str]) -> str:
        return " ".join(word if draw.random() < 0.7 else str(draw.choice(WORDS)) for word in words)

    drawn = [(words, [changed(words) for _ in range(draw.integers(1, 4))]) for words in [text(0) for _ in range(60)]]
    return FIXED + [(" ".join(words), references) for words, references in drawn]


CORPUS = corpus()
HYPOTHESES, REFERENCES = [one for one, _ in CORPUS], [several for _, several in CORPUS]
BLEU: dict[str, Any] = {"": {}, " none": {"tokenize": "none"}, " lower": {"lowercase": True}}
CHRF: dict[str, Any] = {"": {}, "++": {"words": 2}, " short": {"characters": 3, "beta": 1, "lowercase": True}}
ROUGE: dict[str, Any] = {"rouge1": {"order": 1}, "rouge2": {"order": 2}, "rougeL": {}}


def theirs() -> Mapping[str, Any]:
    from rouge_score.rouge_scorer import RougeScorer  # pyright: ignore[reportMissingImports]
    from sacrebleu.metrics.bleu import BLEU as Bleu  # pyright: ignore[reportMissingImports]
    from sacrebleu.metrics.chrf import CHRF as Chrf  # pyright: ignore[reportMissingImports]

    # Theirs has a list for each reference, None where a hypothesis has fewer.
    streams: Any = [[each[k] if k < len(each) else None for each in REFERENCES] for k in range(3)]
    found = {}
    for name, options in BLEU.items():
        found[f"bleu{name}"] = Bleu(**options).corpus_score(HYPOTHESES, streams).score
        one = Bleu(effective_order=True, **options)
        found[f"sentence bleu{name}"] = [one.sentence_score(*each).score for each in CORPUS]
    for name, options in CHRF.items():
        given: Any = {
            {"words": "word_order", "characters": "char_order"}.get(key, key): x for key, x in options.items()
        }
        score = Chrf(**given)
        found[f"chrf{name}"] = score.corpus_score(HYPOTHESES, streams).score
        found[f"sentence chrf{name}"] = [score.sentence_score(*each).score for each in CORPUS]
    scorer = RougeScorer([*ROUGE])
    rows = [scorer.score_multi(several, one) for one, several in CORPUS]
    return found | {name: np.array([row[name] for row in rows], np.float64) for name in ROUGE}


def test_values_are_those_of_sacrebleu_and_rouge_score():
    said, wanted = ours(), witness("text_metrics", theirs, installed=INSTALLED)
    assert said.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(said[name], value, rtol=0, atol=1e-9, err_msg=name)
    spread = wanted["sentence bleu"]
    assert spread.min() == 0
    assert spread.max() > 99.9
    assert 20 < wanted["bleu"] < 90


def ours() -> dict[str, Any]:
    found = {}
    for name, options in BLEU.items():
        found[f"bleu{name}"] = metrics.bleu(HYPOTHESES, REFERENCES, **options)
        found[f"sentence bleu{name}"] = metrics.bleu(HYPOTHESES, REFERENCES, by_sentence=True, **options)
    for name, options in CHRF.items():
        found[f"chrf{name}"] = metrics.chrf(HYPOTHESES, REFERENCES, **options)
        found[f"sentence chrf{name}"] = metrics.chrf(HYPOTHESES, REFERENCES, by_sentence=True, **options)
    for name, options in ROUGE.items():
        rouge: Any = metrics.rouge_n if options else metrics.rouge_l
        found[name] = np.stack(rouge(HYPOTHESES, REFERENCES, by_sentence=True, **options), 1)
    return found


def test_tokens_count_as_words_do():
    """Integers in place of the words of texts without punctuation give the same values."""
    words = ["a", "cat", "sat", "here", "on", "some", "mat"]
    draw = np.random.default_rng(1)
    ids = [draw.integers(0, len(words), draw.integers(1, 9)) for _ in range(40)]
    texts = [" ".join(words[each] for each in row) for row in ids]
    one, other, texts_one, texts_other = ids[:20], ids[20:], texts[:20], texts[20:]
    padded = jn.Padded(jnp.array([np.pad(row, (0, 9 - len(row))) for row in one]), jnp.array([len(row) for row in one]))
    for measure in (metrics.bleu, metrics.rouge_l, metrics.rouge_n, metrics.exact_match):
        wanted = measure(texts_one, texts_other)
        assert measure(one, other) == wanted
        assert measure(padded, [[each] for each in other]) == wanted
        assert measure([row.tolist() for row in one], [(each, each) for each in other]) == wanted
    assert metrics.bleu(padded, padded) == pytest.approx(100)
    letters = [[ord(each) for each in text.replace(" ", "")] for text in texts]
    assert metrics.chrf(letters[:20], letters[20:]) == pytest.approx(metrics.chrf(texts_one, texts_other), abs=1e-12)
    assert metrics.exact_match([[1, 2], [], [3]], [[1, 2], [], [4]], by_sentence=True).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        (["a", "b"], ["a"], "expects references for each of 2 hypotheses, got 1"),
        (["a", "b", "c"], [["a", "b", "c"], ["a", "b", "c"]], r"zip\(\*references\)"),
        ([], [], "at least one of hypotheses, got none"),
        (["a"], [[]], "at least one reference for hypothesis 0"),
        ("a text", ["a text"], "expects a list of texts, or of sequences of tokens, for hypotheses, got str"),
        (["a"], [[1, 2]], "expects a text for the reference of hypothesis 0, got int"),
        ([[1, 2]], ["a"], "expects integers, .* for the reference of hypothesis 0, got str 'a'"),
        (["a", None], ["a", "b"], "expects a text for hypothesis 1, got None"),
        ([np.array([0.5])], [[1]], "expects integers, .* for hypothesis 0, got ndarray"),
        (iter(["a"]), ["a"], "expects a list of texts"),
    ],
)
@pytest.mark.parametrize("measure", [metrics.bleu, metrics.chrf, metrics.rouge_l, metrics.rouge_n, metrics.exact_match])
def test_refused(measure: Any, hypotheses: Any, references: Any, message: str):
    with pytest.raises(jn.NetError, match=message) as error:
        measure(hypotheses, references)
    assert str(error.value).startswith(measure.__name__)


def test_settings_out_of_range_are_refused():
    with pytest.raises(jn.NetError, match="expects tokenize '13a' or 'none', got 'zh'"):
        metrics.bleu(["a"], ["a"], tokenize="zh")  # type: ignore[arg-type]
    with pytest.raises(jn.NetError, match="integers; they have no words"):
        metrics.chrf([[1]], [[1]], words=2)
    with pytest.raises(jn.NetError, match="expects characters ≥ 1, got 0"):
        metrics.chrf(["a"], ["a"], characters=0)
    with pytest.raises(jn.NetError, match="expects order ≥ 1, got 0"):
        metrics.rouge_n(["a"], ["a"], order=0)
