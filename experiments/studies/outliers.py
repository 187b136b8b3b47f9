"""A few wild targets pull squared error away; absolute error, Huber and log-cosh resist.

A line is learned from points of which a share has targets far off; what counts is the error against the true line. Then
classifiers learn from labels of which a share is wrong, by the hinge, the exponential and the cross-entropy loss.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import finish, line, panels
from experiments.framework.study import About, Results, Verdict, above, below, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Losses and outliers",
    claim="Outliers pull squared error away; MAE, Huber and log-cosh resist. Wrong labels hurt exponential loss most.",
    source="Huber (1964); Friedman, Hastie and Tibshirani (2000); Hastie, Tibshirani and Friedman (2009), ch. 10.6",
    refuted_by="squared error that finds the line among outliers as well as MAE, or exponential loss as good as hinge.",
    data="a line with noise and outliers; digits 3 and 8 of scikit-learn's, with a share of labels turned over",
    minutes=1.0,
    concepts=("jn.losses.squared_error", "jn.losses.absolute_error", "jn.losses.huber", "jn.losses.log_cosh",
              "jn.losses.hinge", "jn.losses.exponential"),
)  # fmt: skip
REGRESSION = {
    "squared error": jn.losses.squared_error,
    "absolute error": jn.losses.absolute_error,
    "Huber": jn.losses.huber,
    "log-cosh": jn.losses.log_cosh,
}
MARGINS = {
    "exponential": jn.losses.exponential,
    "cross entropy": lambda scores, y: jn.losses.binary_cross_entropy(scores, (y + 1) / 2),
    "hinge": jn.losses.hinge,
}
SLOPE, OFFSET, FAR, NOISE = 2.0, -1.0, 30.0, 0.3


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 20
    """Sets of data, each with its own outliers."""
    shares: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.3)
    """Shares of outliers or wrong labels; the last is judged."""
    points: int = 200
    """Points on the line."""
    epochs: int = 300
    """Epochs of training."""


QUICK = Config(seeds=8, shares=(0.0, 0.1, 0.3), epochs=200)
TINY = Config(seeds=2, shares=(0.0, 0.3), points=50, epochs=2)


def run(config: Config) -> Results:
    """Learn lines, and classifiers, from data of which a share is wrong."""
    threes, labels = jn.data.digits()
    chosen = np.isin(labels, (3, 8))
    x, y = threes[chosen].reshape(chosen.sum(), -1).astype(np.float32), np.where(labels[chosen] == 3, -1.0, 1.0)
    train, test = jn.data.split_indices(labels[chosen], (0.5, 0.5))
    found = {"regression": {}, "margins": {}}
    for name, loss in REGRESSION.items():

        def line_of(hp: dict[str, Any], loss: Any = loss) -> jn.train.Program:
            return descent(jn.dense(1), loss, *points(hp, config), 0.05, config)

        runs = swept(line_of, config)
        slopes, offsets = runs.params["kernel"][:, 0, 0], runs.params["bias"][:, 0]
        grid = np.linspace(-3, 3, 61)[:, None]
        errors = np.sqrt(((slopes * grid + offsets - SLOPE * grid - OFFSET) ** 2).mean(0))
        found["regression"][name] = errors.reshape(len(config.shares), -1).T
    for name, loss in MARGINS.items():

        def classifier_of(hp: dict[str, Any], loss: Any = loss) -> jn.train.Program:
            turned = jax.random.uniform(jax.random.key(hp["draw"]), (len(train),)) < hp["share"]
            targets = jnp.where(turned, -1.0, 1.0) * y[train]
            return descent(jn.dense(1), loss, x[train], targets[:, None], 0.01, config)

        runs = swept(classifier_of, config)
        scores = np.einsum("nf,mf->mn", x[test], runs.params["kernel"][:, :, 0]) + runs.params["bias"]
        wrong = 100 * (np.sign(scores) != y[test]).mean(1)
        found["margins"][name] = wrong.reshape(len(config.shares), -1).T
    return {"shares": config.shares, **found}


def points(hp: dict[str, Any], config: Config) -> tuple[jax.Array, jax.Array]:
    """Return points on the line, with noise, and a share of them far above it where x > 0."""
    where, noise, which = jax.random.split(jax.random.key(hp["draw"]), 3)
    x = jax.random.uniform(where, (config.points, 1), minval=-3, maxval=3)
    y = SLOPE * x + OFFSET + NOISE * jax.random.normal(noise, x.shape)
    outlier = (jax.random.uniform(which, x.shape) < hp["share"]) & (x > 0)
    return x, jnp.where(outlier, y + FAR, y)


def descent(net: jn.Net, loss: Any, x: Any, y: Any, rate: float, config: Config) -> jn.train.Program:
    """Return the program of gradient descent on all examples at a time."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, config.epochs))
    data = (jnp.asarray(x), jnp.asarray(y, jnp.float32))
    return jn.train.program(net, jn.objective(loss), optimizer, data, epochs=config.epochs, batch_size=None)


def swept(trial: Any, config: Config) -> jn.train.TrainState:
    """Return the trained networks for each share and each draw of the data, shares first."""
    grid = {"share": config.shares, "draw": np.arange(config.seeds)}
    return jn.sweeps.sweep(trial, grid=grid, strategy="vmap").runs


def figure(results: Results) -> "Figure":
    """Draw errors over the share that is wrong."""
    drawn, (left, right) = panels(2, width=5)
    for axes, kind in ((left, "regression"), (right, "margins")):
        for place, (name, values) in enumerate(results[kind].items()):
            line(axes, 100 * np.asarray(results["shares"]), values, name, place)
    finish(
        left, "A line among outliers", "targets that are outliers, % (where x > 0)", "distance from the true line, RMS"
    )
    finish(right, "Digits 3 and 8, labels turned over", "labels turned over, %", "test error, %")
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge at the largest share."""
    line_, margin = ({name: np.asarray(each)[:, -1] for name, each in results[kind].items()} for kind in
                     ("regression", "margins"))  # fmt: skip
    clean = {name: np.asarray(each)[:, 0] for name, each in results["regression"].items()}
    squared = line_["squared error"]
    return judge(
        *(above(f"distance from the line among outliers, squared error less {name}", squared - line_[name], 1)
          for name in list(REGRESSION)[1:]),
        below("without outliers, squared less absolute error", clean["squared error"] - clean["absolute error"], 0,
              core=False),
        above("test error with wrong labels, exponential less cross entropy",
              margin["exponential"] - margin["cross entropy"], 0, "%"),
        above("the same, exponential less hinge", margin["exponential"] - margin["hinge"], 0, "%", core=False),
    )  # fmt: skip
