"""ROUGE, what a summary has in common with its references, and exact matches."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxnets.core.errors import check_count, labeled_as
from jaxnets.metrics.text.pairs import Tokens, counted, pairs


class Rouge(NamedTuple):
    """Precision, recall and their harmonic mean, from 0 to 1; floats, or float64 `(texts,)` with `by_sentence`.

    Attributes:
        precision: the share of the hypothesis that is in the reference.
        recall: the share of the reference that is in the hypothesis.
        f1: 2 · precision · recall / (precision + recall).
    """

    precision: Any
    recall: Any
    f1: Any


def rouge_n(hypotheses: Any, references: Any, *, order: int = 1, by_sentence: bool = False) -> Rouge:
    """Return ROUGE-N: the n-grams, n = `order`, that hypothesis and reference share, each as often as in both.

    Args:
        hypotheses: strings, which are compared by their words of a–z and 0–9 in lowercase, or sequences of integers; a
            list, or `Padded`.
        references: for each hypothesis its reference, or a list of several, of which the one with the best F1 counts.
        order: the length of the n-grams, 1 for ROUGE-1.
        by_sentence: whether values for each text are returned; otherwise their means.

    Raises:
        NetError: for unequal numbers of hypotheses and references, none at all, or anything but texts or integers.

    Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004), section 2. Values as in `rouge-score` without
    stemming: an empty hypothesis or reference has 0.

    >>> rouge_n(["the cat sat"], ["The cat, the hat"])
    Rouge(precision=0.6666666666666666, recall=0.5, f1=0.5714285714285715)
    """
    with labeled_as("rouge_n"):
        check_count("order", order)

        def shared(hypothesis: Tokens, reference: Tokens) -> tuple[int, int, int]:
            one, other = counted(hypothesis, order), counted(reference, order)
            return (one & other).total(), one.total(), other.total()

        return _rouge(hypotheses, references, shared, by_sentence)


def rouge_l(hypotheses: Any, references: Any, *, by_sentence: bool = False) -> Rouge:
    """Return ROUGE-L: the longest common subsequence of hypothesis and reference, words in order but not adjacent.

    With the length l of that subsequence, the precision is l / length of the hypothesis, and the recall l / length of
    the reference.

    Args:
        hypotheses: as for `rouge_n`, like all that follow.
        references: see there.
        by_sentence: see there.

    Raises:
        NetError: as in `rouge_n`.

    Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004), section 3.1. Values as in `rouge-score`
    without stemming.

    >>> rouge_l(["police kill the gunman"], ["police killed the gunman"])
    Rouge(precision=0.75, recall=0.75, f1=0.75)
    """
    with labeled_as("rouge_l"):

        def shared(hypothesis: Tokens, reference: Tokens) -> tuple[int, int, int]:
            return _common(hypothesis, reference), len(hypothesis), len(reference)

        return _rouge(hypotheses, references, shared, by_sentence)


def exact_match(hypotheses: Any, references: Any, *, by_sentence: bool = False) -> Any:
    """Return the share of hypotheses that equal their reference, or one of several, from 0 to 1.

    Args:
        hypotheses: strings, or sequences of integers; a list, or `Padded`.
        references: for each hypothesis its reference, or a list of several.
        by_sentence: whether a bool for each hypothesis is returned.

    Raises:
        NetError: for unequal numbers of hypotheses and references, none at all, or anything but texts or integers.

    >>> exact_match(["1 May", "2 May"], [["1 May", "May 1"], "2. May"])
    0.5
    """
    with labeled_as("exact_match"):
        equal = np.array([one in several for one, several in pairs(hypotheses, references)])
    return equal if by_sentence else float(equal.mean())


def _rouge(
    hypotheses: Any, references: Any, shared: Callable[[Tokens, Tokens], tuple[int, int, int]], by_sentence: bool
) -> Rouge:
    def score(hypothesis: Tokens, reference: Tokens) -> tuple[float, float, float]:
        common, size, length = shared(hypothesis, reference)
        precision, recall = common / max(size, 1), common / max(length, 1)
        return precision, recall, 2 * precision * recall / (precision + recall) if common else 0.0

    rows = [
        max((score(_words(one), _words(each)) for each in several), key=lambda found: found[2])
        for one, several in pairs(hypotheses, references)
    ]
    columns = np.array(rows).T
    return Rouge(*columns) if by_sentence else Rouge(*columns.mean(1).tolist())


def _words(text: Any) -> Tokens:
    return re.findall("[a-z0-9]+", text.lower()) if isinstance(text, str) else text


def _common(one: Tokens, other: Tokens) -> int:
    """Return the length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for token in one:
        before = row
        row = [0]
        for place, each in enumerate(other):
            row.append(before[place] + 1 if token == each else max(row[-1], before[place + 1]))
    return row[-1]
