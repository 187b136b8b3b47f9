"""Sigmoids output positive numbers only, which slows learning; ReLUs die of large steps; the cost of activations.

Networks with two hidden layers learn digits by plain gradient descent, with seven activations and a grid of learning
rates. The activation is a hyperparameter, so that all networks are one program. A sigmoid minus ½ differs from a
sigmoid only in its center. Measured are the mean of hidden outputs over their spread, how often an example pushes all
weights of a unit in the same direction, how many units are off for all examples, and the time that an activation and
its gradient take.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import COLORS, finish, line, logarithmic, panels
from experiments.framework.study import About, Results, Verdict, above, below, judge
from jaxnets.plot.style import bootstrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Activations",
    claim="Outputs that are not centered slow a sigmoid down; large steps kill ReLUs, not leaky ones; ReLU is cheap.",
    source="LeCun et al., Efficient BackProp (1998); Glorot, Bordes and Bengio (2011); Maas et al. (2013); Lu (2020)",
    refuted_by="a sigmoid that learns as fast as the same less ½, or ReLUs of which large steps kill none.",
    data="1,797 handwritten digits of 8×8 pixels (scikit-learn)",
    minutes=0.5,
    concepts=("jn.dense", "jn.sweeps.sweep", "jax.nn.relu", "jax.nn.elu"),
)
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "sigmoid": jax.nn.sigmoid,
    "sigmoid − ½": lambda x: jax.nn.sigmoid(x) - 0.5,
    "tanh": jnp.tanh,
    "ReLU": jax.nn.relu,
    "leaky ReLU": jax.nn.leaky_relu,
    "ELU": jax.nn.elu,
    "GELU": jax.nn.gelu,
}


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 10
    """Networks of each kind."""
    activations: tuple[str, ...] = tuple(ACTIVATIONS)
    """The activations compared."""
    rates: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)
    """Learning rates; the first and the last are judged for units that are off."""
    epochs: int = 10
    """Epochs of training."""
    width: int = 64
    """Units of both hidden layers."""
    numbers: int = 1_000_000
    """How many numbers an activation is timed on."""


QUICK = Config(seeds=8, rates=(0.03, 0.3, 3.0), epochs=5)
TINY = Config(
    seeds=2, activations=("sigmoid", "sigmoid − ½", "tanh", "ReLU", "leaky ReLU"), rates=(0.1, 3.0), epochs=1,
    width=16, numbers=1000,
)  # fmt: skip


def network(config: Config, kind: Any) -> jn.Net:
    """Return a network with the activation of a number, which may be traced."""

    def activation(x: jax.Array) -> jax.Array:
        return jax.lax.switch(kind, [ACTIVATIONS[name] for name in config.activations], x)

    init = jax.nn.initializers.he_normal()
    return jn.serial(
        fc1=jn.dense(config.width, kernel_init=init), act1=activation, fc2=jn.dense(config.width, kernel_init=init),
        act2=activation, out=jn.dense(10),
    )  # fmt: skip


def run(config: Config) -> Results:
    """Train with every activation and rate, look at units before and after, and time activations."""
    images, labels = jn.data.digits()
    data = jnp.asarray(images.reshape(len(images), -1)), jnp.asarray(labels)

    def trial(hp: dict[str, Any]) -> jn.train.Program:
        objective = jn.objective(jn.losses.cross_entropy)
        return jn.train.program(network(config, hp["kind"]), objective, optax.sgd(hp["lr"]), data, epochs=config.epochs)

    kinds = list(range(len(config.activations)))
    result = jn.sweeps.sweep(trial, seeds=config.seeds, grid={"kind": kinds, "lr": config.rates}, strategy="vmap")
    shape = (len(kinds), len(config.rates), config.seeds)
    courses = np.nan_to_num(result.history["loss"], nan=9.0).reshape(*shape, -1)
    best = courses[..., -1].mean(-1).argmin(-1)
    look = jax.jit(jax.vmap(lambda kind, params, x, y: units(network(config, kind), params, x, y), (0, 0, None, None)))
    number = jnp.asarray(result.hp["kind"])
    off = np.asarray(look(number, result.runs.params, *data)["off"]).reshape(shape)
    begin = jax.jit(jax.vmap(lambda key: network(config, 0).init(key, data[0][:1])[0]))(result.keys)
    first = {name: np.asarray(each).reshape(shape)[:, 0] for name, each in look(number, begin, *data).items()}
    return {
        "rates": config.rates,
        "best": [config.rates[place] for place in best],
        "losses": named(config, np.round([each[place] for each, place in zip(courses, best, strict=True)], 4)),
        "off": named(config, np.round(100 * off.transpose(0, 2, 1), 2)),  # (seeds, rates)
        "off before": named(config, np.round(100 * first["off"], 2)),
        "center": named(config, np.round(first["center"], 4)),
        "one way": named(config, np.round(100 * first["one way"], 2)),
        "seconds": named(config, [seconds(ACTIVATIONS[name], config) for name in config.activations]),
    }


def named(config: Config, rows: Any) -> dict[str, Any]:
    """Return rows by the activation's name."""
    return dict(zip(config.activations, rows, strict=True))


