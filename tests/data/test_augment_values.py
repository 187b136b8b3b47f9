"""Augmentations of images, for given draws, against torchvision's functions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.data.augment import boxes, colors, rand_augment
from tests.oracle import TORCH, integers, witness
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
                    found[f"{name} {magnitude} {sign}"] = np.round(255 * array(y.to(torch.float32) / (255 if whole else 1)), 3)
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
