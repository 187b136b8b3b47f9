"""One hidden layer draws finer boundaries with more neurons; too many are not what overfits, and a penalty helps more.

Networks with a hidden layer of 1 to 128 neurons learn two noisy half-circles from few points, and digits, with no
penalty and with L2 penalties. Neurons above the width are switched off: the width is a hyperparameter, and all widths
are one program.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import COLORS, finish, line, logarithmic, panels
from experiments.framework.study import About, Results, Verdict, above, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Number of neurons",
    claim="More neurons draw more complicated boundaries; against overfitting a penalty does more than fewer neurons.",
    source="Cybenko (1989); Neyshabur, Tomioka and Srebro (2015); Karpathy, CS231n notes on neural networks",
    refuted_by="a narrow layer that fits as well as a wide one, or one that tests better than a wide one with penalty.",
    data="two half-circles with noise of 0.3, 100 points to learn from; 1,797 handwritten digits (scikit-learn)",
    minutes=2.5,
    concepts=("jn.dense", "jn.regularizers.l2", "jn.data.moons", "jn.sweeps.sweep"),
)
ACROSS, UP = np.linspace(-1.8, 2.8, 60), np.linspace(-1.6, 2.1, 48)
GRID = np.stack(np.meshgrid(ACROSS, UP), -1).reshape(-1, 2).astype(np.float32)


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 10
    """Networks of each width and penalty, each with its own data and initial values."""
    widths: tuple[int, ...] = (1, 2, 3, 5, 8, 16, 32, 128)
    """Neurons of the hidden layer."""
    strengths: tuple[float, ...] = (0.0, 0.0003, 0.001, 0.003)
    """Strengths of the penalty; the first is 0."""
    epochs: int = 600
    """Steps of training on half-circles, all points at a time."""
    digit_epochs: int = 40
    """Epochs of training on digits, 64 at a time."""
    tests: int = 1000
    """Points for the test."""


QUICK = Config(seeds=8, widths=(1, 2, 5, 16, 64), strengths=(0.0, 0.001), epochs=300, digit_epochs=15)
TINY = Config(seeds=2, widths=(1, 3, 8), strengths=(0.0, 0.01), epochs=20, digit_epochs=1, tests=100)


def network(config: Config, hp: dict[str, Any], outputs: int) -> jn.Net:
    """Return a network of the largest width, whose neurons beyond `hp["width"]` give 0 and get no gradient."""

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        inputs = jnp.minimum(shape[0], hp["width"]) if shape[1] == outputs else shape[0] / 2
        drawn = jax.random.normal(jax.random.fold_in(key, hp["draw"]), shape, dtype)
        return drawn / jnp.sqrt(jnp.asarray(inputs, dtype))

    widest = max(config.widths)
    return jn.serial(
        hidden=jn.dense(widest, kernel_init=init),
        relu=jax.nn.relu,
        only=lambda x: jnp.where((jnp.arange(widest) < hp["width"])[None], x, 0),
        out=jn.dense(outputs, kernel_init=init),
    )


def drawn_sets(config: Config) -> dict[str, tuple[np.ndarray, ...]]:
    """Return what is learned from and tested on, inputs and targets, with the draws along the first axis."""
    points = [jn.data.moons(100 + config.tests, noise=0.3, seed=draw) for draw in range(config.seeds)]
    x, y = (np.stack(each) for each in zip(*points, strict=True))
    images, labels = jn.data.digits()
    pixels = images.reshape(len(images), -1)
    parts = [jn.data.split_indices(labels, (0.2, 0.8), seed=draw) for draw in range(config.seeds)]
    first, second = (np.stack(each) for each in zip(*parts, strict=True))
    return {
        "half-circles": (x[:, :100], y[:, :100], x[:, 100:], y[:, 100:]),
        "digits": (pixels[first], labels[first], pixels[second], labels[second]),
    }


def run(config: Config) -> Results:
    """Learn half-circles and digits at every width."""
    found: Results = {"widths": config.widths, "strengths": config.strengths}
    shape = (len(config.strengths), len(config.widths), config.seeds)
    how = {"half-circles": (config.epochs, None, 0.02), "digits": (config.digit_epochs, 64, 0.005)}
    for name, data in drawn_sets(config).items():
        x, y, test_x, test_y = map(jnp.asarray, data)
        outputs = int(data[1].max()) + 1

        def trial(hp: dict[str, Any], name: str = name, x: Any = x, y: Any = y, outputs: int = outputs) -> Any:
            epochs, size, rate = how[name]
            objective = jn.objective(jn.losses.cross_entropy, jn.regularizers.l2(hp["strength"]))
            given = x[hp["draw"]], y[hp["draw"]]
            net = network(config, hp, outputs)
            return jn.train.program(net, objective, optax.adam(rate), given, epochs=epochs, batch_size=size)

        grid = {"strength": config.strengths, "width": config.widths, "draw": list(range(config.seeds))}
        result = jn.sweeps.sweep(trial, grid=grid, strategy="vmap")
        hp = {each: jnp.asarray(values) for each, values in result.hp.items()}

        def errors(trial: Any, sets: Any, outputs: int = outputs) -> list[jax.Array]:
            params, hp = trial
            net = network(config, hp, outputs)
            pairs = [(x[hp["draw"]], y[hp["draw"]]) for x, y in sets]
            return [(net.apply(params, {}, x)[0].argmax(-1) != y).mean() for x, y in pairs]

        def mapped(trials: Any, sets: Any, errors: Any = errors) -> list[jax.Array]:
            return jax.lax.map(lambda trial: errors(trial, sets), trials)

        wrong = jax.jit(mapped)((result.runs.params, hp), ((x, y), (test_x, test_y)))
        for part, each in zip(("train", "test"), wrong, strict=True):
            found[f"{name}, {part}"] = np.moveaxis(np.round(100 * np.asarray(each), 3).reshape(shape), -1, 0)
        if name == "half-circles":
            found["points"] = {"x": np.round(data[0][0], 2), "y": data[1][0]}
            found["drawn"] = boundaries(result.runs.params, hp, config)
    return found


def boundaries(params: Any, hp: dict[str, jax.Array], config: Config) -> np.ndarray:
    """Return whether points of the grid are of the second class, for the pairs of `shown`, by the first draw."""

    def sides(params: Any, hp: dict[str, Any]) -> jax.Array:
        scores = network(config, hp, 2).apply(params, {}, GRID)[0]
        return (scores[:, 1] > scores[:, 0]).astype(jnp.int8)

    count = len(config.widths)
    places = np.array([config.seeds * (strength * count + width) for strength, width in shown(config)])
    return np.asarray(jax.jit(jax.vmap(sides))(*jax.tree.map(lambda leaf: leaf[places], (params, hp))))


def shown(config: Config) -> list[tuple[int, int]]:
    """Return places of strengths and widths whose boundaries are drawn: three widths, then the strongest penalty."""
    last = len(config.widths) - 1
    return [(0, 0), (0, len(config.widths) // 3), (0, last), (len(config.strengths) - 1, last)]


def figure(results: Results) -> "Figure":
    """Draw boundaries of the first network of some widths, and errors over the width."""
    drawn, axes = panels(3, 2, width=3.6, height=2.9)
    widths, strengths = list(results["widths"]), results["strengths"]
    pairs = shown(Config(widths=tuple(widths), strengths=tuple(strengths)))
    titles = [f"{widths[width]} neuron{'s' if widths[width] > 1 else ''}, λ = {strengths[k]:g}" for k, width in pairs]
    x, y = np.asarray(results["points"]["x"]), np.asarray(results["points"]["y"])
    for panel, title, scores in zip(axes, titles, results["drawn"], strict=False):
        sides = np.reshape(scores, (len(UP), -1))
        panel.contourf(ACROSS, UP, sides, levels=[-1, 0.5, 2], colors=COLORS[:2], alpha=0.2)
        for label, marker in ((0, "o"), (1, "^")):
            panel.scatter(*x[y == label].T, s=9, marker=marker, color=COLORS[label], linewidths=0)
        finish(panel, title, "first feature", "second feature")
    for panel, name in zip(axes[4:], ("half-circles", "digits"), strict=True):
        for place, strength in enumerate(strengths):
            line(panel, widths, np.asarray(results[f"{name}, test"])[:, place], f"test, λ = {strength:g}", place)
        training = np.maximum(np.asarray(results[f"{name}, train"])[:, 0], 0.5)
        line(panel, widths, training, "training, λ = 0 (0.5 at least)", 0, linestyle=":")
        logarithmic(panel, "xy")
        finish(panel, f"{name.capitalize()} (bands: 95 %)", "neurons of the hidden layer", "error, %")
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by errors `(seeds, strengths, widths)` of the narrowest, the widest and the width that tests best."""
    findings, widths = [], results["widths"]
    for name in ("half-circles", "digits"):
        train, test = (np.asarray(results[f"{name}, {part}"]) for part in ("train", "test"))
        plain, best = test[:, 0], test[:, 0].mean(0).argmin()
        penalized = test[:, 1 + test[:, 1:, -1].mean(0).argmin(), -1]
        findings += [
            above(f"{name}: training error, {widths[0]} neuron less {widths[-1]}",
                  train[:, 0, 0] - train[:, 0, -1], 5, "%"),
            above(f"{name}: test error, the same", plain[:, 0] - plain[:, -1], 0, "%"),
            above(f"{name}: test error, the best width without penalty less {widths[-1]} neurons with one",
                  plain[:, best] - penalized, 0, "%"),
            above(f"{name}: test error without penalty, {widths[-1]} neurons less the best width",
                  plain[:, -1] - plain[:, best], 0, "%", core=False),
        ]  # fmt: skip
    return judge(*findings)
