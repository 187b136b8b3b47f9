"""ResNets against torchvision's and timm's: logits, gradients, a short training run."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.core.net import Net
from jaxnets.core.paths import paths
from tests.models.weights import digest, draw, from_torch, to_torch
from tests.once import QUICKLY
from tests.oracle import floats, integers, witness
from tests.peers import PEERS, timm_model, torchvision_models

models = jn.models
X, WEIGHTS = floats(2, 64, 64, 3), floats(2, 10, seed=1)  # the gradients are those of Σ logits · WEIGHTS


def thinned(tree: Any) -> np.ndarray:
    """Return the digest of some 4,000 numbers of each leaf: whole gradients of large networks take seconds."""
    return digest({path: np.ravel(leaf)[:: leaf.size // 4096 | 1] for path, leaf in paths(tree).items()})


def torch_names_v2(name: str) -> str:
    """Return timm's name in version 2 for what is called `name` here, in PyTorch's spelling."""
    name = re.sub(r"^layer(\d)\.", lambda found: f"stages.{int(found[1]) - 1}.blocks.", name)
    return re.sub(r"^(conv1|fc)\.", lambda found: {"conv1": "stem.conv.", "fc": "head.fc."}[found[1]], name)


def version_1(net: Any) -> Any:
    """Turn torchvision's version 1.5 into version 1: the stride moves from the 3×3 to the first 1×1."""
    for stage in (net.layer2, net.layer3, net.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return net


def torchvision(name: str) -> Any:
    return getattr(torchvision_models(), name)(num_classes=10)


# Ours, the peer, the peer's spelling of our names, and whether gradients are compared.
NETS: dict[str, tuple[Callable[..., Net], Callable[[], Any], Callable[[str], str], bool]] = {
    "resnet50": (models.resnet50, lambda: torchvision("resnet50"), str, True),
    "resnet50_v1": (
        lambda *args, **options: models.resnet50(*args, version="1", **options),
        lambda: version_1(torchvision("resnet50")),
        str,
        False,
    ),
    "resnext50_32x4d": (models.resnext50_32x4d, lambda: torchvision("resnext50_32x4d"), str, True),
    "resnet18_v2": (models.resnet18_v2, lambda: timm_model("resnetv2_18", num_classes=10), torch_names_v2, False),
    "resnet50_v2": (models.resnet50_v2, lambda: timm_model("resnetv2_50", num_classes=10), torch_names_v2, True),
}


def fill(peer: Any, params: Any, state: Any, rename: Callable[[str], str]) -> dict[str, str]:
    """Load drawn weights into a peer; return our name in PyTorch's spelling for each of its tensors."""
    import torch

    ours = to_torch(params, state)
    names = {rename(name): name for name in ours}
    want = {name: value for name, value in peer.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert set(want) == set(names)
    for name, value in want.items():
        assert value.numel() == ours[names[name]].size
        value.copy_(torch.from_numpy(ours[names[name]]).reshape(value.shape))  # timm's `fc` is a 1×1 convolution
    return names


@pytest.mark.parametrize("name", NETS)
@pytest.mark.slow_cases("resnext50_32x4d", "resnet50_v2", "resnet50", "resnet50_v1")
def test_logits_and_gradients_are_the_peers(name: str):
    make, make_peer, rename, gradients = NETS[name]
    net, short = make(10), make(10, scan=True)
    params, state = draw(net, X)

    def compute() -> dict[str, np.ndarray]:
        import torch

        peer = make_peer()
        names = fill(peer, params, state, rename)
        x = torch.from_numpy(X).permute(0, 3, 1, 2)
        with torch.no_grad():
            said = {"y": peer.eval()(x).numpy()}
        if not gradients:
            return said
        x = x.double().requires_grad_()
        (peer.double()(x) * torch.from_numpy(WEIGHTS)).sum().backward()
        assert x.grad is not None
        shapes = {key: value.shape for key, value in to_torch(params).items()}
        found = {names[key]: value.grad.reshape(shapes[names[key]]) for key, value in peer.named_parameters()}
        dx = x.grad.permute(0, 2, 3, 1)[:, ::3, ::3]
        return said | {"dx": dx.numpy(), "dparams": thinned(from_torch(found)[0])}

    expected = witness(f"models/{name}", compute, installed=PEERS)

    def logits(params: Any, state: Any, x: Any) -> Any:
        return short.apply(jn.to_stacked(short, params), jn.to_stacked(short, state), x)[0]

    def run(params: Any, state: Any, x: Any) -> Any:
        y, back = jax.vjp(lambda params, x: logits(params, state, x), params, x)
        return y, *back(jnp.asarray(WEIGHTS, y.dtype))

    options = {} if name.startswith("resnext") else QUICKLY  # groups, compiled quickly, run for a minute
    if not gradients:
        y = jax.jit(logits).lower(params, state, X).compile(options)(params, state, X)
    else:
        with jax.enable_x64(True):  # in float32 a unit near the kink of its ReLU may fall on either side
            given: Any = jax.tree.map(lambda leaf: leaf.astype(np.float64), (params, state, X))
            y, dparams, dx = jax.jit(run).lower(*given).compile(options)(*given)
        assert np.abs(np.asarray(dx)[:, ::3, ::3] - expected["dx"]).max() <= 1e-10 * np.abs(expected["dx"]).max()
        bound = 1e-10 * np.abs(expected["dparams"]).max(axis=1, keepdims=True)  # leaf by leaf
        assert (np.abs(thinned(dparams) - expected["dparams"]) <= bound).all()
    assert np.abs(np.asarray(y) - expected["y"]).max() <= 1e-5 * np.std(expected["y"])


@pytest.mark.slow
def test_twenty_steps_of_training_are_torchvisions():
    net, rate, steps = models.resnet18(10), 0.002, 20
    x, labels = floats(steps, 16, 16, 16, 3), integers(steps, 16, high=10)
    params, state = draw(net, x[0])

    def compute() -> dict[str, np.ndarray]:
        import torch

        peer = torchvision("resnet18")
        fill(peer, params, state, str)
        peer.double().train()
        optimizer = torch.optim.SGD(peer.parameters(), lr=rate)
        losses = []
        for batch, target in zip(x, labels, strict=True):
            y = peer(torch.from_numpy(batch).double().permute(0, 3, 1, 2))
            loss = torch.nn.functional.cross_entropy(y, torch.from_numpy(target).long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        after = from_torch({name: value.numpy() for name, value in peer.state_dict().items() if value.ndim})
        y = peer.eval()(torch.from_numpy(x[0]).double().permute(0, 3, 1, 2)).detach().numpy()
        statistics = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(after[1])])
        return {"y": y, "loss": np.array(losses), "params": thinned(after[0]), "state": statistics.astype(np.float32)}

    expected = witness("models/resnet18_trained", compute, installed=PEERS)
    with jax.enable_x64(True):  # in float32 two runs of twenty steps part by rounding alone
        run: Any = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (params, state))

        def loss(params: Any, state: Any, x: Any, label: Any) -> Any:
            y, state = net.apply(params, state, x, train=True)
            return -jnp.take_along_axis(jax.nn.log_softmax(y), label[:, None], axis=1).mean(), state

        def step(params: Any, state: Any, x: Any, label: Any) -> Any:
            (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(params, state, x, label)
            return jax.tree.map(lambda p, g: p - rate * g, params, gradient), state, value

        batches, losses = jnp.asarray(x, jnp.float64), []
        compiled = jax.jit(step).lower(*run, batches[0], labels[0]).compile(QUICKLY)
        for batch, label in zip(batches, labels, strict=True):
            *run, value = compiled(*run, batch, label)
            losses.append(float(value))
        y, _ = jax.jit(net.apply).lower(*run, batches[0]).compile(QUICKLY)(*run, batches[0])
    np.testing.assert_allclose(losses, expected["loss"], rtol=1e-9)
    assert np.abs(thinned(run[0]) - expected["params"]).max() <= 1e-9
    assert np.abs(np.asarray(y) - expected["y"]).max() <= 1e-9 * np.std(expected["y"])
    statistics = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(run[1])])
    np.testing.assert_allclose(statistics, expected["state"], rtol=2e-7, atol=1e-9)  # stored in float32
