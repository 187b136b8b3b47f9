"""A linear classifier has a template for each class; the hinge loss asks for a margin, cross entropy for ever more.

Linear classifiers learn handwritten digits by the multiclass hinge loss, with several margins Δ, and by cross entropy.
Measured are how many examples no longer change anything, how margins and weights grow, and whether Δ is more than a
choice of scale, with λ/Δ for the penalty. The weights of each class, as an image, are compared with the mean images of
the classes.
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
    title="Templates and margins",
    claim="Weights are templates of classes; the hinge loss is content with a margin Δ, cross entropy never is.",
    source="Crammer and Singer (2001); Weston and Watkins (1999); Karpathy, CS231n notes on linear classification",
    refuted_by="a hinge loss to which all examples matter to the end, or a Δ that changes which digits are recognized.",
    data="1,797 handwritten digits of 8×8 pixels (scikit-learn)",
    minutes=1.0,
    concepts=("jn.models.linear", "jn.losses.multiclass_hinge", "jn.losses.cross_entropy", "jn.regularizers.l2"),
)
KINDS = ("hinge, λ = 0", "cross entropy, λ = 0", "cross entropy")  # beside the hinge with each margin
NET = jn.serial(fc=jn.dense(10, kernel_init=jax.nn.initializers.zeros))


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 10
    """Splits of the digits, a classifier of each kind on each."""
    epochs: int = 1000
    """Steps of descent, all examples at a time."""
    margins: tuple[float, ...] = (1.0, 0.1, 10.0)
    """Margins Δ of the hinge loss; the first is 1, and judged against the last."""
    strength: float = 1e-3
    """Strength of the penalty at Δ = 1, and with cross entropy."""


QUICK = Config(seeds=8, epochs=300)
TINY = Config(seeds=2, epochs=10, margins=(1.0, 10.0))


def margins_of(scores: jax.Array, y: jax.Array) -> jax.Array:
    """Return how far the score of the true class is above the largest other score."""
    true = jax.nn.one_hot(y, 10) > 0
    return jnp.where(true, scores, -jnp.inf).max(-1) - jnp.where(true, -jnp.inf, scores).max(-1)


def run(config: Config) -> Results:
    """Learn by both losses, and look at margins and weights."""
    images, labels = jn.data.digits()
    x = images.reshape(len(images), -1)
    parts = [jn.data.split_indices(labels, (0.7, 0.3), seed=draw) for draw in range(config.seeds)]
    first, second = (np.stack(each) for each in zip(*parts, strict=True))
    train = jnp.asarray(x[first]), jnp.asarray(labels[first])
    kinds = {f"hinge, Δ = {margin:g}": (1.0, margin, config.strength / margin) for margin in config.margins}
    kinds |= dict(zip(KINDS, ((1.0, 1.0, 0.0), (0.0, 1.0, 0.0), (0.0, 1.0, config.strength)), strict=True))
    trials = [{"hinge": hinge, "margin": margin, "strength": strength, "draw": draw}
               for hinge, margin, strength in kinds.values() for draw in range(config.seeds)]  # fmt: skip

    def trial(hp: dict[str, Any]) -> jn.train.Program:
        def loss(scores: jax.Array, y: jax.Array) -> jax.Array:
            hinge = jn.losses.multiclass_hinge(scores, y, margin=hp["margin"])
            return jnp.where(hp["hinge"] == 1, hinge, jn.losses.cross_entropy(scores, y))

        def watched(seen: jn.train.StepInfo) -> dict[str, jax.Array]:
            scores, y = NET.apply(seen.state.params, {}, seen.batch.x)[0], seen.batch.y
            return {"margin": margins_of(scores, y).mean(), "content": (loss(scores, y) == 0).mean()}

        objective = jn.objective(loss, jn.regularizers.l2(hp["strength"]))
        given = train[0][hp["draw"]], train[1][hp["draw"]]
        optimizer = optax.adam(0.01 * hp["margin"])  # as large as weights become
        return jn.train.program(
            NET,
            objective,
            optimizer,
            given,
            epochs=config.epochs,
            batch_size=None,
            options=jn.train.Options(monitor=watched),
        )

    result = jn.sweeps.sweep(trial, trials=trials, strategy="vmap")
    shape = (len(kinds), config.seeds)
    weights = np.asarray(result.runs.params["fc"]["kernel"]).reshape(*shape, 64, 10)
    biases = np.asarray(result.runs.params["fc"]["bias"]).reshape(*shape, 1, 10)
    scores = x[second] @ weights + biases  # (kinds, seeds, examples, 10)
    likely = np.exp(scores - scores.max(-1, keepdims=True))
    means = np.stack([[x[part][labels[part] == label].mean(0) for label in range(10)] for part in first])
    apart = means - means.mean(1, keepdims=True)  # (seeds, 10, 64)
    places = np.unique(np.linspace(0, config.epochs - 1, 40).astype(int))
    found = {
        "margin": result.history["margin"].reshape(*shape, -1)[..., places],
        "content": 100 * result.history["content"].reshape(*shape, -1)[..., places],
        "accuracy": 100 * (scores.argmax(-1) == labels[second]).mean(-1),
        "confidence": 100 * (1 / likely.sum(-1)).mean(-1),
        "size": np.sqrt((weights**2).mean((-2, -1))),
        "own": 100 * np.stack([matched(each, apart) for each in weights]),
    }
    sheets = {name: weights[place, 0].T for place, name in enumerate(kinds)}
    kept = {"the class's mean": apart[0], **{name: sheets[name] for name in ("hinge, Δ = 1", "cross entropy")}}
    named = {key: dict(zip(kinds, np.round(each, 4), strict=True)) for key, each in found.items()}
    templates = {name: np.round(each[:5] / np.abs(each).max(), 2) for name, each in kept.items()}
    return {"steps": places + 1, "margins": config.margins, "templates": templates, **named}


def matched(weights: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Return the share of classes `(seeds,)` whose weights are most like the mean image of their own class."""
    templates = np.swapaxes(weights, -1, -2)  # (seeds, 10, 64)
    templates = templates - templates.mean(1, keepdims=True)
    alike = templates @ np.swapaxes(apart / np.linalg.norm(apart, axis=-1, keepdims=True), -1, -2)
    return (alike.argmax(-1) == np.arange(10)).mean(-1)


