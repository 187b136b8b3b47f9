"""Behind a sigmoid, squared error learns slowly where it is most wrong; cross entropy does not.

First, a single neuron starts saturated on the wrong side and takes 300 steps of gradient descent. Then a classifier of
handwritten digits with sigmoid outputs is trained by both losses, and one with softmax by log likelihood, each at its
best learning rate of a grid.
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
    title="Squared error after a sigmoid",
    claim="Squared error after a sigmoid learns slowly while it is badly wrong; cross entropy does not.",
    source="Solla, Levin and Fleisher (1988); Nielsen, Neural Networks and Deep Learning (2015), chapter 3",
    refuted_by="a saturated neuron that squared error corrects as soon as cross entropy does.",
    data="one neuron with one input; 1,797 handwritten digits of 8×8 pixels (scikit-learn)",
    minutes=1.0,
    concepts=(
        "jn.losses.squared_error",
        "jn.losses.binary_cross_entropy",
        "jn.losses.cross_entropy",
        "jn.sweeps.sweep",
    ),
)
LOSSES = {
    "squared error": lambda logits, y: jn.losses.squared_error(jax.nn.sigmoid(logits), y),
    "cross entropy": jn.losses.binary_cross_entropy,
    "softmax": lambda logits, y: jn.losses.cross_entropy(logits, y.argmax(-1)),
}


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 20
    """Classifiers of each kind and learning rate."""
    steps: int = 300
    """Steps of the single neuron."""
    epochs: int = 10
    """Epochs of the classifiers."""
    rates: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)
    """Learning rates tried with each loss."""


QUICK = Config(seeds=8, epochs=5, rates=(0.1, 0.3, 1.0))
TINY = Config(seeds=2, steps=20, epochs=1, rates=(0.1,))


def run(config: Config) -> Results:
    """Train the neuron from many starts, and the classifiers."""
    starts = 2 + jax.random.uniform(jax.random.key(0), (config.seeds,))  # an output near 1 where 0 is right
    neuron = {name: np.asarray(courses(starts, name, config.steps)) for name in list(LOSSES)[:2]}
    images, labels = jn.data.digits()
    x, y = jnp.asarray(images.reshape(len(images), -1)), jnp.asarray(labels)
    train, validation = [(x[part], y[part]) for part in jn.data.split_indices(labels, (0.7, 0.3))]
    net = jn.serial(jn.dense(30), jax.nn.sigmoid, out=jn.dense(10))
    errors = {}
    for name, loss in LOSSES.items():

        def trial(hp: dict[str, Any], loss: Any = loss) -> jn.train.Program:
            return jn.train.program(
                net, jn.objective(lambda logits, y: loss(logits, jax.nn.one_hot(y, 10))), optax.sgd(hp["lr"]), train,
                epochs=config.epochs, validation=validation, metrics={"accuracy": jn.metrics.accuracy},
            )  # fmt: skip

        result = jn.sweeps.sweep(trial, seeds=config.seeds, grid={"lr": config.rates}, strategy="vmap")
        best = list(result.best("validation/accuracy").trials)
        errors[name] = 100 * (1 - result.history["validation/accuracy"][best])
    return {"neuron": neuron, "errors": errors}


def courses(starts: jax.Array, name: str, steps: int) -> jax.Array:
    """Return the outputs `(starts, steps)` of a neuron σ(w · 1 + b) from w = b = start on, whose target is 0."""

    def loss(params: jax.Array) -> jax.Array:
        return LOSSES[name](params.sum()[None, None], jnp.zeros((1, 1))).sum()

    def step(params: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        return params - 0.15 * jax.grad(loss)(params), jax.nn.sigmoid(params.sum())

    return jax.vmap(lambda start: jax.lax.scan(step, jnp.stack([start, start]), length=steps)[1])(starts)


def figure(results: Results) -> "Figure":
    """Draw the neuron's output over steps, and the classifiers' errors over epochs."""
    drawn, (left, right) = panels(2, width=5)
    for place, (name, values) in enumerate(results["errors"].items()):
        if name in results["neuron"]:
            outputs = results["neuron"][name]
            line(left, range(1, np.shape(outputs)[1] + 1), outputs, name, place)
        line(right, range(1, np.shape(values)[1] + 1), values, name, place)
    finish(left, "One neuron, wrong at the start", "step of gradient descent", "output (target 0)")
    finish(right, "Digits, sigmoid outputs, best learning rate", "epoch", "validation error, %")
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by how long the neuron stays wrong, and by errors while the classifiers learn."""
    late = {name: (np.asarray(each) > 0.5).sum(1) for name, each in results["neuron"].items()}
    errors = {name: np.asarray(each) for name, each in results["errors"].items()}
    squared, entropy = errors["squared error"], errors["cross entropy"]
    return judge(
        above("steps with an output above ½, squared error over cross entropy, log2, above 1",
              np.log2(late["squared error"] / late["cross entropy"]), 1),
        above("validation error, mean over epochs, squared error less cross entropy",
              (squared - entropy).mean(1), 0, "%"),
        above("the same after the first epoch", squared[:, 0] - entropy[:, 0], 0, "%", core=False),
        above("mean over epochs, squared error less softmax", (squared - errors["softmax"]).mean(1), 0, "%"),
    )  # fmt: skip
