"""Answers found in a text: exact match and F1, as SQuAD's script counts them."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnets.core.errors import NetError, labeled_as, shown

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Squad(NamedTuple):
    """Two scores in percent: one number each over all questions, or `(questions,)`.

    Attributes:
        exact_match: how many predictions equal one of the answers.
        f1: the mean overlap in words with the best of the answers.
    """

    exact_match: Any
    f1: Any


def squad(predictions: Sequence[str], answers: Sequence[Any], *, by_question: bool = False) -> Squad:
    """Return exact match and F1 of predicted answers, in percent, as the official script of SQuAD does.

    Before they are compared, texts lose capitals, ASCII punctuation, the articles a, an, the, and extra white space.
    F1 = 2 c / (p + a), where c is the number of words that both share, each as often as in both, of p words predicted
    and a words of the answer. If one of them has no word, F1 is 1 if both have none, else 0. Each question counts with
    the best of its answers. "" is the prediction that there is no answer, [] or "" a question that has none; answers
    that normalization leaves empty count only if there is no other.

    Args:
        predictions: a text for each question.
        answers: for each question a text, or a list of texts that are all right.
        by_question: whether to return the scores of each question, float64 `(questions,)`, instead of their mean.

    Raises:
        NetError: for unequal numbers, no question at all, or anything but texts.

    Rajpurkar, Zhang, Lopyrev and Liang, "SQuAD: 100,000+ Questions for Machine Comprehension of Text" (2016), section
    6.1; Rajpurkar, Jia and Liang, "Know What You Don't Know: Unanswerable Questions for SQuAD" (2018), for those
    without an answer.

    >>> squad(["The Oslo!", "of Rome city", "", ""], ["Oslo", ["Rome", "Rome, Italy"], [], "Lima"])
    Squad(exact_match=50.0, f1=62.5)
    """
    with labeled_as("squad"):
        given, wanted = (_listed(*each) for each in (("predictions", predictions), ("answers", answers)))
        if len(given) != len(wanted):
            raise NetError(f"expects answers for each of {len(given)} predictions, got {len(wanted)}")
        rows = [_best(_text(one), [_text(each) for each in _several(right)]) for one, right in zip(given, wanted)]
    scores = 100 * np.array(rows, np.float64)
    return Squad(*(scores.T if by_question else scores.mean(0).tolist()))


def _listed(name: str, given: Any) -> list[Any]:
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise NetError(f"expects a list for {name}, one item a question, got {shown(given)}")
    if not (found := list(given)):
        raise NetError(f"expects at least one question, got no {name}")
    return found


def _several(answers: Any) -> list[Any]:
    if isinstance(answers, str):
        return [answers]
    if not hasattr(answers, "__iter__"):
        raise NetError(f"expects a text or a list of texts as the answers of a question, got {shown(answers)}")
    return list(answers)


def _text(given: Any) -> list[str]:
    """Return the words of a text, normalized."""
    if not isinstance(given, str):
        raise NetError(f'expects texts, got {shown(given)}; "" stands for no answer')
    return _ARTICLES.sub(" ", given.lower().translate(_PUNCTUATION)).split()


def _best(found: list[str], answers: list[list[str]]) -> tuple[float, float]:
    answers = [each for each in answers if each] or [[]]
    return float(found in answers), max(_f1(found, each) for each in answers)


def _f1(found: list[str], answer: list[str]) -> float:
    if not found or not answer:
        return float(found == answer)
    shared = (Counter(found) & Counter(answer)).total()
    return 2 * shared / (len(found) + len(answer))
