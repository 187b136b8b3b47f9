"""Dropout, more data, augmentation, early stopping and smaller networks narrow the gap between training and test.

A network overfits 200 digits completely, then learns again with each remedy alone, and with fewer units. All take the
same number of steps with batches of 50; with few examples each is seen more often. Units, examples and rates are
hyperparameters, so that all networks are one program. Each seed has its own digits and initial values. The gap is one
of cross entropies, since the training error soon is zero. Early stopping takes the network without a remedy at the
epoch of its lowest loss on digits apart from the test.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import bars, finish, line, panels
from experiments.framework.study import About, Results, Verdict, above, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="The gap between training and test",
    claim="Dropout, more data, augmentation, early stopping and smaller networks each narrow the gap.",
    source="Srivastava et al. (2014); Prechelt (1998); Goodfellow, Bengio and Courville (2016), chapter 7",
    refuted_by="a remedy that leaves the gap as it is; that the test error falls, too, is a condition.",
    data="200 digits of MNIST (800 for more data) at 14×14 pixels to learn from, 500 to stop by, 1,000 for the test",
    minutes=1.5,
    concepts=("jn.dropout", "jn.metrics.mean", "jn.data.mnist5k", "jn.sweeps.sweep"),
)
MOST = 800  # examples at most
COUNTS = {"training": MOST, "stop": 500, "test": 1000}  # what is looked at after every epoch, labels 10 apart
USUAL = {"examples": 200, "drop": 0.0, "reach": 0}
REMEDIES = {
    "none": {},
    "dropout": {"drop": 0.5},
    "four times the data": {"examples": MOST},
    "augmentation": {"reach": 1},
    "few units": {},
}
EARLY = "early stopping"


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 10
    """Sets of digits, each with initial values of its own."""
    widths: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    """Hidden units; the last without a remedy is what remedies are compared with."""
    few: int = 8
    """Units of the smaller network, one of the widths."""
    epochs: int = 40
    """Epochs of training, 16 steps each."""


QUICK = Config(seeds=8, widths=(2, 8, 64), epochs=25)
TINY = Config(seeds=2, widths=(2, 8), few=2, epochs=1)


def network(hp: dict[str, Any], config: Config) -> jn.Net:
    """Return a network of which `hp["width"]` hidden units are active."""
    he = jax.nn.initializers.he_normal()

    def init(key: jax.Array, *shape: Any, **how: Any) -> jax.Array:
        return he(jax.random.fold_in(key, hp["draw"]), *shape, **how)

    def some(x: jax.Array) -> jax.Array:
        return jnp.where(jnp.arange(config.widths[-1]) < hp["width"], x, 0)

    hidden = jn.dense(config.widths[-1], kernel_init=init)
    return jn.serial(jn.flatten, hidden, jax.nn.relu, some, jn.dropout(hp["drop"]), jn.dense(10, kernel_init=init))


def run(config: Config) -> Results:
    """Train with every remedy and every width, on every draw of the data."""
    images, labels = jn.data.mnist5k()
    x, y = jnp.asarray(images.reshape(-1, 14, 2, 14, 2, 1).mean((2, 4))), jnp.asarray(labels)
    orders = jnp.asarray([np.random.default_rng(seed).permutation(len(y)) for seed in range(config.seeds)])

    def trial(hp: dict[str, Any]) -> jn.train.Program:
        def moved(key: jax.Array, image: jax.Array) -> jax.Array:
            steps = jax.random.randint(key, (2,), -1, 2) * hp["reach"]
            return jnp.roll(image, (steps[0], steps[1]), (0, 1))  # the outermost pixels are blank

        order = orders[hp["draw"]]
        learned = order[jnp.arange(MOST) % hp["examples"]]
        seen = jnp.concatenate([learned, order[MOST : sum(COUNTS.values())]])
        marks = np.repeat(10 * np.arange(len(COUNTS)), list(COUNTS.values()))
        return jn.train.program(
            network(hp, config), jn.objective(loss), optax.adam(3e-3), (x[learned], y[learned]), epochs=config.epochs,
            batch_size=50, augment=moved, validation=(x[seen], y[seen] + marks), metrics=looked_at(),
        )  # fmt: skip

    most = config.widths[-1]
    kinds = [USUAL | {"width": config.few if name == "few units" else most} | each for name, each in REMEDIES.items()]
    kinds += [USUAL | {"width": width} for width in config.widths]
    trials = [kind | {"draw": draw} for kind in kinds for draw in range(config.seeds)]
    history = jn.sweeps.sweep(trial, trials=trials, strategy="vmap").history
    rows = {name: history[f"validation/{name}"].astype(float).reshape(len(kinds), config.seeds, -1)
            for name in looked_at()}  # fmt: skip
    best = rows["stop"][0].argmin(1)
    found: Results = {"widths": config.widths, "remedies": {}, "by width": {}}
    for name in rows:
        values = np.round(rows[name], 4)
        early = values[0][np.arange(config.seeds), best]
        found["remedies"][name] = dict(zip(REMEDIES, values[..., -1])) | {EARLY: early}
        found["by width"][name] = values[len(REMEDIES) :, :, -1].T
    return found


def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Return the cross entropy of labels that may be marked."""
    return jn.losses.cross_entropy(logits, y % 10)


