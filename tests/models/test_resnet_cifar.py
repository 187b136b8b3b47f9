"""ResNets for small images against the paper's section 4.2, written in PyTorch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.models.weights import digest, draw, from_torch, to_torch
from tests.once import once
from tests.oracle import floats, witness

models = jn.models


def torch_cifar(params: Any, state: Any, x: np.ndarray, depth: int, shortcut: str | None) -> tuple[Any, dict]:
    """Return the logits of section 4.2 of the paper in PyTorch, and the parameters that they were computed from."""
    import torch
    from torch.nn import functional as F

    leaves = {name: torch.from_numpy(value) for name, value in to_torch(params, state).items()}
    for name, leaf in leaves.items():
        leaf.requires_grad_("running" not in name)

    def conv(x: Any, name: str, stride: int = 1) -> Any:
        weight = leaves[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(x: Any, name: str) -> Any:
        mean, var, weight, bias = (
            leaves[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias)

    h = F.relu(norm(conv(torch.from_numpy(x).permute(0, 3, 1, 2), "conv1"), "bn1"))
    for stage in (1, 2, 3):
        for place in range((depth - 2) // 6):
            name, stride = f"layer{stage}.{place}", 2 if stage > 1 and place == 0 else 1
            body = F.relu(norm(conv(h, f"{name}.conv1", stride), f"{name}.bn1"))
            body = norm(conv(body, f"{name}.conv2"), f"{name}.bn2")
            if shortcut is None:
                h = F.relu(body)
                continue
            if shortcut == "C" or (shortcut == "B" and stride == 2):
                h = norm(conv(h, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            elif stride == 2:
                h = h[:, :, ::2, ::2]
                h = torch.cat([h, torch.zeros_like(h)], dim=1)
            h = F.relu(body + h)
    return F.linear(h.mean((2, 3)), leaves["fc.weight"], leaves["fc.bias"]), leaves


@pytest.mark.parametrize("shortcut", ["A", "B", "C", None])
@pytest.mark.slow_cases("A", "B", "None")
def test_small_nets_are_the_papers(shortcut: Any):
    depth = 14 if shortcut == "B" else 8
    net = models.resnet_cifar(depth, shortcut=shortcut) if shortcut else models.plain_cifar(depth)
    x = floats(2, 15, 18, 3)  # odd sizes too
    params, state = draw(net, x)

    def compute() -> dict[str, np.ndarray]:
        import torch

        y, leaves = torch_cifar(params, state, x, depth, shortcut)
        (y * torch.from_numpy(floats(2, 10, seed=1))).sum().backward()
        gradients = from_torch({name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None})[0]
        return {"y": y.detach().numpy(), "dparams": digest(gradients)}

    def run(params: Any, state: Any, x: Any) -> Any:
        y, back = jax.vjp(lambda params: net.apply(params, state, x)[0], params)
        return y, *back(jnp.asarray(floats(2, 10, seed=1)))

    expected = witness(f"models/resnet_cifar_{shortcut}", compute)
    y, dparams = once(run, params, state, x)
    assert np.abs(y - expected["y"]).max() <= 1e-5 * np.std(expected["y"])
    found = digest(dparams)
    assert (np.abs(found - expected["dparams"]) <= 1e-4 * np.abs(expected["dparams"]).max(axis=1, keepdims=True)).all()
