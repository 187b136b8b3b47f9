"""Fréchet distance against SciPy's and torchmetrics' formulas, precision and recall against a loop in NumPy."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import jaxnets as jn
from tests.oracle import floats, witness

METRICS = bool(importlib.util.find_spec("torchmetrics"))
REAL, DRAWN = floats(60, 5) @ floats(5, 5, seed=1), 0.7 * floats(50, 5, seed=2) + 0.5
# A covariance without full rank: as many examples as features.
FEW, FEW_DRAWN = floats(6, 6), floats(4, 6, seed=3)
distance = jax.jit(jn.metrics.frechet_distance)


def by_scipy(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    middle = np.real(scipy.linalg.sqrtm(a @ b))
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * middle)


def by_torchmetrics():
    import torch

    from tests.peers import torchvision_models

    torchvision_models()  # torchmetrics imports torchvision
    from torchmetrics.image.fid import _compute_fid  # pyright: ignore[reportMissingImports]

    def statistics(x):
        x = torch.tensor(x, dtype=torch.float64)
        return x.mean(0), torch.cov(x.T)

    pairs = {"whole": (REAL, DRAWN), "few": (FEW, FEW_DRAWN)}
    return {name: _compute_fid(*statistics(x), *statistics(y)).numpy() for name, (x, y) in pairs.items()}


def test_frechet_distance_matches_scipy_and_torchmetrics():
    want = witness("frechet_distance", by_torchmetrics, installed=METRICS)
    np.testing.assert_allclose(distance(REAL, DRAWN), by_scipy(REAL, DRAWN), rtol=1e-5)
    np.testing.assert_allclose(distance(REAL, DRAWN), want["whole"], rtol=1e-5)
    np.testing.assert_allclose(distance(FEW, FEW_DRAWN), want["few"], rtol=1e-3)


def test_frechet_distance_in_closed_form():
    # Of equal sets 0; of a shift its square; of a scale (s − 1)² tr Σ.
    trace = np.trace(np.cov(REAL, rowvar=False))
    np.testing.assert_allclose(distance(REAL, REAL), 0, atol=1e-4 * trace)
    np.testing.assert_allclose(distance(REAL, REAL + 2), 4 * 5, rtol=1e-4)
    centered = REAL - REAL.mean(0)
    np.testing.assert_allclose(distance(centered, 3 * centered), 4 * trace, rtol=1e-4)
    np.testing.assert_allclose(distance(REAL, DRAWN), distance(DRAWN, REAL), rtol=1e-4)


def by_loop(real, drawn, k):
    def radius(x, i):
        return np.sort([np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i])[k - 1]

    def near(each, x):
        return any(np.linalg.norm(each - x[i]) <= radius(x, i) for i in range(len(x)))

    return np.mean([near(each, real) for each in drawn]), np.mean([near(each, drawn) for each in real])


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_match_a_loop(k):
    real, drawn = REAL[:30].astype(np.float64), 1.5 * DRAWN[:20].astype(np.float64)
    want = by_loop(real, drawn, k)
    # Real features that are known, beside traced ones
    got = jax.jit(lambda drawn: jn.metrics.manifold_precision_recall(REAL[:30], drawn, k))(1.5 * DRAWN[:20])
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert 0 < want[0] != want[1] > 0


def test_precision_and_recall_at_the_ends():
    same = jn.metrics.manifold_precision_recall(REAL, REAL)
    far = jn.metrics.manifold_precision_recall(REAL, DRAWN + 100)
    # One example drawn again and again is good, and misses the rest: radius 0.
    collapsed = jn.metrics.manifold_precision_recall(REAL, np.repeat(REAL[:1], 10, 0))
    assert (*same,) == (1, 1)
    assert (*far,) == (0, 0)
    assert collapsed.precision == 1
    np.testing.assert_allclose(collapsed.recall, 1 / 60, rtol=1e-5)


@pytest.mark.parametrize(
    ("real", "drawn", "words"),
    [
        (REAL[:1], DRAWN, "at least 2 examples of each, got 1 and 50"),
        (REAL, DRAWN[:, :4], r"of one width, got \(60, 5\) and \(50, 4\)"),
        (REAL[0], DRAWN, r"features \(examples, features\)"),
        (REAL, np.where(DRAWN > 1, np.nan, DRAWN), "finite features, got nan"),
    ],
)
def test_mistakes_are_explained(real, drawn, words):
    with pytest.raises(jn.NetError, match=words):
        jn.metrics.frechet_distance(real, drawn)


def test_neighbors_are_checked():
    with pytest.raises(jn.NetError, match="at least 11 examples of each, got 60 and 10"):
        jn.metrics.manifold_precision_recall(REAL, jnp.asarray(DRAWN[:10]), neighbors=10)
    with pytest.raises(jn.NetError, match="neighbors"):
        jn.metrics.manifold_precision_recall(REAL, DRAWN, neighbors=0)
