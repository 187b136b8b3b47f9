"""Pooling is said to make a network tolerate shifts: max pooling more than average, and both more than strides.

Networks of two stages, each a convolution and a halving, learn centered digits. They halve by the maximum of 2 × 2
positions, by their mean, or by a stride of 2, which ignores every second position. All are tested on moved digits, and
it is measured how similar the learned features remain. A fourth network, with strides, learns from digits moved at
random. The kind of halving is a hyperparameter, so that all are one program.
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
    title="Pooling and shifts",
    claim="Pooling makes a network tolerate small shifts: maxima more than means, both more than strides.",
    source="LeCun et al. (1998); Scherer, Müller and Behnke (2010); doubted by Azulay and Weiss (2019), Zhang (2019)",
    refuted_by="a network with strides that loses no more by a shift than one with pooling.",
    data="2,000 digits of MNIST at 16×16 pixels to learn from, 400 for the test, moved by up to 6 of its 28 pixels",
    minutes=1.5,
    concepts=("jn.max_pool", "jn.avg_pool", "jn.conv", "jn.data.mnist5k"),
)
KINDS = ("maxima", "means", "strides", "strides, trained on shifts")
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1))


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 10
    """Networks of each kind."""
    epochs: int = 10
    """Epochs of training."""
    examples: int = 2000
    """Digits to train on."""
    tests: int = 400
    """Digits for the test, each moved in four directions."""
    shifts: tuple[int, ...] = (0, 1, 2, 3, 4, 6)
    """By how many of MNIST's 28 pixels digits are moved; the first is 0."""
    judged: int = 3
    """The shift that is judged."""


QUICK = Config(seeds=8, epochs=6, examples=1000, tests=200, shifts=(0, 1, 3, 6))
TINY = Config(seeds=2, epochs=1, examples=128, tests=16, shifts=(0, 3))


def network(kind: Any) -> jn.Net:
    """Return the network that halves by maxima for `kind` 0, by means for 1, and by strides above that."""
    ways = [lambda x: jn.max_pool(2).apply({}, {}, x)[0], lambda x: jn.avg_pool(2).apply({}, {}, x)[0],
            lambda x: x[:, ::2, ::2]]  # fmt: skip  # every second place of a convolution is what it gives with stride 2

    def halve(x: jax.Array) -> jax.Array:
        return jax.lax.switch(jnp.minimum(kind, 2), ways, x)

    def stage(features: int) -> jn.Net:
        return jn.serial(jn.conv(features, 3, padding=1), jax.nn.relu, halve)

    return jn.serial(first=stage(8), second=stage(16), flat=jn.flatten, out=jn.dense(10))


def moved(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """Return images of 28 × 28 on paper of 32 × 32, moved, at half the resolution."""
    framed = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    rolled = np.roll(framed, (down, right), (1, 2))  # MNIST's margins of 4 and these of 2 are blank
    return rolled.reshape(len(images), 16, 2, 16, 2, 1).mean((2, 4))


def run(config: Config) -> Results:
    """Train every kind, and test on digits that are moved further and further."""
    images, labels = jn.data.mnist5k()
    first, second = (
        part[:count] for part, count in zip(jn.data.split_indices(labels, (0.8, 0.2)), (config.examples, config.tests))
    )
    train = moved(images[first], 0, 0), labels[first]
    tests = np.stack([
        [moved(images[second], shift * down, shift * right) for down, right in DIRECTIONS] for shift in config.shifts
    ]).reshape(len(config.shifts), -1, 16, 16, 1)  # fmt: skip
    answers = np.tile(labels[second], len(DIRECTIONS))

    def trial(hp: dict[str, Any]) -> jn.train.Program:
        def jitter(key: jax.Array, image: jax.Array) -> jax.Array:
            steps = jax.random.randint(key, (2,), -2, 3) * (hp["kind"] == 3)
            return jnp.roll(image, (steps[0], steps[1]), (0, 1))

        return jn.train.program(
            network(hp["kind"]), jn.objective(jn.losses.cross_entropy), optax.adam(3e-3), train, epochs=config.epochs,
            augment=jitter,
        )  # fmt: skip

    result = jn.sweeps.sweep(trial, seeds=config.seeds, grid={"kind": list(range(len(KINDS)))}, strategy="map")

    def tested(trial: tuple[jax.Array, Any], x: jax.Array) -> tuple[jax.Array, jax.Array]:
        kind, params = trial
        net = network(kind)

        def one(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            return net.apply(params, {}, x)[0], net.upto("flat").apply(params, {}, x)[0]

        logits, features = jax.lax.map(one, x)  # (shifts, images, 10) and (shifts, images, features)
        sizes = jnp.sqrt((features**2).sum(-1))
        alike = (features * features[:1]).sum(-1) / (sizes * sizes[:1] + 1e-9)
        return (logits.argmax(-1) == answers).mean(-1), alike.mean(-1)

    kinds = jnp.repeat(jnp.arange(len(KINDS)), config.seeds)
    found = jax.jit(lambda trials, x: jax.lax.map(lambda each: tested(each, x), trials))(
        (kinds, result.runs.params), jnp.asarray(tests)
    )
    right, alike = (np.asarray(each).reshape(len(KINDS), config.seeds, -1) for each in found)
    accuracy, similarity = dict(zip(KINDS, np.round(100 * right, 2))), dict(zip(KINDS, np.round(alike, 4)))
    return {"shifts": config.shifts, "judged": config.judged, "accuracy": accuracy, "similarity": similarity}


def figure(results: Results) -> "Figure":
    """Draw accuracy and the likeness of features over the shift."""
    drawn, (left, right) = panels(2, width=4.4, height=3.1)
    for place, kind in enumerate(KINDS):
        line(left, results["shifts"], results["accuracy"][kind], kind, place)
        line(right, results["shifts"], results["similarity"][kind], kind, place)
    label = "shift of the digit, in pixels of 28"
    finish(left, "Learned from centered digits, tested on moved ones", label, "test accuracy, %")
    finish(right, "Features behind the second stage", label, "cosine with the digit in place", legend=False)
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by what a shift costs, and by how much of the features is as it was."""
    place = list(results["shifts"]).index(results["judged"])
    accuracy = {kind: np.asarray(each) for kind, each in results["accuracy"].items()}
    alike = {kind: np.asarray(each)[:, place] for kind, each in results["similarity"].items()}
    cost = {kind: each[:, 0] - each[:, place] for kind, each in accuracy.items()}
    maxima, means, strides, trained = KINDS
    by = f"accuracy lost by a shift of {results['judged']} pixels"
    return judge(
        above(f"{by}, strides less maxima", cost[strides] - cost[maxima], 0, "%"),
        above(f"{by}, strides less means", cost[strides] - cost[means], 0, "%"),
        above(f"{by}, means less maxima", cost[means] - cost[maxima], 0, "%"),
        above("likeness of features after the same shift, maxima less strides", alike[maxima] - alike[strides]),
        above("the same, maxima less means", alike[maxima] - alike[means], core=False),
        above(f"{by}, strides trained on shifts less maxima", cost[trained] - cost[maxima], 0, "%", core=False),
    )
