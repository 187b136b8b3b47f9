"""Batch norm lets a network learn at larger rates and in fewer epochs; batches of two are too few for its statistics.

Networks of five hidden layers learn handwritten digits by plain gradient descent, with and without batch norm, at many
learning rates; then again with smaller and smaller batches, whose statistics say less and less about the data. A rate
is tolerated if the network that learned with it has a validation accuracy of at least 90 %. Whether there is batch norm
is a hyperparameter like the rate, 0 or 1, so that all networks of a batch size are one program.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import COLORS, finish, line, panels
from experiments.framework.study import About, Results, Verdict, above, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Batch norm",
    claim="Batch norm tolerates larger learning rates and learns in fewer epochs; small batches undo its advantage.",
    source="Ioffe and Szegedy (2015); Wu and He, Group Normalization (2018), for small batches",
    refuted_by="a plain network that learns at rates as large and as soon, or batches of two that cost both the same.",
    data="1,797 handwritten digits of 8×8 pixels (scikit-learn)",
    minutes=2.5,
    concepts=("jn.batch_norm", "jn.sweeps.sweep", "jn.data.digits"),
)
KINDS = ("plain", "batch norm")
ENOUGH = 90.0  # %, the accuracy of a network that has learned
LARGEST = 1216  # examples to learn from, a multiple of every batch size: none is filled up


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 10
    """Networks of each kind, batch size and learning rate."""
    epochs: int = 10
    """Epochs of training."""
    width: int = 32
    """Units of each of five hidden layers."""
    batches: tuple[int, ...] = (64, 16, 4, 2)
    """Examples in a batch; rates and epochs are judged at the first, what small batches cost at the last."""
    rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    """Learning rates."""


QUICK = Config(seeds=8, epochs=3, batches=(64, 2), rates=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0))
TINY = Config(seeds=2, epochs=1, width=8, batches=(64,), rates=(0.1, 1.0))


def network(norm: Any, config: Config) -> jn.Net:
    """Return a network of five hidden layers, with batch norm before each activation where `norm` is 1."""

    def hidden() -> list[Any]:
        normed = jn.branches(lambda y: jnp.where(norm == 1, y["norm"], y["plain"]), norm=jn.batch_norm(), plain=same)
        return [jn.dense(config.width, kernel_init=jax.nn.initializers.he_normal()), normed, jax.nn.relu]

    return jn.serial(*hidden(), jn.repeat(jn.serial(*hidden()), 4), out=jn.dense(10))


def same(x: jax.Array) -> jax.Array:
    """Return the input."""
    return x


def run(config: Config) -> Results:
    """Train both kinds at every rate and batch size."""
    images, labels = jn.data.digits()
    x, y = jnp.asarray(images.reshape(len(images), -1)), jnp.asarray(labels)
    first, second = jn.data.split_indices(labels, (0.7, 0.3))
    train, validation = (x[first[:LARGEST]], y[first[:LARGEST]]), (x[second], y[second])
    accuracy = []
    for size in config.batches:

        def trial(hp: dict[str, Any], size: int = size) -> jn.train.Program:
            return jn.train.program(
                network(hp["norm"], config), jn.objective(jn.losses.cross_entropy), optax.sgd(hp["lr"]), train,
                epochs=config.epochs, batch_size=size, validation=validation,
                metrics={"accuracy": jn.metrics.accuracy},
                options=jn.train.Options(halt_on_nonfinite=False),
            )  # fmt: skip

        grid = {"norm": [0, 1], "lr": config.rates}
        result = jn.sweeps.sweep(trial, seeds=config.seeds, grid=grid, strategy="vmap")
        found = 100 * np.nan_to_num(result.history["validation/accuracy"], nan=0)  # diverged: 0
        accuracy.append(np.round(found, 2).reshape(2, len(config.rates), config.seeds, -1))
    by_kind = dict(zip(KINDS, np.swapaxes(accuracy, 0, 1), strict=True))
    return {"rates": config.rates, "batches": config.batches, "accuracy": by_kind}


def at_best(found: np.ndarray) -> np.ndarray:
    """Return accuracies `(batches, seeds, epochs)` of `(batches, rates, seeds, epochs)`, each size at its best rate."""
    return np.stack([each[each[..., -1].mean(1).argmax()] for each in found])


def figure(results: Results) -> "Figure":
    """Draw accuracy over the rate, error over epochs, and accuracy over the batch size."""
    drawn, (left, middle, right) = panels(3, width=3.8, height=3.4)
    for place, (kind, values) in enumerate(results["accuracy"].items()):
        found = np.asarray(values)
        best = at_best(found)
        line(left, results["rates"], found[0, :, :, -1].T, kind, place)
        line(middle, range(1, found.shape[-1] + 1), best[0], kind, place)
        line(right, results["batches"], best[..., -1].T, kind, place)
    middle.axhline(ENOUGH, color=COLORS[-1], linestyle=":", linewidth=1)
    for panel in (left, middle, right):
        panel.set_ylim(-2, 102)
    left.set_xscale("log")
    right.set_xscale("log", base=2)
    right.set_xticks(results["batches"], [str(size) for size in results["batches"]])
    finish(left, f"Batches of {results['batches'][0]} (0 %: diverged)", "learning rate", "validation accuracy, %")
    finish(middle, "Learning, at the best rate (dotted: 90 %)", "epoch", "validation accuracy, %")
    finish(right, "Small batches, best rate of each", "examples in a batch", "validation accuracy, %")
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by the largest rate that is tolerated, epochs until 90 %, and what the smallest batches cost."""
    rates, largest, epochs, cost, gain = np.asarray(results["rates"]), {}, {}, {}, {}
    for kind, values in results["accuracy"].items():
        found = np.asarray(values)
        best = at_best(found)
        learned = found[0, :, :, -1] >= ENOUGH  # (rates, seeds)
        largest[kind] = np.log10(np.where(learned, rates[:, None], rates.min()).max(0))
        enough = best[0] >= ENOUGH
        epochs[kind] = np.where(enough.any(1), 1 + enough.argmax(1), 1 + enough.shape[1])
        cost[kind] = best[0, :, -1] - best[-1, :, -1]
        gain[kind] = best[0, :, -1]
    smallest = results["batches"][-1]
    return judge(
        above("largest rate tolerated, batch norm over plain, log10, above ½",
              largest["batch norm"] - largest["plain"], 0.5),
        above("epochs until 90 % at the best rate, plain over batch norm, log2",
              np.log2(epochs["plain"] / epochs["batch norm"])),
        above(f"accuracy that batches of {smallest} cost, batch norm less plain", cost["batch norm"] - cost["plain"],
              0, "%"),
        above("accuracy in the end at the best rate, batch norm less plain", gain["batch norm"] - gain["plain"], 0, "%",
              core=False),
    )  # fmt: skip