def units(net: jn.Net, params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
    """Return the center of hidden outputs, and the shares of units that are off, and of gradients of one sign.

    A unit is off if no example moves it: its outputs' spread is 0 up to rounding, or they are below 0 throughout.
    """
    hidden = net.upto("act2").apply(params, {}, x)[0]  # (examples, units)
    before = net.upto("fc2").apply(params, {}, x)[0]
    below_ = net.upto("act1").apply(params, {}, x[:32])[0]  # (32, units), what the second layer's weights multiply
    # The gradient of unit j's weights for one example is δ_j times these, so it has one sign if these have.
    same = (below_ >= 0).all(1) | (below_ <= 0).all(1)
    dead = (before < 0).all(0) & (jnp.ptp(hidden, axis=0) < 1e-6)
    return {"center": jnp.abs(hidden.mean(0)).mean() / hidden.std(0).mean(), "one way": same.mean(), "off": dead.mean()}


def seconds(activation: Callable[[jax.Array], jax.Array], config: Config) -> np.ndarray:
    """Return the nanoseconds a number that an activation and its gradient take, measured once for each seed."""
    x = jax.random.normal(jax.random.key(0), (config.numbers,))
    both = jax.jit(lambda x: jax.vjp(activation, x)[1](x)[0])
    jax.block_until_ready(both(x))
    taken = []
    for _ in range(config.seeds):
        turns = []
        for _ in range(9):
            began = time.perf_counter()
            jax.block_until_ready(both(x))
            turns.append(time.perf_counter() - began)
        taken.append(np.median(turns))
    return np.round(1e9 * np.array(taken) / config.numbers, 4)


def figure(results: Results) -> "Figure":
    """Draw losses, units that are off, centers, and time."""
    drawn, axes = panels(2, 2, width=4.2, height=3.1)
    names = list(results["losses"])
    for place, name in enumerate(names):
        losses = np.asarray(results["losses"][name])
        line(axes[0], range(1, losses.shape[1] + 1), losses, name, place)
        line(axes[1], results["rates"], results["off"][name], name, place)
    for panel, kind in zip(axes[2:], ("center", "seconds"), strict=True):
        middle, low, high = bootstrap(np.stack([results[kind][name] for name in names], 1))
        places = np.arange(len(names))[::-1]
        for each in range(len(names)):
            spread = [[middle[each] - low[each]], [high[each] - middle[each]]]
            panel.errorbar(middle[each], places[each], xerr=spread, fmt="o", color=COLORS[each], capsize=3)
        panel.set_yticks(places, names)
        panel.set_xlim(0)
    logarithmic(axes[0], "y")
    logarithmic(axes[1], "x")
    finish(axes[0], "Each at its best rate (bands: 95 %)", "epoch", "cross entropy, training")
    finish(axes[1], "Units that are off for all examples, last epoch", "learning rate", "share, %", legend=False)
    finish(axes[2], "Outputs of hidden layers before training", "mean over spread, without sign")
    finish(axes[3], "Value and gradient of a number", "nanoseconds")
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by centers and losses at the best rate, by units that are off at the largest rate, and by times."""
    last = {name: np.log2(np.asarray(each)[:, -1]) for name, each in results["losses"].items()}
    off = {name: np.asarray(each) for name, each in results["off"].items()}
    cost = {name: np.log2(each) for name, each in results["seconds"].items()}
    center, way = ({name: np.asarray(each) for name, each in results[kind].items()} for kind in ("center", "one way"))
    top, killed = results["rates"][-1], off["ReLU"] - np.asarray(results["off before"]["ReLU"])[:, None]
    return judge(
        above("mean over spread of hidden outputs, sigmoid", center["sigmoid"], 1),
        above("the same, sigmoid over tanh", center["sigmoid"] / center["tanh"], 2),
        above("examples that push all of a unit's weights one way, sigmoid less tanh",
              way["sigmoid"] - way["tanh"], 90, "%"),
        above("final loss, sigmoid over the same less ½, log2", last["sigmoid"] - last["sigmoid − ½"]),
        above(f"ReLUs that are off after learning at the rate {top:g}, less before", killed[:, -1], 5, "%"),
        below(f"the same at the rate {results['rates'][0]:g}", killed[:, 0], 5, "%", core=False),
        above("units that are off at the largest rate, ReLU less leaky ReLU",
              off["ReLU"][:, -1] - off["leaky ReLU"][:, -1], 0, "%"),
        above("time, tanh over ReLU, log2", cost["tanh"] - cost["ReLU"]),
        above("time, sigmoid over ReLU, log2", cost["sigmoid"] - cost["ReLU"]),
        above("final loss, tanh over ReLU, log2", last["tanh"] - last["ReLU"], core=False),
        above("final loss, sigmoid − ½ over ReLU, log2", last["sigmoid − ½"] - last["ReLU"], core=False),
    )  # fmt: skip
