"""BLEU: the n-grams of a translation that occur in its references."""

import math
import re
from collections import Counter
from typing import Any, Literal

import numpy as np

from jaxnets.core.errors import NetError, labeled_as
from jaxnets.metrics.text.pairs import Tokens, counted, pairs

ORDERS = range(1, 5)
# Punctuation is set apart; periods and commas but between digits; dashes after a digit.
_13A = [
    (re.compile(r"([{-~\[-` -&(-+:-@/])"), r" \1 "),
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
]
_MARKS = {"<skipped>": "", "-\n": "", "\n": " ", "&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">"}


def bleu(
    hypotheses: Any,
    references: Any,
    *,
    tokenize: Literal["13a", "none"] = "13a",
    lowercase: bool = False,
    by_sentence: bool = False,
) -> Any:
    """Return BLEU, from 0 to 100: how many of the n-grams of the hypotheses, n = 1 … 4, occur in the references.

    BLEU = 100 min(1, exp(1 − r/c)) (p₁ p₂ p₃ p₄)^¼. p_n is the number of n-grams found, each at most as often as in one
    of the references, divided by the number of n-grams of the hypotheses; c is the length of the hypotheses in tokens,
    and r that of the reference closest in length, the shorter of two, all summed over the sentences. The k-th p_n that
    is zero is replaced by 1 / (2^k · number of n-grams), the smoothing "exp".

    Args:
        hypotheses: strings, or sequences of integers, which are compared as they are; a list, or `Padded`.
        references: for each hypothesis its reference, or a list of several.
        tokenize: how strings are split: "13a", as in the evaluation of WMT, or "none", at white space.
        lowercase: whether strings are compared in lowercase.
        by_sentence: whether a BLEU for each sentence is returned, where only orders up to the length of the hypothesis
            count.

    Returns:
        A float; with `by_sentence` float64 `(sentences,)`. 0 for an empty hypothesis, and where no token is found.

    Raises:
        NetError: for unequal numbers of hypotheses and references, none at all, or anything but texts or integers.

    Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation" (2002). Values as in sacrebleu
    with its defaults (Post, "A Call for Clarity in Reporting BLEU Scores", 2018).

    >>> round(bleu(["the cat sat on a mat."], [["the cat sat on the mat.", "a cat was on a mat."]]), 2)
    79.53
    >>> bleu(["yes it is", ""], ["yes it is", "no"], by_sentence=True).round(1).tolist()
    [100.0, 0.0]
    """
    with labeled_as("bleu"):
        if tokenize not in ("13a", "none"):
            raise NetError(f"expects tokenize '13a' or 'none', got {tokenize!r}")
        found = pairs(hypotheses, references)

    def split(text: Any) -> Tokens:
        if not isinstance(text, str):
            return text
        text = (text.lower() if lowercase else text).rstrip()
        return (text if tokenize == "none" else split_13a(text)).split()

    rows = np.array([_statistics(split(one), [split(each) for each in several]) for one, several in found])
    if by_sentence:
        return np.array([_value(row, effective=True) for row in rows])
    return _value(rows.sum(0), effective=False)


def split_13a(text: str) -> str:
    """Return a text with spaces around its tokens, as `mteval-v13a.pl` of NIST does."""
    for mark, plain in _MARKS.items():
        text = text.replace(mark, plain)
    text = f" {text} "
    for pattern, apart in _13A:
        text = pattern.sub(apart, text)
    return text


def _statistics(hypothesis: Tokens, references: list[Tokens]) -> list[int]:
    """Return c, r, the numbers of n-grams found and their total, for each order."""
    length = min((abs(len(each) - len(hypothesis)), len(each)) for each in references)[1]
    correct = []
    for order in ORDERS:
        limit: Counter[Any] = Counter()
        for each in references:
            limit |= counted(each, order)
        correct.append((counted(hypothesis, order) & limit).total())
    return [len(hypothesis), length, *correct, *(max(0, len(hypothesis) - order + 1) for order in ORDERS)]


def _value(statistics: np.ndarray, *, effective: bool) -> float:
    size, length, *counts = statistics.tolist()
    correct, total = counts[: len(ORDERS)], counts[len(ORDERS) :]
    if not any(correct):
        return 0.0
    logs, zeros = [], 0
    for right, count in zip(correct, total):
        if count == 0:
            # No hypothesis is that long: BLEU is 0, unless only shorter orders count.
            if not effective:
                return 0.0
            break
        zeros += right == 0
        logs.append(math.log(100.0 * right / count if right else 100.0 / (2**zeros * count)))
    return min(1.0, math.exp(1 - length / size)) * math.exp(sum(logs) / len(logs))
