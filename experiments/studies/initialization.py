"""Equal initial values never become unequal; too small or too large ones stop a deep network; Glorot's and He's do not.

A deep network learns handwritten digits from normal kernels of many scales, from a constant, and from the scales that
Glorot and He derive. The scale is a hyperparameter, so that all networks are one program.
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
    title="Initial values",
    claim="Equal weights stay equal; weights too small or too large do not learn; √(2/n) suits ReLU, √(1/n) tanh.",
    source="Rumelhart, Hinton and Williams (1986); Glorot and Bengio (2010); He et al. (2015)",
    refuted_by="units that start equal and part, or a deep network that learns as well from weights ten times smaller.",
    data="1,797 handwritten digits of 8×8 pixels (scikit-learn)",
    minutes=1.5,
    concepts=("jn.dense", "jax.nn.initializers.he_normal", "jn.sweeps.sweep"),
)
ACTIVATIONS = {"tanh": jnp.tanh, "ReLU": jax.nn.relu}
DERIVED = {"tanh": 1.0, "ReLU": float(np.sqrt(2))}  # what the scale is multiplied with 1/√n to


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 10
    """Networks of each scale."""
    depth: int = 8
    """Hidden layers."""
    width: int = 64
    """Units of each."""
    epochs: int = 10
    """Epochs of training."""
    scales: tuple[float, ...] = (0.1, 0.2, 0.4, 0.7, 1.0, 1.41421356, 2.0, 3.0, 5.0, 8.0)
    """Standard deviations of the weights, in 1/√n."""


QUICK = Config(seeds=8, epochs=5, scales=(0.1, 0.4, 1.0, 1.41421356, 3.0, 8.0))
TINY = Config(seeds=2, depth=3, width=16, epochs=1, scales=(0.1, 1.0, 1.41421356, 8.0))


def network(activation: Any, config: Config, scale: Any, equal: Any = 0.0) -> jn.Net:
    """Return a network whose kernels are normal with standard deviation scale/√n, or all 1/n if `equal` is 1."""

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        normal = scale * jax.random.normal(key, shape, dtype) / np.sqrt(shape[0])
        return jnp.where(equal == 1, jnp.full(shape, 1 / shape[0], dtype), normal)

    hidden = [each for _ in range(config.depth) for each in (jn.dense(config.width, kernel_init=init), activation)]
    return jn.serial(*hidden, out=jn.dense(10, kernel_init=init))


def run(config: Config) -> Results:
    """Train from every scale, and from equal values."""
    images, labels = jn.data.digits()
    x = jnp.asarray(images.reshape(len(images), -1))
    train, validation = [(x[part], jnp.asarray(labels[part])) for part in jn.data.split_indices(labels, (0.7, 0.3))]
    accuracy, equal, parts = {}, {}, []
    for name, activation in ACTIVATIONS.items():

        def trial(hp: dict[str, Any], activation: Any = activation) -> jn.train.Program:
            return jn.train.program(
                network(activation, config, hp["scale"], hp["equal"]), jn.objective(jn.losses.cross_entropy),
                optax.sgd(0.05, momentum=0.9), train, epochs=config.epochs, validation=validation,
                metrics={"accuracy": jn.metrics.accuracy},
                options=jn.train.Options(halt_on_nonfinite=False),
            )  # fmt: skip

        trials = [{"scale": scale, "equal": 0.0} for scale in config.scales] + [{"scale": 1.0, "equal": 1.0}]
        result = jn.sweeps.sweep(trial, seeds=config.seeds, trials=trials, strategy="vmap")
        found = 100 * np.nan_to_num(result.history["validation/accuracy"][:, -1], nan=0.0)
        found = found.reshape(len(trials), config.seeds).T
        accuracy[name], equal[name] = found[:, :-1], found[:, -1]
        for number in range(len(result) - config.seeds, len(result)):
            kernel = np.asarray(next(iter(result.run(number).params.values()))["kernel"])  # (64 pixels, units)
            parts.append(np.ptp(kernel, axis=1).max() / np.abs(kernel).max())
    return {"scales": config.scales, "accuracy": accuracy, "equal": equal, "parted": parts}


def figure(results: Results) -> "Figure":
    """Draw accuracy over the scale."""
    drawn, (axes,) = panels(1, width=6, height=3.8)
    for place, (name, values) in enumerate(results["accuracy"].items()):
        line(axes, results["scales"], values, name, place)
        axes.axvline(DERIVED[name], color=COLORS[place], linestyle=":", linewidth=1)
        axes.axhline(np.mean(results["equal"][name]), color=COLORS[place], linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.set_ylim(0, 100)
    finish(axes, "Dotted: as derived for each; dashed: equal values", "standard deviation of the weights, in 1/√n",
           "validation accuracy, %")  # fmt: skip
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by accuracies, and by how far units that began equal have parted."""
    scales, findings = np.asarray(results["scales"]), []
    findings.append(below("equal values: spread of the first layer's units, over their size", results["parted"], 1e-5))
    for name, values in results["accuracy"].items():
        found, equal = np.asarray(values), np.asarray(results["equal"][name])
        own = found[:, np.abs(scales - DERIVED[name]).argmin()]
        findings += [
            above(f"{name}: accuracy at the derived scale less equal values", own - equal, 10, "%"),
            above(f"{name}: less a tenth of the scale or nearest to it", own - found[:, scales.argmin()], 5, "%"),
            above(f"{name}: less the largest scale", own - found[:, scales.argmax()], 5, "%"),
            below(f"{name}: the best scale of all less the derived one", found.max(1) - own, 3, "%", core=False),
        ]
    return judge(*findings)
