"""Weights of classes and examples, and orders that show each class equally often."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

import jaxnets as jn

KEY = jax.random.key(0)
CLASSES = 4


@functools.cache
def weigh() -> Callable[..., Any]:
    """Return a compiled function of labels: the classes' weights, and the examples'."""

    def both(y: Any) -> tuple[Any, Any]:
        by_class = jn.data.class_weights(y, CLASSES)
        return by_class, jn.data.example_weights(y, by_class)

    return jax.jit(both)


@given(st.lists(st.integers(0, 3), min_size=20, max_size=20))
def test_weights_are_scikit_learns(labels: list[int]):
    y = np.array(labels)
    present = np.unique(y)
    by_class, by_example = map(np.asarray, weigh()(y))
    np.testing.assert_allclose(by_class[present], compute_class_weight("balanced", classes=present, y=y), rtol=1e-6)
    assert (np.delete(by_class, present) == 0).all()
    np.testing.assert_allclose(by_example, compute_sample_weight("balanced", y), rtol=1e-6)
    np.testing.assert_allclose(by_example.mean(), 1, rtol=1e-6)


def test_rows_that_fill_up_do_not_count():
    y, weights = np.array([0, 0, 1, 3, 3, 3]), np.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    traced = jax.jit(lambda y: jn.data.class_weights(y, CLASSES, weights=weights))(y)
    np.testing.assert_allclose(traced, jn.data.class_weights(y[:4], CLASSES), rtol=1e-6)
    lost = jax.jit(jn.data.example_weights)(np.array([1, -1, 4]), np.arange(4, dtype=np.float32))
    np.testing.assert_array_equal(lost, [1.0, np.nan, np.nan])


@pytest.mark.slow
def test_classes_of_more_than_2_to_the_24_examples():
    y = np.zeros(2**24 + 2**22, np.int8)
    y[:5] = 1
    found = jax.jit(lambda y: jn.data.class_weights(y, 2))(y)
    np.testing.assert_allclose(found, len(y) / 2 / np.array([len(y) - 5, 5.0]), rtol=3e-7)


@functools.cache
def order(size: int) -> Callable[..., Any]:
    return jax.jit(lambda key, y, w: jn.data.balanced_order(key, y, size, CLASSES, weights=w))


@pytest.mark.parametrize("size", [3, 12, 50])
@given(labels=st.lists(st.integers(0, 3), min_size=12, max_size=12), hidden=st.sets(st.integers(0, 10)))
@pytest.mark.slow_cases("12")
def test_each_class_equally_often_and_no_example_needlessly_twice(size: int, labels: list[int], hidden: set[int]):
    y, weights = np.array(labels), np.ones(12, np.float32)
    weights[list(hidden)] = 0
    index = np.asarray(order(size)(KEY, y, weights))
    seen = np.bincount(index, minlength=12)
    assert seen.shape == (12,)
    assert seen.sum() == size
    assert (seen[list(hidden)] == 0).all()
    shown = [seen[(y == each) & (weights > 0)] for each in np.unique(y[weights > 0])]
    totals = [each.sum() for each in shown]
    assert max(totals) - min(totals) <= 1
    for each in shown:
        assert each.max() - each.min() <= 1


def test_order_is_random_and_fair():
    y = np.array([0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 3, 3])
    keys = jax.random.split(KEY, 4000)
    index = np.asarray(
        jax.jit(jax.vmap(order(3), (0, None, None)))(keys, y, np.ones(12, np.float32))
    )  # 3 of 4 classes get a place
    for place in range(3):
        counts = np.bincount(index[:, place], minlength=12)
        expected = 4000 / CLASSES / np.bincount(y)[y]  # classes alike, and the examples within each
        assert (np.abs(counts - expected) < 4.5 * np.sqrt(expected)).all()


def test_balanced_orders_an_epoch():
    y = np.array([0] * 9 + [1] * 3)
    x, weights = np.zeros((12, 2), np.float32), np.array([1.0] * 6 + [0.0] * 3 + [0.5] * 3, np.float32)
    index = jax.jit(jn.data.balanced(2))(KEY, (x, y, weights))
    assert index.dtype == jnp.int32
    np.testing.assert_array_equal(np.bincount(index, minlength=12), [1] * 6 + [0] * 3 + [2] * 3)
    plain = np.bincount(jax.jit(jn.data.balanced(2))(KEY, (x, y)), minlength=12)
    assert set(plain[:9]) == {0, 1}
    np.testing.assert_array_equal(plain[9:], 2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: jn.data.class_weights([0, 4], 4), "class_weights expects labels from 0 to 3, got 4"),
        (lambda: jn.data.class_weights([0.0, 1.0], 4), "integer labels .* got float"),
        (lambda: jn.data.class_weights(np.eye(3, dtype=int), 3), r"take labels.argmax\(-1\)"),
        (lambda: jn.data.class_weights([0, 1], 2, weights=np.ones(3)), r"weights \(2,\), got \(3,\)"),
        (lambda: jn.data.example_weights([0, 2], [1.0, 2.0]), "example_weights expects labels from 0 to 1, got 2"),
        (lambda: jn.data.balanced_order(KEY, [0, 1], 0, 2), "balanced_order expects size ≥ 1"),
        (lambda: jn.data.balanced(0), r"balanced\(0\) expects num_classes ≥ 1"),
        (lambda: jn.data.balanced(2)(KEY, (np.ones(2), np.eye(2))), "integer labels"),
    ],
)
def test_mistakes(make: Callable[[], Any], words: str):
    with pytest.raises(jn.NetError, match=words):
        make()
