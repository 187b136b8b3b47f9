"""Gates let a recurrent network remember over many steps; a forget gate that begins open lets it learn that sooner.

The adding problem: two numbers of a sequence are marked, and the network outputs their sum at the end. Elman's cell,
the LSTM and the GRU learn it at several lengths, in one program per cell (zeros in front pad shorter sequences). Before
training, it is measured how far back the gradient of the answer reaches. Then the three classify nine speakers by a
vowel of at most 29 steps.
"""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import bars, finish, line, panels
from experiments.framework.study import About, Results, Verdict, above, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Memory of recurrent networks",
    claim="A plain RNN loses what lies many steps back; LSTM and GRU keep it, an LSTM the better with a forget bias.",
    source="Hochreiter and Schmidhuber (1997); Cho et al. (2014); Jozefowicz, Zaremba and Sutskever (2015)",
    refuted_by="a plain RNN that adds over 40 steps as well as an LSTM, or a forget bias that gains nothing.",
    data="the adding problem, 2,000 rows of each length; JapaneseVowels, 270 utterances of nine men, 370 for the test",
    minutes=3.5,
    concepts=("jn.models.rnn", "jn.models.lstm", "jn.models.gru", "jn.lstm_cell", "jn.data.adding"),
)
GUESSING = 1 / 6  # the mean squared error of who always answers 1


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 8
    """Networks of each kind."""
    lengths: tuple[int, ...] = (5, 15, 40)
    """Lengths of the sequences to add; the last is judged, and used for forget biases and gradients."""
    rates: tuple[float, ...] = (0.003, 0.01)
    """Learning rates tried for each cell and length; the better counts. The last is that of the forget biases."""
    biases: tuple[float, ...] = (-2.0, 0.0, 1.0, 3.0)
    """Initial forget-gate biases of the LSTM; elsewhere it is 1."""
    width: int = 16
    """Units of a cell."""
    examples: int = 2000
    """Sequences of each length."""
    epochs: int = 12
    """Epochs of training on sums."""
    cells: tuple[str, ...] = ("RNN", "LSTM", "GRU")
    """The cells that learn to add; the LSTM is one of them."""
    vowel_cells: tuple[str, ...] = ("RNN", "LSTM", "GRU")
    """The cells that learn vowels."""
    vowel_epochs: int = 40
    """Epochs of training."""


QUICK = Config(
    lengths=(10, 30), rates=(0.01,), biases=(0.0, 1.0), examples=1000, epochs=10, cells=("RNN", "LSTM"), vowel_cells=()
)
TINY = Config(
    seeds=2, lengths=(3, 5), rates=(0.01,), biases=(0.0, 1.0), width=4, examples=100, epochs=1, cells=("LSTM",),
    vowel_cells=(),
)  # fmt: skip


def network(name: str, width: int, bias: Any = 1.0, **answer: Any) -> jn.Net:
    """Return a network with one recurrent cell."""
    if name == "LSTM":
        return jn.models.lstm(width, **answer, cell=functools.partial(jn.lstm_cell, forget_bias=bias))
    return (jn.models.rnn if name == "RNN" else jn.models.gru)(width, **answer)


def run(config: Config) -> Results:
    """Learn to add at every length, measure gradients, and learn vowels."""
    train, test = rows(config, config.examples, 0), rows(config, 500, 1)
    longest, usual = len(config.lengths) - 1, config.rates[-1]
    found: Results = {"lengths": config.lengths, "biases": config.biases, "skill": {}, "curves": {}}
    for name in config.cells:

        def trial(hp: dict[str, Any], name: str = name) -> jn.train.Program:
            own, unseen = ((x[hp["which"]], y[hp["which"]]) for x, y in (train, test))
            return jn.train.program(
                network(name, config.width, hp["bias"], num_outputs=1), jn.objective(jn.losses.squared_error),
                optax.chain(optax.clip_by_global_norm(1.0), optax.adam(hp["rate"])), own,
                epochs=config.epochs, batch_size=50, validation=unseen,
            )  # fmt: skip

        trials = [{"which": k, "rate": rate, "bias": 1.0} for k in range(longest + 1) for rate in config.rates]
        biased = [{"which": longest, "rate": usual, "bias": bias} for bias in config.biases] if name == "LSTM" else []
        result = jn.sweeps.sweep(trial, seeds=config.seeds, trials=trials + biased, strategy="map")
        skill = 100 * (1 - result.history["validation/loss"] / GUESSING)  # (trials × seeds, epochs)
        skill = skill.reshape(-1, config.seeds, config.epochs)
        adding = skill[: len(trials)].reshape(longest + 1, len(config.rates), config.seeds, -1)
        best = adding[..., -1].mean(-1).argmax(1)
        found["skill"][name] = np.stack([each[place, :, -1] for each, place in zip(adding, best, strict=True)], 1)
        if biased:
            found["curves"] = {f"{bias:g}": each for bias, each in zip(config.biases, skill[len(trials) :])}
    found["gradients"] = gradients(test[0][longest, :100], config)
    found["vowels"] = {name: vowels(name, config) for name in config.vowel_cells}
    return found


def rows(config: Config, examples: int, seed: int) -> tuple[jax.Array, jax.Array]:
    """Return rows and sums of every length, `(lengths, examples, longest, 2)` and `(lengths, examples, 1)`."""
    sets = [jn.data.adding(examples, length, seed=seed) for length in config.lengths]
    padded = [np.pad(x, ((0, 0), (config.lengths[-1] - x.shape[1], 0), (0, 0))) for x, _ in sets]
    return jnp.asarray(np.stack(padded)), jnp.asarray(np.stack([y[:, None] for _, y in sets]))


