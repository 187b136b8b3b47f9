"""Splits that keep groups whole and the future apart."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import TimeSeriesSplit

import jaxnets as jn


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
