"""Ways to search for hyperparameters at equal cost, and how optimistic the winner's validation accuracy is.

Learning rate, L2 penalty and dropout of a small network of handwritten digits: all combinations of many values are
trained once, in one sweep, for several draws of the data. A search then looks results up: a grid, random draws and
Optuna's tree-structured Parzen estimator (TPE) with the same number of trials, and successive halving with the same
number of epochs. Each is repeated many times; its choice by 100 validation digits is judged by 600 others.
"""

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
    title="Search for hyperparameters",
    claim="At equal cost random search beats a grid, TPE and halving beat random; the winner's validation flatters it.",
    source="Bergstra and Bengio (2012); Bergstra et al. (2011); Jamieson and Talwalkar (2016); Cawley, Talbot (2010)",
    refuted_by="a grid whose choice tests as well as random search's, or a winner that tests as it was validated.",
    data="1,797 handwritten digits of 8×8 pixels (scikit-learn): 500 to learn from, 100 to choose by, 600 for the test",
    minutes=2.5,
    concepts=("jn.sweeps.sweep", "jn.sweeps.search", "jn.sweeps.halving", "jn.regularizers.l2", "jn.dropout"),
)


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 20
    """Draws of the data."""
    values: tuple[int, int, int] = (15, 6, 6)
    """How many values learning rate, penalty and dropout have."""
    side: int = 3
    """Values of each on a grid; a search has side³ trials."""
    epochs: int = 9
    """Epochs of training, a power of 3."""
    searches: int = 20
    """Searches by each method on each draw."""


QUICK = Config(seeds=8, values=(12, 4, 4), searches=8)
TINY = Config(seeds=2, values=(4, 2, 2), side=2, epochs=3, searches=2)


def run(config: Config) -> Results:
    """Train every combination, and search among them."""
    validation, test = bank(config)
    seeds = np.arange(config.seeds * config.searches).reshape(config.seeds, -1).tolist()
    methods = {"grid": grid, "random": random, "TPE": tpe, "halving": halving}
    found: Results = {"validation": {}, "test": {}, "trials": list(range(1, config.side**3 + 1))}
    for name, method in methods.items():
        chosen = [[method(validation[k], config, seed) for seed in seeds[k]] for k in range(config.seeds)]
        for kind, values in (("validation", validation), ("test", test)):
            found[kind][name] = [np.mean([values[k][at][-1] for at in each]) for k, each in enumerate(chosen)]
    so_far = {"validation": validation, "test": test}
    found["so far"] = {kind: np.zeros((config.seeds, config.side**3)) for kind in so_far}
    for k in range(config.seeds):
        for seed in seeds[k]:
            places = draws(validation[k], config.side**3, seed)
            final = validation[k].reshape(-1, config.epochs)[places, -1]
            best = [places[final[: n + 1].argmax()] for n in range(len(places))]
            for kind, values in so_far.items():
                found["so far"][kind][k] += values[k].reshape(-1, config.epochs)[best, -1] / config.searches
    found["so far"] = {kind: np.round(each, 3) for kind, each in found["so far"].items()}
    found["best"] = test[..., -1].reshape(config.seeds, -1).max(1)
    return found


