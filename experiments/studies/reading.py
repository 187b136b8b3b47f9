"""A small BERT with a span head finds answers in a passage unseen before; joining two facts is harder.

Passages tell the city, job and pet of some people; questions ask for a value, a name, or for what follows from two
facts: "where does the owner of the dog live ?". BERT reads question and passage, and marks where the answer begins and
ends. It is compared with counting words: of the sentence that shares most words with the question, the answer is the
last word that the question lacks, or the first name. Scores are exact match and F1 as SQuAD's script has them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import compared, finish, line, panels
from experiments.framework.study import About, Results, Verdict, above, judge
from jaxnets.data.datasets.questions import KINDS, NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Answers read from a passage",
    claim="A small BERT with a span head answers questions about a passage, better than matching words does, "
    "and questions that join two facts less well.",
    source="Rajpurkar et al. (2016); Devlin et al. (2019); Weston et al. (2015)",
    refuted_by="matching of words that answers as many questions, or two facts answered as well as one.",
    data="generated passages about two people, a question each; answers are one or two words of the passage",
    minutes=3.0,
    reservations=(
        "Training is short: the loss still falls at its end, and half of the simplest questions are answered wrongly, "
        "which says little of what BERT can learn from more."
    ),
    concepts=("jn.models.bert", "jn.data.table_questions", "jn.metrics.squad"),
)
START, APART = "[CLS]", "[SEP]"
LONGEST = 2  # words of an answer


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 5
    """Networks."""
    examples: int = 4000
    """Questions to learn from, each with a passage of its own."""
    tested: int = 600
    """Questions of the test."""
    people: int = 2
    """People in a passage, each with three facts."""
    features: int = 48
    """Features of BERT."""
    layers: int = 2
    """Blocks."""
    epochs: int = 16
    """Epochs of training."""
    rate: float = 0.003
    """Learning rate of Adam after a warm-up of a tenth of the steps; then it falls to 0 along a cosine."""


QUICK = Config(examples=2000, tested=300, people=1, features=32, epochs=10)
TINY = Config(seeds=2, examples=60, tested=30, people=1, features=8, layers=1, epochs=1)


def encoded(questions: list[jn.data.Question], words: dict[str, int], length: int) -> tuple[Any, Any]:
    """Return words and types as BERT reads them, `(tokens, types)`, and where answers begin and end `(batch, 2)`."""
    rows = [[START, *each.question.split(), APART, *each.passage.split(), APART] for each in questions]
    before = np.array([len(each.question.split()) + 2 for each in questions])
    spans = np.array([each.word_span for each in questions]) + before[:, None] - [0, 1]
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = np.array([[words[word] for word in row] + [0] * (length - len(row)) for row in rows], np.int32)
    types = (np.arange(length)[None] >= before[:, None]).astype(np.int32)
    return (jn.Padded(tokens, lengths), jn.Padded(types, lengths)), spans.astype(np.int32)


def network(vocabulary: int, length: int, config: Config) -> jn.Net:
    """Return BERT with its span head: logits of the first and the last word over time, `(batch, 2, time)`."""
    bert = jn.models.bert(
        head="span", vocabulary=vocabulary, length=length, layers=config.layers, heads=4, features=config.features
    )

    def over_time(y: jn.Padded) -> jax.Array:
        return jnp.where(y.mask[..., None], y.values, -1e9).swapaxes(1, 2)

    ends = jn.Net(lambda key, x: ({}, {}), lambda params, state, x, **_: (over_time(x), state), "over_time")
    return jn.serial(bert=bert, ends=ends)


def run(config: Config) -> Results:
    """Train, mark answers in unseen passages, and score them by kind of question."""
    questions = jn.data.table_questions(config.examples, people=config.people, seed=0)
    tests = jn.data.table_questions(config.tested, people=config.people, seed=1)
    seen = {(each.passage, each.question) for each in questions}
    tests = [each for each in tests if (each.passage, each.question) not in seen]
    texts = [f"{each.question} {each.passage}".split() for each in questions + tests]
    words = {word: k for k, word in enumerate([START, APART, *sorted({word for text in texts for word in text})])}
    length = max(map(len, texts)) + 3
    data, (x, _) = encoded(questions, words, length), encoded(tests, words, length)
    net, steps = network(len(words), length, config), config.epochs * -(-config.examples // 50)

    def trial(hp: dict[str, Any]) -> jn.train.Program:
        rate = optax.warmup_cosine_decay_schedule(0.0, config.rate, steps // 10, steps)
        return jn.train.program(
            net, jn.objective(jn.losses.sequence(jn.losses.cross_entropy)),
            optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)), data, epochs=config.epochs, batch_size=50,
        )  # fmt: skip

    result = jn.sweeps.sweep(trial, seeds=config.seeds, strategy="map")
    ends = jax.jit(lambda params: jax.lax.map(lambda p: best_spans(net.apply(p, {}, x)[0]), params))
    spans = np.asarray(ends(result.runs.params))  # (seeds, questions, 2)
    kinds = np.array([KINDS.index(each.kind) for each in tests])
    answers = [each.answer for each in tests]
    found: Results = {"loss": result.history["loss"], "kinds": KINDS, "exact": {}, "f1": {}}
    given = {"BERT": [marked(each, tests) for each in spans], "matching words": [[matched(each) for each in tests]]}
    for name, rows in given.items():
        scores = [jn.metrics.squad(row, answers, by_question=True) for row in rows]
        for key, values in (("exact", [each.exact_match for each in scores]), ("f1", [each.f1 for each in scores])):
            found[key][name] = np.stack([np.asarray(values)[:, kinds == k].mean(1) for k in range(len(KINDS))], 1)
    firsts = [int(np.flatnonzero(kinds == kind)[0]) for kind in range(len(KINDS)) if (kinds == kind).any()]
    found["samples"] = [[tests[k].passage, tests[k].question, answers[k], *(rows[0][k] for rows in given.values())]
                        for k in firsts]  # fmt: skip
    return found


def best_spans(logits: jax.Array) -> jax.Array:
    """Return the first and last word with the greatest sum of logits, at most `LONGEST` apart, `(batch, 2)`."""
    first, last = logits[:, 0], logits[:, 1]
    sums = jnp.stack([first + jnp.roll(last, -more, 1) for more in range(LONGEST)], 1)  # (batch, LONGEST, time)
    sums = jnp.where(jnp.arange(sums.shape[2])[None, None] + LONGEST <= sums.shape[2], sums, -jnp.inf)
    best = sums.reshape(len(sums), -1).argmax(1)
    more, begin = jnp.divmod(best, sums.shape[2])
    return jnp.stack([begin, begin + more], 1)


def marked(spans: np.ndarray, questions: list[jn.data.Question]) -> list[str]:
    """Return the words of each passage from the first to the last that is marked; "" outside of the passage."""
    texts = []
    for (begin, end), each in zip(spans, questions, strict=True):
        before = len(each.question.split()) + 2
        texts.append(" ".join(each.passage.split()[begin - before : end + 1 - before]) if begin >= before else "")
    return texts


def matched(question: jn.data.Question) -> str:
    """Return an answer without learning: from the sentence that shares most words with the question."""
    asked = question.question.split()[:-1]
    sentences = [text.split() for text in question.passage.removesuffix(" .").split(" . ")]
    best = max(sentences, key=lambda words: len({*words} & {*asked}))
    left = [word for word in best if word not in asked]
    names = [word for word in left if word in NAMES]
    return names[0] if asked[0] == "who" and names else left[-1] if left else best[-1]


def figure(results: Results) -> "Figure":
    """Draw exact match by kind of question, the loss, and some answers."""
    drawn, (scores, loss, page) = panels(3, width=4.2, height=3.2)
    rows = {name: np.broadcast_to(each, (max(2, len(each)), len(results["kinds"])))
            for name, each in results["exact"].items()}  # fmt: skip
    compared(scores, results["kinds"], rows)
    finish(scores, "Questions about unseen passages", "exact match, %")
    line(loss, range(1, np.shape(results["loss"])[1] + 1), results["loss"], "BERT", 0)
    finish(loss, "Learning", "epoch", "cross entropy of an end", legend=False)
    page.set_axis_off()
    import textwrap

    lines = [f"{textwrap.fill(passage, 62)}\nQ: {question}\n   BERT: {bert}; words: {other}; right: {answer}"
             for passage, question, answer, bert, other in results["samples"]]  # fmt: skip
    page.text(0, 1, "\n\n".join(lines), va="top", fontsize=6.5, family="monospace", transform=page.transAxes,
              in_layout=False)  # fmt: skip
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by exact match, over kinds and for two facts."""
    exact = {name: np.asarray(each) for name, each in results["exact"].items()}
    bert, counted = exact["BERT"], exact["matching words"][0]
    f1 = np.asarray(results["f1"]["BERT"])
    one, two = bert[:, :2].mean(1), bert[:, 2]
    return judge(
        above("exact match, mean of the kinds, BERT less matching words", bert.mean(1) - counted.mean(), 10, "%"),
        above("exact match of questions of one fact, BERT", one, 90, "%"),
        above("exact match, one fact less two facts", one - two, 0, "%"),
        above("exact match of two facts, BERT less matching words", two - counted[2], 10, "%", core=False),
        above("exact match of two facts, BERT", two, 90, "%", core=False),
        above("F1 less exact match, mean of the kinds", f1.mean(1) - bert.mean(1), 0, "%", core=False),
    )
