"""Without padding, convolutions lose what lies at the border; one formula gives the size of their output.

Networks of three 3×3 convolutions learn digits anywhere on a larger canvas, and are tested on digits in its middle and
towards a corner. Without padding each layer loses a ring of positions, and what remains is the inside of the padded
layer. So one program does both, and a hyperparameter says which positions the last layer counts. How often a pixel is
used is the gradient of the sum of all outputs where all weights are one. Output sizes are counted in layers of random
kernels, strides, paddings and dilations.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import COLORS, finish, line, panels
from experiments.framework.study import About, Results, Verdict, above, below, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Padding and borders",
    claim="Without padding convolutions see little of the border, and what lies there is recognized less well.",
    source="Dumoulin and Visin, A Guide to Convolution Arithmetic (2016); Goodfellow et al. (2016), section 9.5",
    refuted_by="outputs of another size than ⌊(n + 2p - d(k - 1) - 1)/s⌋ + 1, or a corner that padding does not help.",
    data="2,000 digits of MNIST, 10×10 pixels each on a canvas of 14×14, to learn from, 1,000 for the test",
    minutes=2.0,
    concepts=("jn.conv", "jn.inspect.output_size", "jn.inspect.effective_field", "jn.data.mnist5k"),
)
CANVAS, DIGIT, LAYERS = 14, 10, 3
KINDS = ("padded", "not padded")


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 10
    """Networks of each kind."""
    epochs: int = 10
    """Epochs of training."""
    examples: int = 2000
    """Digits to train on."""
    tests: int = 1000
    """Digits for the test in each position."""
    programs: int = 300
    """Convolutions and pools of which the size of the output is counted."""


QUICK = Config(seeds=8, epochs=6, examples=1000, tests=500)
TINY = Config(seeds=2, epochs=1, examples=128, tests=16, programs=10)


def network(padded: Any) -> jn.Net:
    """Return the network whose features are means over all places, or over those that no padding reaches."""
    inside = np.zeros((CANVAS, CANVAS, 1), np.float32)
    inside[LAYERS:-LAYERS, LAYERS:-LAYERS] = 1

    def mean(x: jax.Array) -> jax.Array:
        counted = jnp.where(padded == 1, 1.0, inside)
        return (x * counted).sum((1, 2)) / counted.sum((0, 1))

    layers = [each for _ in range(LAYERS) for each in (jn.conv(8, 3, padding=1), jax.nn.relu)]
    return jn.serial(*layers, mean, jn.dense(10))


def placed(digits: np.ndarray, row: int, column: int) -> np.ndarray:
    """Return canvases with the digits' first pixel at a place."""
    room = CANVAS - DIGIT
    return np.pad(digits, ((0, 0), (row, room - row), (column, room - column), (0, 0)))


