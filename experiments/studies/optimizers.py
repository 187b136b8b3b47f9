"""Momentum runs along a ravine in which plain descent zigzags; optimizers that adapt rates learn faster than both.

Nine optimizers descend a ravine, a quadratic function a hundred times steeper across than along, which lies along the
axes or is turned by 45°, and train a dense and a convolutional network, each at its best learning rate of a grid. The
optimizer is a hyperparameter, so that each problem is one program.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import COLORS, compared, finish, logarithmic, panels
from experiments.framework.study import About, Results, Verdict, above, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Optimizers",
    claim="Momentum and adaptive rates need fewer steps than plain descent, in a ravine and in networks.",
    source="Polyak (1964); Duchi et al. (2011); Zeiler (2012); Kingma and Ba (2014); Dozat (2016)",
    refuted_by="plain descent that needs no more steps than momentum, or learns as fast as Adam at its best rate.",
    data="a quadratic function of condition 100; 1,797 handwritten digits of 8×8 pixels (scikit-learn)",
    minutes=1.0,
    concepts=("jn.train.program", "jn.sweeps.sweep", "jn.models.mlp", "jn.models.cnn", "optax.adam"),
)
OPTIMIZERS: dict[str, tuple[Callable[[Any], optax.GradientTransformation], float]] = {  # and the usual rate
    "descent": (optax.sgd, 0.1),
    "momentum": (lambda rate: optax.sgd(rate, momentum=0.9), 0.01),
    "Nesterov": (lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True), 0.01),
    "AdaGrad": (optax.adagrad, 0.01),
    "AdaDelta": (optax.adadelta, 1.0),
    "RMSProp": (optax.rmsprop, 0.001),
    "Adam": (optax.adam, 0.001),
    "AdaMax": (optax.adamax, 0.002),
    "Nadam": (optax.nadam, 0.001),
}
ANGLES = {"along the axes": 0.0, "turned by 45°": np.pi / 4}
RATES = np.logspace(-4, 1, 26)  # in the ravine
DRAWN = ("descent", "momentum", "Adam")


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 8
    """Networks of each kind."""
    starts: int = 64
    """Starts in the ravine, all at the distance 1."""
    steps: int = 500
    """Steps in the ravine."""
    epochs: int = 5
    """Epochs of training."""
    optimizers: tuple[str, ...] = tuple(OPTIMIZERS)
    """The optimizers compared."""
    factors: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0)
    """Rates tried with each network, in the optimizer's usual one."""
    networks: tuple[str, ...] = ("dense", "convolutional")
    """The networks trained."""


QUICK = Config(epochs=3, factors=(3.0, 10.0), networks=("dense",))
TINY = Config(
    seeds=2,
    starts=2,
    steps=100,
    epochs=1,
    optimizers=("descent", "momentum", "Adam"),
    factors=(1.0,),
    networks=("dense",),
)
NETWORKS = {"dense": jn.models.mlp((32,)), "convolutional": jn.models.cnn((8, 16), hidden=())}


def chosen(names: tuple[str, ...], kind: Any, rate: Any) -> optax.GradientTransformation:
    """Return the optimizer with the number `kind`; both numbers may be traced."""
    every = [OPTIMIZERS[name][0](rate) for name in names]

    def init(params: Any) -> tuple[Any, ...]:
        return tuple(each.init(params) for each in every)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def one(place: int) -> tuple[Any, tuple[Any, ...]]:
            new, own = every[place].update(updates, state[place], params)
            return new, (*state[:place], own, *state[place + 1 :])

        return jax.lax.switch(kind, [lambda place=place: one(place) for place in range(len(every))])

    return optax.GradientTransformation(init, update)


def run(config: Config) -> Results:
    """Descend the ravine from many starts, and train both networks."""
    found: Results = {"optimizers": config.optimizers, **ravine(config)}
    images, labels = jn.data.digits()
    part, _ = jn.data.split_indices(labels, (0.7, 0.3))
    train = images[part], labels[part]
    usual = jnp.array([OPTIMIZERS[name][1] for name in config.optimizers])
    found["best"], found["courses"] = {}, {}
    for name in config.networks:

        def trial(hp: dict[str, Any], net: jn.Net = NETWORKS[name]) -> jn.train.Program:
            optimizer = chosen(config.optimizers, hp["kind"], usual[hp["kind"]] * hp["factor"])
            objective = jn.objective(jn.losses.cross_entropy)
            return jn.train.program(net, objective, optimizer, train, epochs=config.epochs)

        grid = {"kind": list(range(len(usual))), "factor": config.factors}
        history = jn.sweeps.sweep(trial, seeds=config.seeds, grid=grid, strategy="map").history["loss"]
        losses = np.nan_to_num(history, nan=9.0).reshape(len(usual), len(config.factors), config.seeds, -1)
        best = losses[..., -1].mean(-1).argmin(-1)
        found["best"][name] = [config.factors[place] for place in best]
        found["courses"][name] = np.round([each[place] for each, place in zip(losses, best, strict=True)], 5)
    return found


