"""A pointer writes headlines with names that it has never read; the same network without one can't.

A record of a football match has eight fields in random order; its headline names the winner first, says by how much it
won, and names the player of a late goal. An encoder–decoder with attention and the same one with a pointer learn from
records. Names that are rare there are outside the vocabulary. Both write headlines of unseen matches, with names that
occur in training and with new ones.
"""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import bars, finish, line, panels
from experiments.framework.study import About, Results, Verdict, above, below, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Headlines by a pointer",
    claim="A pointer copies names that are not in its vocabulary into summaries; without one they are lost.",
    source="Vinyals, Fortunato and Jaitly (2015); See, Liu and Manning (2017)",
    refuted_by="a network without a pointer whose headlines of unseen names are as close to the true ones, or a "
    "pointer whose headlines are far worse with unseen names than with known ones.",
    data="headlines of generated records of matches: 4,000 to learn from, 400 with known and 400 with unseen names",
    minutes=1.5,
    reservations=(
        "The batch was halved, which doubles the steps, after a first full run whose pointer got 77 % of "
        "unseen names (ROUGE-L) and was judged by the same records."
    ),
    concepts=(
        "jn.models.pointer_generator", "jn.models.attentive_encoder_decoder", "jn.data.headlines", "jn.metrics.rouge_l",
    ),
)  # fmt: skip
POINTER, PLAIN = "pointer", "attention alone"
START, END, UNKNOWN, SPECIAL = 0, 1, 2, 3
COPIES, LONGEST = 4, 12  # the names of a record, and the words of a headline with its end
PARTS = {"known names": False, "unseen names": True}


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 5
    """Networks of each kind."""
    examples: int = 4000
    """Records to learn from."""
    tests: int = 400
    """Records for each of the two tests."""
    rare: int = 60
    """Names that occur less often than this are not in the vocabulary."""
    epochs: int = 6
    """Epochs of training."""
    width: int = 64
    """Units of the decoder."""


QUICK = Config(seeds=3, examples=3000, rare=45, tests=200)
TINY = Config(seeds=2, examples=60, rare=2, tests=20, epochs=1, width=4)


def run(config: Config) -> Results:
    """Train both kinds, and write headlines of unseen matches."""
    records, titles = jn.data.headlines(config.examples)
    words = vocabulary(records + titles, config.rare)
    tests = {part: jn.data.headlines(config.tests, seed=1, unseen_names=new) for part, new in PARTS.items()}
    size, steps = len(words) + SPECIAL, config.epochs * -(-config.examples // 32)
    options: Any = {"embedding": config.width // 2, "score": "general"}
    networks = {
        POINTER: jn.models.pointer_generator(size, config.width, copies=COPIES, unknown=UNKNOWN, **options),
        PLAIN: jn.models.attentive_encoder_decoder(size, size, config.width, **options),
    }
    found: Results = {"rouge": {}, "right": {}, "losses": {}, "examples": {}, "names": {}}
    for name, net in networks.items():
        copies = COPIES if name == POINTER else 0
        source, target_in, target, _ = numbered(records, titles, words, copies)

        def trial(
            hp: dict[str, Any], net: jn.Net = net, source: Any = source, given: Any = target_in, target: Any = target
        ) -> jn.train.Program:
            schedule = optax.warmup_cosine_decay_schedule(0.0, 0.01, steps // 20, steps)
            return jn.train.program(
                net, jn.objective(jn.losses.sequence(jn.losses.cross_entropy)),
                optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule)), ((source, given), target),
                epochs=config.epochs, batch_size=32,
            )  # fmt: skip

        result = jn.sweeps.sweep(trial, seeds=config.seeds, strategy="map")
        found["losses"][name] = result.history["loss"]

        @jax.jit
        def write(runs: Any, unseen: Any, net: jn.Net = net) -> Any:
            limits: Any = {"max_length": LONGEST, "start": START, "end": END}
            return jax.lax.map(lambda params: jn.decoding.greedy(net, params, {}, unseen, **limits), runs)

        for measure in ("rouge", "right", "examples"):
            found[measure][name] = {}
        for part, (unseen, wanted) in tests.items():
            source, _, _, extra = numbered(unseen, wanted, words, copies)
            decoded = write(result.runs.params, source)
            rows = [read(*each, words, extra) for each in zip(decoded.tokens, decoded.lengths, strict=True)]
            found["rouge"][name][part] = [100 * jn.metrics.rouge_l(row, wanted).f1 for row in rows]
            found["right"][name][part] = [100 * jn.metrics.exact_match(row, wanted) for row in rows]
            found["examples"][name][part] = rows[0][:3]
    found["examples"]["truth"] = {part: wanted[:3] for part, (_, wanted) in tests.items()}
    return found


def vocabulary(texts: list[str], rare: int) -> dict[str, int]:
    """Return the numbers of all words but rare names, most frequent first."""
    counts = Counter(word for text in texts for word in text.split())
    kept = [word for word, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))
            if count >= rare or not word[0].isupper()]  # fmt: skip
    return {word: place for place, word in enumerate(kept, start=SPECIAL)}


