"""A sweep of 168 networks: learning rate and weight penalty of an MLP on handwritten digits.

    python -m experiments.sweep_digits [folder]    # writes sweep-lr.png and sweep-epochs.png there

Half a minute on two cores. Nothing is downloaded.
"""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from jaxnets.plot.style import bootstrap


def main(folder: Path) -> jn.sweeps.SweepResult:
    """Train, print what was found, and draw it."""
    images, labels = jn.data.digits()
    split = jn.data.split_indices(labels, (0.6, 0.2, 0.2))
    train, validation, test = [(images[part].reshape(len(part), -1), labels[part]) for part in split]
    net = jn.serial(jn.dense(64), jax.nn.relu, out=jn.dense(10))

    def trial(hp: dict[str, jax.Array]) -> jn.train.Program:
        return jn.train.program(
            net,
            jn.objective(jn.losses.cross_entropy, jn.regularizers.l2(hp["l2"], on="**/kernel")),
            optax.adam(hp["lr"]),
            train,
            epochs=30,
            batch_size=32,
            validation=validation,
            metrics={"accuracy": jn.metrics.accuracy},
            stopping=jn.train.early_stopping("validation/loss", patience=5),
        )

    began = time.perf_counter()
    grid = {"lr": np.logspace(-4, -1, 7), "l2": [0.0, 1e-4, 1e-3]}
    result = jn.sweeps.sweep(trial, seeds=8, grid=grid, strategy="vmap", progress=True)
    seconds = time.perf_counter() - began
    best = result.best("validation/accuracy")
    tested = [jax.jit(accuracy, static_argnums=0)(net, result.run(number), test) for number in best.trials]
    mean, low, high = bootstrap(100 * np.array(tested))
    shown = ", ".join(f"{name} {value:.2g}" for name, value in best.hp.items())
    print(f"\n{len(result)} networks in {seconds:.0f} s")
    print(f"best on average    {shown}: validation accuracy {100 * best.value:.2f} %")
    print(f"its test accuracy  {mean:.2f} % ({low:.2f} to {high:.2f}; {len(tested)} seeds, {len(test[1])} digits)")
    for name, figure in (
        ("sweep-lr", result.plot("lr", "validation/accuracy")),
        ("sweep-epochs", result.plot("epoch", "validation/loss")),
    ):
        figure.savefig(folder / f"{name}.png")
        print(f"written: {folder / name}.png")
    return result


def accuracy(net: jn.Net, train_state: jn.train.TrainState, data: tuple) -> jax.Array:
    """Return the accuracy of a trained network on data."""
    data = jax.tree.map(jnp.asarray, data)
    return jn.evaluate(net, train_state, data, {"accuracy": jn.metrics.accuracy})["accuracy"]


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
