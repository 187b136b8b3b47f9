"""Text as tokens and back: the record `Tokenizer`, and tokenizers from files on this machine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, labeled_as, require, shown
from jaxnets.core.padded import Padded


@dataclass(frozen=True, eq=False, repr=False)
class Tokenizer:
    """Text to tokens, integers from 0, and back. `jn.data.tokenizer` and `jn.data.characters` make one.

    Attributes:
        vocabulary: the number of each token by its name.
        encode_texts: `(texts, special) -> lists of tokens`.
        decode_tokens: `(lists of tokens, special) -> texts`.
        label: how it was made.
        source: the texts that make it anew, by which a file holds it: "characters", the characters and the one for
            others, or "tokenizers" and the JSON of that library. Empty for one of your own functions.
    """

    vocabulary: Mapping[str, int]
    encode_texts: Callable[[list[str], bool], list[list[int]]]
    decode_tokens: Callable[[list[list[int]], bool], list[str]]
    label: str
    source: tuple[str, ...] = ()

    def __call__(self, texts: Sequence[str]) -> Padded:
        """Return `encode(texts)`, so that a tokenizer is a step of `jn.data.Preprocess`."""
        return self.encode(texts)

    def __repr__(self) -> str:
        return f"{self.label} of {self.vocabulary_size} tokens"

    @cached_property
    def vocabulary_size(self) -> int:
        """One more than the largest token: the size for `jn.embed`, also if some numbers in between are not used."""
        return max(self.vocabulary.values()) + 1

    def token_id(self, name: str) -> int:
        """Return the number of a token.

        Raises:
            NetError: if there is none of this name; the error names similar ones.
        """
        if name not in self.vocabulary:
            near = get_close_matches(str(name), self.vocabulary, 3)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise NetError(f"has no token {name!r}{hint}", label=self.label)
        return self.vocabulary[name]

    def encode(self, texts: Sequence[str], *, special: bool = True) -> Padded:
        """Return the tokens of texts.

        Args:
            texts: a list of strings.
            special: whether to add the tokens that the file puts around each text, such as [CLS] and [SEP].

        Returns:
            A `Padded` of NumPy arrays in int32: values `(texts, longest)`, 0 beyond each length, and lengths.

        Raises:
            NetError: for anything but a list of strings, or characters without a token.
        """
        with labeled_as(self.label):
            if isinstance(texts, str):
                raise NetError("encodes a list of texts, got a string; write [text]")
            texts = list(texts)
            for text in texts:
                if not isinstance(text, str):
                    raise NetError(f"encodes a list of texts, got one that holds {shown(text)}")
                if not text.isascii() and (found := [each for each in text if "\ud800" <= each <= "\udfff"]):
                    raise NetError(f"encodes Unicode, got half of a character, {found[0]!r}; decode bytes as UTF-8")
            rows = self.encode_texts(texts, special)
            return Padded.from_sequences([np.array(row, np.int32) for row in rows])

    def decode(self, tokens: Any, *, special: bool = False) -> Any:
        """Return the texts of tokens.

        Args:
            tokens: integers `(batch, time)`, an array or `Padded`, or those of one text, `(time,)`; known values.
            special: whether to write special tokens, such as [CLS], or to leave them out.

        Returns:
            A list of strings, or a single one for `(time,)`.

        Raises:
            NetError: for arrays of another shape or dtype, or integers that are no token.
        """
        values = np.asarray(tokens.values if isinstance(tokens, Padded) else tokens)
        with labeled_as(self.label):
            if values.ndim not in (1, 2) or not (values.size == 0 or np.issubdtype(values.dtype, np.integer)):
                raise NetError(f"decodes integers (batch, time) or (time,), got {shown(values)}")
            lengths = tokens.lengths if isinstance(tokens, Padded) else [values.shape[-1]] * len(np.atleast_2d(values))
            rows = [row[:length].tolist() for row, length in zip(np.atleast_2d(values), np.asarray(lengths))]
            if unknown := {each for row in rows for each in row} - self._numbers:
                raise NetError(f"decodes tokens below {self.vocabulary_size}, got {min(unknown)}, which is none")
            texts = self.decode_tokens(rows, special)
        return texts if values.ndim == 2 else texts[0]

    @cached_property
    def _numbers(self) -> frozenset[int]:
        return frozenset(self.vocabulary.values())


def tokenizer(path: str | Path, *, lowercase: bool | None = None) -> Tokenizer:
    """Read a tokenizer from files on this machine. Nothing is downloaded.

    | file, or a folder that holds it | what it is |
    | --- | --- |
    | `tokenizer.json` | any tokenizer of the library `tokenizers`: byte pairs, WordPiece, unigrams, … |
    | `vocab.json` beside `merges.txt` | the byte pairs of GPT-2 |
    | `vocab.txt` | the WordPiece of BERT |

    The settings for padding and truncation in `tokenizer.json` are ignored: `encode` returns whole texts, padded only
    beyond their lengths. The tokens agree with those of the library `tokenizers`, which computes them.

    Args:
        path: one of the files, or a folder; several are looked for in the order of the table.
        lowercase: whether letters become lower case and lose their accents, for `vocab.txt` alone, which does not say;
            the default is `True`, as for the uncased BERT.

    Raises:
        ModuleNotFoundError: if `tokenizers` is not installed; `pip install 'jaxnets[text]'` does.
        NetError: for a path where there is none of these files, a file that can't be read, or `lowercase` for another
            file than `vocab.txt`.

    >>> import json, tempfile
    >>> words = {"[UNK]": 0, "a": 1, "rose": 2, "is": 3}
    >>> made = {"model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}, "pre_tokenizer":
    ...         {"type": "Whitespace"}, "version": "1.0", "added_tokens": []}
    >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    ...     _ = file.write(json.dumps(made)), file.flush()
    ...     words = tokenizer(file.name)
    >>> words.encode(["a rose is a rose", "a daisy"]).values.tolist(), words.decode([2, 3, 2]), words.vocabulary_size
    ([[1, 2, 3, 1, 2], [1, 0, 0, 0, 0]], 'rose is rose', 4)
    """
    with labeled_as("tokenizer"):
        file = _find(Path(path))
        if lowercase is not None and file.suffix != ".txt":
            raise NetError(f"takes lowercase for a vocab.txt alone, got {file.name}, which says it itself")
        library = require("tokenizers", "text")
        try:
            made = _read(library, file, True if lowercase is None else lowercase)
        except NetError:
            raise
        except Exception as error:  # what the library raises
            raise NetError(f"can't read {file}: {error}") from error
    return wrapped(made, f"tokenizer({file.name})")


def wrapped(made: Any, label: str) -> Tokenizer:
    """Return the tokenizer that one of the library `tokenizers` is."""

    def encode_texts(texts: list[str], special: bool) -> list[list[int]]:
        return [each.ids for each in made.encode_batch(texts, add_special_tokens=special)]

    def decode_tokens(rows: list[list[int]], special: bool) -> list[str]:
        return made.decode_batch(rows, skip_special_tokens=not special)

    return Tokenizer(made.get_vocab(), encode_texts, decode_tokens, label, ("tokenizers", made.to_str()))


def _find(path: Path) -> Path:
    """Return the file to read: `tokenizer.json`, `vocab.json` or `vocab.txt`."""
    if not path.exists():
        hint = "nothing is downloaded: save the tokenizer.json of a model here first, and give its path"
        raise NetError(f"expects a file or folder on this machine, got {str(path)!r}, which does not exist; {hint}")
    if path.is_file():
        return path.with_name(path.name.replace("merges.txt", "vocab.json"))
    for name in ("tokenizer.json", "vocab.json", "vocab.txt"):
        if (path / name).is_file():
            return path / name
    raise NetError(f"expects tokenizer.json, vocab.json and merges.txt, or vocab.txt in the folder {str(path)!r}")


def _read(library: Any, file: Path, lowercase: bool) -> Any:
    if file.suffix == ".txt":
        return library.BertWordPieceTokenizer(str(file), lowercase=lowercase)
    if not file.name.endswith("vocab.json"):
        made = library.Tokenizer.from_file(str(file))
        made.no_padding()
        made.no_truncation()
        return made
    merges = file.with_name(file.name.removesuffix("vocab.json") + "merges.txt")
    if not merges.is_file():
        raise NetError(f"expects {merges.name} beside {file.name}, got no such file")
    made = library.ByteLevelBPETokenizer(str(file), str(merges))
    if any(name.endswith("</w>") for name in made.get_vocab()):
        raise NetError(f"reads the byte pairs of GPT-2, got others in {file.name}; save them as tokenizer.json")
    if (end := "<|endoftext|>") in made.get_vocab():
        made.add_special_tokens([end])
    return made
