"""Only a small part of a unit's receptive field counts; two 3×3 kernels see what one 5×5 sees, at lower cost.

In networks with random weights, the gradient of a unit in the middle with respect to each pixel shows how much that
pixel counts. The effective size of the field is the side of the square around the middle that holds 95 % of it. It is
measured for stacks of 3×3 convolutions with and without shortcuts, for VGG-11 and for ResNet-18. Then networks with one
5×5 kernel or two 3×3 kernels learn digits.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import COLORS, finish, line, panels
from experiments.framework.study import About, Finding, Results, Verdict, above, below, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Theoretical and effective receptive field",
    claim="Most of a receptive field hardly counts, the more so the deeper; two 3×3 windows do as well as one 5×5.",
    source="Luo, Li, Urtasun and Zemel (2016); Simonyan and Zisserman (2014) for the windows",
    refuted_by="gradients spread over the whole field, growing as it grows, or a 5×5 window that is more accurate.",
    data="normal noise for the fields; 1,797 handwritten digits of 8×8 pixels (scikit-learn)",
    minutes=2.0,
    concepts=("jn.inspect.receptive_field", "jn.inspect.effective_field", "jn.inspect.count_parameters", "jn.conv"),
)
KINDS = ("plain", "residual")
MODELS = {
    "VGG-11, last pool": lambda: jn.models.vgg11().upto("features"),
    "ResNet-18, layer3": lambda: jn.models.resnet18().upto("layer3"),
}


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 8
    """Networks of each kind."""
    layers: tuple[int, ...] = (4, 8, 16, 32)
    """How many 3×3 convolutions the stacks have, an even number."""
    models: tuple[str, ...] = tuple(MODELS)
    """The known networks measured."""
    epochs: int = 10
    """Epochs of training on digits."""


QUICK = Config(layers=(4, 12), models=(), epochs=3)
TINY = Config(seeds=2, layers=(2, 4), models=(), epochs=1)


def stack(skip: Any, layers: int) -> jn.Net:
    """Return a stack of 3×3 convolutions of 8 features, two in each block of relu(body(x) + skip · x)."""
    init = jax.nn.initializers.he_normal()
    first, second = (jn.conv(8, 3, padding=1, kernel_init=init) for _ in range(2))
    block = jn.residual(jn.serial(first, jax.nn.relu, second), lambda x: skip * x, jax.nn.relu)
    return jn.serial(pad_features, jn.repeat(block, layers // 2))


def pad_features(x: jax.Array) -> jax.Array:
    """Return an image of one channel with seven more of zeros."""
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 7)))


def window(*sizes: int) -> jn.Net:
    """Return convolutions of 12 features with windows of these sizes, one behind another."""
    return jn.serial(*(each for size in sizes for each in (jn.conv(12, size, padding=size // 2), jax.nn.relu)))


WINDOWS = {"one 5×5": window(5), "two 3×3": window(3, 3)}


def size_of(field: np.ndarray) -> float:
    """Return the side of the square around the middle that holds 95 % of a field, between pixels by interpolation."""
    rows, columns = np.indices(field.shape)
    middle = (np.asarray(field.shape) - 1) / 2
    away = np.maximum(abs(rows - middle[0]), abs(columns - middle[1])).ravel()
    order = away.argsort()
    shares = np.cumsum(field.ravel()[order]) / field.sum()
    last = np.append(np.diff(away[order]) > 0, True)  # of each distance
    return float(np.interp(0.95, shares[last], 2 * away[order][last] + 1))


def run(config: Config) -> Results:
    """Measure fields, then train with either window."""
    found: Results = {"layers": config.layers, "theoretical": [], "effective": {kind: [] for kind in KINDS}}
    keys = jax.random.split(jax.random.key(0), config.seeds)
    both = jnp.repeat(jnp.array([0.0, 1.0]), config.seeds), jnp.concatenate([keys, keys])
    fields = np.zeros((config.seeds, 1, 1))
    for layers in config.layers:
        side = 2 * layers + 5  # odd, and the field of the unit in the middle lies inside
        x = np.random.default_rng(1).normal(size=(4, side, side, 1)).astype(np.float32)

        def field(trial: tuple[jax.Array, jax.Array], layers: int = layers, x: np.ndarray = x) -> jax.Array:
            net = stack(trial[0], layers)
            return jn.inspect.effective_field(net, *net.init(trial[1], x), x, x.shape[1] // 2, x.shape[1] // 2)

        fields = np.asarray(jax.jit(lambda *each, field=field: jax.lax.map(field, each))(*both))
        sizes = [size_of(each) for each in fields]
        for place, kind in enumerate(KINDS):
            found["effective"][kind].append(sizes[place * config.seeds : (place + 1) * config.seeds])
        found["theoretical"].append(jn.inspect.receptive_field(stack(1.0, layers), x).size[0])
    found["effective"] = {kind: np.round(np.transpose(each), 3) for kind, each in found["effective"].items()}
    shown = fields[: config.seeds].mean(0)
    found["map"] = np.round(shown / shown.max(), 3)
    found["models"] = {name: model_field(MODELS[name](), keys) for name in config.models}
    return found | learned(config)


def model_field(net: jn.Net, keys: jax.Array) -> dict[str, Any]:
    """Return the theoretical size of a known network's field, and its effective size for each key."""
    x = np.random.default_rng(1).normal(size=(1, 224, 224, 3)).astype(np.float32)
    theoretical = jn.inspect.receptive_field(net, x)
    unit = [n // 2 for n in theoretical.units]
    (low, high), (left, right) = theoretical.box(*unit)
    field = jax.jit(lambda key: jn.inspect.effective_field(net, *net.init(key, x), x, *unit))
    sizes = [size_of(np.asarray(field(key))[max(low, 0) : high + 1, max(left, 0) : right + 1]) for key in keys]
    return {"theoretical": theoretical.size[0], "effective": np.round(sizes, 2)}


def learned(config: Config) -> Results:
    """Return the accuracies of networks with one 5×5 window and with two of 3×3, and their parameters."""
    images, labels = jn.data.digits()
    train, test = [(images[part], labels[part]) for part in jn.data.split_indices(labels, (0.7, 0.3))]

    def trial(hp: dict[str, Any]) -> jn.train.Program:
        one_of = jn.branches(lambda y: jnp.where(hp["kind"] == 0, *y.values()), **dict(zip("ab", WINDOWS.values())))
        return jn.train.program(
            jn.serial(jn.conv(12, 1), one_of, jn.max_pool(2), jn.flatten, jn.dense(10)),
            jn.objective(jn.losses.cross_entropy), optax.adam(3e-3), train, epochs=config.epochs, validation=test,
            metrics={"accuracy": jn.metrics.accuracy},
        )  # fmt: skip

    result = jn.sweeps.sweep(trial, seeds=config.seeds, grid={"kind": [0, 1]}, strategy="map")
    found = np.round(100 * result.history["validation/accuracy"].astype(float), 2).reshape(2, config.seeds, -1)
    x = jax.ShapeDtypeStruct((1, 8, 8, 12), jnp.float32)
    parameters = {kind: jn.inspect.count_parameters(net, x) for kind, net in WINDOWS.items()}
    return {"accuracy": dict(zip(WINDOWS, found)), "parameters": parameters}


def figure(results: Results) -> "Figure":
    """Draw sizes over layers, one field, and what the two kinds of window learn."""
    drawn, (left, middle, right) = panels(3, width=3.8, height=3.4)
    left.plot(results["layers"], results["theoretical"], color=COLORS[-1], linestyle="--", label="theoretical")
    for place, (kind, values) in enumerate(results["effective"].items()):
        line(left, results["layers"], values, f"effective, {kind}", place)
    left.set_xscale("log", base=2)
    left.set_yscale("log", base=2)
    left.set_xticks(results["layers"], [str(each) for each in results["layers"]])
    ticks = [each for each in (4, 8, 16, 32, 64) if each <= max(results["theoretical"])]
    left.set_yticks(ticks, [str(each) for each in ticks])
    field, side = np.asarray(results["map"]), results["theoretical"][-1]
    edge = len(field) / 2
    shown = middle.imshow(field, cmap="viridis", extent=(-edge, edge, -edge, edge))
    effective = np.mean(results["effective"]["plain"], 0)[-1]
    for size, style in ((side, "--"), (effective, "-")):
        at = np.array([-1, 1, 1, -1, -1]) * size / 2
        middle.plot(at, np.roll(at[:4], 1)[[0, 1, 2, 3, 0]], color="white", linestyle=style, linewidth=1)
    bar = drawn.colorbar(shown, ax=middle, shrink=0.8)
    bar.set_label("gradient, over its largest", size=8)
    bar.ax.tick_params(labelsize=8)
    for place, (kind, values) in enumerate(results["accuracy"].items()):
        epochs = range(1, np.shape(values)[1] + 1)
        line(right, epochs, values, f"{kind}, {results['parameters'][kind]:,} parameters", place)
    finish(left, "Stacks of 3×3 convolutions", "layers", "size of the field, pixels")
    finish(middle, f"{results['layers'][-1]} plain layers\n(dashed: theoretical, line: 95 %)", "pixels", "")
    middle.grid(visible=False)
    finish(right, "Digits, windows of either kind", "epoch", "test accuracy, %")
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by the share of the field's area that counts, how it grows with depth, and by accuracies."""
    layers, theory = np.asarray(results["layers"]), np.asarray(results["theoretical"])
    size = {kind: np.asarray(each) for kind, each in results["effective"].items()}
    growth = np.polyfit(np.log(layers), np.log(size["plain"]).T, 1)[0]
    known: list[Finding] = [
        below(f"{name}: the same share, of {each['theoretical']}² pixels, below ½",
              (np.asarray(each["effective"]) / each["theoretical"]) ** 2, 0.5)
        for name, each in results["models"].items()
    ]  # fmt: skip
    end = {kind: np.asarray(each)[:, -1] for kind, each in results["accuracy"].items()}
    weights = results["parameters"]
    return judge(
        below(f"share of the field's area that holds 95 % of the gradient, {layers[-1]} plain layers, below ½",
              (size["plain"][:, -1] / theory[-1]) ** 2, 0.5),
        below("effective size grows as layers to the power of (theory ½, the field 1), below ¾", growth, 0.75),
        *known,
        below(f"effective size at {layers[-1]} layers, residual less plain",
              size["residual"][:, -1] - size["plain"][:, -1], 0, "pixels", core=False),
        below("parameters, two 3×3 over one 5×5", [weights["two 3×3"] / weights["one 5×5"]], 1),
        above("test accuracy, two 3×3 less one 5×5, above -1 %", end["two 3×3"] - end["one 5×5"], -1, "%"),
        above("the same, above 0 %", end["two 3×3"] - end["one 5×5"], 0, "%", core=False),
    )  # fmt: skip
