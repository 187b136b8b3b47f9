"""Text as codes, and windows over it."""

import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn


def test_text_is_prose_of_letters_and_single_spaces():
    codes = jn.data.text()
    assert codes.dtype == np.int32
    assert codes.min() == 0
    assert codes.max() == 26
    assert not np.any((codes[1:] == 0) & (codes[:-1] == 0))
    np.testing.assert_array_equal(codes, jn.data.text())
    common = Counter(jn.data.decode_text(codes).split(" ")).most_common(3)
    assert "the" in dict(common)  # as in all English
    share = np.mean(codes == 5)  # the letter e, 10 % of the characters of English with spaces
    assert 0.08 < share < 0.13


def test_no_long_stretch_of_text_comes_twice():
    text = jn.data.decode_text(jn.data.text())
    cut, length = len(text) * 9 // 10, 100
    seen = {text[begin : begin + length] for begin in range(cut - length)}
    assert not any(text[begin : begin + length] in seen for begin in range(cut, len(text) - length))


def test_text_says_if_python_lacks_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ModuleNotFoundError, match="encode_text"):
        jn.data.text()


@given(st.text())
def test_decoding_undoes_encoding(string):
    plain = jn.data.decode_text(jn.data.encode_text(string))
    assert plain.split() == "".join(c if c in "abcdefghijklmnopqrstuvwxyz" else " " for c in string.lower()).split()
    np.testing.assert_array_equal(jn.data.encode_text(plain), jn.data.encode_text(string))


@pytest.mark.parametrize("codes", [[27], [-1], [[1]], [0.5]])
def test_decode_rejects(codes):
    with pytest.raises(jn.NetError, match="decode_text expects"):
        jn.data.decode_text(np.array(codes))


@given(st.integers(2, 40), st.integers(1, 39), st.integers(1, 10))
def test_windows_equal_slices(steps, length, stride):
    length = min(length, steps - 1)
    sequence = np.random.default_rng(steps).random((steps, 2), np.float32)
    x, y = jn.data.windows(sequence, length, stride=stride)
    begins = [begin for begin in range(0, steps, stride) if begin + length + 1 <= steps]
    assert len(x) == len(begins)
    for row, later, begin in zip(x, y, begins, strict=True):
        np.testing.assert_array_equal(row, sequence[begin : begin + length])
        np.testing.assert_array_equal(later, sequence[begin + 1 : begin + length + 1])


def test_windows_reject():
    for sequence, length, stride in [([1, 2], 2, None), ([1, 2], 0, None), ([1, 2, 3], 1, 0), (3, 1, None)]:
        with pytest.raises(jn.NetError, match="windows expects"):
            jn.data.windows(sequence, length, stride=stride)
