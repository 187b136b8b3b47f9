"""The nearest neighbor by pixels is the one with a similar background; networks learn to ignore the background.

Digits are put on backgrounds: none, a gray of random brightness, scattered pieces of other digits, or none with the
digit moved. Each draw makes new training and test images of each kind, both alike. k nearest neighbors (with the k that
is best on the test, which favors it), a dense and a convolutional network are compared on all kinds, and it is measured
whether the nearest neighbor shares the digit or the background.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import compared, finish, panels
from experiments.framework.study import About, Results, Verdict, above, below, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Nearest neighbors and backgrounds",
    claim="Nearest neighbors by pixels are misled by the background and by shifts; networks learn to look past them.",
    source="Karpathy, CS231n notes on image classification; Simard, LeCun and Denker (1993), for shifts",
    refuted_by="neighbors that lose no more accuracy to backgrounds and shifts than networks do.",
    data="2,000 digits of MNIST at 14×14 pixels to learn from, 500 for the test, on drawn backgrounds",
    minutes=2.0,
    concepts=("jn.models.mlp", "jn.models.cnn", "jn.data.mnist5k", "jn.sweeps.sweep"),
)
KINDS = ("plain", "gray", "clutter", "moved")
NETWORKS = {"dense network": jn.models.mlp((64,)), "convolutional": jn.models.cnn((8, 16), hidden=())}
NEIGHBOURS = (1, 3, 5, 9, 15)


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 8
    """Draws of backgrounds and shifts; all networks of a kind begin alike."""
    examples: int = 2000
    """Digits to train on."""
    tests: int = 500
    """Digits for the test."""
    epochs: int = 20
    """Epochs of training."""
    networks: tuple[str, ...] = tuple(NETWORKS)
    """The networks compared; the last is judged."""


QUICK = Config(examples=1000, tests=300, epochs=6)
TINY = Config(seeds=2, examples=200, tests=50, epochs=1, networks=("dense network",))


def scenes(images: jax.Array, kind: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return digits `(n, 14, 14, 1)` on backgrounds of a kind, and the backgrounds' mean brightness."""
    first, second, third = jax.random.split(key, 3)
    count = len(images)
    gray = jnp.broadcast_to(jax.random.uniform(first, (count, 1, 1, 1), maxval=0.8), images.shape)
    others = images[jax.random.randint(second, (4, count), 0, count)]
    places = jax.random.randint(third, (5, count, 2), -5, 6)
    move = jax.vmap(lambda image, by: jnp.roll(image, (by[0], by[1]), (0, 1)))
    rows = jnp.arange(14)[:, None, None]
    pieces = [jnp.where((rows < 7) == (each % 2 == 0), move(others[each], places[each]), 0) for each in range(4)]
    clutter = 0.7 * jnp.stack(pieces).max(0)
    moved = move(images, jnp.clip(places[4], -2, 2))
    behind = jnp.where(kind == 1, gray, jnp.where(kind == 2, clutter, 0))
    digit = jnp.where(kind == 3, moved, images)
    return behind + (1 - behind) * digit, behind.mean((1, 2, 3))


def drawn(kind: Any, draw: Any, images: jax.Array, part: int) -> tuple[jax.Array, jax.Array]:
    """Return the scenes of a draw; part 0 is learned from, part 1 the test."""
    return scenes(images, kind, jax.random.fold_in(jax.random.key(part), draw))


def neighbors(train: tuple[jax.Array, jax.Array], test: tuple[jax.Array, jax.Array], hp: Any) -> dict[str, jax.Array]:
    """Return the accuracy for each number of neighbors, and how far the nearest one's background is."""
    (x, near), (test_x, behind) = (
        drawn(hp["kind"], hp["draw"], part[0], place) for place, part in enumerate((train, test))
    )
    x, test_x = x.reshape(len(x), -1), test_x.reshape(len(test_x), -1)
    squares = (test_x**2).sum(1)[:, None] - 2 * test_x @ x.T + (x**2).sum(1)[None]
    nearest = jax.lax.top_k(-squares, max(NEIGHBOURS))[1]
    votes = jax.nn.one_hot(train[1][nearest], 10)
    ranks = jnp.arange(max(NEIGHBOURS))[None, :, None]  # of equal votes the nearest wins
    counted = [jnp.where(ranks < count, votes * (1 + 1e-3 / (1 + ranks)), 0).sum(1) for count in NEIGHBOURS]
    accuracy = jnp.stack([(each.argmax(-1) == test[1]).mean() for each in counted])
    own, all_ = jnp.abs(near[nearest[:, 0]] - behind).mean(), jnp.abs(near[None] - behind[:, None]).mean()
    return {"accuracy": accuracy, "apart": own / jnp.maximum(all_, 1e-9)}


