"""SSIM and PSNR against scikit-image, on random and edge cases."""

import importlib.util
from typing import Any

import jax
import numpy as np
import pytest

import jaxnets as jn
from tests.oracle import floats, witness

SKIMAGE = importlib.util.find_spec("skimage") is not None
TRUE = np.clip(0.5 + 0.3 * floats(3, 14, 13, 2), 0, 1).astype(float)
NEAR = np.clip(TRUE + 0.1 * floats(3, 14, 13, 2, seed=1), 0, 1).astype(float)
PAIRS = {
    "near": (NEAR, TRUE),
    "equal": (TRUE, TRUE),
    "inverted": (1 - TRUE, TRUE),
    "constant": (np.zeros_like(TRUE), np.ones_like(TRUE)),
    "black": (np.zeros_like(TRUE), np.zeros_like(TRUE)),
}
OPTIONS: dict[str, dict[str, Any]] = {"": {}, "wide": {"window": 11}, "gaussian": {"gaussian": True}}


def theirs() -> dict[str, np.ndarray]:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity  # pyright: ignore[reportMissingImports]

    forms: dict[str, dict[str, Any]] = {
        "": {}, "wide": {"win_size": 11}, "gaussian": {"gaussian_weights": True, "use_sample_covariance": False},
    }  # fmt: skip
    found = {
        f"{pair} {form}": np.array([structural_similarity(a, b, data_range=1.0, channel_axis=-1, **how)
                                    for a, b in zip(outputs, targets, strict=True)])
        for pair, (outputs, targets) in PAIRS.items() for form, how in forms.items()
    }  # fmt: skip
    with np.errstate(divide="ignore"):
        for pair, (outputs, targets) in PAIRS.items():
            found[f"{pair} psnr"] = np.array(
                [peak_signal_noise_ratio(b, a, data_range=1.0) for a, b in zip(outputs, targets, strict=True)]
            )
    return found


def test_values_are_those_of_scikit_image():
    want = witness("picture_metrics", theirs, installed=SKIMAGE)
    with jax.enable_x64(True):
        for form, options in OPTIONS.items():
            ssim = jax.jit(jax.vmap(lambda o, t, m=jn.metrics.structural_similarity(**options): m(o[None], t[None])))
            for pair, data in PAIRS.items():
                np.testing.assert_allclose(ssim(*data), want[f"{pair} {form}"], rtol=0, atol=1e-9, err_msg=pair + form)
        psnr = jax.jit(jax.vmap(lambda o, t: jn.metrics.peak_signal_to_noise()(o[None], t[None])))
        for pair, data in PAIRS.items():
            np.testing.assert_allclose(psnr(*data), want[f"{pair} psnr"], rtol=1e-9, err_msg=pair)


def test_in_single_precision_of_films_in_batches_with_weights():
    want = witness("picture_metrics", theirs, installed=SKIMAGE)["near "]
    metric, weights = jn.metrics.structural_similarity(), np.array([0.0, 1.0, 3.0])
    outputs, targets = (np.stack([x, x[..., ::-1, :]], 1).astype(np.float32) for x in (NEAR, TRUE))
    parts = [metric.measure(outputs[part], targets[part], weights[part]) for part in (slice(2), slice(2, 3))]
    value = metric.value(metric.merge(*parts))
    np.testing.assert_allclose(value, np.average(want, weights=weights), rtol=1e-5)
    scaled = jn.metrics.structural_similarity(255.0)(255 * outputs, 255 * targets, weights)
    np.testing.assert_allclose(scaled, value, rtol=1e-4)
    assert metric.higher_is_better
    assert metric.range == (-1.0, 1.0)


def test_mistakes():
    with pytest.raises(jn.NetError, match="structural_similarity expects window odd and at least 3, got 4"):
        jn.metrics.structural_similarity(window=4)
    with pytest.raises(jn.NetError, match="structural_similarity expects data_range > 0, got 0"):
        jn.metrics.structural_similarity(0.0)
    with pytest.raises(jn.NetError, match="peak_signal_to_noise expects data_range > 0"):
        jn.metrics.peak_signal_to_noise(-1.0)
    small = np.zeros((1, 6, 9, 1), np.float32)
    with pytest.raises(jn.NetError, match=r"structural_similarity expects .* of 7 × 7 and more, got \(1, 6, 9, 1\)"):
        jn.metrics.structural_similarity()(small, small)
    with pytest.raises(jn.NetError, match="of the same shape"):
        jn.metrics.structural_similarity()(NEAR, TRUE[:, :9])
