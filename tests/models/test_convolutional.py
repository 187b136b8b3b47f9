"""MobileNetV2, EfficientNet, DenseNet and ConvNeXt against torchvision: values, gradients, initial values, rates."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.interop import from_torch
from jaxnets.models.convnext import _convnext
from jaxnets.models.densenet import _densenet
from jaxnets.models.efficientnet import _efficientnet
from tests.models.agreement import agree
from tests.models.weights import draw, to_torch
from tests.once import QUICKLY
from tests.oracle import floats, witness
from tests.peers import PEERS, torchvision_models

KEY = jax.random.key(0)
STAGES = ((1, 3, 1, 8, 1), (6, 5, 2, 16, 2), (4, 3, 1, 24, 2))


def mobilenet() -> Any:
    return torchvision_models().mobilenet_v2(num_classes=10, width_mult=0.25, dropout=0.0)


def efficientnet() -> Any:
    torchvision_models()
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    sizes = zip((8, 8, 16), STAGES)
    rows = [
        MBConvConfig(expansion, window, stride, before, c, n) for before, (expansion, window, stride, c, n) in sizes
    ]
    return EfficientNet(rows, dropout=0.0, stochastic_depth_prob=0.0, num_classes=10)


def densenet() -> Any:
    return torchvision_models().DenseNet(8, (2, 3), 16, num_classes=10)


def convnext() -> Any:
    torchvision_models()
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    rows = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)]
    return ConvNeXt(rows, num_classes=10, layer_scale=0.5)


# Ours and torchvision's of the same small sizes, and an input.
SMALL: dict[str, tuple[Callable[[], jn.Net], Callable[[], Any], np.ndarray]] = {
    "mobilenet": (partial(jn.models.mobilenet_v2, 10, width=0.25, dropout=0.0), mobilenet, floats(3, 50, 37, 3)),
    "efficientnet": (lambda: _efficientnet(STAGES, 8, 10, 0.0, 0.0), efficientnet, floats(3, 19, 24, 3)),
    "densenet": (lambda: _densenet((2, 3), 8, 16, 10, 0.0), densenet, floats(3, 33, 26, 3)),
    "convnext": (lambda: _convnext((8, 16), (1, 2), 10, 0.0, 0.5), convnext, floats(3, 35, 24, 3)),
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.slow_cases("mobilenet", "efficientnet", "densenet")
def test_values_gradients_and_statistics_are_torchvisions(name: str):
    """In evaluation and in training, in float64."""
    ours, theirs, x = SMALL[name]
    agree(f"models/{name}_small", ours(), x, theirs)


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_b0", "densenet121", "convnext_tiny"])
@pytest.mark.slow
def test_logits_of_the_whole_network_are_torchvisions(name: str):
    net, x = getattr(jn.models, name)(), floats(2, 64, 64, 3)
    params, state = draw(net, x)
    tensors = to_torch(params, state)

    def ask() -> dict[str, np.ndarray]:
        import torch

        model = getattr(torchvision_models(), name)().eval()
        lost = model.load_state_dict({key: torch.tensor(value) for key, value in tensors.items()}, strict=False)
        assert not lost.unexpected_keys
        assert all(key.endswith("num_batches_tracked") for key in lost.missing_keys)
        with torch.no_grad():
            return {"y": model(torch.tensor(x).permute(0, 3, 1, 2)).numpy()}

    want = witness(f"models/{name}", ask, installed=PEERS)["y"]
    y = jax.jit(net.apply).lower(params, state, x).compile(QUICKLY)(params, state, x)[0]
    assert np.abs(np.asarray(y) - want).max() <= 5e-5 * np.std(want)


@pytest.mark.parametrize("name", SMALL)
def test_initial_values_have_torchvisions_spread(name: str):
    """The deviations of all kernels of at least 800 numbers, themselves known to 2.5 %, and all scales and biases."""
    ours, theirs, x = SMALL[name]

    def ask() -> dict[str, np.ndarray]:
        import torch

        torch.manual_seed(0)
        state = theirs().state_dict()
        own = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
        return {key: np.asarray([value.numpy().mean(), value.numpy().std()]) for key, value in own.items()}

    want = witness(f"models/{name}_initial", ask, installed=PEERS)
    drawn = to_torch(*jax.jit(ours().init)(KEY, x))
    assert set(drawn) == set(want)
    for key, value in drawn.items():
        mean, spread = want[key]
        if value.size >= 800:
            np.testing.assert_allclose(value.std(), spread, rtol=0.15, err_msg=key)
        elif value.ndim == 1:
            np.testing.assert_allclose(value, np.full(value.shape, mean), rtol=1e-6, err_msg=key)


RATES = {
    "efficientnet_b0": (jn.models.efficientnet_b0, 0.8),
    "convnext_tiny": (jn.models.convnext_tiny, 0.34),
}


@pytest.mark.parametrize("name", RATES)
def test_stochastic_depth_grows_with_depth_as_torchvisions(name: str):
    make, rate = RATES[name]

    def ask() -> dict[str, np.ndarray]:
        import torch

        with torch.device("meta"):
            model = getattr(torchvision_models(), name)(stochastic_depth_prob=rate)
        named = {key: module for key, module in model.named_modules() if key.endswith("stochastic_depth")}
        return {key: np.asarray(module.p) for key, module in named.items()}

    want = witness(f"models/{name}_rates", ask, installed=PEERS)
    found = {}

    def collect(net: jn.Net, path: str = "") -> None:
        if net.kind == "drop_path":
            found[path.replace("/", ".")] = net.arguments["rate"]
        for key, child in net.children.items():
            collect(child, f"{path}/{key}".lstrip("/"))

    collect(make(stochastic_depth=rate))
    # torchvision's blocks without a shortcut have the module, and do not call it.
    assert set(found) <= set(want)
    assert len(found) == {"efficientnet_b0": 9, "convnext_tiny": 18}[name]
    for key, value in found.items():
        np.testing.assert_allclose(value, want[key], rtol=1e-12, err_msg=key)
    assert max(found.values()) > 0.3


def test_dropped_blocks_are_skipped_in_training_alone():
    """At a rate of almost 1 the last block, which has the whole rate, is the identity."""
    net, x = _convnext((4, 6), (1, 1), 3, 1 - 2**-20, 1.0), floats(4, 8, 8, 1)
    params, state = draw(net, x)
    before, after = (net.upto(f"features/{place}") for place in (2, 3))
    for train in (True, False):
        start, _ = before.apply(params, state, x, key=KEY, train=train)
        end, _ = after.apply(params, state, x, key=KEY, train=train)
        assert bool((start == end).all()) == train


def test_settings_of_torchvisions_modules_are_compared():
    torch = pytest.importorskip("torch")
    with torch.device("cpu"):
        model = efficientnet()
    x = SMALL["efficientnet"][2]
    params, state = from_torch(_efficientnet(STAGES, 8, 10, 0.0, 0.0), model, x)
    y, _ = _efficientnet(STAGES, 8, 10, 0.0, 0.0).apply(params, state, x)
    want = model.eval()(torch.tensor(x).permute(0, 3, 1, 2)).detach().numpy()
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-5 * np.ptp(want))


def test_too_small_images_are_told():
    for make, size, layer in ((jn.models.densenet121, 28, "avg_pool"), (jn.models.convnext_tiny, 31, "conv")):
        with pytest.raises(jn.NetError, match=rf"^features/.*{layer}.*at least as large as the kernel"):
            jax.eval_shape(make().init, KEY, jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
        jax.eval_shape(make().init, KEY, jax.ShapeDtypeStruct((1, size + 1, size + 1, 3), jnp.float32))


def test_settings_out_of_range_are_told():
    models: Any = jn.models
    with pytest.raises(jn.NetError, match=r"expects width > 0, got 0"):
        jn.models.mobilenet_v2(width=0.0)
    with pytest.raises(jn.NetError, match=r"write stochastic_depth=0\.1"):
        models.convnext_tiny(stochastic_depth_prob=0.1)
    with pytest.raises(jn.NetError, match=r"write width=0\.5"):
        models.mobilenet_v2(width_mult=0.5)