def run(config: Config) -> Results:
    """Classify every kind of scene by neighbors and by networks."""
    images, labels = jn.data.mnist5k()
    small = images.reshape(-1, 14, 2, 14, 2, 1).mean((2, 4))
    order = np.random.default_rng(0).permutation(len(labels))
    parts = order[: config.examples], order[-config.tests :]
    train, test = ((jnp.asarray(small[part]), jnp.asarray(labels[part])) for part in parts)
    grid = {"kind": list(range(len(KINDS))), "draw": list(range(config.seeds))}
    kinds, draws = (each.ravel() for each in np.meshgrid(*grid.values(), indexing="ij"))
    shape = (len(KINDS), config.seeds)
    each = jax.jit(lambda train, test, hp: jax.lax.map(lambda hp: neighbors(train, test, hp), hp))
    found = each(train, test, {"kind": jnp.asarray(kinds), "draw": jnp.asarray(draws)})
    right = np.asarray(found["accuracy"]).reshape(*shape, -1)
    best = right.mean(1).argmax(-1)
    rows = {"neighbors": np.stack([right[kind, :, count] for kind, count in enumerate(best)], 1)}
    for name in config.networks:

        def trial(hp: dict[str, Any], net: jn.Net = NETWORKS[name]) -> jn.train.Program:
            (x, _), (test_x, _) = (
                drawn(hp["kind"], hp["draw"], part[0], place) for place, part in enumerate((train, test))
            )
            return jn.train.program(
                net, jn.objective(jn.losses.cross_entropy), optax.adam(3e-3), (x, train[1]), epochs=config.epochs,
                validation=(test_x, test[1]), metrics={"accuracy": jn.metrics.accuracy},
            )  # fmt: skip

        result = jn.sweeps.sweep(trial, grid=grid, strategy="map")
        rows[name] = result.value("validation/accuracy").reshape(shape).T
    sheet = jax.jit(jax.vmap(lambda kind, images: drawn(kind, 0, images, 1)[0], (0, None)))
    examples = np.asarray(sheet(jnp.arange(len(KINDS)), test[0][:3]))[..., 0]
    return {
        "accuracy": {name: np.round(100 * each, 3) for name, each in rows.items()},  # (seeds, kinds)
        "neighbors": [NEIGHBOURS[place] for place in best],
        "apart": np.round(np.asarray(found["apart"]).reshape(shape).T, 4),
        "examples": np.round(examples, 2),
    }


def figure(results: Results) -> "Figure":
    """Draw some scenes, and accuracies."""
    shown, (left, right) = panels(2, width=4.6, height=3.4)
    sheet = np.concatenate([np.concatenate(list(row), 1) for row in np.asarray(results["examples"])])
    left.imshow(sheet, cmap="gray", vmin=0, vmax=1)
    left.set_xticks([])
    left.set_yticks([7 + 14 * place for place in range(len(KINDS))], KINDS)
    compared(right, KINDS, results["accuracy"])
    finish(left, "Digits of the test, 14×14 pixels", "")
    left.grid(visible=False)
    finish(right, "Learned and tested on the same kind (intervals: 95 %)", "test accuracy, %")
    return shown


def verdict(results: Results) -> Verdict:
    """Judge by what a background or a shift costs neighbors, and what it costs networks."""
    cost = {name: np.asarray(each)[:, :1] - np.asarray(each) for name, each in results["accuracy"].items()}
    neighbors_, *networks = cost
    findings = [
        below(
            "gray: the nearest neighbor's background apart, over any other's", np.asarray(results["apart"])[:, 1], 0.5
        )
    ]
    for name in networks:
        for place, kind in enumerate(KINDS[1:], start=1):
            findings.append(above(
                f"{kind}: accuracy lost, nearest neighbors less {name}",
                cost[neighbors_][:, place] - cost[name][:, place], 0, "%", core=name == networks[-1],
            ))  # fmt: skip
    return judge(*findings)
