"""The full batch has the best direction and few steps, single examples many poor ones; mini-batches lie between.

The distance of a batch's gradient from that of all examples is measured for batches of all sizes. Then networks learn
digits, each batch size with a grid of learning rates. A batch of k·m examples is k gradients of m examples averaged
before a step, where k is a hyperparameter, so that many sizes are one program. The time of an epoch is measured
separately, with plain batches.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import COLORS, finish, line, logarithmic, panels
from experiments.framework.study import About, Results, Verdict, above, below, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Batch size",
    claim="Mini-batches learn more from an epoch than the full batch, in far less time than single examples.",
    source="Bottou (1998); LeCun et al., Efficient BackProp (1998); Goyal et al. (2017); Nielsen (2015), chapter 1",
    refuted_by="a full batch or single examples that come to the same loss in as little time as mini-batches.",
    data="1,797 handwritten digits of 8×8 pixels (scikit-learn), 1,024 of them to learn from",
    minutes=1.0,
    concepts=("jn.train.program", "jn.sweeps.sweep", "optax.MultiSteps"),
)
PART = 16  # examples whose gradient is computed at once, in batches that are not smaller


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 10
    """Networks of each batch size and learning rate."""
    epochs: int = 20
    """Epochs of training."""
    examples: int = 1024
    """Examples to train on, a power of two."""
    batches: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    """Batch sizes, powers of two; the last is all examples."""
    judged: int = 64
    """The mini-batch that is judged."""
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    """Learning rates tried with each."""


QUICK = Config(seeds=8, epochs=10, batches=(1, 16, 64, 256, 1024), rates=(0.01, 0.03, 0.1, 0.3, 1.0))
TINY = Config(seeds=2, epochs=2, examples=64, batches=(16, 32, 64), judged=32, rates=(0.1, 1.0))
NET = jn.serial(jn.dense(32), jnp.tanh, out=jn.dense(10))


def run(config: Config) -> Results:
    """Measure the noise of gradients, train with every batch size and rate, and time an epoch of each."""
    images, labels = jn.data.digits()
    x, y = jnp.asarray(images.reshape(len(images), -1)), jnp.asarray(labels)
    order = np.random.default_rng(0).permutation(len(labels))
    learned, tested = order[: config.examples], order[config.examples :]
    train, test = (x[learned], y[learned]), (x[tested], y[tested])
    losses, errors = {}, {}
    for part in (1, PART):
        sizes = [size for size in config.batches if (size < PART) == (part == 1)]
        if not sizes:
            continue

        def trial(hp: dict[str, Any], part: int = part) -> jn.train.Program:
            steps = optax.MultiSteps(optax.sgd(hp["lr"]), lambda _: hp["batch"] // part)
            return jn.train.program(
                NET, jn.objective(jn.losses.cross_entropy), steps.gradient_transformation(), train,
                epochs=config.epochs, batch_size=part, validation=train,
            )  # fmt: skip

        grid = {"batch": sizes, "lr": config.rates}
        result = jn.sweeps.sweep(trial, seeds=config.seeds, grid=grid, strategy="vmap")
        right = jax.jit(jax.vmap(lambda params: (NET.apply(params, {}, test[0])[0].argmax(-1) == test[1]).mean()))
        shape = (len(sizes), len(config.rates), config.seeds)
        course = np.nan_to_num(result.history["validation/loss"], nan=9.0).reshape(*shape, -1)
        wrong = 100 * (1 - np.asarray(right(result.runs.params))).reshape(shape)
        for place, size in enumerate(sizes):
            losses[size], errors[size] = np.moveaxis(course[place], 1, 0), wrong[place].T  # (seeds, rates, ...)
    found: Results = {"batches": config.batches, "judged": config.judged, "rates": config.rates}
    found["noise"] = np.round(noise(train, config), 4)
    found["seconds"] = np.stack([seconds(train, size, config) for size in config.batches], 1)
    found["last"] = np.round(
        np.stack([losses[size][..., -1] for size in config.batches], 1), 4
    )  # (seeds, sizes, rates)
    best = found["last"].mean(0).argmin(-1)
    pairs = list(zip(config.batches, best, strict=True))
    found["courses"] = np.round(np.stack([losses[size][:, rate] for size, rate in pairs], 1), 4)
    found["errors"] = np.round(np.stack([errors[size][:, rate] for size, rate in pairs], 1), 2)
    return found


def noise(train: tuple[jax.Array, jax.Array], config: Config) -> np.ndarray:
    """Return how far a batch's gradient is from all examples', over its length: `(seeds, sizes)`, before training."""

    def gradients(key: jax.Array) -> jax.Array:
        params, _ = NET.init(key, train[0])

        def one(x: jax.Array, y: jax.Array) -> jax.Array:
            grads = jax.grad(lambda params: jn.losses.cross_entropy(NET.apply(params, {}, x[None])[0], y[None])[0])
            return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grads(params))])

        return jax.vmap(one)(*train)

    drawn, rows, each = np.random.default_rng(0), [], jax.jit(gradients)
    for key in jax.random.split(jax.random.key(0), config.seeds):
        grads = np.asarray(each(key))
        whole = grads.mean(0)
        squares = [
            np.mean([((grads[drawn.integers(len(grads), size=size)].mean(0) - whole) ** 2).sum() for _ in range(50)])
            for size in config.batches
        ]
        rows.append(np.sqrt(squares) / np.linalg.norm(whole))
    return np.array(rows)


def seconds(train: tuple[jax.Array, jax.Array], size: int, config: Config) -> np.ndarray:
    """Return what an epoch of a batch size takes, measured once for each seed, in seconds."""
    batches = jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]), train)

    def step(params: Any, batch: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        grads = jax.grad(lambda params: jn.losses.cross_entropy(NET.apply(params, {}, batch[0])[0], batch[1]).mean())
        return jax.tree.map(lambda leaf, grad: leaf - 0.1 * grad, params, grads(params)), None

    epoch = jax.jit(lambda params, batches: jax.lax.scan(step, params, batches)[0])
    params = NET.init(jax.random.key(0), train[0])[0]
    jax.block_until_ready(epoch(params, batches))
    taken = []
    for _ in range(config.seeds):
        turns = []
        for _ in range(5):
            began = time.perf_counter()
            jax.block_until_ready(epoch(params, batches))
            turns.append(time.perf_counter() - began)
        taken.append(np.median(turns))
    return np.round(taken, 7)


def figure(results: Results) -> "Figure":
    """Draw noise, losses over rates and epochs, and time."""
    drawn, axes = panels(2, 2, width=3.6, height=2.7)
    batches, rates = np.asarray(results["batches"]), results["rates"]
    last, courses = np.asarray(results["last"]), np.asarray(results["courses"])
    line(axes[0], batches, results["noise"], "measured", 0)
    middle = np.asarray(results["noise"])[:, 0].mean()
    axes[0].plot(batches, middle * np.sqrt(batches[0] / batches), ":", color=COLORS[-1], label="1/√batch")
    for place, size in enumerate(batches):
        line(axes[1], rates, np.minimum(last[:, place], 3), f"batch {size}", place)
        line(axes[2], range(1, courses.shape[-1] + 1), courses[:, place], f"batch {size}", place)
    line(axes[3], batches, 1000 * np.asarray(results["seconds"]), "", 0)
    for panel, sides in zip(axes, ("xy", "xy", "y", "xy"), strict=True):
        logarithmic(panel, sides)
    axes[2].set_xticks(range(0, courses.shape[-1] + 1, 5))
    finish(axes[0], "Noise of the gradient (bands: 95 %)", "examples a batch", "distance from the full one, relative")
    finish(axes[1], "After the last epoch", "learning rate", "cross entropy, training", legend=False)
    finish(axes[2], "At each size's best learning rate", "epoch", "cross entropy, training")
    finish(axes[3], "What an epoch takes", "examples a batch", "milliseconds", legend=False)
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by losses at the best rates, and by the time to reach the full batch's last loss."""
    batches, rates = np.log2(results["batches"]), np.log2(results["rates"])
    last, courses = np.asarray(results["last"]), np.asarray(results["courses"])
    middle = list(results["batches"]).index(results["judged"])
    slopes = [np.polyfit(batches, np.log2(row), 1)[0] for row in results["noise"]]
    growth = [np.polyfit(batches, rates[row.argmin(-1)], 1)[0] for row in last]
    spent = {}
    for name, goal in (("full", courses[:, -1:, -1:]), ("mini", courses[:, middle : middle + 1, -1:])):
        reached = courses <= goal
        epochs = np.where(reached.any(-1), reached.argmax(-1) + 1, courses.shape[-1])
        spent[name] = np.log2(epochs * np.asarray(results["seconds"]))
    size, errors = results["judged"], np.asarray(results["errors"])
    end = courses[..., -1]
    return judge(
        above(f"loss after the last epoch, full batch less batches of {size}", end[:, -1] - end[:, middle]),
        above(f"time to the full batch's last loss, full batch over batches of {size}, log2",
              spent["full"][:, -1] - spent["full"][:, middle]),
        above(f"the same, smallest batch over batches of {size}, log2",
              spent["full"][:, 0] - spent["full"][:, middle]),
        above(f"time to the last loss of batches of {size}, smallest batch over these, log2",
              spent["mini"][:, 0] - spent["mini"][:, middle], core=False),
        below("noise: distance of its slope (log over log of the batch) from -½", np.abs(np.add(slopes, 0.5)), 0.05),
        above("doublings of the best learning rate with each doubling of the batch", growth, core=False),
        above(f"test error, full batch less batches of {size}", errors[:, -1] - errors[:, middle], 0, "%", core=False),
    )  # fmt: skip
