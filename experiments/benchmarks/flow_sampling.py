"""Pictures drawn by a flow beside PyTorch eager: `python -m experiments.benchmarks.flow_sampling`.

64 pictures of 28×28 pixels in 50 steps of Euler, by one `conditional_unet` with the same weights in both libraries.
Contestants take turns; medians, and their ratio with a 95 % interval. The goal is a ratio of at least 1.5. `--tiny`
only checks that it runs.
"""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnets as jn
from experiments.benchmarks.timing import interleaved, ratio, timed

OURS, TORCH = "jaxnets", "PyTorch eager"


def torch_unet(params: Mapping[str, Any], levels: int, groups: int) -> Callable[[Any, Any, Any], Any]:
    """Return a `conditional_unet` with classes as a function of PyTorch tensors, of pictures with channels second.

    Args:
        params: its parameters as tensors, by path, kernels of convolutions (out, in, height, width).
        levels: the number of its widths.
        groups: of each group norm.
    """
    import torch
    from torch.nn import functional as F

    p = params

    def dense(x: Any, at: str) -> Any:
        return torch.addmm(p[f"{at}/bias"], x, p[f"{at}/kernel"])

    def conv(x: Any, at: str, stride: int = 1) -> Any:
        return F.conv2d(x, p[f"{at}/kernel"], p[f"{at}/bias"], stride, p[f"{at}/kernel"].shape[-1] // 2)

    def norm(x: Any, at: str) -> Any:
        return F.silu(F.group_norm(x, groups, p[f"{at}/scale"], p[f"{at}/bias"]))

    def block(x: Any, at: str, condition: Any) -> Any:
        h = conv(norm(x, f"{at}/norm1"), f"{at}/conv1") + dense(condition, f"{at}/shift")[:, :, None, None]
        h = conv(norm(h, f"{at}/norm2"), f"{at}/conv2")
        return h + (conv(x, f"{at}/skip") if f"{at}/skip/kernel" in p else x)

    half = p["time/1/kernel"].shape[0] // 2
    frequencies = 1000 / 10_000 ** (torch.arange(half) / half)

    def run(x: Any, t: Any, classes: Any) -> Any:
        angles = t[:, None] * frequencies
        time = dense(torch.cat([torch.cos(angles), torch.sin(angles)], 1), "time/1")
        condition = F.silu(dense(F.silu(time), "time/3") + p["class/embedding"][classes])
        h, encoders = conv(x, "stem"), []
        for level in range(1, levels + 1):
            h = block(h if level == 1 else conv(h, f"down{level}", 2), f"encoder{level}", condition)
            encoders.append(h)
        for level in range(levels - 1, 0, -1):
            top = encoders[level - 1]
            grown = F.interpolate(h, scale_factor=2, mode="nearest")[:, :, : top.shape[2], : top.shape[3]]
            h = block(torch.cat([grown, top], 1), f"decoder{level}", condition)
        return conv(norm(h, "norm"), "conv")

    return run


def torch_parameters(params: Any) -> dict[str, Any]:
    """Return parameters as tensors by path, those of convolutions in PyTorch's order."""
    import torch

    found = {path: torch.tensor(np.array(leaf)) for path, leaf in jn.paths.paths(params).items()}
    return {path: leaf.permute(3, 2, 0, 1).contiguous() if leaf.ndim == 4 else leaf for path, leaf in found.items()}


def contestants(
    pictures: int = 64, side: int = 28, steps: int = 50, widths: tuple[int, ...] = (32, 64)
) -> dict[str, Callable[[], np.ndarray]]:
    """Return functions that draw the same pictures from the same noise, `(pictures, side, side, 1)`."""
    import torch

    net = jn.models.flow_matching(jn.models.conditional_unet(1, widths, num_classes=10), num_classes=10)
    classes, key = jnp.arange(pictures, dtype=jnp.int32) % 10, jax.random.key(0)
    shapes, state = jax.eval_shape(net.init, key, (jnp.ones((1, side, side, 1)), classes[:1]))
    # The last convolutions of `init` are zero: nothing would move.
    draws = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.1 * draws.standard_normal(leaf.shape), leaf.dtype), shapes)
    noise = np.asarray(jax.random.normal(key, (pictures, side, side, 1)))
    velocity = torch_unet(torch_parameters(params["velocity"]), len(widths), 4)

    def ours() -> np.ndarray:
        return np.asarray(jn.decoding.flow(net, params, state, (side, side, 1), steps, key=key, classes=classes))

    def in_torch() -> np.ndarray:
        x, own = torch.tensor(noise).permute(0, 3, 1, 2).contiguous(), torch.tensor(np.array(classes))
        with torch.inference_mode():
            for number in range(steps):
                x = x + velocity(x, torch.full((pictures,), number / steps), own) / steps
        return x.permute(0, 2, 3, 1).numpy()

    return {OURS: ours, TORCH: in_torch}


def main(rounds: int = 7, *, tiny: bool = False) -> None:
    """Measure and print."""
    size: dict[str, Any] = {"pictures": 2, "side": 6, "steps": 2, "widths": (4, 8)} if tiny else {}
    took = interleaved({name: timed(turn) for name, turn in contestants(**size).items()}, rounds=rounds)
    for name, seconds in took.items():
        print(f"{name:>14}: {1e3 * np.median(seconds):.1f} ms")
    middle, low, high = ratio(took[TORCH], took[OURS])
    print(f"PyTorch eager / jaxnets: {middle:.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="two small pictures in two steps")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    main(options.rounds, tiny=options.tiny)
