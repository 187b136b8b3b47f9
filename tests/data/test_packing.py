"""Documents in rows: what goes in comes out, rows are well filled, and mistakes are named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=20).filter(any)


@given(SIZES, st.integers(9, 20), st.booleans())
def test_unpacking_returns_the_documents_in_order(sizes, length, vectors):
    generator = np.random.default_rng(0)
    documents = [generator.integers(1, 50, (size, 3) if vectors else size).astype(np.int16) for size in sizes]
    rows = jn.data.pack(documents, length, fill=-7)
    assert rows.values.dtype == np.int16
    assert rows.values.shape[1] == length
    assert rows.lengths.sum() == sum(sizes)
    assert (rows.values[~np.asarray(rows.mask)] == -7).all()
    assert (rows.segments[~np.asarray(rows.mask)] == -1).all()
    for found, document in zip(jn.data.unpack(rows), [each for each in documents if len(each)], strict=True):
        np.testing.assert_array_equal(found, document)
    # Shuffled rows hold the same documents, and segments are their numbers.
    shuffled = jn.Packed(*(each[::-1] for each in (rows.values, rows.lengths, rows.segments)))
    for found, document in zip(jn.data.unpack(shuffled), [each for each in documents if len(each)], strict=True):
        np.testing.assert_array_equal(found, document)
    again = jn.data.pack(documents, length, fill=-7)
    np.testing.assert_array_equal(again.values, rows.values)


@given(SIZES)
def test_no_two_rows_would_fit_into_one(sizes):
    rows = jn.data.pack([np.ones(size) for size in sizes], 9)
    if len(rows.lengths) > 1:
        assert sum(sorted(rows.lengths)[:2]) > 9


def test_the_longest_documents_are_placed_first():
    """First fit in the given order would need three rows of 6."""
    rows = jn.data.pack([[1] * 2, [2] * 2, [3] * 4, [4] * 4], 6)
    assert rows.values.tolist() == [[1, 1, 3, 3, 3, 3], [2, 2, 4, 4, 4, 4]]


def test_long_documents_are_cut_where_asked_and_separators_end_each():
    rows = jn.data.pack([[1, 2, 3, 4, 5], [6], []], 3, cut=True, separator=9)
    assert [each.tolist() for each in jn.data.unpack(rows)] == [[1, 2, 3], [4, 5, 9], [6, 9], [9]]
    with pytest.raises(jn.NetError, match=r"^pack expects documents of at most 3 steps, got one of 4; .*cut=True"):
        jn.data.pack([[1, 2, 3]], 3, separator=9)


@pytest.mark.parametrize("documents", [[], [[]], [1, 2], [[1], [[2]]]])
def test_documents_that_differ_are_refused(documents):
    with pytest.raises(jn.NetError, match=r"^pack expects documents"):
        jn.data.pack(documents, 4)


def test_unpack_wants_packed_rows():
    with pytest.raises(jn.NetError, match=r"^unpack expects a jn\.Packed, got Padded"):
        jn.data.unpack(jn.Padded(np.ones((1, 2)), np.array([1])))
