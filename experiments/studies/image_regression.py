"""A convolutional network locates the eyes and the corners of the mouth in a drawing to a fraction of a pixel.

Faces are drawn from an outline, two eyes and a mouth, moved, turned and scaled at random, with noise. One network
regresses the coordinates with dense layers on its features; another makes a heatmap for each point and takes its mean
position. Both are tested on drawings like those they learn from, and on drawings that lie further to the side than any
of them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import COLORS, bars, finish, line, panels
from experiments.framework.study import About, Results, Verdict, above, below, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Landmarks by image regression",
    claim="A CNN finds points to part of a pixel, by a map for each better than by dense layers, and elsewhere too.",
    source="Toshev and Szegedy (2014); Tompson et al. (2014); Nibali et al. (2018)",
    refuted_by="errors of a pixel and more, or dense layers that err as little, also where nothing was learned.",
    data="drawn faces of 24×24 pixels with noise: 1,500 to learn from, 500 for each test",
    minutes=2.0,
    concepts=("jn.models.landmarks", "jn.models.soft_argmax", "jn.losses.squared_error", "jn.inspect.count_parameters"),
)
SIZE, ELSEWHERE = 24, 10.0


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 8
    """Networks of each kind."""
    heads: tuple[str, ...] = ("heatmap", "dense")
    """The heads of the networks."""
    examples: int = 1500
    """Drawings to train on."""
    tests: int = 500
    """Drawings for each of the two tests."""
    epochs: int = 10
    """Epochs of training."""


QUICK = Config(examples=1000, tests=200, epochs=6)
TINY = Config(seeds=2, heads=("heatmap",), examples=100, tests=20, epochs=1)


def run(config: Config) -> Results:
    """Train both kinds, and test them on both sets of drawings."""
    x, y = faces(config.examples, 0, (-0.25, 0.1))
    tests = [faces(config.tests, 1, (-0.25, 0.1)), faces(config.tests, 2, (0.2, 0.3))]
    test = np.concatenate([each for each, _ in tests])
    # Both tests are one set; points of the second are marked by being far outside.
    points = np.concatenate([tests[0][1], tests[1][1] + ELSEWHERE])
    steps = config.epochs * -(-config.examples // 50)

    def error(elsewhere: bool) -> jn.metrics.Metric:
        def measure(outputs: Any, targets: Any, weights: Any = None) -> dict[str, jax.Array]:
            there = targets.min((1, 2)) > ELSEWHERE / 2
            off = outputs - targets + ELSEWHERE * there[:, None, None]
            mine = weights * (there == elsewhere)
            pixels = jnp.linalg.norm(off, axis=-1).mean(-1) * SIZE / 2
            return {"total": (mine * pixels).sum(), "weight": mine.sum()}

        return jn.metrics.Metric(measure, lambda sums: sums["total"] / sums["weight"], "pixels")

    found: Results = {"near": {}, "elsewhere": {}, "parameters": {}}
    for head in config.heads:
        relu = jax.nn.relu
        backbone = jn.serial(jn.conv(8, 3, padding="SAME"), relu, jn.max_pool(2), jn.conv(16, 3, padding="SAME"), relu,
                             jn.conv(16, 3, padding="SAME"), relu)  # fmt: skip
        net = jn.models.landmarks(4, backbone, head="heatmap" if head == "heatmap" else "dense", hidden=(32,))

        def trial(hp: dict[str, Any], net: jn.Net = net) -> jn.train.Program:
            return jn.train.program(
                net, jn.objective(jn.losses.squared_error), optax.adam(optax.cosine_decay_schedule(0.005, steps)),
                (x, y), epochs=config.epochs, batch_size=50, validation=(test, points),
                metrics={"near": error(False), "elsewhere": error(True)},
            )  # fmt: skip

        result = jn.sweeps.sweep(trial, seeds=config.seeds, strategy="map")
        for kind in ("near", "elsewhere"):
            found[kind][head] = result.history[f"validation/{kind}"]
        found["parameters"][head] = jn.inspect.count_parameters(result.run(0).params)
    middle = y.mean(0)
    guess = [np.linalg.norm(each - middle, axis=-1).mean() * SIZE / 2 for _, each in tests]
    drawings = {"pictures": np.round(test[[0, 1, -1], :, :, 0].astype(float), 2), "points": np.stack([
        tests[0][1][0], tests[0][1][1], tests[1][1][-1]])}  # fmt: skip
    return {**found, "guess": guess, **drawings}


def faces(count: int, seed: int, sideways: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return drawings `(count, 24, 24, 1)` and their points `(count, 4, 2)`: eyes and corners of the mouth, as (x, y).

    The middle of the image is (0, 0), its edges are at -1 and 1; a face's middle lies `sideways` in x.
    """
    random = np.random.default_rng(seed)
    place = (2 * np.arange(SIZE) + 1) / SIZE - 1
    grid = np.stack(np.meshgrid(place, place), -1)  # (row, column, (x, y))
    own = np.array([[-0.4, -0.3], [0.4, -0.3], [-0.35, 0.45], [0.35, 0.45]])
    size = random.uniform(0.4, 0.6, (count, 1, 1))
    angle = random.uniform(-0.6, 0.6, count)
    middle = np.stack([random.uniform(*sideways, count), random.uniform(-0.25, 0.25, count)], -1)
    turn = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    mouth_width = random.uniform(0.7, 1.3, (count, 1, 1))
    spots = own * np.where(np.arange(4)[:, None] > 1, np.array([1.0, 0.0]) * (mouth_width - 1) + 1, 1.0)
    points = size * (spots @ turn) + middle[:, None]
    local = (grid - middle[:, None, None]) / size[..., None] @ turn.swapaxes(1, 2)[:, None]  # in the face's own terms
    near = np.linalg.norm(local[..., None, :] - spots[:, None, None, :2], axis=-1).min(-1)
    dots = np.exp(-np.square(near / 0.2))
    outline = np.exp(-np.square((np.linalg.norm(local, axis=-1) - 1) / 0.1))
    lips = np.exp(-np.square((local[..., 1] - 0.45) / 0.1)) * (np.abs(local[..., 0]) < 0.35 * mouth_width)
    image = np.max([dots, 0.7 * outline, 0.9 * lips], 0) + random.normal(0, 0.1, (count, SIZE, SIZE))
    return image[..., None].astype(np.float32), points.astype(np.float32)


