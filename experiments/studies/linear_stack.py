"""A stack of linear layers is a linear function, however deep; activations between them make it more.

Networks of the same layers, with and without activations, learn two interleaved half-circles. The stack of linear
layers is multiplied out to a single matrix and compared with it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import COLORS, finish, panels
from experiments.framework.study import About, Results, Verdict, above, below, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="A stack of linear layers",
    claim="Without activations, a deep network draws the straight boundary of a single layer.",
    source="Minsky and Papert (1969); Rumelhart, Hinton and Williams (1986)",
    refuted_by="a stack of linear layers that separates the half-circles better than one linear layer.",
    data="500 points on two half-circles, with noise of 0.2",
    minutes=0.5,
    concepts=("jn.dense", "jn.serial", "jn.data.moons", "jn.activations"),
)
KINDS = ("one linear layer", "five linear layers", "tanh", "ReLU")
GRID = np.stack(np.meshgrid(np.linspace(-1.8, 2.8, 60), np.linspace(-1.4, 1.9, 45)), -1).reshape(-1, 2)


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 20
    """Networks of each kind, each with its own initial values."""
    epochs: int = 100
    """Epochs of training."""
    examples: int = 500
    """Points, half to train on and half for the test."""


QUICK = Config(seeds=8, epochs=60)
TINY = Config(seeds=2, epochs=2, examples=200)


def network(kind: str) -> jn.Net:
    """Return a network of one or five layers."""
    if kind == "one linear layer":
        return jn.serial(out=jn.dense(2))
    activation = {"tanh": [jnp.tanh], "ReLU": [jax.nn.relu]}.get(kind, [])
    hidden = [each for _ in range(4) for each in (jn.dense(16), *activation)]
    return jn.serial(*hidden, out=jn.dense(2))


def run(config: Config) -> Results:
    """Train every kind, and multiply the linear stack out."""
    x, y = jn.data.moons(config.examples, noise=0.2)
    half = config.examples // 2
    train, test = (x[:half], y[:half]), (x[half:], y[half:])
    accuracy, drawn, apart = {}, {}, []
    for kind in KINDS:
        net = network(kind)

        def trial(hp: dict[str, Any], net: jn.Net = net) -> jn.train.Program:
            return jn.train.program(
                net, jn.objective(jn.losses.cross_entropy), optax.adam(1e-2), train, epochs=config.epochs,
                validation=test, metrics={"accuracy": jn.metrics.accuracy},
            )  # fmt: skip

        result = jn.sweeps.sweep(trial, seeds=config.seeds, strategy="vmap")
        accuracy[kind] = 100 * result.value("validation/accuracy")
        first = result.run(0)
        drawn[kind] = np.round(np.asarray(jax.nn.softmax(net.apply(first.params, first.state, GRID)[0])[:, 1]), 3)
        if kind == "five linear layers":
            apart = [difference(net, result.run(trial)) for trial in range(config.seeds)]
    return {"accuracy": accuracy, "drawn": drawn, "apart": apart, "test": {"x": np.round(test[0], 3), "y": test[1]}}


def difference(net: jn.Net, run: jn.train.TrainState) -> float:
    """Return how far a stack is from the one matrix and bias that it is the product of, at most, on the grid."""
    matrix, bias = jnp.eye(2), jnp.zeros(2)
    for layer in run.params.values():
        matrix, bias = matrix @ layer["kernel"], bias @ layer["kernel"] + layer["bias"]
    logits = net.apply(run.params, run.state, GRID)[0]
    return float(jnp.abs(logits - (GRID @ matrix + bias)).max() / jnp.abs(logits).max())


def figure(results: Results) -> "Figure":
    """Draw the decision of the first network of each kind over the plane."""
    figure, axes = panels(4, width=3, height=3)
    x, y = np.asarray(results["test"]["x"]), np.asarray(results["test"]["y"])
    across, up = GRID[:60, 0], GRID[::60, 1]
    for panel, kind in zip(axes, KINDS, strict=True):
        shares = np.reshape(results["drawn"][kind], (len(up), len(across)))
        panel.contourf(across, up, shares, levels=np.linspace(0, 1, 11), cmap="PuOr", alpha=0.6)
        panel.contour(across, up, shares, levels=[0.5], colors="black", linewidths=1)
        for label, marker in ((0, "o"), (1, "^")):
            panel.scatter(*x[y == label].T, s=7, marker=marker, color=COLORS[label], linewidths=0)
        finish(panel, f"{kind}: {np.mean(results['accuracy'][kind]):.1f} %", "first feature", "second feature")
    return figure


def verdict(results: Results) -> Verdict:
    """Judge by the test's accuracies, and by what is left when the stack is multiplied out."""
    accuracy = {kind: np.asarray(each) for kind, each in results["accuracy"].items()}
    return judge(
        below(
            "five linear layers beside their product: largest difference over largest output", results["apart"], 1e-5
        ),
        below("test accuracy, five linear layers less one", accuracy[KINDS[1]] - accuracy[KINDS[0]], 1, "%"),
        above("test accuracy, tanh less five linear layers", accuracy["tanh"] - accuracy[KINDS[1]], 1, "%"),
        above("test accuracy, ReLU less five linear layers", accuracy["ReLU"] - accuracy[KINDS[1]], 1, "%"),
    )
