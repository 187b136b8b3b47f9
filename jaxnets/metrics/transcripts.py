"""Error rates of transcripts: the edits that turn a hypothesis into its reference, per word or character."""

from collections.abc import Sequence

import numpy as np

from jaxnets.core.errors import NetError, labeled_as, shown

Texts = str | Sequence[str]


def word_error_rate(hypotheses: Texts, references: Texts) -> float:
    """Return the word error rate, (substitutions + deletions + insertions) / words of the references.

    The edits are the fewest that turn the hypotheses into the references, over all texts together. Words are what
    whitespace separates; case and punctuation count.

    Args:
        hypotheses: what was recognized, a text or a sequence of texts.
        references: what was said, likewise, as many.

    Returns:
        A number of at least 0; above 1 if there are more errors than words. An empty hypothesis has an error for each
        word. References without any word count as one word, so that the rate is the number of words in the hypotheses.

    Raises:
        NetError: for unequal numbers of texts, none at all, or something that is not a text.

    Morris, Maier and Green, "From WER and RIL to MER and WIL" (2004); values as `jiwer.wer(references, hypotheses)`,
    which takes a tab or a new line for a part of a word.

    >>> word_error_rate(["two five", ""], ["two nine", "six"])
    0.6666666666666666
    """
    with labeled_as("word_error_rate"):
        return _rate([(ours.split(), said.split()) for ours, said in _pairs(hypotheses, references)])


def character_error_rate(hypotheses: Texts, references: Texts) -> float:
    """Return the character error rate: `word_error_rate` of characters, spaces inside of a text included.

    Args:
        hypotheses: what was recognized, a text or a sequence of texts.
        references: what was said, likewise, as many.

    Returns:
        A number of at least 0, as of `word_error_rate`.

    Raises:
        NetError: as in `word_error_rate`.

    Values as `jiwer.cer(references, hypotheses)`.

    >>> character_error_rate("too", "two")
    0.3333333333333333
    """
    with labeled_as("character_error_rate"):
        return _rate([(list(ours.strip()), list(said.strip())) for ours, said in _pairs(hypotheses, references)])


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the fewest substitutions, deletions and insertions that turn one sequence into another.

    Levenshtein, "Binary Codes Capable of Correcting Deletions, Insertions, and Reversals" (1966).

    >>> edit_distance("kitten", "sitting")
    3
    """
    codes = {symbol: code for code, symbol in enumerate({*a, *b})}
    row_of, column_of = (np.array([codes[each] for each in text], int) for text in (a, b))
    places = np.arange(len(b) + 1)
    row = places
    for code in row_of:
        # Deletion, or substitution where the symbols differ; then as many insertions as are worth it.
        new = np.concatenate([row[:1] + 1, np.minimum(row[1:] + 1, row[:-1] + (column_of != code))])
        row = np.minimum.accumulate(new - places) + places
    return int(row[-1])


def _rate(pairs: list[tuple[list[str], list[str]]]) -> float:
    return sum(edit_distance(ours, said) for ours, said in pairs) / max(1, sum(len(said) for _, said in pairs))


def _pairs(hypotheses: Texts, references: Texts) -> list[tuple[str, str]]:
    sides = []
    for name, texts in (("hypotheses", hypotheses), ("references", references)):
        given = [texts] if isinstance(texts, str) else texts
        if not hasattr(given, "__iter__"):
            raise NetError(f"expects texts as {name}, got {shown(given)}")
        if wrong := [each for each in given if not isinstance(each, str)]:
            raise NetError(f"expects texts as {name}, got {shown(wrong[0])}")
        sides.append(list(given))
    ours, said = sides
    if len(ours) != len(said):
        raise NetError(f"expects a hypothesis for each reference, got {len(ours)} and {len(said)}")
    if not said:
        raise NetError("expects at least one reference, got none")
    return list(zip(ours, said, strict=True))
