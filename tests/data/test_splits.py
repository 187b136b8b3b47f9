"""Splits: every example in exactly one part, classes in proportion, groups whole, the future apart."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.model_selection import TimeSeriesSplit, train_test_split

import jaxnets as jn


@given(
    st.lists(st.integers(0, 4), min_size=12, max_size=80),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.integers(0, 3),
    st.booleans(),
)
def test_every_example_is_in_exactly_one_part(labels, shares, seed, stratify):
    fractions = [share / sum(shares) for share in shares]
    assume(min(fractions) * len(labels) >= 3)  # else a part may be empty, which is an error
    parts = jn.data.split_indices(labels, fractions, seed=seed, stratify=stratify)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(len(part) - fraction * len(labels)) < 2.5
        if stratify:
            for each in set(labels):
                whole = np.sum(np.array(labels) == each)
                assert abs(np.sum(np.array(labels)[part] == each) - fraction * whole) < 2.5
    again = jn.data.split_indices(labels, fractions, seed=seed, stratify=stratify)
    for part, same in zip(parts, again, strict=True):
        np.testing.assert_array_equal(part, same)


def test_stratified_counts_are_scikit_learns():
    _, labels = jn.data.mnist5k()
    ours = jn.data.split_indices(labels, [0.8, 0.2])
    theirs = train_test_split(np.arange(5000), test_size=0.2, stratify=labels, random_state=0)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(np.bincount(labels[a]), np.bincount(labels[b]))
    assert not np.array_equal(ours[0], jn.data.split_indices(labels, [0.8, 0.2], seed=1)[0])


@pytest.mark.parametrize(
    ("labels", "fractions", "words"),
    [
        ([0, 1], [0.5, 0.6], "sum 1"),
        ([0, 1], [1.5, -0.5], "positive"),
        ([[0, 1]], [1.0], "labels"),
        ([0, 1], [0.9, 0.05, 0.05], "empty"),
        ([], [1.0], "empty"),
    ],
)
def test_split_indices_rejects(labels, fractions, words):
    with pytest.raises(jn.NetError, match=words):
        jn.data.split_indices(labels, fractions)


X, Y = np.arange(20.0).reshape(10, 2), np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
PARTS = jn.data.split_indices(Y, (0.6, 0.4), seed=3)


def test_split_returns_the_examples_that_split_indices_selects():
    parts = jn.data.split((X, Y), (0.6, 0.4), seed=3)
    assert [len(part) for part in parts] == [2, 2]
    for (x, y), index in zip(parts, PARTS, strict=True):
        np.testing.assert_array_equal(x, X[index])
        np.testing.assert_array_equal(y, Y[index])
        assert (x.dtype, y.dtype) == (X.dtype, Y.dtype)


def test_split_keeps_weights_with_their_examples():
    weights = np.linspace(1, 2, 10)
    for part, index in zip(jn.data.split((X, Y, weights), (0.6, 0.4), seed=3), PARTS, strict=True):
        x, y, w = part
        np.testing.assert_array_equal(x[:, 0], 2 * index)
        np.testing.assert_array_equal(y, Y[index])
        np.testing.assert_array_equal(w, weights[index])


def test_split_takes_trees_and_padded_sequences():
    padded = jn.Padded(jnp.arange(40.0).reshape(10, 4), jnp.arange(10) % 5)
    inputs = {"image": X, "series": padded}
    (x, y), _ = jn.data.split((inputs, Y), (0.6, 0.4), seed=3)
    np.testing.assert_array_equal(x["image"], X[PARTS[0]])
    np.testing.assert_array_equal(x["series"].values, padded.values[PARTS[0]])
    np.testing.assert_array_equal(x["series"].lengths, PARTS[0] % 5)
    np.testing.assert_array_equal(y, Y[PARTS[0]])
    # Lists are arrays, and targets can be a tree too: then there are no classes to keep in proportion.
    (_, targets), _ = jn.data.split((X.tolist(), {"a": Y, "b": X}), (0.5, 0.5))
    assert (targets["b"][:, 0] // 2 >= 5).astype(int).tolist() == targets["a"].tolist()


@pytest.mark.parametrize("labels", [Y, Y.astype(bool), Y.astype(np.uint8), jnp.asarray(Y), Y.tolist()])
def test_split_stratifies_by_class_labels(labels: Any):
    for seed in range(5):
        for (_, y), ones in zip(jn.data.split((X, labels), (0.6, 0.4), seed=seed), (3, 2), strict=True):
            assert int(np.sum(y)) == ones


@pytest.mark.parametrize("targets", [Y.astype(float), Y[:, None], {"class": Y}])
def test_split_stratifies_by_nothing_else(targets: Any):
    plain = jn.data.split_indices(Y, (0.6, 0.4), stratify=False)
    for (x, _), index in zip(jn.data.split((X, targets), (0.6, 0.4)), plain, strict=True):
        np.testing.assert_array_equal(x, X[index])


def test_split_stratifies_where_asked():
    for (x, _), index in zip(
        jn.data.split((X, Y), (0.6, 0.4), stratify=False),
        jn.data.split_indices(Y, (0.6, 0.4), stratify=False),
        strict=True,
    ):
        np.testing.assert_array_equal(x, X[index])
    parts = jn.data.split((X, Y.astype(float)), (0.6, 0.4), seed=3, stratify=True)
    np.testing.assert_array_equal(parts[0][0], X[PARTS[0]])


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (Y, {}, r"split expects data as \(inputs, targets\), got ndarray \(10,\) int64; split_indices takes labels"),
        ((X,), {}, r"split expects data as \(inputs, targets\), got tuple"),
        ((X, Y[:9]), {}, r"split expects arrays of one length along the first axis, got shapes \[\(10, 2\), \(9,\)\]"),
        ((X, Y, np.float32(1)), {}, "arrays of one length"),
        ((X, "labels"), {}, "split expects numbers in targets"),
        ((X, {"class": Y}), {"stratify": True}, "split expects one array of targets to stratify by, got dict"),
        ((X, X), {"stratify": True}, r"split expects labels \(examples,\), got \(10, 2\)"),
        ((X, Y), {"fractions": (0.5, 0.6)}, "split expects positive fractions with sum 1"),
        ((X, Y), {"fractions": 0.8}, "split expects a fraction for each part"),
        ((X, Y), {"fractions": (0.98, 0.01, 0.01)}, "split leaves a part empty: 10 examples"),
    ],
)
def test_split_rejects(data: Any, options: Any, words: str):
    with pytest.raises(jn.NetError, match=words):
        jn.data.split(data, **({"fractions": (0.6, 0.4)} | options))


@given(
    st.lists(st.integers(0, 12), min_size=8, max_size=60),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_groups_stay_whole(groups: list[int], shares: list[int], seed: int):
    fractions = [share / sum(shares) for share in shares]
    of = np.array(groups)
    if len(set(groups)) < len(shares):
        with pytest.raises(jn.NetError, match="as many groups as parts"):
            jn.data.split_groups(groups, fractions, seed=seed)
        return
    parts = jn.data.split_groups(groups, fractions, seed=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(groups)))
    held = [set(of[part].tolist()) for part in parts]
    assert sum(map(len, held)) == len(set(groups))  # none in two parts
    assert all(held)
    largest = np.bincount(of).max()
    for part, fraction, names in zip(parts, fractions, held, strict=True):
        assert len(part) <= fraction * len(groups) + largest or len(names) == 1
    for part, same in zip(parts, jn.data.split_groups(groups, fractions, seed=seed), strict=True):
        np.testing.assert_array_equal(part, same)


def test_groups_are_drawn():
    groups = np.repeat(np.arange(20), 3)
    drawn = {tuple(np.unique(groups[jn.data.split_groups(groups, [0.8, 0.2], seed=seed)[1]])) for seed in range(5)}
    assert len(drawn) == 5
    assert {len(each) for each in drawn} == {4}


@given(
    st.lists(st.integers(0, 30), min_size=10, max_size=50),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_the_past_comes_first(times: list[int], shares: list[int], gap: int):
    fractions, ordered = [share / sum(shares) for share in shares], sorted(times)
    cuts = [round(sum(fractions[:part]) * len(times)) for part in range(1, len(shares))]
    for place, cut in enumerate(cuts):
        while 0 < cut < len(times) and ordered[cut] == ordered[cut - 1]:
            cut -= 1
        cuts[place] = cut
    ends = [*(cut - gap for cut in cuts), len(times)]
    want = [ordered[first:end] if end > first else [] for first, end in zip([0, *cuts], ends, strict=True)]
    if not all(want):
        with pytest.raises(jn.NetError, match="leaves a part empty"):
            jn.data.split_in_time(times, fractions, gap=gap)
        return
    parts = jn.data.split_in_time(times, fractions, gap=gap)
    assert [[times[place] for place in part] for part in parts] == want
    assert len({int(place) for part in parts for place in part}) == sum(map(len, want))
    for earlier, later in pairwise(want):
        assert earlier[-1] < later[0]


def test_time_by_hand():
    days = np.array(["2024-03-01", "2024-01-01", "2024-02-01", "2024-02-01"], "datetime64[D]")
    early, late = jn.data.split_in_time(days, [0.5, 0.5])
    assert (early.tolist(), late.tolist()) == ([1], [2, 3, 0])  # both of February stay together, in the later part
    parts = jn.data.split_in_time(20, [0.5, 0.25, 0.25], gap=1)
    assert [part.tolist() for part in parts] == [list(range(9)), [10, 11, 12, 13], [15, 16, 17, 18, 19]]


@given(st.integers(6, 40), st.integers(1, 5), st.integers(0, 2))
def test_walking_forward_is_scikit_learns(n: int, steps: int, gap: int):
    length = n // (steps + 1)
    if n - steps * length <= gap or length == 0:
        with pytest.raises(jn.NetError, match="empty"):
            jn.data.walk_forward(n, steps, gap=gap)
        return
    ours = jn.data.walk_forward(n, steps, gap=gap)
    if steps == 1:  # scikit-learn begins at two
        ((train, test),) = ours
        assert (len(train), test[0], test[-1]) == (n - length - gap, n - length, n - 1)
        return
    theirs = TimeSeriesSplit(steps, gap=gap).split(np.zeros(n))
    for mine, other in zip(ours, theirs, strict=True):
        for a, b in zip(mine, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_walking_keeps_equal_times_together():
    times = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3])
    for train, test in jn.data.walk_forward(times, 2):
        assert times[train].max() < times[test].min()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: jn.data.split_groups([[1], [2]], [0.5, 0.5]), r"split_groups expects groups \(examples,\)"),
        (lambda: jn.data.split_groups([1, 2], [0.5, 0.6]), "sum 1"),
        (lambda: jn.data.split_groups([1, 1], [0.5, 0.5]), "got 1 groups for 2 parts"),
        (lambda: jn.data.split_in_time(10, [0.5, 0.5], gap=-1), "split_in_time expects gap ≥ 0"),
        (lambda: jn.data.split_in_time(10, [0.5, 0.5], gap=5), "leaves a part empty"),
        (lambda: jn.data.split_in_time([3.0, np.nan], [0.5, 0.5]), "got NaN"),
        (lambda: jn.data.walk_forward(10, 0), "walk_forward expects steps ≥ 1"),
        (lambda: jn.data.walk_forward([5, 5, 5], 1), "leaves a part empty"),
    ],
)
def test_mistakes(make: Callable[[], Any], words: str):
    with pytest.raises(jn.NetError, match=words):
        make()