def ravine(config: Config) -> Results:
    """Return the steps each optimizer takes to a twentieth of its first distance, and the first start's path."""
    angles = jnp.array(list(ANGLES.values()))
    around = 2 * np.pi * np.random.default_rng(0).random(config.starts)
    around[0] = 2.8  # what is drawn
    starts = jnp.array(np.stack([np.cos(around), np.sin(around)], 1), jnp.float32)

    def path(kind: jax.Array, rate: jax.Array, angle: jax.Array, start: jax.Array) -> jax.Array:
        turn = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
        optimizer = chosen(config.optimizers, kind, rate)

        def height(place: jax.Array) -> jax.Array:
            along, across = turn.T @ place
            return (along**2 + 100 * across**2) / 2

        def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
            place, state = carry
            updates, state = optimizer.update(jax.grad(height)(place), state, place)
            return (place + updates, state), place

        place = turn @ start
        return jax.lax.scan(step, (place, optimizer.init(place)), length=config.steps)[1]

    over = jax.vmap(jax.vmap(jax.vmap(jax.vmap(path, (None,) * 3 + (0,)), (None, 0, None, None)),
                             (None, None, 0, None)), (0,) + (None,) * 3)  # fmt: skip
    paths = jax.jit(over)(jnp.arange(len(config.optimizers)), jnp.asarray(RATES, jnp.float32), angles, starts)
    paths = np.clip(np.nan_to_num(np.asarray(paths), nan=9.0), -9, 9)  # (optimizers, angles, rates, starts, steps, 2)
    apart = np.linalg.norm(paths, axis=-1) > 0.05
    needed = np.minimum(config.steps - apart[..., ::-1].argmax(-1), config.steps)  # after the last step outside
    best = needed.mean(-1).argmin(-1)  # (optimizers, angles)
    rows, columns = np.indices(best.shape)
    drawn = paths[np.arange(len(best)), 1, best[:, 1], 0, :100]
    return {"needed": needed[rows, columns, best], "rates": RATES[best], "paths": np.round(drawn, 4)}


def figure(results: Results) -> "Figure":
    """Draw paths, the steps that are needed, and losses."""
    drawn, axes = panels(3, width=3.9, height=3.7)
    names, paths = list(results["optimizers"]), np.asarray(results["paths"])
    x, y = np.meshgrid(np.linspace(-1.2, 1.2, 80), np.linspace(-1.2, 1.2, 80))
    axes[0].contour(x, y, ((x + y) ** 2 + 100 * (y - x) ** 2) / 4, levels=np.logspace(-1, 2, 7), colors="#bbbbbb",
                    linewidths=0.7)  # fmt: skip
    for place, name in enumerate(DRAWN):
        axes[0].plot(
            *paths[names.index(name)].T, color=COLORS[place], label=name, linewidth=1, marker=".", markersize=4
        )
    axes[0].plot(0, 0, "k*", markersize=9)
    axes[0].set(xlim=(-1.2, 0.5), ylim=(-1.2, 0.5), aspect="equal")
    needed = np.asarray(results["needed"])
    compared(axes[1], names, {angle: needed[:, place].T for place, angle in enumerate(ANGLES)})
    last = {f"{name} network": np.asarray(each)[..., -1].T for name, each in results["courses"].items()}
    compared(axes[2], names, last)
    for panel in axes[1:]:
        logarithmic(panel, "x")
    finish(axes[0], "The first 100 steps from one start", "first parameter", "second parameter")
    finish(axes[1], "In the ravine (intervals: 95 %)", "steps to a twentieth of the distance")
    finish(axes[2], "Digits, each at its best rate", "cross entropy, training, last epoch")
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by steps in the ravine, and by losses after the last epoch, each at its best rate."""
    names, needed = list(results["optimizers"]), np.log2(results["needed"])
    place = {name: names.index(name) for name in names}
    findings = [
        above("steps in the turned ravine, descent over momentum, log2, above 1",
              needed[0, 1] - needed[place["momentum"], 1], 1),
        above("the same, descent over Adam, above 0", needed[0, 1] - needed[place["Adam"], 1], core=False),
        above("steps of Adam, turned ravine over one along the axes, log2",
              needed[place["Adam"], 1] - needed[place["Adam"], 0], core=False),
    ]  # fmt: skip
    for network, courses in results["courses"].items():
        last = np.log2(np.asarray(courses)[..., -1])
        findings += [
            above(f"{network} network, last epoch: loss of descent over {name}'s, log2", last[0] - last[place[name]],
                  core=name in ("momentum", "Adam"))
            for name in names[1:]
        ]  # fmt: skip
    return judge(*findings)
