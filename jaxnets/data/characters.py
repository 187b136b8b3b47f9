"""The simplest tokenizer: each character of a text is a token."""

from jaxnets.core.errors import NetError, labeled_as, shown
from jaxnets.data.tokenizer import Tokenizer


def characters(text: str, *, unknown: str | None = None) -> Tokenizer:
    """Make a tokenizer whose tokens are the characters of a text, Unicode code points, in their order.

    Args:
        text: the characters, in any order and number, such as the text to train on.
        unknown: the character that stands for all that are not in `text`; with `None` they are refused.

    Returns:
        A `Tokenizer`, as `jn.data.tokenizer` returns. Decoding undoes encoding, unless a character is unknown.

    Raises:
        NetError: for an empty text, or `unknown` other than one character.

    >>> letters = characters("hello world")
    >>> letters.encode(["hole", "we"]).values.tolist(), letters.decode([7, 2, 4, 4]), letters.vocabulary_size
    ([[3, 5, 4, 2], [7, 2, 0, 0]], 'well', 8)
    """
    with labeled_as("characters"):
        if not isinstance(text, str) or not text:
            raise NetError(f"expects a text of at least one character, got {shown(text)}")
        if unknown is not None and (not isinstance(unknown, str) or len(unknown) != 1):
            raise NetError(f"expects one character for unknown, got {shown(unknown)}")
    names = sorted({*text, *(unknown or "")})
    numbers = {name: number for number, name in enumerate(names)}

    def encode_texts(texts: list[str], special: bool) -> list[list[int]]:
        if unknown is not None:
            return [[numbers.get(each, numbers[unknown]) for each in text] for text in texts]
        if missing := {*"".join(texts)} - {*names}:
            hint = "give unknown=, the character that stands for others"
            raise NetError(f"has no token for {', '.join(map(repr, sorted(missing)[:5]))}; {hint}")
        return [[numbers[each] for each in text] for text in texts]

    def decode_tokens(rows: list[list[int]], special: bool) -> list[str]:
        return ["".join(names[each] for each in row) for row in rows]

    source = ("characters", "".join(names), unknown or "")
    return Tokenizer(numbers, encode_texts, decode_tokens, "characters", source)
