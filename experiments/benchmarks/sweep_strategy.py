"""Whether 16 trials of a sweep run faster side by side or in turn, for small networks of several kinds.

    python -m experiments.benchmarks.sweep_strategy [name ...]

An epoch of each, batches of 32, everything compiled before; the two take turns, and medians are printed. It is where
the rule comes from by which a sweep on a CPU chooses (`jaxnets/sweeps/strategy.py`). A minute and a half on two
cores.
"""

import sys
import time
from collections.abc import Callable

import jax
import numpy as np
import optax

import jaxnets as jn
from experiments.benchmarks.timing import interleaved
from jaxnets.sweeps.space import design
from jaxnets.sweeps.sweep import plan

MEMBERS, BATCH, BATCHES = 16, 32, 8
WIDTHS = ((64, 64), (64, 128, 128), (784, 32, 32), (256, 128, 128), (64, 256, 256), (784, 256, 128))


def mlp(*widths: int) -> jn.Net:
    """Return a network of dense layers with relu between them and ten outputs."""
    hidden = [part for width in widths for part in (jn.dense(width), jax.nn.relu)]
    return jn.serial(*hidden, out=jn.dense(10))


def recurrent(cell: jn.Cell) -> jn.Net:
    """Return a network that classifies a sequence by its last step."""
    return jn.serial(cell=jn.recurrent(cell), last=lambda y: y[:, -1], out=jn.dense(9))


NETS = {f"MLP {'-'.join(map(str, widths))}-10": (mlp(*widths[1:]), widths[:1]) for widths in WIDTHS} | {
    "LeNet-5": (jn.models.lenet5(), (28, 28, 1)),
    "LSTM of 64, 28 steps": (recurrent(jn.lstm_cell(64)), (28, 12)),
    "GRU of 64, 28 steps": (recurrent(jn.gru_cell(64)), (28, 12)),
}


def contestant(net: jn.Net, shape: tuple[int, ...], how: str) -> tuple[Callable[[], float], int]:
    """Return a function that returns the milliseconds per trial and step, and the number of parameters."""
    random, examples = np.random.default_rng(0), BATCH * BATCHES
    data = random.normal(size=(examples, *shape)).astype(np.float32), random.integers(0, 9, examples)

    def trial(hp: dict) -> jn.train.Program:
        objective = jn.objective(jn.losses.cross_entropy)
        return jn.train.program(net, objective, optax.adam(hp["lr"]), data, epochs=1, batch_size=BATCH)

    team = plan(trial, design(grid={"lr": np.logspace(-4, -2, MEMBERS)}), strategy=how)  # pyright: ignore
    everyone, active = list(range(MEMBERS)), np.ones(MEMBERS, bool)
    held = {"runs": team.layout.place(team.start(everyone))}

    def turn() -> float:
        began = time.perf_counter()
        held["runs"], _, _ = jax.block_until_ready(team.run_epoch(everyone, held["runs"], active))
        return 1e3 * (time.perf_counter() - began) / MEMBERS / BATCHES

    return turn, sum(leaf.size for leaf in jax.tree.leaves(team.shared.state.params))


def main(names: list[str], rounds: int = 15) -> None:
    """Time and print."""
    print(f"ms a trial and step of {MEMBERS}; {jax.devices()[0].device_kind}, {rounds} rounds\n")
    print(f"{'':<22}{'parameters':>11}{'vmap':>8}{'map':>8}")
    for name in names or NETS:
        net, shape = NETS[name]
        both = {how: contestant(net, shape, how) for how in ("vmap", "map")}
        took = interleaved({how: turn for how, (turn, _) in both.items()}, rounds=rounds)
        medians = "".join(f"{np.median(each):8.3f}" for each in took.values())
        print(f"{name:<22}{both['vmap'][1]:>11,}{medians}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
