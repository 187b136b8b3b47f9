"""A convolution needs few parameters and uses that neighbors belong together; shuffling positions takes that away.

A kernel of 10 × 10 with a bias has 101 parameters and six of them have 606, whatever the size of the image. On
MNIST-1D, signals of 40 positions in ten classes, a convolutional network is compared with dense ones. Then all learn
again from signals whose positions are shuffled in one fixed way: nothing changes for a dense network, everything for a
convolution.
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
    title="Convolution against dense layers",
    claim="At fewer parameters a convolutional network is the better one, as long as neighbors belong together.",
    source="LeCun et al. (1989, 1998); Greydanus, Scaling down Deep Learning (2020), for the data",
    refuted_by="a dense network as accurate as the convolutional one, or shuffling that takes nothing from the latter.",
    data="MNIST-1D: 4,000 signals of 40 places to learn from, 1,000 for the test",
    minutes=1.0,
    concepts=("jn.conv", "jn.dense", "jn.data.mnist1d", "jn.inspect.count_parameters"),
)


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 8
    """Networks of each kind."""
    epochs: int = 40
    """Epochs of training."""
    examples: int = 4000
    """Signals to train on."""
    networks: tuple[str, ...] = ("convolution", "dense", "linear")
    """The networks; the first two are always compared."""


QUICK = Config(epochs=12, examples=2000)
TINY = Config(seeds=2, epochs=1, examples=256, networks=("convolution", "dense"))


def networks() -> dict[str, jn.Net]:
    """Return the networks to compare."""
    relu = jax.nn.relu
    return {
        "convolution": jn.serial(
            jn.unflatten((40, 1)), jn.conv(25, (5,), stride=2, padding=1), relu, jn.conv(25, (3,), stride=2, padding=1),
            relu, jn.conv(25, (3,), stride=2, padding=1), relu, jn.flatten, jn.dense(10)),
        "dense": jn.serial(jn.dense(80), relu, jn.dense(80), relu, jn.dense(10)),
        "linear": jn.serial(jn.dense(10)),
    }  # fmt: skip


def run(config: Config) -> Results:
    """Train every network on signals as they are and with their places shuffled."""
    (x, y), (test_x, test_y) = jn.data.mnist1d()
    x, y = x[: config.examples], y[: config.examples]
    order = np.random.default_rng(0).permutation(x.shape[1])
    accuracy: Results = {"as it is": {}, "shuffled": {}}
    nets = {name: networks()[name] for name in config.networks}
    for name, net in nets.items():

        def trial(hp: dict[str, Any], net: jn.Net = net) -> jn.train.Program:
            def given(signals: np.ndarray) -> jax.Array:
                return jnp.where(hp["shuffled"] == 1, signals[:, order], signals)

            steps = config.epochs * -(-len(y) // 100)
            return jn.train.program(
                net, jn.objective(jn.losses.cross_entropy), optax.adam(optax.cosine_decay_schedule(1e-2, steps)),
                (given(x), y), epochs=config.epochs, batch_size=100, validation=(given(test_x), test_y),
                metrics={"accuracy": jn.metrics.accuracy},
            )  # fmt: skip

        result = jn.sweeps.sweep(trial, seeds=config.seeds, grid={"shuffled": [0, 1]})
        rows = 100 * result.history["validation/accuracy"].reshape(2, config.seeds, -1)
        accuracy["as it is"][name], accuracy["shuffled"][name] = rows
    signal, image = jnp.zeros((1, x.shape[1])), jnp.zeros((1, 28, 28, 1))
    parameters = {name: counted(net, signal) for name, net in nets.items()}
    kernels = [counted(jn.conv(features, 10), image) for features in (1, 6)]
    return {"accuracy": accuracy, "parameters": parameters, "kernels": kernels}


def counted(net: jn.Net, x: jax.Array) -> int:
    """Return how many parameters a network has."""
    return jn.inspect.count_parameters(jax.eval_shape(lambda: net.init(jax.random.key(0), x)[0]))


def figure(results: Results) -> "Figure":
    """Draw accuracy over epochs, as it is and shuffled."""
    drawn, axes = panels(2, width=5)
    for panel, (kind, found) in zip(axes, results["accuracy"].items(), strict=True):
        for place, (name, values) in enumerate(found.items()):
            label = f"{name}, {results['parameters'][name]:,} parameters"
            line(panel, range(1, np.shape(values)[1] + 1), values, label, place)
        panel.axhline(10, color=COLORS[-1], linestyle=":", linewidth=1)
        panel.set_ylim(0, 100)
        title = "Signals as they are" if kind == "as it is" else "The same, places shuffled"
        finish(panel, f"{title} (bands: 95 %; dotted: guessing)", "epoch", "test accuracy, %", legend=panel is axes[0])
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by the accuracies after the last epoch, and the counts."""
    last = {kind: {name: np.asarray(each)[:, -1] for name, each in found.items()}
            for kind, found in results["accuracy"].items()}  # fmt: skip
    plain, shuffled, counts = last["as it is"], last["shuffled"], results["parameters"]
    wrong = [abs(results["kernels"][0] - 101) + abs(results["kernels"][1] - 606)]
    return judge(
        above("test accuracy, convolution less dense", plain["convolution"] - plain["dense"], 5, "%"),
        above("parameters, dense over convolution", [counts["dense"] / counts["convolution"]], 1),
        above("what shuffling takes from the convolution", plain["convolution"] - shuffled["convolution"], 5, "%"),
        below("what shuffling takes from the dense network", plain["dense"] - shuffled["dense"], 5, "%"),
        below("shuffled, convolution less dense", shuffled["convolution"] - shuffled["dense"], 5, "%", core=False),
        *(
            above("test accuracy, dense less linear", plain["dense"] - plain[name], 5, "%", core=False)
            for name in ("linear",)
            if name in plain
        ),
        below("kernels of 10 × 10: parameters counted less the 101 and 606 of the notes", wrong, 0.5),
    )
