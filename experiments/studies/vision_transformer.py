"""From few images a convolutional network learns more than a vision transformer; with more images the gap closes.

A small vision transformer, which reads a digit as 16 patches and a class token, and a convolutional network with as
many parameters classify handwritten digits, after equally many steps on training sets of three sizes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import finish, line, logarithmic, panels
from experiments.framework.study import About, Results, Verdict, above, below, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Vision transformer against convolution",
    claim="From few images a convolutional network learns more than a vision transformer; more images close the gap.",
    source="Dosovitskiy et al. (2021), section 4.3; d'Ascoli et al. (2021)",
    refuted_by="a transformer as accurate as the convolutions from the fewest images, or a gap that does not shrink.",
    data="1,797 handwritten digits of 8×8 pixels (scikit-learn): 50, 300 or 1,400 to learn from, 397 for the test",
    minutes=2.0,
    concepts=("jn.patch_embed", "jn.class_token", "jn.encoder_block", "jn.conv"),
)
TRAIN = 1400


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 8
    """Networks of each kind and size; all learn from the same images."""
    sizes: tuple[int, ...] = (50, 300, 1400)
    """Images to learn from; they are repeated up to the largest size, so that all train for equally many steps."""
    rates: tuple[float, ...] = (0.003, 0.01)
    """Adam's rates, which decay to zero along a cosine; the better of each kind and size counts."""
    epochs: int = 6
    """Epochs of 28 steps."""
    features: int = 16
    """Features of the transformer, in two heads."""
    blocks: int = 3
    """Blocks of the transformer."""


QUICK = Config(rates=(0.01,), sizes=(50, 1400))
TINY = Config(seeds=2, sizes=(50, 100), rates=(0.01,), epochs=1, features=4, blocks=1)


def networks(config: Config) -> dict[str, jn.Net]:
    """Return the networks to compare."""
    features, relu = config.features, jax.nn.relu
    block = jn.encoder_block(features, 2, hidden=2 * features)
    return {
        "transformer": jn.serial(
            patches=jn.patch_embed(features, 2), token=jn.class_token(), positions=jn.learned_positions(17),
            blocks=jn.repeat(block, config.blocks), norm=jn.layer_norm(), first=lambda x: x[:, 0], out=jn.dense(10),
        ),
        "convolution": jn.serial(
            jn.conv(12, 3, padding=1), relu, jn.max_pool(2), jn.conv(24, 3, padding=1), relu, jn.max_pool(2),
            jn.flatten, jn.dense(40), relu, jn.dense(10),
        ),
    }  # fmt: skip


def run(config: Config) -> Results:
    """Train both kinds on sets of every size."""
    images, labels = jn.data.digits()
    images, order = images.reshape(-1, 8, 8, 1), np.random.default_rng(0).permutation(len(images))
    x, y = jnp.asarray(images[order]), jnp.asarray(labels[order])
    # The images of each size, repeated: (sizes, 1400).
    places = jnp.asarray(np.stack([np.arange(TRAIN) % size for size in config.sizes]))
    steps = config.epochs * -(-TRAIN // 50)
    found: Results = {"sizes": config.sizes, "accuracy": {}, "seen": {}, "parameters": {}}
    for name, net in networks(config).items():

        def trial(hp: dict[str, Any], net: jn.Net = net) -> jn.train.Program:
            own = places[hp["which"]]
            return jn.train.program(
                net, jn.objective(jn.losses.cross_entropy), optax.adam(optax.cosine_decay_schedule(hp["rate"], steps)),
                (x[own], y[own]), epochs=config.epochs, batch_size=50, validation=(x[TRAIN:], y[TRAIN:]),
                metrics={"accuracy": jn.metrics.accuracy},
            )  # fmt: skip

        grid = {"which": list(range(len(config.sizes))), "rate": list(config.rates)}
        result = jn.sweeps.sweep(trial, seeds=config.seeds, grid=grid, strategy="map")
        shape = len(config.sizes), len(config.rates), config.seeds
        unseen, seen = (
            100 * result.history[key][:, -1].reshape(shape) for key in ("validation/accuracy", "accuracy")
        )  # fmt: skip
        best = unseen.mean(2).argmax(1)
        for kind, values in (("accuracy", unseen), ("seen", seen)):
            found[kind][name] = np.stack([each[place] for each, place in zip(values, best, strict=True)], 1)
        found["parameters"][name] = sum(leaf[0].size for leaf in jax.tree.leaves(result.runs.params))
    return found


def figure(results: Results) -> "Figure":
    """Draw accuracy by the number of images, and the gap."""
    drawn, (left, right) = panels(2, width=4.6)
    for place, (name, values) in enumerate(results["accuracy"].items()):
        label = f"{name}, {results['parameters'][name]:,} parameters"
        line(left, results["sizes"], values, label, place)
        line(left, results["sizes"], results["seen"][name], f"{name}, in training", place, linestyle=":")
    line(right, results["sizes"], gap(results), "convolution less transformer", 2)
    right.axhline(0, color="0.5", linewidth=1)
    for panel in (left, right):
        logarithmic(panel, "x")
        panel.set_xticks(results["sizes"], results["sizes"])
    finish(left, "Unseen digits, and those of training", "images to learn from", "accuracy, %")
    finish(right, "The gap on unseen digits", "images to learn from", "accuracy, convolution less transformer, %",
           legend=False)  # fmt: skip
    return drawn


def gap(results: Results) -> np.ndarray:
    """Return the accuracy of the convolution less that of the transformer `(seeds, sizes)`."""
    return np.subtract(*(np.asarray(results["accuracy"][name]) for name in ("convolution", "transformer")))


def verdict(results: Results) -> Verdict:
    """Judge by the gap of accuracy at the fewest and the most images."""
    few, *_, many = results["sizes"]
    difference, counts = gap(results), results["parameters"]
    seen = np.asarray(results["seen"]["transformer"])[:, 0]
    return judge(
        above(f"accuracy from {few} images, convolution less transformer", difference[:, 0], 2, "%"),
        above(f"the same, {few} images less {many}", difference[:, 0] - difference[:, -1], 0, "%"),
        below(f"accuracy from {many} images, convolution less transformer", difference[:, -1], 2, "%", core=False),
        above(f"transformer, accuracy on its {few} images in training", seen, 95, "%", core=False),
        below("parameters, transformer over convolution, log2, its size",
              [abs(np.log2(counts["transformer"] / counts["convolution"]))], 0.1, core=False),
    )  # fmt: skip
