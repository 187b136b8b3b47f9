"""An epoch of training with and without a compiler option: whether the option pays.

    python -m experiments.benchmarks.compiler_options [NAME ...] [--rounds 5] [--step]

Milliseconds a step, as XLA compiles by itself and with every convolution left to Eigen in place of YNNPACK, and the
ratio of the medians with its 95 % interval: above 1 the option pays. With `--step` a single step is compiled, outside
any loop.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnets as jn
from experiments.benchmarks import ours
from experiments.benchmarks.peers import stepping
from experiments.benchmarks.rows import training
from experiments.benchmarks.timing import interleaved, ratio, timed
from experiments.benchmarks.work import Work

EIGEN = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}

# What is trained, and the number of steps per epoch.
WORKS: dict[str, tuple[Callable[[], Work], int]] = {
    "mlp": (training.mlp, 56), "lenet": (training.lenet, 16), "cnn": (training.cnn, 8),
    "resnet20": (training.resnet20, 3), "vgg11": (training.vgg11, 3),
    "resnet50-2": (partial(training.resnet50, 2, 4), 4), "resnet50-16": (partial(training.resnet50, 16, 2), 2),
    "autoencoder": (training.autoencoder, 8), "lstm": (training.vowels, 8),
    "lstm-gradient": (partial(training.gradient, "lstm"), 4),
}  # fmt: skip


def main(names: list[str], rounds: int = 5, *, step: bool = False) -> None:
    """Time and print."""
    print(f"{'':<14}{'itself':>10}{'Eigen':>10}   ratio")
    for name in names or WORKS:
        make, steps = WORKS[name]
        work = make()
        steps = 1 if step else steps
        work = replace(work, x=work.x[: steps * work.batch_size], y=work.y[: steps * work.batch_size], epochs=1)
        turns = {label: timed(trained(work, options)) for label, options in (("itself", None), ("Eigen", EIGEN))}
        took = {label: 1000 * seconds / steps for label, seconds in interleaved(turns, rounds=rounds).items()}
        middle, low, high = ratio(took["itself"], took["Eigen"])
        medians = "".join(f"{np.median(each):10.2f}" for each in took.values())
        print(f"{name:<14}{medians}   {middle:.2f} ({low:.2f} to {high:.2f})", flush=True)


def trained(work: Work, options: dict[str, Any] | None) -> Callable[[], object]:
    """Return a function that trains through all batches, one after another in one compiled loop."""
    loss = jn.losses.cross_entropy if work.classifies else jn.losses.squared_error
    program = jn.train.program(
        ours.net_of(work),
        jn.objective(loss),
        stepping.optimizer(work),
        (work.x, work.y),
        epochs=1,
        batch_size=work.batch_size,
    )
    run = jax.jit(jn.train.Program.start)(program, jax.random.key(0))
    held = [jax.tree.map(jnp.copy, run)]
    if len(work.x) > work.batch_size:
        epoch_fn = jax.jit(jn.train.Program.run_epoch, donate_argnums=1, compiler_options=options)
        call: Callable[[Any], tuple[Any, ...]] = partial(epoch_fn, program)
    else:
        one = jn.train.make_train_step(program.recipe.net, program.recipe.objective, stepping.optimizer(work))
        batch = jn.train.Batch(jnp.asarray(work.x), jnp.asarray(work.y), jnp.ones(len(work.x)))
        stepped = jax.jit(lambda run, batch: one(run, batch)[:1], donate_argnums=0, compiler_options=options)
        call = partial(_swapped, stepped, batch)

    def turn() -> None:
        held[0] = call(held[0])[0]
        jax.block_until_ready(held[0])

    return turn


def _swapped(stepped: Callable[..., tuple[Any, ...]], batch: Any, run: Any) -> tuple[Any, ...]:
    return stepped(run, batch)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A compiler option beside none.")
    parser.add_argument("names", nargs="*", choices=[[], *WORKS], help="what is trained; all if none is named")
    parser.add_argument("--rounds", type=int, default=5, help="how many turns count")
    parser.add_argument("--step", action="store_true", help="a single step, outside any loop")
    arguments = parser.parse_args()
    main(arguments.names, arguments.rounds, step=arguments.step)