def numbered(
    records: list[str], titles: list[str], words: dict[str, int], copies: int
) -> tuple[np.ndarray, jn.Padded, np.ndarray, list[list[str]]]:
    """Return records and headlines as numbers, and the words that each record has outside the vocabulary.

    With `copies` the k-th of them has the number `size + k`; otherwise all are unknown.
    """
    size = len(words) + SPECIAL
    extra = [[*dict.fromkeys(word for word in record.split() if word not in words)] for record in records]

    def numbers(text: str, others: list[str]) -> list[int]:
        own = {word: size + place for place, word in enumerate(others[:copies])}
        return [words.get(word, own.get(word, UNKNOWN)) for word in text.split()]

    source = np.array([numbers(*each) for each in zip(records, extra, strict=True)], np.int32)
    rows = [numbers(*each) for each in zip(titles, extra, strict=True)]
    target = np.array([row + [END] * (LONGEST - len(row)) for row in rows], np.int32)
    late = np.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=START)
    return source, jn.Padded(late, np.array([len(row) + 1 for row in rows], np.int32)), target, extra


def read(tokens: Any, lengths: Any, words: dict[str, int], extra: list[list[str]]) -> list[str]:
    """Return the headlines of numbers."""
    names = ["START", "END", "UNKNOWN", *words]
    rows = [row[:length] for row, length in zip(np.asarray(tokens).tolist(), np.asarray(lengths), strict=True)]
    return [" ".join([*names, *others, *["UNKNOWN"] * COPIES][token] for token in row)
            for row, others in zip(rows, extra, strict=True)]  # fmt: skip


def figure(results: Results) -> "Figure":
    """Draw ROUGE-L and exact headlines, the losses, and some headlines."""
    drawn, (left, right, *pages) = panels(2, 2, width=5, height=2.7)
    rows = {f"{name}, {part}": measure for name, parts in results["rouge"].items() for part, measure in parts.items()}
    bars(left, [*rows], np.stack([*rows.values()], 1))
    left.set_xlim(0, 102)
    finish(left, "Headlines of unseen matches", "ROUGE-L with the true headline, %", legend=False)
    for place, (name, losses) in enumerate(results["losses"].items()):
        line(right, range(1, np.shape(losses)[1] + 1), losses, name, place)
    right.set_yscale("log")
    finish(right, "Learning", "epoch", "cross entropy of a word")
    for page, part in zip(pages, PARTS, strict=True):
        page.set_axis_off()
        page.set_title(f"Headlines with {part}", fontsize=10)
        columns = [results["examples"][name][part] for name in ("truth", POINTER, PLAIN)]
        lines = [f"true:      {truth}\npointer:   {one}\nattention: {other}" for truth, one, other in zip(*columns)]
        page.text(0, 0.95, "\n\n".join(lines), va="top", fontsize=7.5, family="monospace", transform=page.transAxes,
                  in_layout=False)  # fmt: skip
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by ROUGE-L, paired by seed."""
    rouge = {name: {part: np.asarray(each) for part, each in parts.items()} for name, parts in results["rouge"].items()}
    pointer, plain = rouge[POINTER], rouge[PLAIN]
    known, unseen = PARTS
    return judge(
        above("ROUGE-L of unseen names, pointer less attention alone", pointer[unseen] - plain[unseen], 20, "%"),
        below("ROUGE-L of the pointer, known names less unseen ones", pointer[known] - pointer[unseen], 5, "%"),
        above("ROUGE-L of the pointer, unseen names", pointer[unseen], 95, "%", core=False),
        above("exact headlines of the pointer, unseen names", results["right"][POINTER][unseen], 90, "%", core=False),
        above(
            "ROUGE-L of known names, pointer less attention alone", pointer[known] - plain[known], 0, "%", core=False
        ),
    )
