"""What the metrics of generated text read: hypotheses with one or several references each."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, shown
from jaxnets.core.padded import Padded

Tokens = Sequence[Hashable]  # words, characters or numbers
Split = Callable[[Any], Tokens]


def pairs(hypotheses: Any, references: Any) -> list[tuple[Any, list[Any]]]:
    """Return each hypothesis with its references: strings, or lists of integers.

    Raises:
        NetError: for anything else, none at all, unequal numbers, or strings beside integers.
    """
    found, wanted = _items("hypotheses", hypotheses), _items("references", references)
    if len(found) != len(wanted):
        hint = "; a list may hold all references of one hypothesis"
        if not isinstance(wanted[0], str) and {len(each) for each in wanted} == {len(found)}:
            hint = "; the references of one hypothesis stand together here, not in one list each: zip(*references)"
        raise NetError(f"expects references for each of {len(found)} hypotheses, got {len(wanted)}{hint}")
    texts = isinstance(found[0], str)
    return [
        (_tokens(one, texts, f"hypothesis {place}"), _several(all_of_one, texts, place))
        for place, (one, all_of_one) in enumerate(zip(found, wanted))
    ]


def _items(name: str, given: Any) -> list[Any]:
    if isinstance(given, Padded):
        return [np.asarray(given.values)[row, :length] for row, length in enumerate(np.asarray(given.lengths))]
    if isinstance(given, str) or not hasattr(given, "__len__"):
        raise NetError(f"expects a list of texts, or of sequences of tokens, for {name}, got {shown(given)}")
    if not len(given):
        raise NetError(f"expects at least one of {name}, got none")
    return list(given)


def _several(given: Any, texts: bool, place: int) -> list[Any]:
    name = f"the reference of hypothesis {place}"
    if texts and isinstance(given, list | tuple):
        if not given:
            raise NetError(f"expects at least one reference for hypothesis {place}, got none")
        return [_tokens(each, texts, name) for each in given]
    nested = isinstance(given, list | tuple) and given and hasattr(given[0], "__len__")
    return [_tokens(each, texts, name) for each in (given if nested else [given])]


def _tokens(given: Any, texts: bool, name: str) -> Any:
    if isinstance(given, str) and texts:
        return given
    array = np.asarray(given) if not isinstance(given, str) and hasattr(given, "__len__") else np.zeros((), "U")
    if texts or array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise NetError(f"expects {'a text' if texts else 'integers, (time,)'} for {name}, got {shown(given)}")
    return array.tolist()


def counted(tokens: Tokens, order: int) -> Counter[Any]:
    """Return how often each n-gram occurs, n = `order`; a string is a sequence of characters."""
    grams = (tokens[place : place + order] for place in range(len(tokens) - order + 1))
    return Counter(grams if isinstance(tokens, str) else map(tuple, grams))
