"""Deeper plain networks get worse, in training as well; with shortcuts around their blocks they do not.

Convolutional networks of more and more equal blocks, each two convolutions with batch norm, learn handwritten digits,
with and without shortcuts. Whether there are shortcuts is a hyperparameter, 0 or 1, so that both kinds are one program
and start from the same values. Before training, the similarity of the gradients at two nearly equal inputs is measured.
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
    title="Depth and shortcuts",
    claim="Deep plain networks get worse, in training as well as in the test; residual networks do not.",
    source="He et al., Deep Residual Learning (2015); Balduzzi et al., The Shattered Gradients Problem (2017)",
    refuted_by="a plain network that learns as well with the most layers as with four, or shortcuts that do not help.",
    data="1,797 handwritten digits of 8×8 pixels (scikit-learn)",
    minutes=3.5,
    concepts=("jn.residual", "jn.repeat", "jn.batch_norm", "jn.models.plain_cifar", "jn.models.resnet_cifar"),
)
KINDS = ("plain", "residual")
LEARNED = 1216  # examples, a multiple of the batches of 64


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 10
    """Networks of each kind and depth."""
    blocks: tuple[int, ...] = (1, 4, 12)
    """How many blocks of two convolutions; one more convolution and a dense layer are around them."""
    features: int = 8
    """Channels of each."""
    epochs: int = 10
    """Epochs of training."""


QUICK = Config(seeds=8, blocks=(1, 8), epochs=2)
TINY = Config(seeds=2, blocks=(2,), features=4, epochs=2)


def network(skip: Any, blocks: int, config: Config) -> jn.Net:
    """Return the network whose blocks are relu(body(x) + skip · x), on 4 × 4 positions."""

    def same() -> jn.Net:
        init = jax.nn.initializers.he_normal()
        return jn.serial(jn.conv(config.features, 3, padding=1, use_bias=False, kernel_init=init), jn.batch_norm())

    body = jn.serial(same(), jax.nn.relu, same())
    block = jn.residual(body, lambda x: skip * x, jax.nn.relu)
    stem = [jn.conv(config.features, 3, stride=2, padding=1, use_bias=False), jn.batch_norm(), jax.nn.relu]
    return jn.serial(*stem, jn.repeat(block, blocks), jn.global_avg_pool, jn.dense(10))


def run(config: Config) -> Results:
    """Measure gradients and train, at every depth."""
    images, labels = jn.data.digits()
    first, second = jn.data.split_indices(labels, (0.7, 0.3))
    train, test = (images[first[:LEARNED]], labels[first[:LEARNED]]), (images[second], labels[second])
    found: Results = {what: {kind: [] for kind in KINDS} for what in ("train", "test", "alike")}
    steps = LEARNED // 64
    rate = optax.warmup_cosine_decay_schedule(0.01, 0.1, steps, config.epochs * steps)  # as deep ones need it
    for blocks in config.blocks:

        def trial(hp: dict[str, Any], blocks: int = blocks) -> jn.train.Program:
            return jn.train.program(
                network(hp["skip"], blocks, config), jn.objective(jn.losses.cross_entropy),
                optax.sgd(rate, momentum=0.9), train, epochs=config.epochs,
                validation=test, metrics={"accuracy": jn.metrics.accuracy},
            )  # fmt: skip

        result = jn.sweeps.sweep(trial, seeds=config.seeds, grid={"skip": [0.0, 1.0]}, strategy="map")
        alike = likeness(blocks, config, jnp.asarray(train[0][:64]))
        for place, kind in enumerate(KINDS):
            rows = slice(place * config.seeds, (place + 1) * config.seeds)
            found["train"][kind].append(100 * (1 - result.history["accuracy"][rows, -1]))
            found["test"][kind].append(100 * (1 - result.history["validation/accuracy"][rows, -1]))
            found["alike"][kind].append(alike[rows])
    by_seed = {
        what: {kind: np.round(np.transpose(each).astype(float), 3) for kind, each in kinds.items()}
        for what, kinds in found.items()
    }
    return {"layers": [2 * blocks + 2 for blocks in config.blocks], **by_seed}


def likeness(blocks: int, config: Config, x: jax.Array) -> np.ndarray:
    """Return the cosine of gradients by images and by nearly the same images, for each kind and then each seed."""
    near = x + 0.05 * jax.random.normal(jax.random.key(0), x.shape)  # pixels are from 0 to 1

    def one(trial: tuple[jax.Array, jax.Array]) -> jax.Array:
        skip, number = trial
        net = network(skip, blocks, config)
        key = jax.random.fold_in(jax.random.key(0), number)
        params, state = net.init(key, x)

        def gradient(x: jax.Array) -> jax.Array:
            return jax.grad(lambda x: net.apply(params, state, x, train=True)[0][:, 0].sum())(x).reshape(len(x), -1)

        a, b = jax.lax.map(gradient, jnp.stack([x, near]))
        norms = jnp.linalg.norm(a, axis=1) * jnp.linalg.norm(b, axis=1)
        return ((a * b).sum(1) / (norms + 1e-30)).mean()

    skips = jnp.repeat(jnp.array([0.0, 1.0]), config.seeds)
    numbers = jnp.tile(jnp.arange(config.seeds), 2)
    return np.asarray(jax.jit(lambda *trials: jax.lax.map(one, trials))(skips, numbers))


def figure(results: Results) -> "Figure":
    """Draw errors and the likeness of gradients over the number of layers."""
    drawn, (left, right) = panels(2, width=4.4, height=3.1)
    for place, kind in enumerate(KINDS):
        line(left, results["layers"], results["test"][kind], f"{kind}, test", place)
        line(left, results["layers"], results["train"][kind], f"{kind}, training", place, linestyle="--")
        line(right, results["layers"], results["alike"][kind], kind, place)
    for panel in (left, right):
        panel.set_xscale("log", base=2)
        panel.set_xticks(results["layers"], [str(layers) for layers in results["layers"]])
    finish(left, "After training", "layers", "error, %")
    finish(right, "Before training: inputs that hardly differ", "layers", "cosine of gradients by the input")
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge the most layers against the fewest, and with shortcuts against without."""
    train, test, alike = ({kind: np.asarray(each) for kind, each in results[what].items()}
                          for what in ("train", "test", "alike"))  # fmt: skip
    plain, residual = KINDS
    few, many = results["layers"][0], results["layers"][-1]
    more = f"{many} layers less {few}"
    return judge(
        above(f"training error, plain, {more}", train[plain][:, -1] - train[plain][:, 0], 0, "%"),
        above(f"test error, plain, {more}", test[plain][:, -1] - test[plain][:, 0], 0, "%"),
        above(f"training error of {many} layers, plain less residual", train[plain][:, -1] - train[residual][:, -1], 0,
              "%"),
        above(f"test error of {many} layers, plain less residual", test[plain][:, -1] - test[residual][:, -1], 0, "%"),
        below(f"test error, residual, {more}, below 2 %", test[residual][:, -1] - test[residual][:, 0], 2, "%"),
        above(f"cosine of gradients at {many} layers, residual less plain",
              alike[residual][:, -1] - alike[plain][:, -1], core=False),
    )  # fmt: skip
