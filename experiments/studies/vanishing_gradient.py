"""Gradients vanish from layer to layer through sigmoids, not through ReLUs; batch norm and skips cure it.

A network of equal layers classifies handwritten digits. Before training, the norm of the loss's gradient with respect
to each layer's kernel is measured, for several activations and depths. Then networks are trained, and their losses
compared.
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
    title="Vanishing gradients",
    claim="In a deep network of sigmoids the first layers hardly get a gradient; ReLU, batch norm and skips keep it.",
    source="Hochreiter (1991); Bengio, Simard and Frasconi (1994); Glorot and Bengio (2010)",
    refuted_by="a gradient as large in the first layer as in the last of ten sigmoid layers, or as small with ReLU.",
    data="1,797 handwritten digits of 8×8 pixels (scikit-learn)",
    minutes=1.0,
    concepts=("jn.serial", "jn.residual", "jn.batch_norm", "jn.sweeps.sweep"),
)
ACTIVATIONS = {
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "ReLU": jax.nn.relu,
    "leaky ReLU": jax.nn.leaky_relu,
}
KINDS = (*ACTIVATIONS, "sigmoid, batch norm", "sigmoid, skips")


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 10
    """Networks of each kind."""
    depth: int = 10
    """Hidden layers."""
    width: int = 64
    """Features of each."""
    epochs: int = 30
    """Epochs of training."""
    kinds: tuple[str, ...] = KINDS
    """The kinds compared; sigmoid and ReLU are among them."""


QUICK = Config(seeds=8, epochs=10)
TINY = Config(seeds=2, depth=2, width=8, epochs=1, kinds=("sigmoid", "ReLU"))


def network(kind: str, config: Config) -> jn.Net:
    """Return a network of equal hidden layers, initialized to suit its activation."""
    name, _, extra = kind.partition(", ")
    init = jax.nn.initializers.he_normal() if "ReLU" in name else jax.nn.initializers.glorot_normal()
    norm = [jn.batch_norm()] if extra == "batch norm" else []

    def hidden() -> jn.Net:
        one = jn.serial(jn.dense(config.width, kernel_init=init), *norm, ACTIVATIONS[name])
        return jn.residual(one) if extra == "skips" else one

    return jn.serial(
        first=jn.dense(config.width), **{f"hidden{k}": hidden() for k in range(config.depth)}, out=jn.dense(10)
    )


def run(config: Config) -> Results:
    """Measure gradients by layer, then train."""
    images, labels = jn.data.digits()
    x, y = jnp.asarray(images.reshape(len(images), -1)), jnp.asarray(labels)
    keys = jax.random.split(jax.random.key(0), config.seeds)
    gradients = {
        kind: np.asarray(jax.jit(jax.vmap(norms_of(kind, config, x[:256], y[:256])))(keys)) for kind in config.kinds
    }
    losses = {}
    for kind in config.kinds:

        def trial(hp: dict[str, Any], kind: str = kind) -> jn.train.Program:
            objective = jn.objective(jn.losses.cross_entropy)
            return jn.train.program(network(kind, config), objective, optax.adam(1e-3), (x, y), epochs=config.epochs)

        losses[kind] = jn.sweeps.sweep(trial, seeds=config.seeds, strategy="vmap").history["loss"]
    return {"gradients": gradients, "losses": losses}


def norms_of(kind: str, config: Config, x: jax.Array, y: jax.Array) -> Any:
    """Return a function from a key to the norm of the gradient by each hidden layer's kernel, first to last."""
    net = network(kind, config)

    def norms(key: jax.Array) -> jax.Array:
        params, state = net.init(key, x)

        def loss(params: Any) -> jax.Array:
            return jn.losses.cross_entropy(net.apply(params, state, x, train=True)[0], y).mean()

        found = jn.paths.paths(jax.grad(loss)(params))
        kernels = [found[path] for path in found if path.startswith("hidden") and path.endswith("kernel")]
        return jnp.stack([jnp.linalg.norm(kernel) for kernel in kernels])

    return norms


def figure(results: Results) -> "Figure":
    """Draw gradients over layers, and losses over epochs."""
    drawn, (left, right) = panels(2, width=5)
    for place, (kind, values) in enumerate(results["gradients"].items()):
        line(left, range(1, np.shape(values)[1] + 1), values, kind, place)
        line(right, range(1, np.shape(results["losses"][kind])[1] + 1), results["losses"][kind], kind, place)
    left.set_yscale("log")
    finish(left, "Gradient before training", "hidden layer, from the input", "norm of the gradient by its kernel")
    finish(right, "Training", "epoch", "cross entropy", legend=False)
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by the ratio of the first layer's gradient to the last's, and by what is learned."""
    ratios = {kind: np.log10(np.divide(*np.asarray(each)[:, [0, -1]].T)) for kind, each in results["gradients"].items()}
    last = {kind: np.asarray(each)[:, -1] for kind, each in results["losses"].items()}
    bounds = {
        "ReLU": ("ReLU: the same, above -1", True),
        "leaky ReLU": ("leaky ReLU: the same, above -1", False),
        "tanh": ("tanh: the same, above -1", False),
        "sigmoid, batch norm": ("sigmoid with batch norm: the same, above -1", True),
        "sigmoid, skips": ("sigmoid with skips: the same, above -1", True),
    }
    losses = {
        "ReLU": "final loss, sigmoid less ReLU",
        "sigmoid, batch norm": "final loss, sigmoid less sigmoid with batch norm",
        "sigmoid, skips": "final loss, sigmoid less sigmoid with skips",
    }
    return judge(
        below("sigmoid: first layer's gradient over the last's, log10, below -2", ratios["sigmoid"], -2),
        *(above(text, ratios[kind], -1, core=core) for kind, (text, core) in bounds.items() if kind in ratios),
        *(above(text, last["sigmoid"] - last[kind]) for kind, text in losses.items() if kind in last),
    )
