"""Resizing: values and gradients against PyTorch, JAX and Pillow, precision, conversion, mistakes."""

import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.interop import from_torch
from tests.oracle import floats, witness

ROW, MAP, CUBE = floats(2, 7, 3), floats(2, 7, 6, 3), floats(2, 4, 3, 5, 2)
FINER: dict[str, Any] = {"method": "linear", "antialias": False}

# Ours, PyTorch's settings, and an input.
LIKE_TORCH: dict[str, tuple[jn.Net, dict[str, Any], np.ndarray]] = {
    "nearest_twice": (jn.resize(scale=2), {"scale_factor": 2, "mode": "nearest"}, MAP),
    "nearest_row": (jn.resize(21), {"size": 21, "mode": "nearest"}, ROW),
    "nearest_up": (jn.resize((9, 13)), {"size": (9, 13), "mode": "nearest-exact"}, MAP),
    "nearest_down": (jn.resize((3, 4)), {"size": (3, 4), "mode": "nearest-exact"}, MAP),
    "linear_row": (jn.resize(scale=2, method="linear"), {"scale_factor": 2, "mode": "linear"}, ROW),
    "linear_row_down": (jn.resize(3, **FINER), {"size": 3, "mode": "linear"}, ROW),
    "bilinear_up": (jn.resize((9, 17), method="bilinear"), {"size": (9, 17), "mode": "bilinear"}, MAP),
    "bilinear_down": (jn.resize((4, 3), **FINER), {"size": (4, 3), "mode": "bilinear"}, MAP),
    "bilinear_wide": (
        jn.resize((3, 8), method="bilinear"),
        {"size": (3, 8), "mode": "bilinear", "antialias": True},
        MAP,
    ),
    "trilinear": (
        jn.resize((3, 6, 8), method="trilinear", antialias=False),
        {"size": (3, 6, 8), "mode": "trilinear"},
        CUBE,
    ),
    "bicubic_up": (jn.resize(11, method="cubic"), {"size": 11, "mode": "bicubic", "antialias": True}, MAP),
    "bicubic_down": (jn.resize(4, method="bicubic"), {"size": 4, "mode": "bicubic", "antialias": True}, MAP),
    "floored": (
        jn.resize(scale=(1.5, 0.6), method="bilinear", antialias=False),
        {"scale_factor": (1.5, 0.6), "mode": "bilinear", "recompute_scale_factor": True},
        MAP,
    ),
}


