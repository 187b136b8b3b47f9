"""A character LSTM predicts the next letter better than counts of letter groups do, and writes words.

An LSTM learns the language reference of Python as 27 characters. So do counts of which character follows each group of
up to four, with the back-off of Witten and Bell to shorter groups. They are compared by the bits per character of
unseen text. Then all of them write, the LSTM at several temperatures, and it is counted how many of the written words
occur in the text.
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
    title="A character model that writes",
    claim="An LSTM foretells the next character better than counts of groups do, and what it writes is mostly words.",
    source="Shannon (1951); Sutskever, Martens and Hinton (2011); Graves (2013); Karpathy (2015)",
    refuted_by="counts that need as few bits a character, or words written that are no more often words than theirs.",
    data="the Python language reference as a–z and spaces: 250,000 characters to learn from, 30,000 for the test",
    minutes=2.0,
    concepts=("jn.models.language_model", "jn.decoding.sample", "jn.losses.sequence", "jn.data.text"),
)
LETTERS, TEST = 27, 30_000


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 8
    """Networks."""
    characters: int = 250_000
    """Characters to train on."""
    width: int = 64
    """Units of the LSTM."""
    window: int = 50
    """Characters in a training example."""
    epochs: int = 12
    """Epochs of training."""
    groups: int = 4
    """Length of the longest group counted."""
    temperatures: tuple[float, ...] = (0.3, 0.6, 1.0, 1.4)
    """Temperatures at which the LSTM writes; 1 is judged."""
    written: int = 1000
    """Characters that each model writes."""


QUICK = Config(characters=80_000, epochs=3)
TINY = Config(seeds=2, characters=2000, width=4, window=10, epochs=1, groups=2, temperatures=(1.0,), written=50)


def run(config: Config) -> Results:
    """Train, count, and write."""
    codes = jn.data.text()
    text, test = codes[: config.characters], codes[-TEST:]
    net = jn.models.language_model(LETTERS, config.width)
    data, held_out = jn.data.windows(text, config.window), jn.data.windows(test, 300)
    steps = config.epochs * -(-len(data[0]) // 50)

    def trial(hp: dict[str, Any]) -> jn.train.Program:
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(0.01, steps)))
        return jn.train.program(
            net, jn.objective(jn.losses.sequence(jn.losses.cross_entropy)), optimizer, data, epochs=config.epochs,
            batch_size=50, validation=held_out,
        )  # fmt: skip

    result = jn.sweeps.sweep(trial, seeds=config.seeds, strategy="map")

    @jax.jit
    def write(params: Any, keys: jax.Array, temperatures: jax.Array) -> jax.Array:
        def one(params: Any, key: jax.Array, temperature: jax.Array) -> jax.Array:
            start = jnp.zeros((1, 1), jnp.int32)  # a space
            return jn.decoding.sample(net, params, {}, start, config.written, key=key, temperature=temperature)[0]

        return jax.vmap(jax.vmap(one, (None, None, 0)), (0, 0, None))(params, keys, temperatures)

    keys = jax.random.split(jax.random.key(0), config.seeds)
    texts = np.asarray(write(result.runs.params, keys, jnp.asarray(config.temperatures)))
    tables = counted(text, config.groups)
    vocabulary = set(jn.data.decode_text(codes).split())
    of_groups = [[scribble(tables, group, config.written, seed) for seed in range(config.seeds)]
                 for group in range(config.groups + 1)]  # fmt: skip
    usual = config.temperatures.index(1.0)
    return {
        "bits": result.history["validation/loss"] / np.log(2),
        "group bits": [bits(table, test) for table in tables],
        "temperatures": config.temperatures,
        "words": [[known(each, vocabulary) for each in row] for row in texts],
        "group words": [[known(each, vocabulary) for each in row] for row in of_groups],
        "texts": {
            **{f"groups of {k}": jn.data.decode_text(of_groups[k][0][:120]) for k in (1, config.groups)},
            **{f"LSTM at {t:g}": jn.data.decode_text(texts[0, k][:120]) for k, t in enumerate(config.temperatures)
               if k in (0, usual)},
        },
    }  # fmt: skip


def counted(text: np.ndarray, longest: int) -> list[np.ndarray]:
    """Return, for groups of 0, 1, … characters, the probabilities of the next `(27, …, 27)`, the group first.

    p(c|g) = (n(g c) + d(g) p(c|g')) / (n(g) + d(g)), where n counts, d(g) is how many different characters follow g,
    and g' is g without its first character (Witten and Bell, 1991).
    """
    tables = [np.full(LETTERS, 1 / LETTERS)]
    for group in range(longest + 1):
        places = np.stack([text[k : len(text) - group + k] for k in range(group + 1)])
        counts = np.zeros((LETTERS,) * (group + 1))
        np.add.at(counts, tuple(places), 1)
        kinds = (counts > 0).sum(-1, keepdims=True)
        total = counts.sum(-1, keepdims=True) + kinds
        shorter = np.broadcast_to(tables[-1] if group else tables[0], counts.shape)
        tables.append(np.where(total > 0, (counts + kinds * shorter) / np.maximum(total, 1), shorter))
    return tables[1:]


def bits(table: np.ndarray, text: np.ndarray) -> float:
    """Return the bits that a character of a text costs."""
    group = table.ndim - 1
    places = np.stack([text[k : len(text) - group + k] for k in range(group + 1)])
    return float(-np.log2(table[tuple(places)]).mean())


def scribble(tables: list[np.ndarray], group: int, count: int, seed: int) -> np.ndarray:
    """Return characters drawn one by one, each conditioned on the group before it."""
    random, codes = np.random.default_rng(seed), [0] * group
    for _ in range(count):
        shares = tables[group][tuple(codes[len(codes) - group :])]
        codes.append(int(random.choice(LETTERS, p=shares / shares.sum())))
    return np.array(codes[group:], np.int32)


def known(codes: np.ndarray, vocabulary: set[str]) -> float:
    """Return the share of the words written, the first and the last aside, that are words of the text, in percent."""
    words = jn.data.decode_text(codes).split()[1:-1]
    return 100 * float(np.mean([word in vocabulary for word in words])) if words else 0.0


def figure(results: Results) -> "Figure":
    """Draw bits a character, words that are words, and some of what is written."""
    drawn, (left, right, *pages) = panels(2, 2, width=5, height=2.5)
    found = np.asarray(results["bits"])
    line(left, range(1, found.shape[1] + 1), found, "LSTM", 0)
    line(right, results["temperatures"], results["words"], "LSTM", 0)
    for k, (cost, words) in enumerate(zip(results["group bits"], results["group words"], strict=True)):
        if k:
            color = COLORS[k % len(COLORS)]
            left.axhline(cost, color=color, linestyle="--", linewidth=1.2, label=f"counts, groups of {k}")
            right.axhline(np.mean(words), color=color, linestyle="--", linewidth=1.2)
    left.set_ylim(1.6, 5)
    right.set_ylim(0, 102)
    finish(left, "Unseen text", "epoch", "bits that a character costs")
    finish(right, "Words written that are words of the text", "temperature", "share, %")
    for page in pages:
        page.set_axis_off()
    lines = [f"{name + ':':<13} {text[:100]}" for name, text in results["texts"].items()]
    pages[0].text(0, 1, "\n\n\n".join(lines), va="top", fontsize=9, family="monospace", transform=pages[0].transAxes,
                  in_layout=False)  # fmt: skip
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by bits a character after the last epoch, and by words written at temperature 1."""
    last, words = np.asarray(results["bits"])[:, -1], np.asarray(results["words"])
    usual = list(results["temperatures"]).index(1.0)
    longest = len(results["group bits"]) - 1
    counts = np.asarray(results["group words"])
    return judge(
        above(f"bits a character, counts of groups of {longest} less LSTM", results["group bits"][-1] - last, 0),
        above("the same, counts of single characters less LSTM", results["group bits"][1] - last, 0.5),
        above("words written that are words", words[:, usual], 50, "%"),
        above("the same, LSTM less counts of groups of 2", words[:, usual] - counts[2], 0, "%"),
        above(f"the same, LSTM less counts of groups of {longest}", words[:, usual] - counts[-1], 0, "%", core=False),
        above("the same, the lowest temperature less 1", words[:, 0] - words[:, usual], 0, "%", core=False),
    )  # fmt: skip
