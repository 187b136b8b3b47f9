"""Scores of attention are divided by √width, else they grow with the width and the softmax saturates.

For queries and keys drawn at random with variance 1, the variance of the scores, the entropy of the softmax and the
gradients behind it are measured by width. Then a network with one head of attention learns to look up: each position
holds a key, a value, and a query, the key of another position, whose value is the answer. It learns with the division
and without it, with narrow heads and with wide ones.
"""

from dataclasses import dataclass
from functools import partial
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
    title="The scale of attention's scores",
    claim="Scores that are not divided by √width saturate the softmax of wide heads: gradients fall, learning is slow.",
    source="Vaswani et al. (2017), section 3.2.1 with footnote 4",
    refuted_by="entropy or gradients that do not fall with the width, or wide heads that learn as fast undivided.",
    data="queries and keys from N(0, 1); a key's value to look up among 16, 1,000 rows to learn from, 500 unseen",
    minutes=8.0,
    concepts=("jn.attention", "jn.ops.attention", "jn.graph"),
)
KEYS, VALUES = 32, 16


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 8
    """Draws, and networks of each kind."""
    widths: tuple[int, ...] = (4, 16, 64, 256)
    """Features of a head, for what is measured on random queries and keys."""
    steps: int = 64
    """Keys that a random query reads."""
    queries: int = 500
    """Random queries for each width and seed."""
    trained: tuple[int, ...] = (8, 128)
    """Features of the head of the networks trained, narrow and wide."""
    rates: tuple[float, ...] = (0.003, 0.01, 0.03)
    """Learning rates tried for each kind; the one with the least mean loss over all epochs counts."""
    length: int = 16
    """Positions of a row."""
    examples: int = 1000
    """Rows to learn from."""
    epochs: int = 8
    """Epochs of training."""


QUICK = Config(rates=(0.01,), queries=200)
TINY = Config(seeds=2, widths=(4, 16), queries=10, trained=(4, 8), rates=(0.003,), length=4, examples=100, epochs=1)


def run(config: Config) -> Results:
    """Measure by width, then train."""
    keys = jax.random.split(jax.random.key(0), config.seeds)
    measured = {}
    for name, divided in (("undivided", False), ("divided", True)):
        of = [jax.jit(jax.vmap(partial(statistics, width, divided, config)))(keys) for width in config.widths]
        measured[name] = {kind: np.stack([each[kind] for each in of], 1) for kind in of[0]}
    train, unseen = (rows(count, config.length, seed) for count, seed in ((config.examples, 0), (500, 1)))
    losses: Results = {}
    for width in config.trained:

        def trial(hp: dict[str, Any], width: int = width) -> jn.train.Program:
            return jn.train.program(
                network(width, hp["scale"]), jn.objective(jn.losses.sequence(jn.losses.cross_entropy)),
                optax.adam(hp["rate"]), train, epochs=config.epochs, batch_size=50, validation=unseen,
            )  # fmt: skip

        grid = {"scale": [1.0, width**-0.5], "rate": list(config.rates)}
        result = jn.sweeps.sweep(trial, seeds=config.seeds, grid=grid, strategy="map")
        found = result.history["validation/loss"].reshape(2, len(config.rates), config.seeds, config.epochs)
        best = found.mean((2, 3)).argmin(1)
        losses[f"{width}"] = {name: found[k, best[k]] for k, name in enumerate(("undivided", "divided"))}
    return {"widths": config.widths, "steps": config.steps, "measured": measured, "losses": losses}


def statistics(width: int, divided: bool, config: Config, key: jax.Array) -> dict[str, jax.Array]:
    """Return the variance of scores, the softmax's entropy in bits, and the typical gradients by score and query."""
    query, keys, value, outer = (
        jax.random.normal(each, (config.queries, *shape))
        for each, shape in zip(
            jax.random.split(key, 4), ((width,), *2 * [(config.steps, width)], (width,)), strict=True
        )
    )
    scale = width**-0.5 if divided else 1.0

    def scores(query: jax.Array) -> jax.Array:
        return scale * jnp.einsum("qw,qsw->qs", query, keys)

    def loss(found: jax.Array) -> jax.Array:
        """Return what has the gradient `outer`, of norm 1, by each output."""
        read = jnp.einsum("qs,qsw->qw", jax.nn.softmax(found), value)
        return (read * outer / jnp.linalg.norm(outer, axis=-1, keepdims=True)).sum()

    def typical(gradient: jax.Array) -> jax.Array:
        return jnp.median(jnp.linalg.norm(gradient, axis=-1))

    share = jax.nn.softmax(scores(query))
    return {
        "variance": scores(query).var(),
        "entropy": jax.scipy.special.entr(share).sum(-1).mean() / jnp.log(2.0),
        "by score": typical(jax.grad(loss)(scores(query))),
        "by query": typical(jax.grad(lambda query: loss(scores(query)))(query)),
    }


