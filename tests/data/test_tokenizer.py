"""Tokenizers from files, against the library that computes them and against transformers; characters; mistakes."""

import importlib.util
import json
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn
from tests.oracle import witness

TEXTS = ["the cat sat on the mat", "", "unhappiness, isn't it?", "Crème brûlée \N{ROLLING ON THE FLOOR LAUGHING}\n"]
PROSE = jn.data.decode_text(jn.data.text()[:20_000])
TRANSFORMERS = importlib.util.find_spec("transformers") is not None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(scope="module")
def byte_pairs(folder):
    """A byte-level BPE trained on the spot, saved as tokenizer.json."""
    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator([PROSE], vocab_size=400, special_tokens=["<|endoftext|>"], show_progress=False)
    made.save(str(folder / "tokenizer.json"))
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), jn.data.tokenizer(folder)


@pytest.fixture(scope="module")
def word_pieces(folder):
    """A WordPiece trained on the spot, with padding and truncation in its file."""
    made = tokenizers.BertWordPieceTokenizer()
    made.train_from_iterator([PROSE, *TEXTS], vocab_size=300, show_progress=False)
    special = made.token_to_id("[SEP]"), made.token_to_id("[CLS]")
    made.post_processor = tokenizers.processors.BertProcessing(("[SEP]", special[0]), ("[CLS]", special[1]))
    plain = tokenizers.Tokenizer.from_str(made.to_str())
    made.enable_truncation(4)
    made.enable_padding(length=9, pad_id=made.token_to_id("[PAD]"))
    made.save(str(folder / "pieces.json"))
    return plain, jn.data.tokenizer(folder / "pieces.json")


@pytest.mark.parametrize("kind", ["byte_pairs", "word_pieces"])
@pytest.mark.parametrize("special", [False, True])
def test_tokens_are_those_of_the_library(kind, special, request):
    """Also where the file would pad or cut: whole texts, and their lengths."""
    theirs, ours = request.getfixturevalue(kind)
    found = ours.encode(TEXTS, special=special)
    assert found.values.dtype == np.int32
    for row, length, text in zip(found.values, found.lengths, TEXTS, strict=True):
        expected = theirs.encode(text, add_special_tokens=special)
        assert row[:length].tolist() == expected.ids
        assert not row[length:].any()
        assert ours.decode(row[:length]) == theirs.decode(expected.ids)
        assert ours.decode(row[:length], special=True) == theirs.decode(expected.ids, skip_special_tokens=False)
    assert ours.decode(found) == theirs.decode_batch([theirs.encode(text).ids for text in TEXTS])
    assert ours.vocabulary_size == theirs.get_vocab_size()
    assert all(ours.token_id(name) == number for name, number in theirs.get_vocab().items())


@given(st.lists(st.text(), min_size=1, max_size=3))
def test_byte_pairs_return_every_text(byte_pairs, texts):
    _, ours = byte_pairs
    tokens = ours.encode(texts)
    assert ours.decode(tokens, special=True) == texts
    assert tokens.values.max(initial=0) < ours.vocabulary_size


BYTES = tokenizers.pre_tokenizers.ByteLevel.alphabet()
MERGES = ["t h", "th e", "Ġ the", "c a", "ca t", "Ġ cat", "i n", "o n", "Ġ on"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "on", "un", "##hap", "##pi", "##ness", "isn", "'"]
PIECES += ["t", "it", ",", "?", "creme", "crème", "Crème", "s", "##a", "##t", "m", "C", "##r", "brulee", "brûlée"]
HARD = ["The cat's on  it <|endoftext|>the\tcat", "isn't [SEP] unhappiness?", "Crème brûlée, sat", "日本 the", ""]