def run(config: Config) -> Results:
    """Train both kinds and test them from the middle to the corner; measure use and sizes."""
    images, labels = jn.data.mnist5k()
    digits = images[:, 4:24, 4:24].reshape(-1, DIGIT, 2, DIGIT, 2, 1).mean((2, 4))
    first, second = jn.data.split_indices(labels, (0.7, 0.3))
    first, second = first[: config.examples], second[: config.tests]
    room = CANVAS - DIGIT
    train = placed(digits[first], 0, 0), labels[first]
    steps = range(room // 2, -1, -1)  # from the middle to the upper left corner
    tests = jnp.asarray([placed(digits[second], step, step) for step in steps])

    def trial(hp: dict[str, Any]) -> jn.train.Program:
        def anywhere(key: jax.Array, image: jax.Array) -> jax.Array:
            at = jax.random.randint(key, (2,), 0, room + 1)
            return jnp.roll(image, at, (0, 1))

        return jn.train.program(
            network(hp["padded"]), jn.objective(jn.losses.cross_entropy), optax.adam(1e-2), train,
            epochs=config.epochs, augment=anywhere,
        )  # fmt: skip

    result = jn.sweeps.sweep(trial, seeds=config.seeds, grid={"padded": [1, 0]}, strategy="map")

    def right(trial: tuple[jax.Array, Any]) -> jax.Array:
        padded, params = trial
        scores = jax.lax.map(lambda x: network(padded).apply(params, {}, x)[0], tests)
        return (scores.argmax(-1) == labels[second]).mean(-1)

    padded = jnp.repeat(jnp.array([1, 0]), config.seeds)
    found = np.asarray(jax.jit(lambda *each: jax.lax.map(right, each))(padded, result.runs.params))
    accuracy = np.round(100 * found.astype(float), 2).reshape(2, config.seeds, -1)
    use = {kind: used(padding) for kind, padding in zip(KINDS, (1, 0))}
    wrong = sum(mistaken(np.random.default_rng(seed)) for seed in range(config.programs))
    return {"accuracy": dict(zip(KINDS, accuracy)), "use": use, "programs": config.programs, "wrong": wrong}


def used(padding: int) -> np.ndarray:
    """Return along how many paths each pixel comes into the outputs of the layers, over those of a middle one."""
    ones = jax.nn.initializers.ones
    net = jn.serial(*(jn.conv(1, 3, padding=padding, kernel_init=ones) for _ in range(LAYERS)))
    x = np.zeros((1, CANVAS, CANVAS, 1), np.float32)
    paths = np.asarray(jax.jit(lambda x: jn.inspect.effective_field(net, *net.init(jax.random.key(0), x), x))(x))
    return np.round(paths / paths[CANVAS // 2, CANVAS // 2], 6)


def mistaken(draw: np.random.Generator) -> bool:
    """Return whether the size of a random convolution's or pool's output is not what the formula says."""
    n, k, s, p, d = (int(draw.integers(low, high)) for low, high in ((15, 40), (1, 6), (1, 5), (0, 3), (1, 4)))
    p = min(p, k // 2)  # of a pool the padding is at most half the window
    x = jax.ShapeDtypeStruct((1, n, n, 1), jnp.float32)
    expected = (n + 2 * p - d * (k - 1) - 1) // s + 1
    said = jn.inspect.output_size(n, k, stride=s, padding=p, dilation=d)
    if draw.random() < 0.5:
        net = jn.conv(1, k, stride=s, padding=p, dilation=d)
    else:
        net = jn.max_pool(k, stride=s, padding=p, dilation=d)
    made = jax.eval_shape(lambda x: net.apply(*net.init(jax.random.key(0), x), x)[0], x).shape[1]
    return not expected == said == made


def figure(results: Results) -> "Figure":
    """Draw the use of pixels, accuracies over the place, and what is left of an image after layers."""
    drawn, (left, middle, right) = panels(3, width=3.8)
    for place, kind in enumerate(KINDS):
        edge = 100 * np.asarray(results["use"][kind])[CANVAS // 2]
        left.plot(range(1, CANVAS + 1), edge, color=COLORS[place], marker="os"[place], markersize=4, label=kind)
        values = np.asarray(results["accuracy"][kind])
        line(middle, np.arange(values.shape[1])[::-1], values, kind, place)
    for place, kernel in enumerate((3, 5, 7)):
        sizes = [28]
        while sizes[-1] >= kernel:
            sizes.append(jn.inspect.output_size(sizes[-1], kernel))
        right.plot(range(len(sizes)), sizes, color=COLORS[place], marker="os^"[place], markersize=4,
                   label=f"{kernel}×{kernel}")  # fmt: skip
    left.set_ylim(0, None)
    middle.set_xticks(range((CANVAS - DIGIT) // 2 + 1))
    finish(left, "Use of pixels in the middle row", "pixel", "paths to outputs, % of a middle pixel's")
    finish(middle, "Digits from the corner to the middle", "pixels from the upper and left border", "test accuracy, %")
    finish(right, "Layers without padding", "layers", "size left of 28 pixels")
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by sizes, by the use of the corner, and by what digits lose there."""
    corner = {kind: 100 * np.asarray(each)[0, 0] for kind, each in results["use"].items()}
    accuracy = {kind: np.asarray(each) for kind, each in results["accuracy"].items()}
    lost = {kind: each[:, 0] - each[:, -1] for kind, each in accuracy.items()}
    padded, bare = KINDS
    return judge(
        below(f"sizes of {results['programs']} outputs that the formula misses", [results["wrong"]], 0.5),
        below("use of the corner pixel, over a middle one, not padded, below 1 %", [corner[bare]], 1, "%"),
        above("the same, padded, above 10 %", [corner[padded]], 10, "%", core=False),
        above("accuracy lost from the middle to the corner, not padded", lost[bare], 0, "%"),
        above("the same, not padded less padded", lost[bare] - lost[padded], 0, "%"),
        below("the same, padded, below 2 %", lost[padded], 2, "%", core=False),
        above("accuracy in the corner, padded less not padded", accuracy[padded][:, -1] - accuracy[bare][:, -1], 0,
              "%"),
    )  # fmt: skip
