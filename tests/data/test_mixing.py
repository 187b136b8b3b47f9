"""Mixup and CutMix: pairs, shares and targets, and that rows of weight 0 stay out of the others."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxnets as jn
from jaxnets.data.augment.mixing import _partners
from tests.oracle import floats, witness

KEY = jax.random.key(2)
KEYS = jax.random.split(KEY, 1000)
N = 5  # rows; each of its own class, so that the soft label tells who was mixed with whom
ONES = np.ones(N, np.float32)
FLAT, LABELS = floats(N, 3), np.arange(N)
IMAGES = np.tile(np.arange(1, N + 1, dtype=np.float32)[:, None, None, None], (1, 6, 4, 1))


@functools.cache
def compiled(kind: str) -> Callable[..., Any]:
    mix = jn.data.mixup(0.4, num_classes=N) if kind == "mixup" else jn.data.cutmix(num_classes=N)
    return jax.jit(jax.vmap(mix, (0, None, None, None)))


def mixed(kind: str, x: Any, y: Any = LABELS, weights: Any = ONES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what 1,000 keys make of a batch."""
    x, y, weights = (np.asarray(part) for part in compiled(kind)(KEYS, x, y, weights))
    return x, y, weights


def pairs(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return λ `(keys,)`, NaN where no row has another for its partner, and partners `(keys, rows)`."""
    own = np.einsum("kii->ki", y)
    others = np.where(np.eye(N, dtype=bool), 0, y)
    partner = np.where(own < 1, others.argmax(-1), np.arange(N))
    share = np.where((own < 1).any(1), own.min(1), np.nan)
    return share, partner


def test_mixup_blends_pairs_as_the_paper_does():
    x, y, weights = mixed("mixup", FLAT)
    share, partner = pairs(y)
    np.testing.assert_array_equal(np.sort(partner, axis=1), np.tile(np.arange(N), (1000, 1)))
    known = ~np.isnan(share)
    part = share[known, None, None]
    np.testing.assert_allclose(x[known], part * FLAT + (1 - part) * FLAT[partner[known]], atol=1e-6)
    hot = np.eye(N, dtype=np.float32)
    np.testing.assert_allclose(y[known], part * hot + (1 - part) * hot[partner[known]], atol=1e-6)
    np.testing.assert_allclose(weights, 1, atol=1e-6)
    # A share of exactly 1 hides its pairs, so the distribution is looked at where it does not round to 1.
    inside = share[known & (share < 0.999)]
    law = scipy.stats.beta(0.4, 0.4)
    assert scipy.stats.kstest(inside, lambda s: law.cdf(s) / law.cdf(0.999)).pvalue > 0.01
    assert known.mean() > 0.9


def test_partners_are_a_random_permutation():
    keys = jax.random.split(KEY, 3000)
    real = jnp.array([True, False, True, True, False])
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: _partners(key, real)))(keys))
    np.testing.assert_array_equal(drawn[:, [1, 4]], np.tile([1, 4], (3000, 1)))
    orders, counts = np.unique(drawn[:, [0, 2, 3]], axis=0, return_counts=True)
    assert len(orders) == 6
    assert np.abs(counts - 500).max() < 4.5 * np.sqrt(500)
    assert {tuple(np.sort(order)) for order in orders} == {(0, 2, 3)}


def test_cutmix_pastes_boxes_as_the_paper_does():
    x, y, weights = mixed("cutmix", IMAGES)
    share, partner = pairs(y)
    boxes: dict[tuple, int] = {}
    for images, left, others in zip(x[..., 0], share, partner):
        foreign = images != IMAGES[..., 0]
        moved = others != np.arange(N)
        assert not foreign[~moved].any()
        if not foreign.any():
            continue
        box = foreign[moved][0]
        assert (foreign[moved] == box).all()
        rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        assert box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        np.testing.assert_allclose(left, 1 - box.mean(), atol=1e-6)
        for row in np.flatnonzero(moved):
            assert (images[row][box] == others[row] + 1).all()
        place = (rows[0], rows[-1], columns[0], columns[-1])
        boxes[place] = boxes.get(place, 0) + 1
    # The published algorithm, enumerated: λ uniform, sides rounded down, any center, cut off at the edges.
    law: dict[tuple, float] = {}
    for lam in (np.arange(2000) + 0.5) / 2000:
        high, wide = int(6 * np.sqrt(1 - lam)) // 2, int(4 * np.sqrt(1 - lam)) // 2
        for r in range(6):
            for c in range(4):
                top, bottom, left, right = max(r - high, 0), min(r + high, 6), max(c - wide, 0), min(c + wide, 4)
                if bottom > top and right > left:
                    place = (top, bottom - 1, left, right - 1)
                    law[place] = law.get(place, 0.0) + 1 / (2000 * 24)
    assert set(boxes) <= set(law)
    places = list(law)
    expected = np.array([law[place] for place in places]) / sum(law.values())
    seen = np.array([boxes.get(place, 0) for place in places])
    assert scipy.stats.chisquare(seen, expected * seen.sum()).pvalue > 0.01
    np.testing.assert_allclose(y.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(weights, 1, atol=1e-6)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_rows_of_weight_0_stay_out(kind: str):
    """Whatever stands in them, NaN and no label at all too, all other rows are the same to the bit."""
    x = FLAT if kind == "mixup" else IMAGES + floats(*IMAGES.shape)
    weights = np.array([2.0, 0.0, 1.0, 0.0, 0.5], np.float32)
    real, idle = np.array([0, 2, 4]), np.array([1, 3])
    clean = mixed(kind, x, LABELS, weights)
    hidden = np.isin(LABELS, idle)
    spoiled = np.where(hidden.reshape(-1, *[1] * (x.ndim - 1)), np.float32(np.nan), x)
    dirty = mixed(kind, spoiled, np.where(hidden, 99, LABELS), weights)
    for a, b in zip(clean, dirty, strict=True):
        np.testing.assert_array_equal(a[:, real], b[:, real])
        assert np.isfinite(a).all()
    x_clean, y_clean, weights_clean = clean
    assert (y_clean[:, real][..., idle] == 0).all()
    np.testing.assert_array_equal(x_clean[:, idle], np.tile(x[idle], (1000, *[1] * x.ndim)))
    np.testing.assert_array_equal(weights_clean[:, idle], 0)
    np.testing.assert_allclose(weights_clean.sum(1), 3.5, rtol=1e-6)
    assert (y_clean[:, real].max(-1) < 1).any()  # they are mixed with one another


def test_weighted_targets_give_pytorchs_loss_of_pairs():
    """λ · loss(o, yᵢ) + (1 - λ) · loss(o, yⱼ) with class weights, value and gradient, as the authors' code has it."""
    share, partner = pairs(mixed("mixup", FLAT)[1])
    place = int(np.argmax((np.abs(share - 0.3) < 0.1) & (partner != np.arange(N)).all(1)))  # a key that mixes well
    lam, other = float(share[place]), partner[place]
    classes, logits = np.array([0.5, 1.0, 4.0, 2.0, 0.1], np.float32), floats(N, N, seed=5)

    def torch_loss():
        import torch

        o = torch.tensor(logits, requires_grad=True)
        loss = torch.nn.CrossEntropyLoss(weight=torch.from_numpy(classes))
        value = lam * loss(o, torch.arange(N)) + (1 - lam) * loss(o, torch.from_numpy(other))
        value.backward()
        assert o.grad is not None
        return {"value": value.detach().numpy(), "gradient": o.grad.numpy()}

    want = witness("data/mixup_loss", torch_loss)
    weighted = np.asarray(jax.jit(jn.data.example_weights)(LABELS, classes))
    _, targets, weights = (part[place] for part in mixed("mixup", FLAT, weights=weighted))
    objective = jn.objective(jn.losses.cross_entropy)
    value, gradient = jax.jit(jax.value_and_grad(lambda o: objective({}, o, targets, weights)[0]))(logits)
    assert 0.2 < lam < 0.4
    np.testing.assert_allclose(value, want["value"], rtol=1e-6)
    np.testing.assert_allclose(gradient, want["gradient"], atol=1e-7)


def test_options():
    """Trees of inputs and targets, one λ and one set of partners for all of them; α and the probability are traced."""
    inputs = {"a": jnp.asarray(FLAT), "half": FLAT[:, 0].astype(jnp.bfloat16)}
    targets = {"label": LABELS, "real": FLAT[:, 0]}

    def draw(alpha: Any, probability: Any) -> tuple[Any, Any, Any]:
        return jn.data.mixup(alpha, num_classes=N, probability=probability)(KEYS[7], inputs, targets, ONES)

    drawn = jax.jit(jax.vmap(draw))(np.array([1.0, 1e4], np.float32), np.array([0.0, 1.0], np.float32))
    x, y, weights = jax.tree.map(np.asarray, drawn)
    np.testing.assert_array_equal(x["a"][0], FLAT)  # a batch left alone is left alone to the bit
    np.testing.assert_array_equal(y["label"][0], np.eye(N))
    np.testing.assert_array_equal(weights[0], ONES)
    share, partner = pairs(y["label"][1:])
    assert np.abs(share - 0.5).max() < 0.03  # a large α holds λ near ½
    assert (partner != np.arange(N)).any()
    np.testing.assert_allclose(y["real"], x["a"][..., 0], atol=1e-6)
    np.testing.assert_allclose(x["half"].astype(np.float32), x["a"][..., 0], atol=0.03)
    assert x["half"].dtype == jnp.bfloat16
    pixels = jax.eval_shape(jn.data.cutmix(num_classes=N), KEY, IMAGES.astype(np.uint8), LABELS, ONES)[0]
    assert pixels.dtype == jnp.uint8
    assert np.isnan(mixed("mixup", FLAT, np.array([0, 1, 0, 1, 7]))[1]).any((1, 2)).all()  # 7 is no class


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: jn.data.mixup(0.0), r"mixup\(0.0\) expects alpha > 0"),
        (lambda: jn.data.cutmix(probability=2.0), r"cutmix\(probability=2.0\) expects probability in \[0, 1\]"),
        (lambda: jn.data.cutmix(num_classes=0), "num_classes"),
        (
            lambda: jn.data.mixup(1.0)(KEY, FLAT, LABELS, ONES),
            r"mixup\(1.0\) expects floating targets, or integer labels and",
        ),
        (lambda: jn.data.mixup(1.0, num_classes=3)(KEY, FLAT, LABELS, ONES), "below 3, got 3"),
        (lambda: jax.eval_shape(jn.data.mixup(1.0), KEY, LABELS, FLAT, ONES), "expects floating inputs, got int32"),
        (lambda: jax.eval_shape(jn.data.cutmix(), KEY, FLAT, FLAT, ONES), r"cutmix\(\) expects images \(batch, height"),
        (lambda: jn.data.mixup(1.0)(KEY, FLAT, FLAT[:3], ONES), r"expects rows for 5 weights, got \(3, 3\)"),
    ],
)
def test_mistakes(make: Callable[[], Any], words: str):
    with pytest.raises(jn.NetError, match=words):
        make()
