"""Character-level text: the language reference that ships with Python, and codes of any text."""

import importlib
import re
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, labeled_as

ALPHABET = " abcdefghijklmnopqrstuvwxyz"


def text() -> np.ndarray:
    """Return the Python language reference as characters a–z and spaces, in the style of text8.

    It is the text of `help()` on topics, which ships with Python as `pydoc_data`. Topics share paragraphs; only the
    first copy of each is kept, so that parts split by position have none in common. Letters become lower case, and
    every run of other characters becomes one space.

    Returns:
        Codes `(characters,)` int32 of 27 symbols: 0 is the space, 1 … 26 are a … z. There are about 300,000, the same
        for one version of Python everywhere.

    Raises:
        ModuleNotFoundError: if this Python was packaged without `pydoc_data`.

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
            "the text is the language reference in Python's standard library, but this Python was packaged without "
            "pydoc_data; encode_text returns codes of any other text"
        ) from None
    # A dict serves as an ordered set.
    paragraphs: dict[str, None] = {}
    for name in sorted(topics):
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            paragraphs.setdefault(_plain(paragraph))
    return encode_text(" ".join(paragraphs))


def encode_text(string: str) -> np.ndarray:
    """Return the codes of a text: letters in lower case, every run of other characters as one space.

    Only a–z count as letters; accented ones do not.

    Args:
        string: any text.

    Returns:
        Codes `(characters,)` int32: 0 is the space, 1 … 26 are a … z.

    >>> encode_text("A b, c!").tolist()
    [1, 0, 2, 0, 3]
    """
    letters = np.frombuffer(_plain(string).encode("ascii"), np.uint8).astype(np.int32)
    return np.where(letters == ord(" "), 0, letters - ord("a") + 1).astype(np.int32)


@labeled_as("decode_text")
def decode_text(codes: Any) -> str:
    """Return the text of codes, the inverse of `encode_text`.

    Args:
        codes: `(characters,)`, integers from 0 to 26.

    Raises:
        NetError: for codes of another shape or out of range.

    >>> decode_text(encode_text("Say: hello"))
    'say hello'
    """
    values = np.asarray(codes)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise NetError(f"expects integers (characters,), got {values.shape} {values.dtype}")
    if values.size and not 0 <= values.min() <= values.max() < len(ALPHABET):
        raise NetError(f"expects codes from 0 to 26, got {values.min()} to {values.max()}")
    return "".join(ALPHABET[code] for code in values)


def _plain(string: str) -> str:
    return re.sub("[^a-z]+", " ", string.lower()).strip()
