"""Augmentations of images, for given draws, against torchvision's functions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.data.augment import boxes, colors, rand_augment
from tests.oracle import integers, witness
from tests.peers import PEERS, torchvision_models

KEY = jax.random.key(5)
# Values of 8 bits, of which posterize and equalize are made.
IMAGE = (integers(11, 14, 3, high=256) / 255).astype(np.float32)
GRAY = (integers(9, 7, 1, high=200) / 255).astype(np.float32)
BOXES = [(0, 0, 11, 14), (2, 3, 7, 9), (10, 13, 1, 1), (1, 0, 10, 2)]
SIZES = [(5, 6), (16, 20)]
FACTORS = {"brightness": (0.3, 1.7), "contrast": (0.0, 1.6), "saturation": (0.2, 2.0), "hue": (-0.31, 0.5, 0.1)}
JITTER = (("hue", -0.2), ("contrast", 1.4), ("brightness", 0.8), ("saturation", 1.5))
MAGNITUDES = (9, 30)


def functional() -> Any:
    torchvision_models()
    from torchvision.transforms import functional

    return functional


def tensor(image: np.ndarray) -> Any:
    import torch

    return torch.tensor(image.transpose(2, 0, 1))


def array(tensor: Any) -> np.ndarray:
    return tensor.numpy().transpose(1, 2, 0)


def placed(place: tuple[int, ...]) -> boxes.Box:
    return boxes.Box(*(jnp.asarray(each, jnp.int32) for each in place))


def test_resized_crops_are_torchvisions():
    def theirs() -> dict[str, np.ndarray]:
        crop = functional().resized_crop
        return {
            f"{place} {size}": array(crop(tensor(IMAGE), *place, list(size), antialias=True))
            for place in BOXES
            for size in SIZES
        }

    want = witness("augment/resized_crop", theirs, installed=PEERS)
    ours = jax.jit(boxes.resized_crop, static_argnums=2)
    for place in BOXES:
        for size in SIZES:
            found = ours(jnp.asarray(IMAGE), placed(place), size)
            np.testing.assert_allclose(found, want[f"{place} {size}"], atol=1e-5)
    whole = ours(jnp.asarray(IMAGE * 255).astype(jnp.uint8), placed(BOXES[0]), (11, 14))
    np.testing.assert_array_equal(whole, np.round(IMAGE * 255).astype(np.uint8))


def test_erased_boxes_are_torchvisions():
    def theirs() -> dict[str, np.ndarray]:
        import torch

        fill = torch.tensor([0.1, 0.2, 0.3])[:, None, None]
        return {str(place): array(functional().erase(tensor(IMAGE), *place, fill)) for place in BOXES}

    want = witness("augment/erase", theirs, installed=PEERS)
    for place in BOXES:
        filling = jnp.array([0.1, 0.2, 0.3])[None, None]
        np.testing.assert_array_equal(boxes.erased(jnp.asarray(IMAGE), placed(place), filling), want[str(place)])


@pytest.mark.parametrize("name", FACTORS)
def test_colors_are_torchvisions(name: str):
    images = {"color": IMAGE, "gray": GRAY, "flat": np.full((3, 3, 3), 0.25, np.float32)}

    def theirs() -> dict[str, np.ndarray]:
        adjust = getattr(functional(), f"adjust_{name}")
        cases = ((kind, image, factor) for kind, image in images.items() for factor in FACTORS[name])
        return {f"{kind} {factor}": array(adjust(tensor(image), factor)) for kind, image, factor in cases}

    want = witness(f"augment/{name}", theirs, installed=PEERS)
    for kind, image in images.items():
        for factor in FACTORS[name]:
            found = jax.jit(colors.ADJUSTMENTS[name])(jnp.asarray(image), jnp.float32(factor))
            np.testing.assert_allclose(found, want[f"{kind} {factor}"], atol=1e-5)


def test_jitter_is_its_adjustments_in_their_order():
    def theirs() -> dict[str, np.ndarray]:
        image = tensor(IMAGE)
        for name, factor in JITTER:
            image = getattr(functional(), f"adjust_{name}")(image, factor)
        return {"image": array(image)}

    want = witness("augment/jitter", theirs, installed=PEERS)["image"]
    names = tuple(colors.ADJUSTMENTS)
    order = jnp.array([names.index(name) for name, _ in JITTER])
    factors = jnp.array([dict(JITTER)[name] for name in names])
    found = jax.jit(colors.adjusted, static_argnums=1)(jnp.asarray(IMAGE), names, order, factors)
    np.testing.assert_allclose(found, want, atol=1e-5)


def test_operations_and_magnitudes_are_torchvisions():
    image = np.concatenate([np.tile(IMAGE, (1, 2, 1)) ** 2, IMAGE.repeat(2, 1) / 2 + 0.2])
    image = (np.round(image * 255) / 255).astype(np.float32)

    def theirs() -> dict[str, np.ndarray]:
        import torch

        functional()
        from torchvision.transforms import InterpolationMode, RandAugment
        from torchvision.transforms.autoaugment import _apply_op

        found = {}
        height, width, _ = image.shape
        for name, (table, signed) in RandAugment()._augmentation_space(31, (height, width)).items():
            for magnitude in MAGNITUDES:
                strength = float(table[magnitude]) if table.ndim else 0.0
                for sign in (1, -1) if signed else (1,):
                    x, level = tensor(image), sign * strength
                    whole = name in ("Posterize", "Equalize")
                    x = (x * 255).round().to(torch.uint8) if whole else x
                    level = level / 255 if name == "Solarize" else level
                    y = _apply_op(x, name, level, InterpolationMode.NEAREST, None)
                    found[f"{name} {magnitude} {sign}"] = np.round(
                        255 * array(y.to(torch.float32) / (255 if whole else 1)), 3
                    )
        return found

    want = witness("augment/operations", theirs, installed=PEERS)
    names = list(dict.fromkeys(case.split()[0] for case in want))
    assert [name.lower() for name in names] == [name.replace("_", "") for name in rand_augment.OPERATIONS]
    table = rand_augment.strengths(image.shape, 31)
    operate = jax.jit(rand_augment.operate)
    for case, values in want.items():
        name, magnitude, sign = case.split()
        number = names.index(name)
        found = operate(jnp.asarray(image), jnp.int32(number), table[number, int(magnitude)], jnp.array(sign == "-1"))
        np.testing.assert_allclose(found, values / 255, atol=1e-5, err_msg=case)
    assert sum(case.endswith("-1") for case in want) == 9 * len(MAGNITUDES)


@pytest.mark.parametrize("lengths", [(40, 60), (30, 200)])
def test_crops_have_the_areas_and_ratios_asked_for(lengths: tuple[int, int]):
    draw = jax.vmap(lambda key: boxes.draw_crop(key, lengths, (0.1, 0.5), (0.75, 1.5)))
    top, left, height, width = map(np.asarray, jax.jit(draw)(jax.random.split(KEY, 2000)))
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= lengths[0]).all()
    assert (left + width <= lengths[1]).all()
    fallback = (height == lengths[0]) & (width == round(1.5 * lengths[0]))
    share, ratio = height * width / np.prod(lengths), width / height
    assert np.abs(np.log(ratio)).max() < np.log(1.5) + 0.1
    # Rounded to whole pixels.
    assert share.min() > 0.09
    if lengths == (40, 60):
        assert not fallback.any()
        assert np.histogram(share, 4, (0.1, 0.5))[0].min() > 400
        assert abs(np.log(ratio).mean() - np.log(0.75 * 1.5) / 2) < 0.02
        assert top.min() == 0
        assert (top + height).max() == 40
    else:
        # Of a wide image even half the height times 1.5 is less than a tenth in most draws.
        assert share.max() < 0.25


def test_a_crop_that_never_fits_is_the_largest_in_the_center():
    for lengths, want in (((10, 100), (0, 43, 10, 13)), ((100, 10), (43, 0, 13, 10)), ((10, 10), (0, 0, 10, 10))):
        scale = (1.0, 1.0) if lengths == (10, 10) else (0.9, 1.0)
        ratio = (1.0, 1.0) if lengths == (10, 10) else (3 / 4, 4 / 3)
        drawn = boxes.draw_crop(KEY, lengths, scale, ratio)
        assert tuple(int(each) for each in drawn) == want


def test_holes_have_their_areas_and_happen_with_their_probability():
    image, keys = jnp.ones((30, 30, 1)), jax.random.split(KEY, 2000)
    holes = 1 - np.asarray(jax.jit(jax.vmap(jn.data.erase(0.3), (0, None)))(keys, image))[..., 0]
    happened = holes.any((1, 2))
    assert abs(happened.sum() - 600) < 4.5 * np.sqrt(2000 * 0.3 * 0.7)
    share = holes[happened].mean((1, 2))
    assert 0.015 < share.min() < 0.05
    assert 0.28 < share.max() < 0.35
    tall, wide = holes[happened].any(2).sum(1), holes[happened].any(1).sum(1)
    np.testing.assert_allclose(tall * wide, holes[happened].sum((1, 2)))
    noisy = jn.data.erase(1.0, value=None, scale=(0.3, 0.3))(KEY, image)
    assert 0.5 < float(noisy[noisy != 1].std()) < 1.5
    whole = jn.data.erase(1.0, scale=(1.0, 1.0), ratio=(1.0, 1.0))(KEY, image)
    assert (whole == 1).all()


def test_jitter_draws_its_factors_and_order():
    image, keys = jnp.asarray(IMAGE), jax.random.split(KEY, 500)
    brighter = jax.jit(jax.vmap(jn.data.color_jitter((0.2, 0.6)), (0, None)))(keys, image)
    factors = np.asarray(brighter)[:, 3, 4, 0] / IMAGE[3, 4, 0]
    assert np.histogram(factors, 4, (0.2, 0.6))[0].min() > 80
    assert np.histogram(factors, 4, (0.2, 0.6))[0].sum() == 500
    # With known factors, brightness and contrast give two images, by their order.
    two = np.asarray(jax.jit(jax.vmap(jn.data.color_jitter((0.5, 0.5), (2.0, 2.0)), (0, None)))(keys, image))
    assert len(np.unique(two.reshape(500, -1).round(5), axis=0)) == 2
    assert (jn.data.color_jitter()(KEY, image) == image).all()
    swept = jax.vmap(lambda strength: jn.data.color_jitter(strength)(KEY, image))(jnp.array([0.0, 0.5]))
    np.testing.assert_allclose(swept[0], image, atol=1e-6)
    assert not np.allclose(swept[1], image, atol=1e-3)


@pytest.mark.slow
def test_operations_are_drawn_equally_often():
    image, keys = jnp.asarray(IMAGE), jax.random.split(KEY, 1000)
    found = np.asarray(jax.jit(jax.vmap(jn.data.rand_augment(1, 30), (0, None)))(keys, image))
    kinds, counts = np.unique(found.reshape(1000, -1).round(4), axis=0, return_counts=True)
    # 9 of the 14 go both ways; the image has all values, so that autocontrast changes nothing.
    assert 20 <= len(kinds) <= 23
    assert counts.min() > 10
    assert abs(counts.max() - 2000 / 14) < 60 or abs(counts.max() - 1000 / 14) < 40
    assert jax.eval_shape(jn.data.rand_augment(), KEY, image.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    swept = jax.vmap(lambda magnitude: jn.data.rand_augment(2, magnitude)(KEY, image))(jnp.arange(3))
    np.testing.assert_array_equal(swept[2], jn.data.rand_augment(2, 2)(KEY, image))


MISTAKES: dict[str, tuple[Any, str]] = {
    "bytes": (
        lambda: jn.data.color_jitter(0.1)(KEY, np.ones((3, 3, 3), np.uint8)),
        r"color_jitter.* a floating image .*255",
    ),
    "four channels": (
        lambda: jn.data.rand_augment()(KEY, np.ones((3, 3, 4), np.float32)),
        r"1 or 3 channels, got \(3, 3, 4",
    ),
    "a batch": (lambda: jn.data.erase()(KEY, np.ones((2, 3, 3, 1))), r"expects an image \(height, width, channels\)"),
    "an area above 1": (lambda: jn.data.random_resized_crop(3, scale=(0.1, 2.0)), r"expects scale as .* up to 1, got"),
    "a range turned around": (lambda: jn.data.erase(ratio=(3.0, 1.0)), r"expects ratio as \(smallest, largest\), got"),
    "no range": (lambda: jn.data.erase(scale=0.3), r"expects scale as \(smallest, largest\), got 0\.3"),  # pyright: ignore
    "a hue": (lambda: jn.data.color_jitter(hue=0.7), r"expects hue from -0\.5 to 0\.5, the smallest first, got 0\.7"),
    "a negative factor": (lambda: jn.data.color_jitter((-1.0, 1.0)), r"expects brightness ≥ 0, the smallest first"),
    "a magnitude": (lambda: jn.data.rand_augment(2, 31), r"expects magnitude from 0 to 30, got 31"),
    "a probability": (lambda: jn.data.erase(2.0), r"expects probability in \[0, 1\]"),
    "sizes": (lambda: jn.data.random_resized_crop((1, 2, 3)), r"expects size as one number or \(height, width\)"),
    "noise for bytes": (
        lambda: jn.data.erase(value=None)(KEY, np.ones((3, 3, 1), np.uint8)),
        r"expects a floating image for noise, got uint8",
    ),
    "values": (lambda: jn.data.erase(value=(1.0, 2.0))(KEY, np.ones((3, 3, 3))), r"one value, or 3 for the channels"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str):
    mistake, message = MISTAKES[name]
    with pytest.raises(jn.NetError, match=message):
        mistake()