def write_gpt2(folder: Path) -> Path:
    names = [*sorted(BYTES), *(merge.replace(" ", "") for merge in MERGES), "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({name: place for place, name in enumerate(names)}), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), "utf-8")
    return folder


def write_bert(folder: Path) -> Path:
    (folder / "vocab.txt").write_text("\n".join([*PIECES, ""]), "utf-8")
    return folder


def by_transformers(kind, folder):
    import transformers

    if kind == "gpt2":
        vocabulary, merges = str(folder / "vocab.json"), str(folder / "merges.txt")
        theirs = transformers.GPT2Tokenizer(vocabulary, merges)
    else:
        theirs = transformers.BertTokenizer(str(folder / "vocab.txt"), do_lower_case=kind == "bert")
    return {str(place): np.array(theirs(text)["input_ids"], np.int32) for place, text in enumerate(HARD)}


@pytest.mark.parametrize("kind", ["gpt2", "bert", "bert_cased"])
def test_vocabularies_are_read_as_transformers_reads_them(kind, tmp_path):
    folder = write_gpt2(tmp_path) if kind == "gpt2" else write_bert(tmp_path)
    options = {"lowercase": False} if kind == "bert_cased" else {}
    found = jn.data.tokenizer(folder, **options).encode(HARD)
    expected = witness(f"tokenizer/{kind}", lambda: by_transformers(kind, folder), installed=TRANSFORMERS)
    for place, (row, length) in enumerate(zip(found.values, found.lengths)):
        assert row[:length].tolist() == expected[str(place)].tolist(), HARD[place]


def test_each_file_of_a_pair_names_both(tmp_path):
    write_gpt2(tmp_path)
    first, second = (jn.data.tokenizer(tmp_path / name) for name in ("vocab.json", "merges.txt"))
    np.testing.assert_array_equal(first.encode(HARD).values, second.encode(HARD).values)
    assert second.token_id("<|endoftext|>") == second.vocabulary_size - 1
    assert "<|endoftext|>" not in second.decode(second.encode(HARD))[0]
    (tmp_path / "merges.txt").rename(tmp_path / "small-merges.txt")
    (tmp_path / "vocab.json").rename(tmp_path / "small-vocab.json")
    np.testing.assert_array_equal(
        jn.data.tokenizer(tmp_path / "small-vocab.json").encode(HARD).values, first.encode(HARD).values
    )


def test_unused_numbers_count(tmp_path):
    """A vocabulary with a gap: the largest number decides the size of an embedding."""
    model = {"type": "WordLevel", "vocab": {"a": 0, "b": 7}, "unk_token": "a"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    ours = jn.data.tokenizer(str(tmp_path))
    assert ours.vocabulary_size == 8
    assert str(ours) == "tokenizer(tokenizer.json) of 8 tokens"
    with pytest.raises(jn.NetError, match=r"decodes tokens below 8, got 3, which is none"):
        ours.decode([[0, 3]])


def test_nothing_is_downloaded(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("asks the network")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(jn.NetError, match=r"^tokenizer expects a file or folder .* got 'gpt2'.*nothing is downloaded"):
        jn.data.tokenizer("gpt2")


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    write_bert(tmp_path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs the package tokenizers: pip install 'jaxnets\[text\]'"):
        jn.data.tokenizer(tmp_path)
    assert jn.data.characters("ab").encode(["b"]).values.tolist() == [[1]]


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(jn.NetError, match=r"expects tokenizer\.json, vocab\.json and merges\.txt, or vocab\.txt in"):
        jn.data.tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(jn.NetError, match=r"^tokenizer can't read .*tokenizer\.json: "):
        jn.data.tokenizer(tmp_path)
    with pytest.raises(jn.NetError, match=r"takes lowercase for a vocab\.txt alone, got tokenizer\.json"):
        jn.data.tokenizer(tmp_path, lowercase=True)
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(jn.NetError, match=r"^tokenizer can't read .*vocab\.txt: "):
        jn.data.tokenizer(tmp_path / "vocab.txt")
    (tmp_path / "vocab.json").write_text(json.dumps({"a</w>": 0}))
    with pytest.raises(jn.NetError, match=r"expects merges\.txt beside vocab\.json"):
        jn.data.tokenizer(tmp_path / "vocab.json")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(jn.NetError, match=r"reads the byte pairs of GPT-2, got others in vocab\.json"):
        jn.data.tokenizer(tmp_path / "vocab.json")


@given(st.text(min_size=1), st.data())
def test_characters_return_every_text_of_theirs(text, data):
    letters = jn.data.characters(text)
    texts = data.draw(st.lists(st.text(st.sampled_from(text)), min_size=1, max_size=3))
    tokens = letters.encode([text, *texts])
    assert letters.decode(tokens) == [text, *texts]
    assert tokens.lengths.tolist() == [len(text), *map(len, texts)]
    assert letters.vocabulary_size == len(set(text))
    assert all(letters.decode([letters.token_id(each)]) == each for each in text)


def test_unknown_characters():
    with pytest.raises(jn.NetError, match=r"^characters has no token for 'c', 'é'; give unknown="):
        jn.data.characters("ab").encode(["abc", "é"])
    letters = jn.data.characters("ab", unknown="?")
    assert letters.decode(letters.encode(["abc", "é"])) == ["ab?", "?"]
    assert letters.vocabulary_size == 3


LETTERS = jn.data.characters("hello")
WRONG = {
    "a string": (lambda: LETTERS.encode("hell"), r"encodes a list of texts, got a string; write \[text\]"),
    "no string": (lambda: LETTERS.encode([b"hell"]), "got one that holds bytes"),  # pyright: ignore
    "half a character": (lambda: LETTERS.encode(["\ud800"]), r"got half of a character, '\\ud800'"),
    "floats": (lambda: LETTERS.decode(np.ones(3)), r"decodes integers .* got ndarray \(3,\) float64"),
    "rank": (lambda: LETTERS.decode(np.ones((1, 2, 3), int)), "decodes integers"),
    "range": (lambda: LETTERS.decode([9]), "decodes tokens below 4, got 9"),
    "negative": (lambda: LETTERS.decode([-1]), "decodes tokens below 4, got -1"),
    "no text": (lambda: jn.data.characters(""), "expects a text of at least one character"),
    "unknown": (lambda: jn.data.characters("a", unknown="<unk>"), "expects one character for unknown"),
    "name": (lambda: LETTERS.token_id("zz"), "has no token 'zz'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_texts_and_tokens_are_named(name):
    call, message = WRONG[name]
    with pytest.raises(jn.NetError, match=f"^characters .*{message}"):
        call()


def test_a_name_that_is_near_is_suggested(byte_pairs):
    with pytest.raises(jn.NetError, match=r"has no token '<\|endoftxt\|>'; did you mean '<\|endoftext\|>'"):
        byte_pairs[1].token_id("<|endoftxt|>")
