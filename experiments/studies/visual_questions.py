"""Questions about pictures: a network that looks by the question, against one that reads a single vector of it.

Sort-of-CLEVR: six squares and circles, each of another color, and questions about one of them (its shape, its side) or
about how it relates to the others (the shape of the closest, of the farthest, how many are alike). Three networks share
the convolutions at their start. One reads the picture by attention in two steps, one modulates its channels by
the question (FiLM), and the baseline joins one vector of the picture with the question. The pictures are of 32 × 32
pixels, smaller than the authors' 75 × 75, with objects larger for their size, and there are fewer of them than the
authors' 9,800. Ten epochs are few: the loss still falls at their end, so a claim that is not confirmed here is not
refuted for longer training.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import COLORS, finish, line, panels
from experiments.framework.study import About, Results, Verdict, above, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Questions about pictures",
    claim="A network that looks by the question answers more than one that reads a single vector, also on relations.",
    source="Santoro et al. (2017); Perez et al., FiLM (2018); Yang et al., Stacked Attention Networks (2016)",
    refuted_by="a network that reads a single vector of the picture and answers as many unseen questions.",
    data="Sort-of-CLEVR generated at 32×32 pixels: 2,500 pictures with 12 questions each, 500 for the test",
    minutes=2.0,
    reservations=(
        "Training is short, a tenth of the pictures that Santoro et al. show, and the loss still falls at its "
        "end; none of the readers was tuned, and FiLM has fewer features."
    ),
    concepts=("jn.models.visual_questions", "jn.film", "jn.data.sort_of_clevr"),
)
READERS: dict[str, Literal["attention", "film", "plain"]] = {
    "attention": "attention",
    "FiLM": "film",
    "one vector": "plain",
}
HEADS = 4
ANSWERS = ["yes", "no", "square", "circle", *"123456"]
PAINTS = ["red", "blue", "green", "orange", "yellow", "gray"]
QUESTIONS = [
    *("shape of {}?", "{} on the left?", "{} on top?"),
    *("shape closest to {}?", "shape farthest from {}?", "how many shaped as {}?"),
]


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 5
    """Networks of each kind."""
    pictures: int = 2500
    """Pictures to train on."""
    tests: int = 500
    """Pictures for the test."""
    questions: int = 6
    """Questions of each type about each picture."""
    epochs: int = 10
    """Epochs of training."""
    rate: float = 0.003
    """The highest learning rate of Adam."""
    features: int = 48
    """Features of the reader; FiLM has a third of them, as its blocks cost more."""
    widths: tuple[int, ...] = (16, 32)
    """Channels of the convolutions; FiLM has one convolution more, as wide as the last."""
    shown: int = 3
    """Pictures shown in the figure."""


QUICK = Config(seeds=2, pictures=1000, tests=200, epochs=6)
TINY = Config(seeds=2, pictures=50, tests=20, questions=2, epochs=1, features=12, widths=(2, 4), shown=1)


def run(config: Config) -> Results:
    """Train all kinds on the same pictures."""
    train = jn.data.sort_of_clevr(config.pictures, questions=config.questions)
    test = jn.data.sort_of_clevr(config.tests, questions=config.questions, seed=1)
    steps = config.epochs * -(-config.pictures // 50)
    rates = optax.warmup_cosine_decay_schedule(0.0, config.rate, steps // 10, steps)
    (images, questions), answers = test
    # (tests, questions): which of the six kinds of questions
    kind = 3 * questions[..., 7].astype(int) + questions[..., 8:].argmax(-1)
    few = slice(config.shown)
    found: Results = {"right": {}, "by kind": {}, "loss": {}, "shares": [], "said": {}, "parameters": {}}
    for name, reader in READERS.items():
        film = reader == "film"
        net = jn.models.visual_questions(
            len(ANSWERS), reader, features=config.features // (1 + 2 * film), heads=HEADS,
            widths=(*config.widths, *config.widths[-1:] * film),
        )  # fmt: skip

        def trial(hp: dict[str, Any], net: jn.Net = net) -> jn.train.Program:
            return jn.train.program(
                net, jn.objective(jn.losses.cross_entropy),
                optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rates)), train, epochs=config.epochs,
                batch_size=50,
            )  # fmt: skip

        result = jn.sweeps.sweep(trial, seeds=config.seeds, trials=[{}], strategy="map")

        def said(params: Any, net: jn.Net = net) -> jax.Array:
            return net.apply(params, {}, (images, questions))[0].argmax(-1)

        guesses = np.asarray(jax.jit(lambda runs: jax.lax.map(said, runs))(result.runs.params))
        right = guesses == answers
        found["by kind"][name] = np.stack([100 * right[:, kind == each].mean(1) for each in range(6)], 1)
        found["right"][name] = np.stack([100 * right[:, kind // 3 == each].mean(1) for each in (0, 1)], 1)
        found["loss"][name] = result.history["loss"].reshape(config.seeds, -1)
        found["said"][name] = guesses[0, few]
        first = jax.tree.map(lambda leaf: leaf[0], result.runs.params)
        found["parameters"][name] = jn.inspect.count_parameters(first)
        if reader == "attention":
            looks = [shares(net, first, (images[few], questions[few]), step) for step in (1, 2)]
            # (steps, pictures, questions, places), the mean over heads
            found["shares"] = np.round(np.stack(looks), 3)
    common = [100 * np.bincount(answers[kind == each]).max() / (kind == each).sum() for each in range(6)]
    return found | {
        "most common answer": common,
        "pictures": np.round(images[few], 2),
        "asked": [[QUESTIONS[k].format(PAINTS[c]) for k, c in zip(*pair, strict=True)]
                  for pair in zip(kind[few], questions[few, :, :6].argmax(-1), strict=True)],
        "answers": answers[few],
    }  # fmt: skip


def shares(net: jn.Net, params: Any, x: Any, step: int) -> np.ndarray:
    """Return how much each question reads of each place in a step, `(pictures, questions, places)`."""
    query, key = (
        np.asarray(net.upto(f"attention{step}/{name}").apply(params, {}, x)[0], float) for name in ("query", "key")
    )
    query, key = (each.reshape(*each.shape[:2], HEADS, -1) for each in (query, key))
    scores = np.einsum("bqhw,bphw->bhqp", query, key) / query.shape[-1] ** 0.5
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return (powers / powers.sum(-1, keepdims=True)).mean(1)


def figure(results: Results) -> "Figure":
    """Draw accuracy by kind of question, losses, and where the questions look."""
    count = len(results["pictures"])
    drawn, (left, middle, *looks) = panels(1 + count, 2, width=3.4, height=3.4)
    for place, (name, values) in enumerate(results["by kind"].items()):
        line(left, [each.format("it") for each in QUESTIONS], values, name, place, linestyle="none")
        line(middle, range(1, np.shape(results["loss"][name])[1] + 1), results["loss"][name], name, place)
    left.plot(range(6), results["most common answer"], "_", color=COLORS[-1], markersize=12, label="most common answer")
    left.set_xticks(range(6), [each.format("it") for each in QUESTIONS], rotation=30, ha="right")
    finish(left, "Unseen pictures", "", "right answers, %")
    finish(middle, "Learning", "epoch", "cross entropy", legend=False)
    for place in range(count):
        image, half = np.asarray(results["pictures"][place]), len(results["answers"][place]) // 2
        for axes, question in zip(looks[2 * place : 2 * place + 2], (0, half), strict=True):
            shares = np.asarray(results["shares"])[:, place, question].max(0)
            side = round(len(shares) ** 0.5)
            large = np.kron(shares.reshape(side, side), np.ones((image.shape[0] // side,) * 2))
            axes.imshow(image * (0.3 + 0.7 * (large / large.max())[..., None]), vmin=0, vmax=1)
            said = ", ".join(f"{name} {ANSWERS[each[place][question]]}" for name, each in results["said"].items())
            truth = ANSWERS[results["answers"][place][question]]
            finish(axes, f"{results['asked'][place][question]} {truth}", said.replace(", one", ",\none"), legend=False)
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by the answers to unseen questions, paired by seed."""
    right = {name: np.asarray(each) for name, each in results["right"].items()}
    plain = right["one vector"]
    return judge(
        above("not relational, attention less one vector", right["attention"][:, 0] - plain[:, 0], 5, "%"),
        above("relational, attention less one vector", right["attention"][:, 1] - plain[:, 1], 5, "%"),
        above("not relational, FiLM less one vector", right["FiLM"][:, 0] - plain[:, 0], 5, "%", core=False),
        above("relational, FiLM less one vector", right["FiLM"][:, 1] - plain[:, 1], 5, "%", core=False),
        above("not relational, attention", right["attention"][:, 0], 95, "%", core=False),
        above("relational, attention", right["attention"][:, 1], 90, "%", core=False),
        above("not relational, FiLM", right["FiLM"][:, 0], 95, "%", core=False),
        above("relational, FiLM", right["FiLM"][:, 1], 90, "%", core=False),
    )
