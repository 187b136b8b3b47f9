"""ChrF: characters of a translation, in groups, that occur in its reference."""

import string
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.metrics.text.pairs import counted, pairs


def chrf(
    hypotheses: Any,
    references: Any,
    *,
    characters: int = 6,
    words: int = 0,
    beta: float = 2.0,
    lowercase: bool = False,
    by_sentence: bool = False,
) -> Any:
    """Return chrF, from 0 to 100: the F score of groups of up to 6 characters, without regard to white space.

    chrF = 100 (1 + β²) P R / (β² P + R). P is the mean over the orders n = 1 … `characters` of the share of the n-grams
    of the hypotheses that occur in the references, R that of the n-grams of the references that occur in the
    hypotheses; orders without any n-gram are left out. With `words=2` this is chrF++, where P and R are means over
    n-grams of words, too, from which punctuation is set apart.

    Args:
        hypotheses: strings, or sequences of integers, which take the place of characters; a list, or `Padded`.
        references: for each hypothesis its reference, or a list of several, of which the best counts.
        characters: the longest n-grams of characters.
        words: the longest n-grams of words, 0 for chrF, 2 for chrF++.
        beta: how much more recall counts than precision.
        lowercase: whether strings are compared in lowercase.
        by_sentence: whether a value for each sentence is returned.

    Returns:
        A float; with `by_sentence` float64 `(sentences,)`. 0 for an empty hypothesis.

    Raises:
        NetError: for unequal numbers of hypotheses and references, none at all, anything but texts or integers, or
            n-grams of words of integers.

    Popović, "chrF: character n-gram F-score for automatic MT evaluation" (2015), and "chrF++: words helping character
    n-grams" (2017). Values as in sacrebleu with its defaults.

    >>> round(chrf(["the cat sat"], ["the cats sit"]), 2), round(chrf(["the cat sat"], ["the cats sit"], words=2), 2)
    (61.03, 49.95)
    """
    with labeled_as("chrf"):
        check_count("characters", characters)
        if words:
            check_count("words", words)
        found = pairs(hypotheses, references)
        if words and not isinstance(found[0][0], str):
            raise NetError(f"expects texts for n-grams of up to {words} words, got integers; they have no words")

    def grams(text: Any) -> list[Any]:
        text = text.lower() if lowercase and isinstance(text, str) else text
        symbols = "".join(text.split()) if isinstance(text, str) else text
        return [counted(symbols, order) for order in range(1, characters + 1)] + [
            counted(_words(text), order) for order in range(1, words + 1)
        ]

    def best(hypothesis: Any, several: list[Any]) -> np.ndarray:
        one = grams(hypothesis)
        # (references, orders, 3): n-grams of the hypothesis, of the reference, of both
        rows = np.array(
            [
                [(a.total() if b else 0, b.total(), (a & b).total()) for a, b in zip(one, grams(each))]
                for each in several
            ]
        )
        return rows[np.argmax([_value(row, beta) for row in rows])]

    rows = np.stack([best(one, several) for one, several in found])
    return np.array([_value(row, beta) for row in rows]) if by_sentence else _value(rows.sum(0), beta)


def _words(text: str) -> list[str]:
    """Return words, with a mark of punctuation at the end, or else one at the beginning, set apart."""
    found = []
    for word in text.split():
        if len(word) > 1 and word[-1] in string.punctuation:
            found += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in string.punctuation:
            found += [word[0], word[1:]]
        else:
            found.append(word)
    return found


def _value(counts: np.ndarray, beta: float) -> float:
    hypothesis, reference, both = counts[(counts[:, 0] > 0) & (counts[:, 1] > 0)].T
    if not both.any():
        return 0.0
    precision, recall = (both / hypothesis).mean(), (both / reference).mean()
    return float(100 * (1 + beta**2) * precision * recall / (beta**2 * precision + recall))
