"""What classic designs make of the same work: networks from LeNet-5 to ResNet in miniature, on few digits.

LeNet-5 is taken as published and as it is built today. AlexNet, VGG, GoogLeNet and ResNet are built small, each with
its characteristic part: a large kernel with a stride and three convolutions in a row, pairs of 3×3, Inception modules,
and residual blocks with batch norm. Dropout is left out, since it has its own study. None may take more multiply-adds
than LeNet-5, and all learn in the same way for 200 steps: the study compares what they make of little data and time.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import COLORS, MARKERS, finish, line, panels
from experiments.framework.study import About, Results, Verdict, above, below, judge
from jaxnets.plot.style import bootstrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Classic networks in miniature",
    claim="With no more multiply-adds than LeNet-5, each design since is more accurate, on digits, too.",
    source="Canziani, Paszke and Culurciello (2016) for the comparison; the papers of the networks",
    refuted_by="a later design that is no more accurate than LeNet-5 as it is built today.",
    data="1,000 digits of MNIST at 28×28 pixels to learn from, 1,000 for the test",
    minutes=4.5,
    concepts=("jn.models.lenet5", "jn.models.lenet5_1998", "jn.inspect.multiply_adds", "jn.inspect.count_parameters"),
)
FIRST = "LeNet-5"


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 8
    """Networks of each design."""
    networks: tuple[str, ...] = (FIRST, "LeNet-5 of 1998", "AlexNet", "VGG", "GoogLeNet", "ResNet")
    """The designs compared."""
    epochs: int = 10
    """Epochs of training."""
    examples: int = 1000
    """Digits to train on."""


QUICK = Config(networks=(FIRST, "AlexNet"), epochs=3, examples=500)
TINY = Config(seeds=2, networks=(FIRST,), epochs=1, examples=64)


def convolved(features: int, window: int, stride: int = 1) -> list[Any]:
    """Return a convolution and its activation."""
    init = jax.nn.initializers.he_normal()
    return [jn.conv(features, window, stride=stride, padding=window // 2, kernel_init=init), jax.nn.relu]


def inception(features: int) -> jn.Net:
    """Return a module of four branches: 1×1, 3×3 and 5×5 behind 1×1, and a pool before 1×1."""
    less = features // 2
    return jn.branches(
        jn.concatenate,
        jn.serial(*convolved(features, 1)),
        jn.serial(*convolved(features, 1), *convolved(2 * features, 3)),
        jn.serial(*convolved(less, 1), *convolved(less, 5)),
        jn.serial(jn.max_pool(3, stride=1, padding=1), *convolved(less, 1)),
    )


def residual(features: int, stride: int) -> jn.Net:
    """Return a residual block of two convolutions with batch norm."""

    def normed(stride: int) -> list[Any]:
        convolution, _ = convolved(features, 3, stride)
        return [convolution, jn.batch_norm()]

    shortcut = jn.conv(features, 1, stride=stride) if stride > 1 else None
    return jn.residual(jn.serial(*normed(stride), jax.nn.relu, *normed(1)), shortcut, jax.nn.relu)


def network(name: str) -> jn.Net:
    """Return a design by its name."""
    pool, dense = jn.max_pool(2), [jn.flatten, jn.dense(64), jax.nn.relu, jn.dense(10)]
    match name:
        case "LeNet-5":
            return jn.models.lenet5()
        case "LeNet-5 of 1998":
            return jn.models.lenet5_1998(padding=2)
        case "AlexNet":
            three = [*convolved(16, 3), *convolved(16, 3), *convolved(12, 3)]
            return jn.serial(*convolved(8, 5, 2), pool, *convolved(10, 5), *three, pool, *dense)
        case "VGG":
            pairs = [[*convolved(features, 3), *convolved(features, 3), pool] for features in (4, 7, 12)]
            return jn.serial(*pairs[0], *pairs[1], *pairs[2], *dense)
        case "GoogLeNet":
            modules = [inception(10), inception(10), pool, inception(12)]
            return jn.serial(*convolved(8, 5, 2), pool, *modules, jn.global_avg_pool, jn.dense(10))
        case "ResNet":
            blocks = [residual(7, 1), residual(12, 2), residual(20, 2)]
            return jn.serial(*convolved(7, 5, 2), *blocks, jn.global_avg_pool, jn.dense(10))
    raise ValueError(f"knows no network {name!r}")


def run(config: Config) -> Results:
    """Train every design."""
    images, labels = jn.data.mnist5k()
    first, second = jn.data.split_indices(labels, (0.8, 0.2))
    train, test = (images[first[: config.examples]], labels[first[: config.examples]]), (images[second], labels[second])
    found: Results = {"accuracy": {}, "multiply-adds": {}, "parameters": {}}
    rate = optax.cosine_decay_schedule(3e-3, config.epochs * -(-config.examples // 50))
    for name in config.networks:
        net, image = network(name), jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
        found["multiply-adds"][name] = jn.inspect.multiply_adds(net, image)
        found["parameters"][name] = jn.inspect.count_parameters(net, image)

        def trial(hp: dict[str, Any], net: jn.Net = net) -> jn.train.Program:
            return jn.train.program(
                net, jn.objective(jn.losses.cross_entropy), optax.adam(rate), train, epochs=config.epochs,
                batch_size=50, validation=test, metrics={"accuracy": jn.metrics.accuracy},
            )  # fmt: skip

        result = jn.sweeps.sweep(trial, seeds=config.seeds, strategy="map")
        found["accuracy"][name] = np.round(100 * result.history["validation/accuracy"].astype(float), 2)
    return found


def figure(results: Results) -> "Figure":
    """Draw accuracy over parameters, at nearly equal multiply-adds, and errors over epochs."""
    drawn, (left, right) = panels(2, width=4.4, height=3.3)
    for place, (name, values) in enumerate(results["accuracy"].items()):
        found = np.asarray(values)
        middle, low, high = bootstrap(found[:, -1])
        label = f"{name}, {results['multiply-adds'][name] / 1e3:.0f} thousand"
        how = {"fmt": MARKERS[place], "color": COLORS[place], "capsize": 3, "label": label}
        left.errorbar(results["parameters"][name] / 1e3, middle, yerr=[[middle - low], [high - middle]], **how)
        line(right, range(1, found.shape[1] + 1), 100 - found, name, place)
    right.set_yscale("log")
    ticks = (2, 5, 10, 20, 50, 90)
    right.set_yticks(ticks, [str(tick) for tick in ticks])
    right.minorticks_off()
    finish(left, "After training", "thousands of parameters", "test accuracy, %", legend=False)
    left.legend(loc="lower right", title="multiply-adds", fontsize=7.5, title_fontsize=7.5, frameon=False)
    finish(right, "While learning", "epoch", "test error, %", legend=False)
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge each later design against LeNet-5 of today, and that against the one of 1998."""
    last = {name: np.asarray(each)[:, -1] for name, each in results["accuracy"].items()}
    old = "LeNet-5 of 1998"
    later = [name for name in last if name not in (FIRST, old)]
    work = results["multiply-adds"]
    return judge(
        *(above(f"test accuracy, {name} less LeNet-5", last[name] - last[FIRST], 0, "%") for name in later),
        *(below(f"multiply-adds, {name} over LeNet-5", [work[name] / work[FIRST]], 1.0001) for name in later),
        *(above("test accuracy, LeNet-5 less the one of 1998", last[FIRST] - last[name], 0, "%", core=False)
          for name in last if name == old),
        above("test accuracy, LeNet-5, above 90 %", last[FIRST], 90, "%", core=False),
    )  # fmt: skip