def figure(results: Results) -> "Figure":
    """Draw errors over epochs, those elsewhere, and some drawings."""
    drawn, (left, middle, right) = panels(3, width=3.7, height=3.6)
    for place, (head, values) in enumerate(results["near"].items()):
        label = f"{head}, {results['parameters'][head]:,} parameters"
        line(left, range(1, np.shape(values)[1] + 1), values, label, place)
    left.set_ylim(0, 1.4 * results["guess"][0])
    left.axhline(results["guess"][0], color=COLORS[-1], linestyle=":", linewidth=1)
    last = {f"{head}, {kind}": np.asarray(results[key][head])[:, -1] for key, kind in
            (("near", "as learned"), ("elsewhere", "elsewhere")) for head in results["near"]}  # fmt: skip
    bars(middle, list(last), np.transpose(list(last.values())))
    finish(left, "Faces as learned (dotted: mean point)", "epoch", "mean distance, pixels")
    finish(middle, "After the last epoch", "mean distance, pixels")
    for k, (picture, points) in enumerate(zip(results["pictures"], results["points"], strict=True)):
        right.imshow(picture, cmap="gray_r", extent=(-1, 1, 1 + 2.1 * k, 2.1 * k - 1))
        across, down = np.transpose(points)
        right.plot(across, down + 2.1 * k, "x", color=COLORS[1])
    right.set_ylim(5.2, -1)
    finish(right, "Drawings and their points", "")
    right.set_xticks([])
    right.set_yticks([0, 2.1, 4.2], ["as learned", "as learned", "elsewhere"])
    right.grid(visible=False)
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by mean distances after the last epoch, paired by seed."""
    near, far = ({head: np.asarray(each)[:, -1] for head, each in results[kind].items()} for kind in
                 ("near", "elsewhere"))  # fmt: skip
    findings = [
        below("distance from the points, heatmaps", near["heatmap"], 1, "pixels"),
        above(
            "distance of the mean point over that of heatmaps, log2", np.log2(results["guess"][0] / near["heatmap"]), 2
        ),
    ]
    if "dense" in near:
        more = results["parameters"]["dense"] / results["parameters"]["heatmap"]
        findings += [
            above("distance, dense layers less heatmaps", near["dense"] - near["heatmap"], 0, "pixels"),
            above("elsewhere, dense layers less heatmaps", far["dense"] - far["heatmap"], 1, "pixels"),
            above("parameters, dense over heatmaps", [more], 1),
            below("distance from the points, dense layers", near["dense"], 1, "pixels", core=False),
        ]
    findings.append(below("elsewhere, heatmaps", far["heatmap"], 1, "pixels", core=False))
    return judge(*findings)
