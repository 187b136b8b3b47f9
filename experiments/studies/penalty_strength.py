"""The L1 penalty makes weights zero, the L2 penalty makes them small; a strength in between generalizes best.

A wide network learns from a few noisy points of two interleaved half-circles, with penalties of many strengths in one
sweep. A weight counts as zero below a thousandth of the largest weight of any network without a penalty.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import finish, line, panels
from experiments.framework.study import About, Results, Verdict, above, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Strength of a penalty",
    claim="L1 makes weights zero and L2 makes them small; both narrow the gap, and too much of either underfits.",
    source="Tibshirani (1996); Krogh and Hertz (1992); Goodfellow, Bengio and Courville (2016), chapter 7",
    refuted_by="as many zeros with L2 as with L1, or a gap between training and test that a penalty does not narrow.",
    data="80 points on two half-circles with noise of 0.35 to learn from, 1,000 for the test",
    minutes=0.5,
    concepts=("jn.regularizers.l1", "jn.regularizers.l2", "jn.sweeps.sweep", "jn.data.moons"),
)
PENALTIES = {"L1": jn.regularizers.l1, "L2": jn.regularizers.l2}


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 10
    """Networks of each strength."""
    strengths: tuple[float, ...] = (0.0, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1)
    """Strengths λ; the first is 0."""
    epochs: int = 1500
    """Epochs of training."""
    width: int = 64
    """Units in each of two hidden layers."""


QUICK = Config(seeds=8, strengths=(0.0, 1e-4, 1e-3, 1e-2, 0.1), epochs=800)
TINY = Config(seeds=2, strengths=(0.0, 1e-3, 0.1), epochs=3, width=8)


def run(config: Config) -> Results:
    """Train at every strength."""
    train, test = jn.data.moons(80, noise=0.35, seed=1), jn.data.moons(1000, noise=0.35, seed=2)
    net = jn.serial(jn.dense(config.width), jax.nn.relu, jn.dense(config.width), jax.nn.relu, out=jn.dense(2))
    found: Results = {"strengths": config.strengths, "train": {}, "test": {}, "zeros": {}, "size": {}}
    for name, penalty in PENALTIES.items():

        def trial(hp: dict[str, Any], penalty: Any = penalty) -> jn.train.Program:
            steps = config.epochs
            return jn.train.program(
                net, jn.objective(jn.losses.cross_entropy, penalty(hp["strength"], on="**/kernel")),
                optax.adam(optax.cosine_decay_schedule(3e-3, steps)), train, epochs=steps, batch_size=None,
            )  # fmt: skip

        result = jn.sweeps.sweep(trial, seeds=config.seeds, grid={"strength": config.strengths}, strategy="vmap")
        apply = jax.jit(jax.vmap(lambda params, x: net.apply(params, {}, x)[0], (0, None)))
        for part, (x, y) in (("train", train), ("test", test)):
            right = np.asarray(apply(result.runs.params, jnp.asarray(x))).argmax(-1) == y
            found[part][name] = by_strength(100 * (1 - right.mean(1)), config)
        kernels = [leaf for path, leaf in jn.paths.paths(result.runs.params).items() if path.endswith("kernel")]
        weights = np.abs(np.concatenate([kernel.reshape(len(kernel), -1) for kernel in kernels], 1))
        small = 1e-3 * weights[: config.seeds].max()
        found["zeros"][name] = by_strength(100 * (weights < small).mean(1), config)
        found["size"][name] = by_strength(np.sqrt((weights**2).mean(1)), config)
    return found


def by_strength(values: np.ndarray, config: Config) -> np.ndarray:
    """Return a number of each trial as `(seeds, strengths)`."""
    return values.reshape(len(config.strengths), config.seeds).T


def figure(results: Results) -> "Figure":
    """Draw errors, zeros and the size of weights over the strength."""
    drawn, axes = panels(3, width=3.8)
    strengths = np.maximum(results["strengths"], np.sort(results["strengths"])[1] / 10)  # where 0 is drawn
    for place, name in enumerate(PENALTIES):
        line(axes[0], strengths, results["test"][name], f"{name}, test", place)
        line(axes[0], strengths, results["train"][name], f"{name}, training", place, linestyle="--")
        line(axes[1], strengths, results["zeros"][name], name, place)
        line(axes[2], strengths, results["size"][name], name, place)
    for panel in axes:
        panel.set_xscale("log")
    label = "strength λ (leftmost: 0)"
    finish(axes[0], "Error", label, "error, %")
    finish(axes[1], "Weights that are zero", label, "share, %")
    finish(axes[2], "Size of weights", label, "root mean square")
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge at the strength that tests best on average, against none and against the strongest."""
    findings = []
    for name in PENALTIES:
        test, train = np.asarray(results["test"][name]), np.asarray(results["train"][name])
        best = test.mean(0).argmin()
        gap = test - train
        findings += [
            above(f"{name}: gap between test and training error, none less the best strength",
                  gap[:, 0] - gap[:, best], 0, "%"),
            above(f"{name}: test error, none less the best strength", test[:, 0] - test[:, best], 0, "%", core=False),
            above(f"{name}: training error, strongest less none", train[:, -1] - train[:, 0], 0, "%"),
        ]  # fmt: skip
    zeros = {name: np.asarray(each).max(1) for name, each in results["zeros"].items()}
    size = {name: np.asarray(each) for name, each in results["size"].items()}
    middle = len(results["strengths"]) // 2
    l1, l2 = (np.asarray(results["zeros"][name])[:, middle] for name in PENALTIES)
    return judge(
        above("weights that are zero at a middle strength, L1 less L2", l1 - l2, 0, "%"),
        above("most zeros at any strength, L1", zeros["L1"], 50, "%"),
        above(
            "size of weights without L2, over that at the middle strength", size["L2"][:, 0] / size["L2"][:, middle], 1
        ),
        *findings,
    )