def looked_at() -> dict[str, jn.metrics.Metric]:
    """Return losses over the digits of each mark, and errors in % of those learned from and those of the test."""
    total = sum(COUNTS.values())

    def over(place: int, values: Any) -> jn.metrics.Metric:
        share = list(COUNTS.values())[place] / total
        return jn.metrics.mean(lambda logits, y: jnp.where(y // 10 == place, values(logits, y), 0.0) / share)

    def wrong(logits: jax.Array, y: jax.Array) -> jax.Array:
        return 100.0 * (logits.argmax(-1) != y % 10)

    losses = {"training loss": over(0, loss), "stop": over(1, loss), "test loss": over(2, loss)}
    return losses | {"training error": over(0, wrong), "test error": over(2, wrong)}


def figure(results: Results) -> "Figure":
    """Draw the gap and the test error with each remedy, and errors over the width."""
    drawn, (left, middle, right) = panels(3, width=3.8)
    test = results["remedies"]["test error"]
    bars(left, list(test), np.transpose(list(gaps(results).values())))
    bars(middle, [""] * len(test), np.transpose(list(test.values())))
    for place, part in enumerate(("training error", "test error")):
        line(right, results["widths"], results["by width"][part], part, place)
    right.set_xscale("log", base=2)
    right.set_xticks(results["widths"], [str(width) for width in results["widths"]])
    finish(left, "Gap, test less training", "cross entropy")
    finish(middle, "Test", "error, %")
    finish(right, "Capacity, no remedy", "hidden units", "error, %")
    return drawn


def gaps(results: Results) -> dict[str, np.ndarray]:
    """Return the test's cross entropy less that of training, with each remedy."""
    train, test = (results["remedies"][f"{part} loss"] for part in ("training", "test"))
    return {name: np.asarray(test[name]) - np.asarray(train[name]) for name in test}


def verdict(results: Results) -> Verdict:
    """Judge each remedy against none, by the gap and by the test's error, and widths by both errors."""
    gap = gaps(results)
    test = {name: np.asarray(each) for name, each in results["remedies"]["test error"].items()}
    wide_train, wide_test = (np.asarray(results["by width"][part]) for part in ("training error", "test error"))
    best = wide_test.mean(0).argmin()
    few, many = results["widths"][0], results["widths"][-1]
    return judge(
        *(above(f"gap of cross entropies, none less {name}", gap["none"] - gap[name]) for name in list(test)[1:]),
        *(above(f"test error, none less {name}", test["none"] - test[name], 0, "%", core=False)
          for name in list(test)[1:]),
        above(f"test error, {few} units less the best width", wide_test[:, 0] - wide_test[:, best], 0, "%"),
        above(f"training error, {few} units less {many}", wide_train[:, 0] - wide_train[:, -1], 0, "%"),
        above(f"test error, {many} units less the best width", wide_test[:, -1] - wide_test[:, best], 0, "%",
              core=False),
    )  # fmt: skip
