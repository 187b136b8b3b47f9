"""The figures and the table of docs/diagnose.md, on digits of 8 × 8 pixels: `python -m experiments.diagnose`.

Takes about a minute on two cores.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from jaxnets.plot.style import BLUE, ORANGE, panels

KEY = jax.random.key(0)
CLASSES = jn.objective(jn.losses.cross_entropy)
whole = jax.jit(lambda program, key: program(key))


def split(train: int) -> tuple[Any, Any]:
    """Return so many digits to train on, and 597 others."""
    images, labels = jn.data.digits()
    images = images.reshape(-1, 64)
    return (images[:train], labels[:train]), (images[1200:], labels[1200:])


def mlp(*widths: int, act: Callable[[jax.Array], jax.Array] = jax.nn.relu) -> jn.Net:
    """Return a dense network to ten classes."""
    layers: dict[str, Any] = {}
    for number, width in enumerate(widths, start=1):
        layers |= {f"fc{number}": jn.dense(width), f"act{number}": act}
    return jn.serial(**layers, out=jn.dense(10))


def compare_rates(folder: Path) -> None:
    """Print the validation loss after five epochs at the suggested rate and at nine of a grid, and draw one test."""
    data, held_out = split(1200)
    deep = jn.serial(
        fc1=jn.dense(64), bn=jn.batch_norm(), act1=jax.nn.relu, fc2=jn.dense(64), act2=jax.nn.relu, out=jn.dense(10)
    )
    cases: list[tuple[str, jn.Net, Callable[[Any], Any], tuple[int, int]]] = [
        ("one hidden layer, adam", mlp(64), optax.adam, (-4, 0)),
        ("one hidden layer, sgd", mlp(64), optax.sgd, (-3, 1)),
        ("two, batch norm, adam", deep, optax.adam, (-4, 0)),
        ("two, batch norm, momentum", deep, lambda rate: optax.sgd(rate, momentum=0.9), (-4, 0)),
    ]
    print(f"{'':26}{'suggested':>10}{'loss':>7}{'best of grid':>14}{'loss':>7}")
    for name, net, optimizer, (low, high) in cases:
        found = jn.train.find_learning_rate(net, CLASSES, optimizer, data, key=KEY)

        def learn(rate: jax.Array, net: jn.Net = net, optimizer: Callable[[Any], Any] = optimizer) -> jax.Array:
            program = jn.train.program(net, CLASSES, optimizer(rate), data, epochs=5, validation=held_out)
            return program(KEY)[1]["validation/loss"][-1]

        grid = np.logspace(low, high, 9)
        *losses, own = np.asarray(jax.jit(jax.vmap(learn))(jnp.asarray([*grid, found.suggestion], jnp.float32)))
        best = int(np.nanargmin(losses))
        print(f"{name:26}{found.suggestion:10.2g}{own:7.3f}{grid[best]:14.2g}{losses[best]:7.3f}")
        if net is cases[0][1]:
            found.plot().savefig(folder / "diagnose-rates.png")


def draw_verdicts(folder: Path) -> None:
    """Draw four runs with the verdict of `diagnose` on each."""
    (x, y), held_out = split(1200)
    few = np.where(np.arange(60) % 5 == 0, (y[:60] + 1) % 10, y[:60])  # a fifth of the labels are wrong
    pixels = [20, 27, 36]
    runs = {
        "1,200 digits": (mlp(32), (x, y), held_out, 1e-3, 60),
        "the same, 8 epochs": (mlp(32), (x, y), held_out, 1e-3, 8),
        "three pixels of each": (mlp(32), (x[:, pixels], y), (held_out[0][:, pixels], held_out[1]), 3e-3, 60),
        "60 digits, a fifth mislabeled": (mlp(256), (x[:60], few), held_out, 1e-2, 60),
    }
    figure, grid = panels(2, 2, width=4.6, height=3.0)
    for axes, (name, (net, data, validation, rate, epochs)) in zip(grid, runs.items()):
        program = jn.train.program(
            net, CLASSES, optax.adam(rate), data, epochs=epochs, batch_size=60, validation=validation
        )
        history = jax.device_get(whole(program, KEY)[1])
        found = jn.train.diagnose(history, baseline=np.log(10))
        print(f"\n{name}: {found}")
        for part, color in (("", BLUE), ("validation/", ORANGE)):
            label = part.removesuffix("/") or "training"
            axes.plot(np.arange(1, epochs + 1), history[f"{part}loss"], color=color, label=label)
        axes.axhline(np.log(10), color="0.6", linestyle=":", label="a constant")
        axes.set_title(f"{name}: {found.verdict}", fontsize=10)
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss")
        axes.set_ylim(0)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False)
    figure.savefig(folder / "diagnose-verdicts.png")


def draw_norms(folder: Path) -> None:
    """Draw the gradient norms of eight layers in the first epoch, for sigmoids and for ReLUs."""
    data, _ = split(1200)
    figure, grid = panels(2, width=4.6, height=3.4)
    for name, act, color in (("sigmoid", jax.nn.sigmoid, BLUE), ("relu", jax.nn.relu, ORANGE)):
        net = mlp(*[32] * 8, act=act)
        program = jn.train.program(
            net, CLASSES, optax.adam(1e-3), data, epochs=1, options=jn.train.Options(monitor=jn.train.norms(net))
        )
        history = jax.device_get(whole(program, KEY)[1])
        for axes, what in zip(grid, ("gradient_norm", "activation_norm")):
            values = [float(history[f"{what}/fc{number}"][0]) for number in range(1, 9)]
            axes.semilogy(range(1, 9), values, "o-", color=color, label=name)
            axes.set_xlabel("layer")
            axes.set_ylabel(what.replace("_", " "))
            axes.grid(alpha=0.3)
            print(f"{name} {what}: " + " ".join(f"{value:.2g}" for value in values))
    grid[0].legend(frameon=False)
    figure.savefig(folder / "diagnose-norms.png")


def main(folder: Path) -> None:
    """Print the table and write the figures."""
    compare_rates(folder)
    draw_verdicts(folder)
    draw_norms(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