def bank(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Return validation and test accuracy, in percent, of every combination: `(draws, rates, …, epochs)` each."""
    images, labels = jn.data.digits()
    x, shuffled = images.reshape(len(images), -1), np.random.default_rng(0)
    order = np.stack([shuffled.permutation(len(x)) for _ in range(config.seeds)])
    marked = labels + 10 * (np.arange(len(x)) >= 600)[np.argsort(order)]  # (draws, examples): 10 and more is for tests
    accuracy = jn.metrics.accuracy

    def among(tests: bool) -> jn.metrics.Metric:
        def measure(outputs: Any, y: Any, weights: Any) -> Any:
            return accuracy.measure(outputs, y % 10, weights * ((y >= 10) == tests))

        return jn.metrics.Metric(measure, accuracy.value, "accuracy")

    def trial(hp: dict[str, Any]) -> jn.train.Program:
        def those(first: int, end: int) -> tuple[jax.Array, jax.Array]:
            places = jnp.asarray(order)[hp["draw"], first:end]
            return jnp.asarray(x)[places], jnp.asarray(marked)[hp["draw"]][places]

        net = jn.serial(jn.dense(32), jax.nn.relu, jn.dropout(hp["dropout"]), out=jn.dense(10))

        def loss(outputs: Any, y: Any) -> jax.Array:
            return jn.losses.cross_entropy(outputs, y % 10)

        return jn.train.program(
            net, jn.objective(loss, jn.regularizers.l2(hp["l2"])), optax.sgd(hp["rate"], momentum=0.9), those(0, 500),
            epochs=config.epochs, batch_size=50, validation=those(500, 1200),
            metrics={"own": among(False), "tested": among(True)},
        )  # fmt: skip

    rates, penalties, dropouts = config.values
    axes = {"rate": np.geomspace(1e-3, 1, rates), "l2": np.geomspace(1e-5, 1e-1, penalties),
            "dropout": np.linspace(0, 0.8, dropouts), "draw": np.arange(config.seeds)}  # fmt: skip
    history = jn.sweeps.sweep(trial, grid=axes, strategy="vmap", chunk=1024).history
    found = (history[f"validation/{name}"] for name in ("own", "tested"))
    own, tested = (np.nan_to_num(100 * each).reshape(*config.values, config.seeds, -1) for each in found)
    return np.moveaxis(own, 3, 0), np.moveaxis(tested, 3, 0)


def draws(bank: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return places in the bank drawn at random, none twice."""
    size = int(np.prod(bank.shape[:3]))
    return np.random.default_rng(seed).permutation(size)[:count]


def best_of(bank: np.ndarray, places: np.ndarray, epochs: int, count: int = 1) -> np.ndarray:
    """Return those of some places that are best after some epochs, best first."""
    values = bank.reshape(-1, bank.shape[3])[places, epochs - 1]
    return places[np.argsort(-values, kind="stable")[:count]]


def grid(bank: np.ndarray, config: Config, seed: int) -> Any:
    """Return the best of evenly spaced values, whose offset is drawn."""
    drawn, axes = np.random.default_rng(seed), []
    for size in bank.shape[:3]:
        stride = size // config.side
        axes.append(drawn.integers(stride) + stride * np.arange(config.side))
    places = np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), bank.shape[:3]).ravel()
    return np.unravel_index(best_of(bank, places, config.epochs)[0], bank.shape[:3])


def random(bank: np.ndarray, config: Config, seed: int) -> Any:
    """Return the best of as many draws."""
    places = draws(bank, config.side**3, seed)
    return np.unravel_index(best_of(bank, places, config.epochs)[0], bank.shape[:3])


def tpe(bank: np.ndarray, config: Config, seed: int) -> Any:
    """Return the best of as many suggestions of Optuna's, each told how the ones before did."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    asked = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    integers = optuna.distributions.IntDistribution
    space: dict[str, Any] = {f"{k}": integers(0, size - 1) for k, size in enumerate(bank.shape[:3])}
    places = []
    for _ in range(config.side**3):
        trial = asked.ask(space)
        places.append(tuple(trial.params.values()))
        asked.tell(trial, bank[places[-1]][-1])
    return max(places, key=lambda at: bank[at][-1])


def halving(bank: np.ndarray, config: Config, seed: int) -> Any:
    """Return the winner of successive halving by thirds, as `jn.sweeps.halving` does it, with no more epochs in all."""
    rungs = 3 ** np.arange(round(np.log(config.epochs) / np.log(3)) + 1)
    spent = np.diff(rungs, prepend=0) / rungs  # epochs a rung costs for each that begins
    places = draws(bank, int(config.side**3 * config.epochs / spent.sum()), seed)
    for rung in rungs[:-1]:
        places = best_of(bank, places, rung, max(len(places) // 3, 1))
    return np.unravel_index(best_of(bank, places, config.epochs)[0], bank.shape[:3])


def figure(results: Results) -> "Figure":
    """Draw what each method's choice is worth, and how validation and test part as trials are made."""
    drawn, (left, right) = panels(2, width=5, height=3.4)
    bars(left, [*results["test"], "best of all by test"], np.transpose([*results["test"].values(), results["best"]]))
    for place, (kind, values) in enumerate(results["so far"].items()):
        line(right, results["trials"], values, kind, place)
    right.set_ylim(80, 97)
    finish(left, "What was chosen", "test accuracy, %")
    finish(right, "Best of random trials by validation", "trials", "accuracy, %")
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by the test accuracy of what was chosen, and by how far validation is above it."""
    test, validation = ({name: np.asarray(each) for name, each in results[kind].items()} for kind in
                        ("test", "validation"))  # fmt: skip
    optimism = np.subtract(*(np.asarray(results["so far"][kind]) for kind in ("validation", "test")))
    return judge(
        above("test accuracy of what was chosen, random less grid", test["random"] - test["grid"], 0, "%"),
        above("the same, TPE less random", test["TPE"] - test["random"], 0, "%"),
        above("the same, halving less random", test["halving"] - test["random"], 0, "%"),
        above("random: validation less test accuracy of the winner", optimism[:, -1], 0, "%"),
        above("the same, less that of a single trial", optimism[:, -1] - optimism[:, 0], 0, "%"),
        above("validation accuracy of the winner, TPE less random", validation["TPE"] - validation["random"], 0, "%",
              core=False),
    )  # fmt: skip
