"""Characters of plain text, from the prose that ships with Python itself."""

import importlib
import re
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError

ALPHABET = " abcdefghijklmnopqrstuvwxyz"


def text() -> np.ndarray:
    """Return the Python language reference as characters a–z and spaces, in the manner of text8.

    It is what `help()` shows of topics, shipped with Python as `pydoc_data`. Topics repeat one another: a paragraph
    counts once, at its first place, so that a split by position repeats no paragraph. Letters are made small, and
    whatever is no letter is a space, of which no two follow each other.

    Returns:
        Codes `(characters,)` int32 over 27 symbols: 0 is the space, 1 … 26 are a … z. About 300,000, the same for
        one version of Python everywhere.

    Raises:
        ModuleNotFoundError: if this Python was packed without `pydoc_data`.

    Mahoney, "About the test data" (2006), for text8.

    >>> codes = text()
    >>> decode_text(codes[:43])
    'the assert statement assert statements are '
    >>> len(codes) > 250_000, codes.min().item(), codes.max().item()
    (True, 0, 26)
    """
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "the text is the language reference in Python's standard library, and this Python was packed without "
            "pydoc_data; encode_text makes codes of a text of your own"
        ) from None
    paragraphs: dict[str, None] = {}  # a set that keeps its order
    for name in sorted(topics):
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            paragraphs.setdefault(_plain(paragraph))
    return _codes(_plain(" ".join(paragraphs)))


def encode_text(string: str) -> np.ndarray:
    """Return a text's codes: letters made small, anything else a space, of which no two follow each other.

    Accented and other letters beyond a–z count as no letters.

    Args:
        string: any text.

    Returns:
        Codes `(characters,)` int32: 0 is the space, 1 … 26 are a … z.

    >>> encode_text("A b, c!").tolist()
    [1, 0, 2, 0, 3]
    """
    return _codes(_plain(string))


def decode_text(codes: Any) -> str:
    """Return the text that codes stand for.

    Args:
        codes: `(characters,)`, integers from 0 to 26.

    Raises:
        NetError: for codes of another shape or out of range.

    >>> decode_text(encode_text("Say: hello"))
    'say hello'
    """
    values = np.asarray(codes)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise NetError(f"expects integers (characters,), got {values.shape} {values.dtype}", label="decode_text")
    if values.size and not 0 <= values.min() <= values.max() < len(ALPHABET):
        raise NetError(f"expects codes from 0 to 26, got {values.min()} to {values.max()}", label="decode_text")
    return "".join(ALPHABET[code] for code in values)


def _plain(string: str) -> str:
    return re.sub("[^a-z]+", " ", string.lower()).strip()


def _codes(plain: str) -> np.ndarray:
    letters = np.frombuffer(plain.encode("ascii"), np.uint8).astype(np.int32)
    return np.where(letters == ord(" "), 0, letters - ord("a") + 1).astype(np.int32)
