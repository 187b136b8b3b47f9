"""A transformer with norms before attention trains without warm-up; with norms after the sums it needs it.

A transformer classifies handwritten digits, read as eight rows of pixels. Before training, the norm of the loss's
gradient by the last block's last kernel is measured by the number of blocks, with norms before the layers of a block
and after their sums. Then both learn at several rates, at once or with the rate growing from zero at first.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import finish, line, logarithmic, panels
from experiments.framework.study import About, Results, Verdict, above, below, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Norms before or after attention",
    claim="A transformer with norms first learns without warm-up; with norms after the sums it needs warm-up.",
    source="Xiong et al. (2020); Vaswani et al. (2017), section 5.3, for warm-up; Liu et al. (2020)",
    refuted_by="norms after the sums that learn as well without warm-up, or norms first that gain as much by it.",
    data="1,797 handwritten digits of 8×8 pixels (scikit-learn), each a sequence of 8 rows; 397 are unseen",
    minutes=19.0,
    concepts=("jn.encoder_block", "jn.repeat", "jn.learned_positions"),
)
KINDS = {"norms first": True, "norms after": False}


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 8
    """Networks of each kind."""
    depths: tuple[int, ...] = (2, 6, 18)
    """Blocks, for the gradients before training."""
    depth: int = 6
    """Blocks of the networks trained."""
    features: int = 16
    """Features of a block, in two heads; twice as many are hidden."""
    rates: tuple[float, ...] = (0.001, 0.003, 0.01)
    """Learning rates of Adam; each kind is judged at that with the least loss."""
    warmup: int = 50
    """Steps in which the rate grows linearly to its value."""
    epochs: int = 6
    """Epochs of training, 22 steps each."""


QUICK = Config(rates=(0.003, 0.01))
TINY = Config(seeds=2, depths=(1, 2), depth=2, features=8, rates=(0.003, 0.01), epochs=1)


def network(norm_first: bool, depth: int, features: int) -> jn.Net:
    """Return a transformer of rows of pixels; with norms first it has one more at the end, as usual."""
    block = jn.encoder_block(features, heads=2, hidden=2 * features, norm_first=norm_first)
    last = {"norm": jn.layer_norm()} if norm_first else {}
    return jn.serial(
        rows=jn.dense(features), positions=jn.learned_positions(8), blocks=jn.repeat(block, depth), **last,
        mean=lambda x: x.mean(1), out=jn.dense(10),
    )  # fmt: skip


def run(config: Config) -> Results:
    """Measure gradients, then train."""
    images, labels = jn.data.digits()
    x, y = jnp.asarray(images.reshape(-1, 8, 8)), jnp.asarray(labels)
    keys = jax.random.split(jax.random.key(0), config.seeds)
    found: Results = {"depths": config.depths, "rates": config.rates, "gradients": {}, "losses": {}, "accuracy": {}}
    for kind, first in KINDS.items():
        norms = [jax.jit(jax.vmap(gradient_of(network(first, depth, config.features), x[:128], y[:128])))(keys)
                 for depth in config.depths]  # fmt: skip
        found["gradients"][kind] = np.stack(norms, 1)

        def trial(hp: dict[str, Any], first: bool = first) -> jn.train.Program:
            def rate(step: Any) -> jax.Array:
                return hp["rate"] * jnp.minimum(1.0, jnp.asarray(step + 1, jnp.float32) / hp["warmup"])

            return jn.train.program(
                network(first, config.depth, config.features), jn.objective(jn.losses.cross_entropy), optax.adam(rate),
                (x[:1400], y[:1400]), epochs=config.epochs, batch_size=64, validation=(x[1400:], y[1400:]),
                metrics={"accuracy": jn.metrics.accuracy},
            )  # fmt: skip

        grid = {"warmup": [1.0, float(config.warmup)], "rate": list(config.rates)}
        result = jn.sweeps.sweep(trial, seeds=config.seeds, grid=grid, strategy="vmap")
        for name, rows in (("losses", result.history["loss"]), ("accuracy", result.history["validation/accuracy"])):
            rows = rows.reshape(2, len(config.rates), config.seeds, -1)
            found[name] |= {f"{kind}, at once": rows[0], f"{kind}, warm-up": rows[1]}
    return found


def gradient_of(net: jn.Net, x: jax.Array, y: jax.Array) -> Any:
    """Return a function from a key to the norm of the gradient by the last block's last kernel."""

    def norm(key: jax.Array) -> jax.Array:
        params, state = net.init(key, x)

        def loss(params: Any) -> jax.Array:
            return jn.losses.cross_entropy(net.apply(params, state, x)[0], y).mean()

        return jnp.linalg.norm(jax.grad(loss)(params)["blocks"]["down"]["kernel"][-1])

    return norm


def figure(results: Results) -> "Figure":
    """Draw gradients by depth, and what is learned by the rate."""
    drawn, (gradient, learning, after) = panels(3, width=3.8)
    for place, (kind, values) in enumerate(results["gradients"].items()):
        line(gradient, results["depths"], values, kind, place)
    best = bests(results)
    for name, each in results["losses"].items():
        kind, _, start = name.partition(", ")
        place, style = [*KINDS].index(kind), "-" if start == "warm-up" else "--"
        curve = np.asarray(each)[best[name]]  # (seeds, epochs)
        label = f"{name}, rate {results['rates'][best[name]]:g}"
        line(learning, range(1, curve.shape[1] + 1), curve, label, place, linestyle=style)
        line(after, results["rates"], 100 * np.asarray(results["accuracy"][name])[..., -1].T, name, place,
             linestyle=style)  # fmt: skip
    logarithmic(gradient, "xy")
    logarithmic(after, "x")
    finish(gradient, "Before training", "blocks", "norm of the gradient by the last kernel")
    finish(learning, "Learning, each at its best rate", "epoch", "cross entropy")
    finish(after, "After training", "rate", "accuracy on unseen digits, %", legend=False)
    return drawn


def bests(results: Results) -> dict[str, int]:
    """Return the place of the rate with the least loss after the last epoch, for each kind and start."""
    return {name: int(np.asarray(each)[..., -1].mean(1).argmin()) for name, each in results["losses"].items()}


def verdict(results: Results) -> Verdict:
    """Judge by the losses of the last epoch, and by the gradients before the first."""
    best = bests(results)
    every = {name: np.asarray(each)[..., -1] for name, each in results["losses"].items()}  # (rates, seeds)
    loss = {name: each[best[name]] for name, each in every.items()}
    gain = {kind: loss[f"{kind}, at once"] - loss[f"{kind}, warm-up"] for kind in KINDS}
    highest = every["norms after, at once"][-1] - every["norms after, warm-up"][-1]
    first, after = (np.log2(results["gradients"][kind]) for kind in KINDS)
    few, *_, many = results["depths"]
    return judge(
        above("loss at the best rate, norms after, without warm-up less with", gain["norms after"], 0.1, "nats"),
        above("what warm-up gains, norms after less norms first", gain["norms after"] - gain["norms first"], 0, "nats"),
        below("loss at the best rate, norms first without warm-up less norms after with",
              loss["norms first, at once"] - loss["norms after, warm-up"], 0.1, "nats"),
        above(f"gradient by the last kernel, {many} blocks, norms after over norms first, log2",
              after[:, -1] - first[:, -1], 0),
        below(f"the same, norms first, {many} blocks over {few}, log2", first[:, -1] - first[:, 0], 0, core=False),
        above(f"loss at the rate {results['rates'][-1]:g}, norms after, without warm-up less with", highest, 0.1,
              "nats", core=False),
    )  # fmt: skip
