"""Toy sets against their definitions, scikit-learn and arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import datasets as theirs
from sklearn.neighbors import KNeighborsClassifier

import jaxnets as jn

TOYS = ["moons", "circles", "spirals", "blobs", "xor", "checkerboard"]


@pytest.mark.parametrize("name", TOYS)
def test_shapes_balance_seed_and_noise(name):
    make = getattr(jn.data, name)
    x, y = make(101)
    assert (x.shape, x.dtype, y.dtype) == ((101, 2), np.float32, np.int32)
    counts = np.bincount(y)
    assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(x, make(101)[0])
    assert not np.array_equal(x, make(101, seed=1)[0])
    assert (np.diff(y) != 0).sum() > 20  # not in order of class, nor in turn
    assert (np.diff(y) != 0).sum() < 95
    clean, noisy = make(5000, noise=0.0), make(5000, noise=0.1)
    np.testing.assert_array_equal(clean[1], noisy[1])
    difference = noisy[0] - clean[0]
    np.testing.assert_allclose(difference.std(), 0.1, rtol=0.04)  # 4 standard errors of 10,000 draws
    np.testing.assert_allclose(difference.mean(0), 0, atol=0.006)


@pytest.mark.parametrize(("name", "options"), [("moons", {}), ("circles", {"factor": 0.5})])
def test_points_lie_on_scikit_learns_curves(name, options):
    """Every noiseless point of ours is next to one of theirs of the same class, and they of ours."""
    x, y = getattr(jn.data, name)(2000, noise=0.0)
    want_x, want_y = getattr(theirs, f"make_{name}")(2000, **options)
    for (a, a_class), (b, b_class) in [((x, y), (want_x, want_y)), ((want_x, want_y), (x, y))]:
        for each in (0, 1):
            far = np.linalg.norm(a[a_class == each][:, None] - b[b_class == each][None], axis=-1).min(1)
            assert far.max() < 0.05


def test_spirals_blobs_and_squares_by_their_formulas():
    x, y = jn.data.spirals(300, classes=3, turns=1.5, noise=0.0)
    radius = np.hypot(*x.T)
    turned = np.exp(1j * 2 * np.pi * (1.5 * radius + y / 3)) * radius
    np.testing.assert_allclose(x, np.stack([turned.real, turned.imag], 1), atol=2e-6)
    np.testing.assert_allclose(np.sort(radius), np.linspace(0, 1, 300), atol=0.1)
    x, y = jn.data.blobs(4, classes=4, noise=0.0)
    np.testing.assert_allclose(x[np.argsort(y)], [[1, 0], [0, 1], [-1, 0], [0, -1]], atol=1e-7)
    for squares in (2, 3, 5):
        x, y = jn.data.checkerboard(2000, squares=squares)
        assert x.min() >= -1
        assert x.max() < 1
        row, column = np.floor((x.astype(np.float64) + 1) * squares / 2).astype(int).T
        np.testing.assert_array_equal((row + column) % 2, y)
        assert len(set(zip(row, column, strict=True))) == squares**2


@pytest.mark.parametrize("name", TOYS)
def test_classes_can_be_told_apart(name):
    x, y = getattr(jn.data, name)(2000)
    nearest = KNeighborsClassifier(5).fit(x[:1500], y[:1500])
    assert nearest.score(x[1500:], y[1500:]) > 0.93


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("moons", {"examples": 1}),
        ("moons", {"noise": -0.1}),
        ("circles", {"inner": 1.0}),
        ("spirals", {"classes": 1}),
        ("spirals", {"turns": 0.0}),
        ("blobs", {"examples": 2, "classes": 3}),
        ("xor", {"examples": 0}),
        ("checkerboard", {"squares": 1}),
    ],
)
def test_toys_reject(name, options):
    with pytest.raises(jn.NetError, match=f"{name} expects"):
        getattr(jn.data, name)(**options)


@given(st.integers(1, 50), st.integers(2, 30), st.integers(0, 3))
def test_adding_sums_the_two_marked_numbers(examples, length, seed):
    x, y = jn.data.adding(examples, length, seed=seed)
    assert (x.shape, x.dtype, y.dtype) == ((examples, length, 2), np.float32, np.float32)
    numbers, marks = x[..., 0], x[..., 1]
    np.testing.assert_array_equal(marks[:, : length // 2].sum(1), np.ones(examples))
    np.testing.assert_array_equal(marks[:, length // 2 :].sum(1), np.ones(examples))
    np.testing.assert_allclose((numbers.astype(np.float64) * marks).sum(1), y, rtol=1e-7)


def test_addings_error_without_memory_is_a_sixth():
    x, y = jn.data.adding(20_000, 20)
    np.testing.assert_allclose(np.mean((y - 1) ** 2), 1 / 6, rtol=0.03)
    np.testing.assert_allclose(x[..., 0].mean(), 0.5, atol=0.003)
    np.testing.assert_allclose(x[..., 1].mean(0), 1 / 10, atol=0.01)  # any step of its half is as likely


@given(st.integers(1, 20), st.integers(1, 30), st.integers(1, 9), st.integers(1, 12))
def test_copy_memory_asks_for_what_was_shown(examples, delay, symbols, remembered):
    x, y = jn.data.copy_memory(examples, delay, symbols=symbols, remembered=remembered)
    assert x.shape == y.shape == (examples, delay + 2 * remembered)
    assert x.dtype == y.dtype == np.int32
    blank, begin = symbols, symbols + 1
    np.testing.assert_array_equal(x[:, :remembered], y[:, -remembered:])
    assert x[:, :remembered].max() < symbols
    assert (y[:, :-remembered] == blank).all()
    assert (np.argwhere(x == begin)[:, 1] == remembered + delay - 1).all()
    assert (x == begin).sum() == examples
    assert (x == blank).sum() == examples * (delay + remembered - 1)


def test_problems_reject():
    with pytest.raises(jn.NetError, match="adding expects a length"):
        jn.data.adding(1, 1)
    with pytest.raises(jn.NetError, match="copy_memory expects delay ≥ 1"):
        jn.data.copy_memory(1, 0)