def figure(results: Results) -> "Figure":
    """Draw templates, and margins and content examples over steps."""
    drawn, axes = panels(3, width=4, height=3.2)
    templates = {name: np.reshape(each, (5, 8, 8)) for name, each in results["templates"].items()}
    axes[0].imshow(np.concatenate([np.concatenate(list(row), 1) for row in templates.values()]), cmap="PuOr", vmin=-1,
                   vmax=1)  # fmt: skip
    axes[0].set_yticks([4, 12, 20], templates)
    for place, name in enumerate(("hinge, λ = 0", "cross entropy, λ = 0", "hinge, Δ = 1", "cross entropy")):
        label = name.replace("Δ = 1", "λ > 0") if "hinge" in name or "λ" in name else f"{name}, λ > 0"
        for panel, kind in zip(axes[1:], ("margin", "content"), strict=True):
            line(panel, results["steps"], results[kind][name], label, place)
    axes[1].axhline(1, color="black", linestyle=":", linewidth=1)
    finish(axes[0], "Weights of the classes 0 to 4 (violet: > 0)", "")
    axes[0].set_xticks([])
    axes[0].grid(visible=False)
    finish(axes[1], "Mean margin (dotted: Δ; bands: 95 %)", "step of descent", "true score less best other")
    finish(axes[2], "Examples with a loss of 0", "step of descent", "share of training examples, %", legend=False)
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by margins, by scales, and by what weights resemble."""
    found = {key: {name: np.asarray(each) for name, each in results[key].items()}
             for key in ("margin", "content", "accuracy", "confidence", "size", "own")}  # fmt: skip
    (hinge, entropy, softened), widest = KINDS, results["margins"][-1]
    unit, wide = "hinge, Δ = 1", f"hinge, Δ = {widest:g}"
    half = int(np.searchsorted(results["steps"], results["steps"][-1] / 2))
    growth = {name: 100 * (each[:, -1] / each[:, half] - 1) for name, each in found["margin"].items()}
    size, accuracy = found["size"], found["accuracy"]
    return judge(
        above("hinge, λ = 0: training examples that ask for nothing more", found["content"][hinge][:, -1], 90, "%"),
        below("cross entropy, λ = 0: the same", found["content"][entropy][:, -1], 1, "%"),
        above("growth of the mean margin in the second half, λ = 0, cross entropy less hinge",
              growth[entropy] - growth[hinge], 5, "%"),
        below(f"test accuracy, Δ = {widest:g} and λ/{widest:g} against Δ = 1: distance",
              np.abs(accuracy[wide] - accuracy[unit]), 0.5, "%"),
        below(f"their weights' size, over {widest:g} times that at Δ = 1: distance from 1",
              np.abs(size[wide] / size[unit] / widest - 1), 0.05),
        *(above(f"{name}: classes whose weights are most like their own mean image", found["own"][name], 90, "%")
          for name in (unit, softened)),
        above("cross entropy: mean highest probability, λ = 0 less λ > 0",
              found["confidence"][entropy] - found["confidence"][softened], 5, "%", core=False),
        below("test accuracy, hinge and cross entropy with λ > 0: distance",
              np.abs(accuracy[unit] - accuracy[softened]), 2, "%", core=False),
    )  # fmt: skip
