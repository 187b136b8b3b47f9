"""What a character costs in bits falls with the context that a network has read, by ever less; GPT against LSTM.

An LSTM and a small GPT learn the language reference of Python as 27 characters, in windows. On unseen windows the cost
of each character is averaged by its position, which is the number of characters that were read before it. The same is
measured for the table of what follows each single character, which reads no more than one.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import COLORS, finish, line, panels
from experiments.framework.study import About, Results, Verdict, above, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Bits a character, by context",
    claim="More context makes characters cheaper, by ever less, for an LSTM and for a GPT of about its size.",
    source="Shannon (1951); Graves (2013); Khandelwal et al. (2018)",
    refuted_by="characters as dear after many others as after few, or gains that do not shrink with context.",
    data="the Python language reference as a–z and spaces: 120,000 characters to learn from, 30,000 for the test",
    minutes=2.0,
    reservations=(
        "The steps were raised sixfold after a first full run, judged on the same text, in which the GPT had "
        "not yet learned to use what it reads."
    ),
    concepts=("jn.models.language_model", "jn.models.gpt2", "jn.metrics.bits_per_character", "jn.data.text"),
)
LETTERS, TEST = 27, 30_000


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 5
    """Networks of each kind."""
    characters: int = 120_000
    """Characters to train on."""
    window: int = 64
    """Characters in a window, the longest context."""
    contexts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Ends of the ranges of context whose costs are averaged: the first, then 2, 3–4, 5–8 and so on."""
    width: int = 64
    """Units of the LSTM."""
    features: int = 48
    """Features of the GPT, in four heads and two blocks."""
    epochs: int = 15
    """Epochs of training."""
    rates: tuple[float, float] = (0.01, 0.004)
    """Learning rates of Adam for the LSTM and the GPT at the start; they fall to 0 along a cosine."""


QUICK = Config(characters=60_000, window=32, contexts=(1, 2, 4, 8, 16, 32), epochs=3)
TINY = Config(seeds=2, characters=2000, window=8, contexts=(1, 2, 4, 8), width=4, features=8, epochs=1)


def run(config: Config) -> Results:
    """Train both, and measure what characters cost by context."""
    codes = jn.data.text()
    text, test = codes[: config.characters], codes[-TEST:]
    data, held_out = jn.data.windows(text, config.window), jn.data.windows(test, config.window)
    steps = config.epochs * -(-len(data[0]) // 16)
    nets = {
        "LSTM": jn.models.language_model(LETTERS, config.width),
        "GPT": jn.models.gpt2(
            "small", vocabulary=LETTERS, length=config.window, layers=2, heads=4, features=config.features
        ),
    }
    found: Results = {"contexts": config.contexts, "bits": {}, "whole": {}, "parameters": {}}
    for (name, net), rate in zip(nets.items(), config.rates, strict=True):

        def trial(hp: dict[str, Any], net: jn.Net = net, rate: float = rate) -> jn.train.Program:
            schedule = optax.warmup_cosine_decay_schedule(0.0, rate, steps // 20, steps)
            return jn.train.program(
                net, jn.objective(jn.losses.sequence(jn.losses.cross_entropy)),
                optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule)), data, epochs=config.epochs,
                batch_size=16,
            )  # fmt: skip

        params = jn.sweeps.sweep(trial, seeds=config.seeds, strategy="map").runs.params

        def measured(p: Any, net: jn.Net = net) -> tuple[jax.Array, jax.Array]:
            logits = net.apply(p, {}, jnp.asarray(held_out[0]))[0]
            return costs(logits, held_out[1], config), jn.metrics.bits_per_character(logits, held_out[1])

        found["bits"][name], found["whole"][name] = jax.jit(lambda ps, f=measured: jax.lax.map(f, ps))(params)
        found["parameters"][name] = sum(leaf[0].size for leaf in jax.tree.leaves(params))
    follows = np.ones((LETTERS, LETTERS))
    np.add.at(follows, (text[:-1], text[1:]), 1)
    logits = jnp.log(jnp.asarray(follows / follows.sum(1, keepdims=True), jnp.float32))[held_out[0]]
    found["table"] = costs(logits, held_out[1], config)
    return found


def costs(logits: Any, targets: Any, config: Config) -> jax.Array:
    """Return the bits a character in each range of context, `(ranges,)`."""
    ends = (0, *config.contexts)
    return jnp.stack(
        [
            jn.metrics.bits_per_character(logits[:, low:high], targets[:, low:high])
            for low, high in zip(ends, config.contexts, strict=False)
        ]
    )


def figure(results: Results) -> "Figure":
    """Draw the cost by context, and by how much each doubling lowers it."""
    drawn, (cost, gain) = panels(2, width=4.6)
    contexts = results["contexts"]
    for place, (name, values) in enumerate(results["bits"].items()):
        line(cost, contexts, values, f"{name}, {results['parameters'][name]:,} parameters", place)
        line(gain, contexts[1:], -np.diff(np.asarray(values), axis=1), name, place)
    cost.plot(contexts, results["table"], color=COLORS[3], linestyle="--", linewidth=1, label="table of pairs")
    for axes in (cost, gain):
        axes.set_xscale("log")
        axes.set_xticks(contexts, contexts)
        axes.minorticks_off()
    gain.axhline(0, color="gray", linewidth=0.8)
    finish(cost, "Unseen text", "characters read before, up to", "bits a character")
    finish(gain, "What twice the context saves", "characters read before, up to", "bits a character", legend=False)
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by the cost after few and after many characters, and by what the first and the last doubling save."""
    bits = {name: np.asarray(each) for name, each in results["bits"].items()}
    _, second, *_, last = results["contexts"]
    saved = {name: -np.diff(each, axis=1) for name, each in bits.items()}
    half = results["contexts"][-2]
    return judge(
        *(above(f"{name}, bits a character after {second} less after {half + 1}–{last}", each[:, 1] - each[:, -1], 0.5)
          for name, each in bits.items()),
        *(above(f"{name}, what the first doubling saves less the last", each[:, 0] - each[:, -1], 0)
          for name, each in saved.items()),
        above("bits a character, table of pairs less LSTM", results["table"][-1] - bits["LSTM"][:, -1], 0.5),
        *(above(f"{name}, what the last doubling saves", each[:, -1], 0, core=False) for name, each in saved.items()),
        above("whole windows, GPT less LSTM",
              np.asarray(results["whole"]["GPT"]) - np.asarray(results["whole"]["LSTM"]), 0, core=False),
    )  # fmt: skip
