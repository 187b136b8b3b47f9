"""Attention copies random tokens of any length it has seen; an LSTM of equal size loses them as the length grows.

A row has up to 16 random tokens, a sign, and the same tokens again, which are to be predicted. A transformer of two
blocks and an LSTM with as many parameters learn from rows of all lengths. By length, it is counted how many of the
copied tokens are wrong.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import COLORS, finish, line, panels
from experiments.framework.study import About, Results, Verdict, above, below, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Attention and recurrence, copying",
    claim="Attention copies over any distance it was trained on; a recurrent state of fixed size loses tokens.",
    source="Bahdanau, Cho and Bengio (2015); Jelassi et al., Repeat After Me (2024)",
    refuted_by="an LSTM that copies long rows as well as a transformer of equal size, or as well as short ones.",
    data="rows of 1 to 16 random tokens out of 16, to copy: 3,000 to learn from, 200 of each length unseen",
    minutes=9.0,
    concepts=("jn.encoder_block", "jn.models.language_model", "jn.losses.ignoring"),
)
TOKENS, NONE = 16, -1
SIGN = TOKENS


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 8
    """Networks of each kind."""
    longest: int = 16
    """The longest row to copy."""
    lengths: tuple[int, ...] = (2, 6, 11, 16)
    """Lengths of unseen rows; the first and the last are judged."""
    features: int = 32
    """Features of the transformer, in four heads."""
    width: int = 48
    """Units of the LSTM."""
    rates: tuple[float, ...] = (0.005,)
    """Learning rates of Adam tried for each kind; the one with the least mean error counts."""
    examples: int = 3000
    """Rows to learn from."""
    epochs: int = 10
    """Epochs of training."""


QUICK = Config(examples=2000)
TINY = Config(
    seeds=2, longest=4, lengths=(2, 4), features=8, width=10, rates=(0.01,), examples=100, epochs=1
)  # fmt: skip


def rows(lengths: np.ndarray, longest: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and the next ones, `(rows, 2 · longest)`, where only those of the copy are not `NONE`."""
    random, place = np.random.default_rng(seed), np.arange(2 * longest + 1)[None]
    tokens, lengths = random.integers(TOKENS, size=(len(lengths), longest)), lengths[:, None]
    copied = (place > lengths) & (place <= 2 * lengths)
    source = np.where(copied, place - lengths - 1, np.minimum(place, longest - 1))
    row = np.where(place == lengths, SIGN, np.take_along_axis(tokens, source, 1))
    return row[:, :-1].astype(np.int32), np.where(copied, row, NONE)[:, 1:].astype(np.int32)


def networks(config: Config) -> dict[str, jn.Net]:
    """Return the networks to compare."""
    features = config.features
    block = jn.encoder_block(features, 4, hidden=2 * features, causal=True, positions="rotary")
    return {
        "attention": jn.serial(
            embedding=jn.embed(TOKENS + 1, features, embedding_init=jax.nn.initializers.normal(1.0)),
            blocks=jn.serial(block, block), norm=jn.layer_norm(), out=jn.dense(TOKENS),
        ),
        "LSTM": jn.models.language_model(TOKENS + 1, config.width),
    }  # fmt: skip


def run(config: Config) -> Results:
    """Train on rows of all lengths, and count errors by length."""
    lengths = np.random.default_rng(0).integers(1, config.longest + 1, config.examples)
    data = rows(lengths, config.longest, 0)
    tests = [rows(np.full(200, length), config.longest, 1 + length) for length in config.lengths]
    found: Results = {"lengths": config.lengths, "errors": {}, "losses": {}, "parameters": {}}
    for name, net in networks(config).items():

        def trial(hp: dict[str, Any], net: jn.Net = net) -> jn.train.Program:
            return jn.train.program(
                net, jn.objective(jn.losses.ignoring(jn.losses.cross_entropy, NONE)),
                optax.chain(optax.clip_by_global_norm(1.0), optax.adam(hp["rate"])), data, epochs=config.epochs,
                batch_size=50,
            )  # fmt: skip

        grid = {"rate": list(config.rates)}
        result = jn.sweeps.sweep(trial, seeds=config.seeds, grid=grid, strategy="vmap")

        def wrong(params: Any, x: jax.Array, y: jax.Array, net: jn.Net = net) -> jax.Array:
            guess = net.apply(params, {}, x)[0][..., :TOKENS].argmax(-1)
            return 100 * ((guess != y) & (y != NONE)).sum() / (y != NONE).sum()

        errors = [jax.jit(jax.vmap(wrong, (0, None, None)))(result.runs.params, *test) for test in tests]
        errors = np.stack(errors, 1).reshape(len(config.rates), config.seeds, -1)
        best = errors.mean((1, 2)).argmin()
        found["errors"][name] = errors[best]
        found["losses"][name] = result.history["loss"].reshape(len(config.rates), config.seeds, -1)[best]
        found["parameters"][name] = sum(leaf[0].size for leaf in jax.tree.leaves(result.runs.params))
    return found


def figure(results: Results) -> "Figure":
    """Draw errors by length, and losses by epoch."""
    drawn, (error, loss) = panels(2, width=4.6)
    for place, (name, values) in enumerate(results["errors"].items()):
        line(error, results["lengths"], values, f"{name}, {results['parameters'][name]:,} parameters", place)
        line(loss, range(1, np.shape(results["losses"][name])[1] + 1), results["losses"][name], name, place)
    error.axhline(100 * (1 - 1 / TOKENS), color=COLORS[-1], linestyle=":", linewidth=1)
    error.set_ylim(-2, 100)
    finish(error, "Copying unseen rows (dotted: guessing)", "tokens to copy", "wrong tokens, %")
    finish(loss, "Learning", "epoch", "cross entropy of a copied token", legend=False)
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by the errors at the shortest and the longest rows."""
    attention, lstm = (np.asarray(results["errors"][name]) for name in ("attention", "LSTM"))
    short, *_, long = results["lengths"]
    return judge(
        above(f"wrong tokens of {long}, LSTM less attention", lstm[:, -1] - attention[:, -1], 25, "%"),
        above(f"LSTM, wrong tokens of {long} less of {short}", lstm[:, -1] - lstm[:, 0], 25, "%"),
        below(f"attention, wrong tokens of {long} less of {short}", attention[:, -1] - attention[:, 0], 5, "%"),
        below(f"attention, wrong tokens of {long}", attention[:, -1], 5, "%", core=False),
        below(f"LSTM, wrong tokens of {short}", lstm[:, 0], 10, "%", core=False),
    )
