"""Heads of attention in two blocks learn to look back: after an earlier occurrence, they read what came next.

Rows of random tokens begin again after a period that varies from row to row, so that what comes next must be looked up:
where was this token before, and what followed? Transformers of one and of two blocks learn to predict it. Then it is
measured where each head reads: at the previous token, and at the tokens after earlier occurrences of the present one,
as an induction head does. Last, one head of the second block after the other is removed.
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
    title="What heads of attention read",
    claim="To repeat a pattern, two blocks form an induction head: it reads what came after the same token before.",
    source="Elhage et al. (2021); Olsson et al. (2022)",
    refuted_by="no head far above chance at such tokens, one block that predicts as well, or a head nobody needs.",
    data="random rows of 24 tokens out of 16 that begin again after 5 to 11: 4,000 to learn from, 200 unseen",
    minutes=14.0,
    concepts=("jn.encoder_block", "jn.ops.attention", "jn.ops.rotate"),
)
TOKENS, HEADS = 16, 4


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 8
    """Networks of each depth."""
    time: int = 24
    """Tokens of a row."""
    periods: tuple[int, int] = (5, 11)
    """The least and the largest period."""
    features: int = 32
    """Features of a block, in four heads."""
    rate: float = 0.005
    """Adam's rate, which decays to zero along a cosine."""
    examples: int = 4000
    """Rows to learn from."""
    epochs: int = 8
    """Epochs of training."""


QUICK = Config(examples=3000)
TINY = Config(seeds=2, time=8, periods=(2, 4), features=8, examples=100, epochs=1)