def rows(count: int, length: int, seed: int) -> tuple[jax.Array, jax.Array]:
    """Return keys, values and queries `(rows, length, 3)`, and the values of the queries `(rows, length)`."""
    random = np.random.default_rng(seed)
    keys = random.permuted(np.tile(np.arange(KEYS), (count, 1)), axis=1)[:, :length]
    values = random.integers(VALUES, size=(count, length))
    places = random.permuted(np.tile(np.arange(length), (count, 1)), axis=1)
    queries, answers = (np.take_along_axis(each, places, 1) for each in (keys, values))
    x = np.stack([keys, KEYS + values, KEYS + VALUES + queries], -1)
    return jnp.asarray(x, jnp.int32), jnp.asarray(answers, jnp.int32)


def network(width: int, scale: Any, features: int = 32) -> jn.Net:
    """Return a network with one head of attention, whose scores are multiplied by `scale`."""

    def mix(qkv: tuple[jax.Array, ...]) -> jax.Array:
        query, key, value = (each[:, :, None] for each in qkv)  # one head
        return jn.ops.attention(query, key, value, scale=scale)[:, :, 0]

    def total(x: jax.Array) -> jax.Array:
        return x.sum(2)

    return jn.serial(
        embedding=jn.embed(2 * KEYS + VALUES, features, embedding_init=jax.nn.initializers.normal(1.0)), total=total,
        norm=jn.layer_norm(),
        attention=jn.graph(
            query=(jn.dense(width), "input"), key=(jn.dense(width), "input"), value=(jn.dense(width), "input"),
            mix=(mix, "query", "key", "value"),
        ),
        hidden=jn.dense(features), relu=jax.nn.relu, out=jn.dense(VALUES),
    )  # fmt: skip


def figure(results: Results) -> "Figure":
    """Draw entropy and gradients by width, and losses by epoch."""
    drawn, (entropy, gradient, *losses) = panels(2, 2, width=4.2, height=2.7)
    for place, (name, found) in enumerate(results["measured"].items()):
        line(entropy, results["widths"], found["entropy"], name, place)
        line(gradient, results["widths"], found["by score"], f"{name}, by scores", place)
        line(gradient, results["widths"], found["by query"], f"{name}, by the query", place, linestyle="--")
    entropy.axhline(np.log2(results["steps"]), color="0.5", linestyle=":", linewidth=1)
    logarithmic(entropy, "x")
    logarithmic(gradient, "xy")
    finish(entropy, f"Softmax over {results['steps']} keys (dotted: all equal)", "width of the head", "entropy, bits")
    finish(gradient, "Gradient of a random query, the median", "width of the head", "norm of the gradient")
    for panel, (width, found) in zip(losses, results["losses"].items(), strict=True):
        for place, (name, values) in enumerate(found.items()):
            line(panel, range(1, np.shape(values)[1] + 1), values, name, place)
        panel.set_ylim(0, 3.2)
        finish(panel, f"Looking up, a head of {width}", "epoch", "cross entropy, unseen rows", legend=False)
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by what the width changes, from the least to the largest, and by losses after the last epoch."""
    plain, divided = (
        {name: np.asarray(each) for name, each in results["measured"][kind].items()}
        for kind in ("undivided", "divided")
    )
    growth = np.log2(plain["variance"][:, -1] / plain["variance"][:, 0])
    expected = np.log2(results["widths"][-1] / results["widths"][0])
    narrow, wide = (
        np.asarray(found["undivided"])[:, -1] - np.asarray(found["divided"])[:, -1]
        for found in results["losses"].values()
    )
    ends, (thin, broad) = f"width {results['widths'][-1]} over {results['widths'][0]}", results["losses"]
    change = {name: np.log2(plain[name][:, -1] / plain[name][:, 0]) for name in ("by score", "by query")}
    kept = np.log2(divided["by score"][:, -1] / divided["by score"][:, 0])
    return judge(
        above(f"loss after training, undivided less divided, a head of {broad}", wide, 0.5, "nats"),
        above(f"the same, a head of {broad} less a head of {thin}", wide - narrow, 0.0, "nats"),
        below("variance of scores over what the width predicts, log2, its size", np.abs(growth - expected), 0.2),
        below(f"entropy of the softmax, undivided, {ends}, log2",
              np.log2(plain["entropy"][:, -1] / plain["entropy"][:, 0]), -1),
        below(f"gradient by scores, undivided, {ends}, log2", change["by score"], -1),
        above("the same, divided", kept, -0.5),
        below(f"gradient by the query, undivided, {ends}, log2", change["by query"], 0.0, core=False),
    )  # fmt: skip
