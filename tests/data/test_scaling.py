"""Standardization: scikit-learn's numbers, from the training part alone, on the host and traced."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import jaxnets as jn
from tests.oracle import floats, integers

X = np.random.default_rng(0).standard_normal((40, 4)) * [1.0, 1e-3, 20.0, 0.0] + [0.0, 5.0, 1e9, 0.1]
TEST = X[:3] + 1.0


def test_scikit_learns_numbers():
    theirs: Any = StandardScaler().fit(X)
    ours = jn.data.standardize(X)
    np.testing.assert_allclose(ours.offset, theirs.mean_, rtol=1e-14)
    np.testing.assert_allclose(ours.scale, theirs.scale_, rtol=1e-9)  # they sum in another order, beside 1e9
    assert ours.scale[3] == 1.0
    z = ours(TEST)
    assert isinstance(z, np.ndarray)
    np.testing.assert_allclose(z, theirs.transform(TEST), rtol=1e-9, atol=2 * np.spacing(1e9) / 20)
    np.testing.assert_allclose(ours.inverse(z), TEST, rtol=1e-15)
    least, ranged = jn.data.rescale(X), MinMaxScaler().fit(X)
    np.testing.assert_allclose(least(TEST), ranged.transform(TEST), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(least.inverse(least(TEST)), TEST, rtol=1e-15)


def test_weights_count_examples():
    weights = np.random.default_rng(1).random(40)
    theirs: Any = StandardScaler().fit(X, sample_weight=weights)
    ours = jn.data.standardize(X, weights=weights)
    np.testing.assert_allclose(ours.offset, theirs.mean_, rtol=1e-12)
    np.testing.assert_allclose(ours.scale[:3], theirs.scale_[:3], rtol=1e-7)
    spoilt, kept = np.concatenate([X, np.full((2, 4), np.nan)]), np.r_[np.ones(40), 0, 0]
    for measure in (jn.data.standardize, jn.data.rescale):
        for a, b in zip(jax.tree.leaves(measure(spoilt, weights=kept)), jax.tree.leaves(measure(X)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-14)


@pytest.mark.parametrize("measure", [jn.data.standardize, jn.data.rescale])
def test_traced_equals_known_in_every_fold(measure: Callable[..., jn.data.Scaling]):
    """Statistics of the training part of each of three folds, in one map, beside rows of weight 0 that hold NaN."""
    x = floats(10, 3) + np.array([0.0, 1e4, 7.0], np.float32)
    x[:, 2] = 0.1  # never changes, and 0.1 is no binary fraction
    keep = (np.arange(10) % 3 != np.arange(3)[:, None]).astype(np.float32)

    @jax.jit
    def fit(weights: jax.Array) -> tuple[jn.data.Scaling, jax.Array]:
        scaling = measure(jnp.where(weights[:, None] > 0, x, jnp.nan), weights=weights)
        return scaling, scaling(x)

    scalings, z = jax.vmap(fit)(jnp.asarray(keep))
    for fold in range(3):
        part = x[keep[fold] > 0]
        want = measure(part)
        np.testing.assert_allclose(scalings.offset[fold], want.offset, rtol=1e-6)
        np.testing.assert_allclose(scalings.scale[fold], want.scale, rtol=2e-6)
        apart = np.spacing(np.float32(1e4)) / want.scale[1]  # what float32 tells apart beside 1e4
        np.testing.assert_allclose(z[fold], want(x), atol=apart)
        assert scalings.scale[fold, 2] == 1.0


@given(arrays.arrays(np.float32, (6, 2, 3), elements=st.floats(-1e3, 1e3, width=32)), st.sets(st.integers(1, 2)))
def test_any_axes(x: np.ndarray, others: set[int]):
    axes = (0, *sorted(others))
    scaling = jn.data.standardize(x, axis=axes)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(scaling.offset, wide.mean(axes, keepdims=True)[0], rtol=1e-12, atol=1e-9)
    changes = wide.max(axes, keepdims=True)[0] > wide.min(axes, keepdims=True)[0]
    np.testing.assert_allclose(scaling.scale[~changes], 1)
    np.testing.assert_allclose(scaling.scale[changes], wide.std(axes, keepdims=True)[0][changes], rtol=1e-6)
    z = scaling(x)
    assert z.dtype == np.float32
    assert z.shape == x.shape
    assert np.isfinite(z).all()


def test_images_series_trees_and_padding():
    images = integers(5, 4, 4, 3, high=256).astype(np.uint8)
    scaling = jn.data.standardize(images, axis=(0, 1, 2))
    assert scaling.offset.shape == (1, 1, 3)
    np.testing.assert_allclose(scaling.scale[0, 0], images.std((0, 1, 2)), rtol=1e-12)
    for batch in (images, jnp.asarray(images)):  # a batch, and one image
        z = scaling(batch)
        assert z.dtype == jnp.float32
        np.testing.assert_allclose(scaling(batch[1]), z[1], rtol=1e-6)
    lengths = np.array([2, 4, 1])
    series = np.where(np.arange(4)[:, None] < lengths[:, None, None], floats(3, 4, 2), np.float32(np.nan))
    padded = jn.Padded(series, lengths)
    real = np.concatenate([one[:length] for one, length in zip(series, lengths)]).astype(np.float64)
    both = jn.data.standardize({"a": padded, "b": X[:3, 0]})
    np.testing.assert_allclose(both.offset["a"][0], real.mean(0), rtol=1e-12)
    np.testing.assert_allclose(both.scale["a"][0], real.std(0), rtol=1e-12)
    np.testing.assert_allclose(both.offset["b"], X[:3, 0].mean(), rtol=1e-12)
    out = both({"a": padded, "b": X[:3, 0]})
    np.testing.assert_array_equal(out["a"].lengths, lengths)
    np.testing.assert_allclose(out["a"].values[1], (series[1] - real.mean(0)) / real.std(0), rtol=1e-5)
    known = jn.data.standardize(padded, weights=np.array([1, 0, 1]))
    np.testing.assert_allclose(known.offset[0], real[[0, 1, 6]].mean(0), rtol=1e-12)
    traced = jax.jit(jn.data.standardize)(padded)
    np.testing.assert_allclose(traced.offset[0], real.mean(0), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: jn.data.standardize(X, axis=1), r"standardize expects axes of \(40, 4\), 0 among them, got axis=1"),
        (lambda: jn.data.standardize(X, axis=(0, 2)), "axis="),
        (lambda: jn.data.rescale(X[:0]), "rescale expects at least one example"),
        (lambda: jn.data.standardize(np.array([1.0, np.nan])), "finite values, got NaN"),
        (lambda: jn.data.standardize(X, weights=np.ones(3)), r"weights \(40,\), got \(3,\)"),
        (lambda: jn.data.standardize(X, weights=np.zeros(40)), "an example of weight > 0"),
        (lambda: jn.data.standardize(X)(X[:, :1]), r"Scaling expects examples of shape \(4,\), got \(40, 1\)"),
        (lambda: jn.data.standardize(X)(np.float64(1.0)), "got ()"),
    ],
)
def test_mistakes(make: Callable[[], Any], words: str):
    with pytest.raises(jn.NetError, match=words):
        make()


def test_the_deviation_has_its_derivative():
    x = X[:, [0, 3]].astype(np.float32)
    slope = jax.jit(jax.grad(lambda x: jn.data.standardize(x).scale.sum()))(jnp.asarray(x))
    want = (x[:, 0] - x[:, 0].mean()) / (40 * x[:, 0].std())
    np.testing.assert_allclose(slope[:, 0], want, atol=1e-7)
    np.testing.assert_array_equal(slope[:, 1], 0)  # of what never changes
