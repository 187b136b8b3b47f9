"""Folds: every example held out once, learned from otherwise, and never both."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, KFold, PredefinedSplit, StratifiedKFold

import jaxnets as jn
from tests.oracle import floats, integers


@given(st.integers(4, 60), st.integers(2, 4), st.integers(0, 3))
def test_sizes_are_scikit_learns(n: int, k: int, seed: int):
    numbers = jn.data.folds(n, k, seed=seed)
    assert numbers.dtype == np.int32
    theirs = [len(test) for _, test in KFold(k).split(np.zeros(n))]
    np.testing.assert_array_equal(np.bincount(numbers), theirs)
    np.testing.assert_array_equal(numbers, jn.data.folds(np.zeros(n), k, seed=seed, stratify=False))
    assert n < 20 or not np.array_equal(numbers, jn.data.folds(n, k, seed=seed + 1))


@given(st.lists(st.integers(0, 2), min_size=12, max_size=60), st.integers(2, 4), st.integers(0, 3))
def test_classes_are_dealt_out_as_scikit_learns(labels: list[int], k: int, seed: int):
    y = np.array(labels + [0, 1, 2] * k)  # it asks for k examples of each class
    numbers = jn.data.folds(y, k, seed=seed)
    theirs = np.array([np.bincount(y[test]) for _, test in StratifiedKFold(k).split(y, y)])
    ours = np.array([np.bincount(y[numbers == fold]) for fold in range(k)])
    np.testing.assert_array_equal(np.sort(ours, axis=0), np.sort(theirs, axis=0))
    np.testing.assert_array_equal(np.sort(ours.sum(1)), np.sort(theirs.sum(1)))


def test_real_targets_are_spread_by_size():
    y = floats(40)
    numbers = jn.data.folds(y, 4)
    ranks = np.argsort(np.argsort(y)) // 4
    for fold in range(4):
        np.testing.assert_array_equal(np.sort(ranks[numbers == fold]), np.arange(10))


@given(st.lists(st.integers(0, 9), min_size=8, max_size=60), st.integers(2, 4), st.integers(0, 3))
def test_groups_stay_in_one_fold(groups: list[int], k: int, seed: int):
    of = np.array([*groups, 10, 11, 12, 13])  # never fewer groups than folds
    numbers = jn.data.group_folds(of, k, seed=seed)
    assert all(len(set(numbers[of == each])) == 1 for each in set(of.tolist()))
    sizes, largest = np.bincount(numbers, minlength=k), np.bincount(of).max()
    assert sizes.min() > 0
    assert sizes.max() - sizes.min() <= largest
    theirs = [len(test) for _, test in GroupKFold(k).split(of, groups=of)]
    assert max(theirs) - min(theirs) <= largest  # who takes the largest group first


def rows(n: int) -> tuple[dict[str, jax.Array], jax.Array]:
    return {"a": jnp.arange(n), "b": jnp.arange(2.0 * n).reshape(n, 2)}, 100 + jnp.arange(n)


@settings(max_examples=8)
@given(st.permutations([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2]))
@pytest.mark.slow
def test_a_fold_is_scikit_learns(of: list[int]):
    numbers = np.array(of)
    data, weights = rows(12), jnp.arange(1.0, 13.0)
    train, validation = jax.vmap(lambda number: jn.data.fold((*data, weights), numbers, number))(jnp.arange(3))
    for number, (learned, held_out) in enumerate(PredefinedSplit(numbers).split()):
        for (x, y, weight), want in (train, learned), (validation, held_out):
            real = np.asarray(weight[number]) > 0
            np.testing.assert_array_equal(x["a"][number][real], want)
            np.testing.assert_array_equal(x["b"][number][real], np.asarray(data[0]["b"])[want])
            np.testing.assert_array_equal(y[number][real], 100 + want)
            np.testing.assert_array_equal(weight[number][real], 1.0 + want)
            assert set(np.asarray(x["a"][number]).tolist()) == set(want.tolist())  # what fills up is of the same part
    alone = jn.data.fold((*data, weights), numbers, 1)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves((train, validation)), strict=True):
        np.testing.assert_array_equal(a, b[1])


def test_cross_validation_is_one_map():
    """Ridge regression on five folds at once, standardized by each training part, against the loop over folds."""
    x, y = floats(23, 3) * np.array([1, 10, 100], np.float32), floats(23, seed=1)
    numbers = jn.data.folds(23, 5)

    @jax.jit
    @jax.vmap
    def score(number: jax.Array) -> jax.Array:
        train, validation = jn.data.fold((x, y), numbers, number)
        scaling = jn.data.standardize(train[0], weights=train[2])
        z, weights = scaling(train[0]), train[2][:, None]
        beta = jnp.linalg.solve(z.T @ (weights * z) + jnp.eye(3), z.T @ (train[1] * train[2]))
        error = (scaling(validation[0]) @ beta - validation[1]) ** 2
        return (validation[2] * error).sum() / validation[2].sum()

    want = []
    for number in range(5):
        a, b = x[numbers != number].astype(float), x[numbers == number].astype(float)
        mean, scale = a.mean(0), a.std(0)
        z, test = (a - mean) / scale, (b - mean) / scale
        beta = np.linalg.solve(z.T @ z + np.eye(3), z.T @ y[numbers != number])
        want.append(((test @ beta - y[numbers == number]) ** 2).mean())
    np.testing.assert_allclose(score(jnp.arange(5)), want, rtol=1e-5)


DATA = floats(6, 2), integers(6, high=2)
NUMBERS = np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: jn.data.folds(10, 1), "folds expects at least 2 folds"),
        (lambda: jn.data.folds(3, 4), "got k=4 for 3 examples"),
        (lambda: jn.data.folds(np.ones((3, 3)), 2), r"labels \(examples,\)"),
        (lambda: jn.data.group_folds([1, 1, 2], 3), "group_folds expects .* got k=3 for 2 groups"),
        (lambda: jn.data.fold(DATA, NUMBERS, 3), "fold expects a number from 0 to 2, got 3"),
        (lambda: jn.data.fold(DATA, NUMBERS[:4], 0), "one number for each example, got 4"),
        (lambda: jn.data.fold(DATA, NUMBERS / 2, 0), "integers"),
        (lambda: jn.data.fold(DATA, 2 * NUMBERS, 0), r"each of at least 2 folds, got sizes \[2, 0, 2, 0, 2\]"),
        (lambda: jax.jit(lambda of: jn.data.fold(DATA, of, 0))(NUMBERS), "known, got traced"),
    ],
)
def test_mistakes(make: Callable[[], Any], words: str):
    with pytest.raises(jn.NetError, match=words):
        make()