@pytest.mark.parametrize("name", LIKE_TORCH)
def test_values_and_gradients_are_pytorchs(name: str):
    net, settings, x = LIKE_TORCH[name]
    g = floats(*jax.eval_shape(net.apply, {}, {}, x)[0].shape, seed=1)

    def ask() -> dict[str, np.ndarray]:
        import torch

        given = torch.tensor(np.moveaxis(x, -1, 1), requires_grad=True)
        y = torch.nn.functional.interpolate(given, **settings)
        (dx,) = torch.autograd.grad((y * torch.tensor(np.moveaxis(g, -1, 1))).sum(), given)
        return {"y": np.moveaxis(y.detach().numpy(), 1, -1), "dx": np.moveaxis(dx.numpy(), 1, -1)}

    want = witness(f"layers/resize_{name}", ask)
    y, back = jax.vjp(lambda x: net.apply({}, {}, x)[0], jnp.asarray(x))
    np.testing.assert_allclose(y, want["y"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(back(jnp.asarray(g))[0], want["dx"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic", "lanczos3", "lanczos5"])
@pytest.mark.parametrize("antialias", [False, True])
def test_values_are_jaxs(method: Any, antialias: bool):
    for size in ((9, 13), (3, 4), (1, 6), (14, 2)):
        net = jn.resize(size, method=method, antialias=antialias)
        want = jax.image.resize(MAP, (2, *size, 3), method, antialias)
        np.testing.assert_allclose(net.apply({}, {}, MAP)[0], want, rtol=0, atol=3e-6)


def test_lanczos_and_cubic_are_pillows():
    """Pillow widens its kernels where images shrink, and knows one channel of real numbers."""
    image = floats(20, 15)

    def ask() -> dict[str, np.ndarray]:
        from PIL import Image

        ways = {"lanczos3": Image.Resampling.LANCZOS, "cubic": Image.Resampling.BICUBIC}
        return {name: np.asarray(Image.fromarray(image).resize((10, 12), way)) for name, way in ways.items()}

    want = witness("layers/resize_pillow", ask, installed=importlib.util.find_spec("PIL") is not None)
    for method, y in want.items():
        net: jn.Net = jn.resize((12, 10), method=method)  # type: ignore[arg-type]  # one of the methods
        np.testing.assert_allclose(net.apply({}, {}, image[None, :, :, None])[0][0, :, :, 0], y, rtol=0, atol=1e-5)


def test_what_differs_from_pytorch_differs():
    """Its nearest where sizes shrink, its cubic kernel, and positions by a factor that gives no whole size."""

    def ask() -> dict[str, np.ndarray]:
        import torch

        x = torch.tensor(np.moveaxis(MAP, -1, 1))
        settings = {
            "nearest": {"size": (3, 4)},
            "bicubic": {"size": 11, "mode": "bicubic"},
            "scaled": {"scale_factor": 1.5, "mode": "bilinear"},
        }
        answers = {name: torch.nn.functional.interpolate(x, **each) for name, each in settings.items()}
        return {name: np.moveaxis(y.numpy(), 1, -1) for name, y in answers.items()}

    want = witness("layers/resize_differs", ask)
    ours = {
        "nearest": jn.resize((3, 4)),
        "bicubic": jn.resize(11, method="cubic"),
        "scaled": jn.resize(scale=1.5, method="linear"),
    }
    for name, net in ours.items():
        y = np.asarray(net.apply({}, {}, MAP)[0])
        assert y.shape == want[name].shape
        assert np.abs(y - want[name]).max() > 0.05
    # Their nearest is at ⌊i n / m⌋.
    rows, columns = (np.arange(m) * n // m for n, m in ((7, 3), (6, 4)))
    np.testing.assert_array_equal(want["nearest"], MAP[:, rows][:, :, columns])


def test_constants_stay_and_the_same_size_is_the_same():
    for method in ("nearest", "linear", "cubic", "lanczos5"):
        for antialias in (False, True):
            net = jn.resize((3, 11), method=method, antialias=antialias)
            np.testing.assert_allclose(net.apply({}, {}, np.full_like(MAP, 0.7))[0], 0.7, rtol=1e-6)
            same = jn.resize((7, 6), method=method, antialias=antialias)
            np.testing.assert_array_equal(same.apply({}, {}, MAP)[0], MAP)


def test_precision_follows_the_input_and_sums_are_in_float32():
    x = jnp.asarray(MAP, jnp.bfloat16)
    y, _ = jn.resize(3, method="linear").apply({}, {}, x)
    assert y.dtype == jnp.bfloat16
    exact, _ = jn.resize(3, method="linear").apply({}, {}, x.astype(jnp.float32))
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))
    with jax.enable_x64(True):
        y, _ = jn.resize(11, method="cubic").apply({}, {}, MAP.astype(np.float64))
        want = jax.image.resize(MAP.astype(np.float64), (2, 11, 11, 3), "cubic")
        np.testing.assert_allclose(y, want, rtol=0, atol=1e-6)  # JAX's weights are of float32
        assert y.dtype == jnp.float64


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
def test_maps_resized_and_flattened_have_pytorchs_order_of_features(method: Any):
    net = jn.serial(jn.conv(4, 1), jn.resize((3, 4), method=method, antialias=False), jn.flatten, jn.dense(2))
    tensors = {"0.weight": floats(4, 3, 1, 1), "0.bias": floats(4), "3.weight": floats(2, 48), "3.bias": floats(2)}

    def ask() -> dict[str, np.ndarray]:
        import torch

        resized = torch.nn.Upsample((3, 4), mode="nearest-exact" if method == "nearest" else method)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), resized, torch.nn.Flatten(), torch.nn.Linear(48, 2))
        model.load_state_dict({name: torch.tensor(value) for name, value in tensors.items()})
        return {"y": model(torch.tensor(np.moveaxis(MAP, -1, 1))).detach().numpy()}

    params, state = from_torch(net, tensors, MAP)
    want = witness(f"layers/resize_flattened_{method}", ask)["y"]
    np.testing.assert_allclose(net.apply(params, state, MAP)[0], want, rtol=0, atol=1e-5)


def test_mistakes_are_told():
    wrong: Any = jn.resize
    for call, said in (
        (wrong, r"^resize\(\) expects size or scale, got neither"),
        (lambda: wrong(4, scale=2.0), r"expects size or scale, got size 4 and scale 2\.0"),
        (lambda: wrong(0), r"expects size ≥ 1, got 0"),
        (lambda: wrong((4, -1)), r"expects size ≥ 1, got \(4, -1\)"),
        (lambda: wrong(2.5), r"expects size as an integer or a tuple of integers, got 2\.5"),
        (lambda: wrong(scale=0.0), r"expects scale > 0, got 0"),
        (lambda: wrong(scale=(2.0, -1.0)), r"expects scale > 0, got -1"),
        (lambda: jax.jit(lambda s: wrong(scale=s).apply({}, {}, MAP)[0])(2.0), r"expects a known scale"),
        (lambda: wrong(4, method="area"), r"got 'area'; for means over areas use jn\.adaptive_avg_pool"),
        (lambda: wrong(4, method="nearest-exact"), r"got 'nearest-exact'; \"nearest\" is exact here"),
        (lambda: wrong(scale_factor=2), r"has no argument scale_factor: write scale=2"),
        (lambda: wrong(4, mode="bilinear"), r"has no argument mode: write method='bilinear'"),
        (lambda: wrong(4, align_corners=True), r"align_corners: leave it out: positions are areas"),
    ):
        with pytest.raises(jn.NetError, match=said):
            call()
    for net, x, said in (
        (
            jn.resize((4, 4)),
            ROW,
            r"^resize\(size=\(4, 4\)\) expects \(batch, height, width, channels\), got \(2, 7, 3\)",
        ),
        (jn.resize(4), MAP.astype(np.int32), r"expects floating input, got int32"),
        (jn.resize(4), floats(3, 5), r"expects \(batch, length, channels\)"),
        (jn.resize(scale=0.15), MAP, r"expects an output of at least 1, got width 0 from 6 by scale 0\.15"),
        (jn.resize(4), jn.Padded(ROW, np.array([7, 3], np.int32)), r"takes no Padded sequences"),
    ):
        with pytest.raises(jn.NetError, match=said):
            net.apply({}, {}, x)


def test_names_of_other_libraries_are_explained():
    for name in ("Upsample", "interpolate", "UpSampling2D", "Resizing"):
        with pytest.raises(AttributeError, match=r"; jn\.resize$"):
            getattr(jn, name)
    for name, ours in (
        ("WeightNorm", "weight_norm"),
        ("SpectralNormalization", "spectral_norm"),
        ("LayerScale", "layer_scale"),
    ):
        with pytest.raises(AttributeError, match=rf"; jn\.{ours}$"):
            getattr(jn, name)