def gradients(x: jax.Array, config: Config) -> dict[str, jax.Array]:
    """Return, before training, the mean norm of the answer's gradient by each step's input `(seeds, steps)`."""

    def norms(key: jax.Array, name: str, bias: Any) -> jax.Array:
        net = network(name, config.width, bias, num_outputs=1)
        params, state = net.init(key, x)
        gradient = jax.grad(lambda x: net.apply(params, state, x)[0].sum())(x)
        return jnp.linalg.norm(gradient, axis=-1).mean(0)

    @jax.jit
    def measured(keys: jax.Array, biases: jax.Array) -> dict[str, Any]:
        of = {name: jax.vmap(lambda key, bias, name=name: norms(key, name, bias), (0, None)) for name in config.cells}
        biased = {"LSTM": jax.vmap(of["LSTM"], (None, 0))(keys, biases)}
        return {name: of[name](keys, 1.0) for name in of if name != "LSTM"} | biased

    found = measured(jax.random.split(jax.random.key(0), config.seeds), jnp.asarray(config.biases))
    biased = zip(config.biases, found.pop("LSTM"), strict=True)
    return found | {f"LSTM, bias {bias:g}": each for bias, each in biased}


def vowels(name: str, config: Config) -> np.ndarray:
    """Return the test accuracy of each seed on JapaneseVowels, in percent."""
    train, test = jn.data.japanese_vowels()

    def trial(hp: dict[str, Any]) -> jn.train.Program:
        return jn.train.program(
            network(name, 2 * config.width, num_classes=9), jn.objective(jn.losses.cross_entropy),
            optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01)), train, epochs=config.vowel_epochs,
            batch_size=30, validation=test, metrics={"accuracy": jn.metrics.accuracy},
        )  # fmt: skip

    return 100 * jn.sweeps.sweep(trial, seeds=config.seeds, strategy="map").history["validation/accuracy"][:, -1]


def figure(results: Results) -> "Figure":
    """Draw what is learned by length, the forget biases, gradients through time, and vowels."""
    drawn, (skill, biases, reach, vowel) = panels(2, 2, width=3.9, height=2.6)
    for place, (name, values) in enumerate(results["skill"].items()):
        line(skill, results["lengths"], values, name, place)
    skill.set_xscale("log")
    skill.set_xticks(results["lengths"], results["lengths"])
    skill.minorticks_off()
    names = ("RNN", "LSTM, bias 1", "GRU")
    others = [name for name in results["gradients"] if name not in names]
    for place, name in enumerate((*names, *others)):
        if name in results["gradients"]:
            values = results["gradients"][name]
            line(reach, np.arange(np.shape(values)[1])[::-1], values, name, place)
        if (bias := name.removeprefix("LSTM, bias ")) in results["curves"]:
            values = results["curves"][bias]
            line(biases, range(1, np.shape(values)[1] + 1), values, f"bias {bias}", place)
    reach.set_yscale("log")
    if results["vowels"]:
        bars(vowel, list(results["vowels"]), np.transpose(list(results["vowels"].values())))
    longest, explained = results["lengths"][-1], "variance explained, %"
    finish(skill, "Adding two numbers of a row", "length of the row, steps", explained)
    finish(biases, f"LSTM by forget-gate bias, {longest} steps", "epoch", explained)
    finish(reach, "Gradient before training", "steps before the answer", "norm of the answer's gradient")
    finish(vowel, "Nine men told apart by a vowel", "test accuracy, %")
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge at the longest rows, by how much of the sums' variance is explained, and by how far gradients reach."""
    skill = {name: np.asarray(each) for name, each in results["skill"].items()}
    last, (first, *_, longest) = {name: each[:, -1] for name, each in skill.items()}, results["lengths"]
    curves = {name: np.asarray(each).mean(1) for name, each in results["curves"].items()}
    kept = {name: np.maximum(each, 1e-30) for name, each in results["gradients"].items()}  # some fall to zero
    fall = {name: np.log10(each[:, 0] / each[:, -1]) for name, each in kept.items()}
    accuracy = {name: np.asarray(each) for name, each in results["vowels"].items()}
    wide, plain, among = f"LSTM, bias {results['biases'][-1]:g}", last.get("RNN"), []
    if plain is not None:
        among = [
            *(above(f"adding over {longest} steps, variance explained, {name} less RNN", last[name] - plain, 25, "%")
              for name in last if name != "RNN"),
            above(f"RNN, over {first} steps less over {longest}", skill["RNN"][:, 0] - plain, 25, "%"),
            above("gradient by the first step over that by the last, log10, LSTM with bias 1 less RNN",
                  fall["LSTM, bias 1"] - fall["RNN"], 0, core=False),
        ]  # fmt: skip
    return judge(
        *among,
        above("forget bias 1 less 0, variance explained, mean over epochs", curves["1"] - curves["0"], 0, "%"),
        above(f"gradient by the first step over that by the last, log10, {wide} less 0",
              fall[wide] - fall["LSTM, bias 0"], 1),
        *(above(f"vowels, test accuracy, {name} less RNN", accuracy[name] - accuracy["RNN"], 0, "%", core=False)
          for name in accuracy if name != "RNN"),
    )  # fmt: skip