def rows(config: Config, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens `(rows, time + 1)` and periods `(rows,)`; a token occurs once in a period."""
    random = np.random.default_rng(seed)
    once = random.permuted(np.tile(np.arange(TOKENS, dtype=np.int32), (count, 1)), axis=1)
    low, high = config.periods
    periods = random.integers(low, high + 1, count)
    return np.take_along_axis(once, np.arange(config.time + 1)[None] % periods[:, None], 1), periods


def network(depth: int, features: int) -> jn.Net:
    """Return a causal transformer that predicts the next token."""
    block = jn.encoder_block(features, HEADS, hidden=2 * features, causal=True, positions="rotary")
    return jn.serial(
        embedding=jn.embed(TOKENS, features, embedding_init=jax.nn.initializers.normal(1.0)),
        blocks=jn.serial(*[block] * depth), norm=jn.layer_norm(), out=jn.dense(TOKENS),
    )  # fmt: skip


def maps(net: jn.Net, params: Any, tokens: jax.Array) -> jax.Array:
    """Return the weights of attention of each block and head, `(blocks, batch, heads, time, source)`."""
    x, found = net.upto("embedding").apply(params, {}, tokens)[0], []
    for name, block in net["blocks"].children.items():
        own = params["blocks"][name]
        read = block["norm1"].apply(own["norm1"], {}, x)[0]
        query, key = (
            jn.ops.rotate(each.reshape(*each.shape[:2], HEADS, -1), jnp.arange(each.shape[1]))
            for each in (
                block[f"attention/{part}"].apply(own["attention"][part], {}, read)[0] for part in ("query", "key")
            )
        )
        # What is read of the identity are the weights: (time, batch, 1, time) of values.
        steps = jnp.broadcast_to(jnp.eye(x.shape[1])[None, :, None], (*x.shape[:2], HEADS, x.shape[1]))
        found.append(jn.ops.attention(query, key, steps, causal=True).swapaxes(1, 2))
        x = block.apply(own, {}, x)[0]
    return jnp.stack(found)


def run(config: Config) -> Results:
    """Train one and two blocks, look where heads read, and remove heads."""
    (tokens, _), (unseen, periods) = rows(config, config.examples, 0), rows(config, 200, 1)
    test, answers = jnp.asarray(unseen[:, :-1]), jnp.asarray(unseen[:, 1:])
    again = np.arange(config.time)[None] >= periods[:, None]  # where the present token has occurred before
    # `after[row, time, source]`: whether the token before the source is the present one, and lies behind.
    same = unseen[:, None, :-2] == unseen[:, :-1, None]
    after = np.pad(same, ((0, 0), (0, 0), (1, 0))) & np.tri(config.time, dtype=bool)[None]
    steps = config.epochs * -(-config.examples // 50)

    def errors(net: jn.Net, params: Any) -> jax.Array:
        wrong = net.apply(params, {}, test)[0].argmax(-1) != answers
        return 100 * jnp.where(again, wrong, False).sum() / again.sum()

    def without(net: jn.Net, params: Any, head: jax.Array) -> jax.Array:
        def removed(kernel: jax.Array) -> jax.Array:
            width = config.features // HEADS
            return jnp.where((jnp.arange(config.features) // width == head)[:, None], 0.0, kernel)

        chosen = jn.paths.mask("blocks/1/attention/out/kernel")(params)
        return errors(net, jax.tree.map(lambda leaf, its: removed(leaf) if its else leaf, params, chosen))

    found: Results = {"errors": {}, "after": {}, "before": {}, "curves": {}}
    for depth in (1, 2):
        net = network(depth, config.features)

        def trial(hp: dict[str, Any], net: jn.Net = net) -> jn.train.Program:
            optimizer = optax.adam(optax.cosine_decay_schedule(config.rate, steps))
            loss = jn.losses.sequence(jn.losses.cross_entropy)
            return jn.train.program(
                net, jn.objective(loss), optimizer, (tokens[:, :-1], tokens[:, 1:]), epochs=config.epochs, batch_size=50
            )

        result = jn.sweeps.sweep(trial, seeds=config.seeds, strategy="vmap")
        params, name = result.runs.params, f"{depth}"
        weights = jax.jit(jax.vmap(lambda params, net=net: maps(net, params, test)))(params)
        # (seeds, blocks, heads)
        found["after"][name] = (
            (weights * after[None, None, :, None]).sum(-1).mean((2, 4), where=again[None, None, :, None])
        )
        found["before"][name] = jnp.diagonal(weights, -1, 4, 5).mean((2, 4))
        found["errors"][name] = jax.vmap(lambda params, net=net: errors(net, params))(params)
        found["curves"][name] = result.history["loss"]
    heads = jnp.arange(HEADS)
    each = jax.vmap(jax.vmap(lambda params, head: without(net, params, head), (None, 0)), (0, None))
    found["removed"] = jax.jit(each)(params, heads)
    reads = [(after / (np.arange(config.time) + 1)[None, :, None]).sum(-1)[again].mean()]
    shown = int(np.argmax(periods == config.periods[0] + 2))
    return found | {"chance": reads[0], "example": weights[0, :, shown], "tokens": unseen[shown, :-1]}


def figure(results: Results) -> "Figure":
    """Draw where the heads of one network read, and what is learned."""
    drawn, axes = panels(4, 3, width=2.5, height=2.4)
    letters = [chr(ord("a") + token) for token in results["tokens"]]
    for place, weights in enumerate(np.asarray(results["example"]).reshape(-1, len(letters), len(letters))):
        block, head = divmod(place, HEADS)
        before, after = (100 * results[kind]["2"][0][block][head] for kind in ("before", "after"))
        panel = axes[place]
        panel.imshow(weights, cmap="Blues", vmin=0, vmax=1)
        panel.set_xticks(range(len(letters)), letters, fontsize=5)
        panel.set_yticks(range(len(letters)), letters, fontsize=5)
        panel.set_title(f"block {block + 1}, head {head + 1}: previous {before:.0f} %,\nafter the same {after:.0f} %",
                        fontsize=8)  # fmt: skip
    learning, reading, error, removed = axes[2 * HEADS :]
    for place, (depth, values) in enumerate(results["curves"].items()):
        line(learning, range(1, np.shape(values)[1] + 1), values, f"{depth} block{'s' * (depth != '1')}", place)
    finish(learning, "Learning", "epoch", "cross entropy")
    for row, (kind, block) in enumerate((("before", 0), ("before", 1), ("after", 0), ("after", 1))):
        values = 100 * np.asarray(results[kind]["2"])[:, block].max(-1)
        reading.plot(values, np.full(len(values), 3 - row), "o", markersize=3, color=COLORS[row])
    reading.axvline(100 * results["chance"], color="0.5", linestyle=":")
    reading.set_yticks([3, 2, 1, 0], ["previous, 1", "previous, 2", "after, 1", "after, 2"])
    reading.set_xlim(0, 102)
    finish(reading, "Best head of a block", "weight, % (dotted: chance)")
    for place, values in enumerate(results["errors"].values()):
        error.plot(np.full(len(values), place), values, "o", markersize=3, color=COLORS[place])
    error.set_xticks([0, 1], ["one block", "two"])
    error.set_xlim(-0.5, 1.5)
    finish(error, "Tokens that can be known", "", "errors, %")
    best, others = removals(results)
    for place, values in enumerate((best, others)):
        removed.plot(np.full(len(values), place), values, "o", markersize=3, color=COLORS[place])
    removed.set_xticks([0, 1], ["induction head", "another"])
    removed.set_xlim(-0.5, 1.5)
    finish(removed, "The same, a head removed", "", "errors, %")
    return drawn


def removals(results: Results) -> tuple[np.ndarray, np.ndarray]:
    """Return each seed's errors without its strongest induction head, and their mean without one of the others."""
    strength, errors = np.asarray(results["after"]["2"])[:, 1], np.asarray(results["removed"])
    best = np.take_along_axis(errors, strength.argmax(1)[:, None], 1)[:, 0]
    return best, (errors.sum(1) - best) / (HEADS - 1)


def verdict(results: Results) -> Verdict:
    """Judge by the weights of the best heads, by errors where the token can be known, and by removing heads."""
    after, before = ({name: np.asarray(each).max(-1) for name, each in results[kind].items()}
                     for kind in ("after", "before"))  # fmt: skip
    one, two = (np.asarray(results["errors"][name]) for name in "12")
    best, others = removals(results)
    chance = 100 * results["chance"]
    return judge(
        above(f"weight of the best head of block 2 after the same token, chance {chance:.1f}", 100 * after["2"][:, 1],
              4 * chance, "%"),
        above("errors where the token can be known, one block less two", one - two, 10, "%"),
        below("the same, two blocks", two, 5, "%"),
        above("errors without the best head of block 2 less without one of the others", best - others, 10, "%"),
        above("weight of the best head of block 1 at the previous token", 100 * before["2"][:, 0], 50, "%", core=False),
        below("weight of the best head after the same token, one block", 100 * after["1"][:, 0], 2 * chance, "%",
              core=False),
    )  # fmt: skip
