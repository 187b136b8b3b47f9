"""Augmentations: where pixels go, how often, and with which key."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

import jaxnets as jn
from tests.oracle import floats

KEY = jax.random.key(3)
KEYS = jax.random.split(KEY, 2000)
Z = 4.5  # standard deviations that a count may be off by: one in 150,000

AUGMENTATIONS: dict[str, Callable[[jax.Array, Any], jax.Array]] = {
    "shift": jn.data.shift(2),
    "random_crop": jn.data.random_crop((5, 4), padding=1),
    "flip": jn.data.flip(),
    "rotate": jn.data.rotate(30.0),
    "cutout": jn.data.cutout(3),
    "noise": jn.data.noise(0.1),
    "random_resized_crop": jn.data.random_resized_crop((5, 6)),
    "erase": jn.data.erase(0.8, value=(0.25, 1.0)),
    "compose": jn.data.compose(jn.data.random_crop(6), jn.data.flip(0)),
}


def many(augment: Callable[[jax.Array, Any], jax.Array], image: Any) -> np.ndarray:
    """Return what an augmentation makes of one image with each of 2,000 keys."""
    return np.asarray(jax.jit(jax.vmap(augment, (0, None)))(KEYS, image))


def equally_often(counts: np.ndarray, kinds: int) -> None:
    expected = counts.sum() / kinds
    assert len(counts) == kinds
    assert np.abs(counts - expected).max() < Z * np.sqrt(expected * (1 - 1 / kinds))


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.slow_cases("shift", "flip", "random_crop")
def test_a_batch_is_its_examples_and_keeps_its_dtype(name: str):
    augment, images = AUGMENTATIONS[name], floats(3, 8, 7, 2)
    together = np.asarray(jax.jit(jax.vmap(augment))(KEYS[:3], images))
    alone = jax.jit(augment)
    for place in range(3):
        np.testing.assert_allclose(together[place], alone(KEYS[place], images[place]), atol=1e-6)
    half = jax.eval_shape(augment, KEY, images[0].astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert half.shape == together.shape[1:]
    if name != "noise":
        assert jax.eval_shape(augment, KEY, jnp.zeros((8, 7, 2), jnp.uint8)).dtype == jnp.uint8


def test_crops_are_windows_at_every_place_equally_often():
    image = np.arange(1, 31, dtype=np.int32).reshape(5, 6, 1)
    framed = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    windows = {framed[r : r + 4, c : c + 3].tobytes(): 0 for r in range(4) for c in range(6)}
    for crop in many(jn.data.random_crop((4, 3), padding=1), image):
        windows[np.ascontiguousarray(crop).tobytes()] += 1  # a KeyError would be no window
    equally_often(np.array(list(windows.values())), 24)


def test_a_padded_crop_of_the_whole_is_a_shift():
    image = floats(6, 6, 2)
    np.testing.assert_array_equal(many(jn.data.random_crop(6, padding=2), image), many(jn.data.shift(2), image))


@pytest.mark.parametrize("axis", [0, 1])
def test_flips_happen_with_their_probability(axis: int):
    image, shares = floats(3, 4, 2), np.array([0.0, 0.3, 1.0], np.float32)
    drawn = jax.jit(jax.vmap(lambda p: jax.vmap(jn.data.flip(axis, probability=p), (0, None))(KEYS, image)))(shares)
    mirrored = (np.asarray(drawn) == np.flip(image, axis)).all((2, 3, 4))
    np.testing.assert_array_equal((np.asarray(drawn) == image).all((2, 3, 4)), ~mirrored)
    assert mirrored[0].sum() == 0
    assert mirrored[2].all()
    assert abs(mirrored[1].sum() - 600) < Z * np.sqrt(2000 * 0.3 * 0.7)


def test_rotation_is_scipys():
    image = np.random.default_rng(0).standard_normal((9, 7, 2))
    with jax.enable_x64(True):
        weights = np.random.default_rng(1).standard_normal(image.shape)

        @jax.jit
        def turn(angle: float, x: Any) -> Any:
            """Return the turned image, and the derivatives of its weighted sum."""

            def total(angle: Any, x: Any) -> tuple[Any, Any]:
                turned = jn.data.rotate((angle, angle))(KEY, x)
                return (turned * weights).sum(), turned

            (_, turned), slopes = jax.value_and_grad(total, (0, 1), has_aux=True)(angle, x)
            return turned, *slopes

        for angle in (0.0, 13.7, -40.0, 90.0, 180.0, 261.0):
            want = scipy.ndimage.rotate(image, angle, reshape=False, order=1, mode="grid-constant")
            turned, by_angle, by_image = turn(angle, image)
            np.testing.assert_allclose(turned, want, atol=1e-14)
            np.testing.assert_allclose((np.asarray(by_image) * image).sum(), (want * weights).sum(), rtol=1e-12)
            if angle % 90:  # there it has a kink
                ahead, behind = ((np.asarray(turn(angle + step, image)[0]) * weights).sum() for step in (1e-6, -1e-6))
                np.testing.assert_allclose(by_angle, (ahead - behind) / 2e-6, rtol=1e-6)
    whole = (64 * image).astype(np.int16)
    want = scipy.ndimage.rotate(whole.astype(float), 20, reshape=False, order=1, mode="grid-constant")
    got = np.asarray(jax.jit(jn.data.rotate((20.0, 20.0)))(KEY, whole))
    assert np.abs(got - want).max() < 0.5001


def test_angles_are_uniform():
    places = np.stack(np.meshgrid(np.arange(-2.0, 3), np.arange(-2.0, 3), indexing="ij"), -1)  # (row, column)
    turned = many(jn.data.rotate(jnp.float32(20.0)), places.astype(np.float32))[:, 2, 3]  # right of the center
    angles = np.rad2deg(np.arctan2(turned[:, 0], turned[:, 1]))
    assert scipy.stats.kstest(angles, scipy.stats.uniform(-20, 40).cdf).pvalue > 0.01


@pytest.mark.parametrize("size", [2, 3, 4])
def test_cutout_is_that_of_the_paper(size: int):
    masks = {}
    for row in range(5):
        for column in range(6):
            mask = np.ones((5, 6, 2), np.float32)
            top, left = max(row - size // 2, 0), max(column - size // 2, 0)
            mask[top : row + (size + 1) // 2, left : column + (size + 1) // 2] = 0
            masks.setdefault(mask.tobytes(), [0, 0])[0] += 1
    for cut in many(jn.data.cutout(size), np.ones((5, 6, 2), np.float32)):
        masks[cut.tobytes()][1] += 1
    ways, seen = np.array(list(masks.values())).T
    expected = 2000 * ways / 30
    assert (np.abs(seen - expected) < Z * np.sqrt(expected)).all()


def test_noise_is_gaussian_and_of_its_scale():
    drawn = many(jn.data.noise(jnp.float32(0.3)), np.full((4, 4, 1), 2.0, np.float32))
    assert scipy.stats.kstest(drawn.ravel(), scipy.stats.norm(2.0, 0.3).cdf).pvalue > 0.01
    np.testing.assert_array_equal(jn.data.noise(0.0)(KEY, jnp.ones(3)), np.ones(3))


def test_composition_gives_each_its_own_key():
    crop, mirror, image = jn.data.random_crop(4), jn.data.flip(), floats(6, 6, 1)
    both = many(jn.data.compose(crop, mirror), image)
    want = many(lambda key, x: mirror(jax.random.fold_in(key, 1), crop(jax.random.fold_in(key, 0), x)), image)
    np.testing.assert_array_equal(both, want)
    np.testing.assert_array_equal(jn.data.compose()(KEY, image), image)
    twice = many(jn.data.compose(jn.data.flip(), jn.data.flip()), image)
    same = (twice == image).all((1, 2, 3)).sum()  # by chance, not always, as with one key for both
    assert abs(same - 1000) < Z * np.sqrt(500)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: jn.data.random_crop(0), r"random_crop\(0\) expects size ≥ 1"),
        (lambda: jn.data.random_crop((3, 3, 3)), "one number or"),
        (lambda: jn.data.random_crop(3, padding=-1), "padding"),
        (lambda: jn.data.random_crop(9, padding=1)(KEY, jnp.ones((6, 9, 1))), "at least 9 × 9 .* got 8 × 11"),
        (lambda: jn.data.flip(2), r"flip\(axis=2\) expects axis 0"),
        (lambda: jn.data.flip(probability=1.5), r"flip\(probability=1.5\) expects probability in \[0, 1\], got 1.5"),
        (lambda: jn.data.rotate(-3.0), r"rotate\(-3.0\) expects degrees ≥ 0"),
        (lambda: jn.data.rotate((3.0, 2.0)), "smallest, largest"),
        (lambda: jn.data.rotate(3.0)(KEY, jnp.ones((2, 4, 4, 1))), "map it over a batch"),
        (lambda: jn.data.cutout(0), r"cutout\(0\) expects size ≥ 1"),
        (lambda: jn.data.cutout(2)(KEY, jnp.ones((4, 4))), r"cutout\(2\) expects an image"),
        (lambda: jn.data.noise(-0.1), r"noise\(-0.1\) expects scale ≥ 0"),
        (
            lambda: jn.data.noise(0.1)(KEY, jnp.ones(3, jnp.uint8)),
            r"noise\(0.1\) expects a floating example, got uint8",
        ),
        (lambda: jn.data.compose(jn.data.flip(), 3), r"compose\(flip\(\), 3\) expects functions .* got int 3"),  # type: ignore[arg-type]
        (
            lambda: jn.data.compose(jn.data.flip(), jn.data.random_crop(9))(KEY, jnp.ones((4, 4, 1))),
            r"^random_crop\(9\)",
        ),
    ],
)
def test_mistakes(make: Callable[[], Any], words: str):
    with pytest.raises(jn.NetError, match=words):
        make()


def test_functions_bear_the_call_that_made_them():
    both = jn.data.compose(jn.data.random_crop((4, 3), padding=1), jn.data.flip(0, probability=0.2), jn.data.noise(0.1))
    assert both.__qualname__ == "compose(random_crop((4, 3), padding=1), flip(axis=0, probability=0.2), noise(0.1))"
    named = [jn.data.cutmix(0.5, num_classes=3), jn.data.balanced(10), jn.data.rotate(jnp.float32(15))]
    assert [each.__qualname__ for each in named] == ["cutmix(alpha=0.5, num_classes=3)", "balanced(10)", "rotate(15)"]


def test_shift_moves_and_fills_with_zeros():
    image = np.zeros((7, 7, 2), np.float32)
    image[3, 3] = 1
    moved = many(jn.data.shift(2), image)
    places = np.argwhere(moved[..., 0] == 1)[:, 1:] - 3
    assert len(places) == 2000
    assert {tuple(place) for place in places} == {(r, c) for r in range(-2, 3) for c in range(-2, 3)}
    np.testing.assert_array_equal(moved.sum((1, 2)), np.ones((2000, 2)))
    edge = many(jn.data.shift(1), np.ones((3, 3, 1), np.float32))
    assert set(np.unique(edge.sum((1, 2, 3)))) == {4.0, 6.0, 9.0}


def test_shift_rejects():
    with pytest.raises(jn.NetError, match="pixels"):
        jn.data.shift(0)
    with pytest.raises(jn.NetError, match=r"shift\(1\) expects an image"):
        jn.data.shift(1)(jax.random.key(0), jnp.ones((3, 3)))
