"""An epoch of training, ours beside PyTorch and Flax, each as its own documentation writes it.

    python -m experiments.benchmarks.training [--rounds 9]

Three rows: an MLP on 8×8 digits, LeNet-5 on 4,000 digits of MNIST, an LSTM on Japanese vowels. The layers, the batch
size, Adam and the shuffling are the same; data are in memory, for JAX on the device. Ours is a `Program`'s segment, the
peers loop over jitted (or compiled, or eager) steps. Contestants take turns; medians, and ratios with 95 % intervals;
compile time, the first epoch's, stands apart. A peer that is not installed is left out.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.benchmarks.timing import interleaved, ratio

Epoch = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """A network and what it learns.

    Attributes:
        name: of both.
        x: inputs, `(examples, ...)`.
        y: labels, `(examples,)`.
        batch_size: examples a step.
        net: ours.
        torch: makes PyTorch's.
        linen: makes Flax's.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    batch_size: int
    net: jn.Net
    torch: Callable[[], Any]
    linen: Callable[[], Any]


def rows() -> list[Row]:
    """Return the three."""
    digits, labels = jn.data.digits()
    images, classes = jn.data.mnist5k()
    part = jn.data.split(classes, (0.8, 0.2))[0]
    (vowels, speakers), _ = jn.data.japanese_vowels()
    return [
        Row("MLP, digits", digits.reshape(len(digits), -1), labels, 32, _mlp(), _torch_mlp, _linen_mlp),
        Row("LeNet-5, mnist5k", images[part], classes[part], 64, jn.models.lenet5(), _torch_lenet, _linen_lenet),
        Row("LSTM, vowels", np.asarray(vowels.values), speakers, 32, _lstm(), _torch_lstm, _linen_lstm),
    ]


def _mlp() -> jn.Net:
    return jn.serial(jn.dense(64), jax.nn.relu, jn.dense(10))


def _lstm() -> jn.Net:
    return jn.serial(jn.recurrent(jn.lstm_cell(64)), lambda x: x[:, -1], jn.dense(9))


def ours(row: Row) -> Epoch:
    """Return a function that trains our network for an epoch."""
    program = jn.train.program(
        row.net, jn.objective(jn.losses.cross_entropy), optax.adam(1e-3), (row.x, row.y), epochs=1,
        batch_size=row.batch_size,
    )  # fmt: skip
    segment = jax.jit(jn.train.Program.segment, donate_argnums=1)
    held = [jax.jit(jn.train.Program.start)(program, jax.random.key(0))]

    def epoch() -> None:
        held[0], _ = segment(program, held[0])
        jax.block_until_ready(held[0])

    return epoch


def batches(row: Row, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Return the indices of an epoch's batches; the last may be smaller."""
    order = generator.permutation(len(row.x))
    return (order[place : place + row.batch_size] for place in range(0, len(order), row.batch_size))


def pytorch(row: Row, *, compiled: bool) -> Epoch:
    """Return the same for PyTorch."""
    import torch

    net = row.torch()
    forward = torch.compile(net) if compiled else net
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    x = torch.from_numpy(row.x if row.x.ndim != 4 else row.x.transpose(0, 3, 1, 2).copy())
    y, generator = torch.from_numpy(row.y).long(), np.random.default_rng(0)

    def epoch() -> None:
        for chosen in batches(row, generator):
            chosen = torch.from_numpy(chosen)
            adam.zero_grad()
            torch.nn.functional.cross_entropy(forward(x[chosen]), y[chosen]).backward()
            adam.step()

    return epoch


def linen(row: Row) -> Epoch:
    """Return the same for Flax Linen."""
    module, adam = row.linen(), optax.adam(1e-3)
    x, y, generator = jnp.asarray(row.x), jnp.asarray(row.y), np.random.default_rng(0)

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(module.apply(params, x), y).mean()

    @jax.jit
    def step(params: Any, state: Any, chosen: jax.Array) -> Any:
        updates, state = adam.update(jax.grad(loss)(params, x[chosen], y[chosen]), state)
        return optax.apply_updates(params, updates), state

    params = module.init(jax.random.key(0), x[:1])
    held = [(params, adam.init(params))]

    def epoch() -> None:
        for chosen in batches(row, generator):
            held[0] = step(*held[0], chosen)
        jax.block_until_ready(held[0])

    return epoch


def _torch_mlp() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def _torch_lenet() -> Any:
    from torch import nn

    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def _torch_lstm() -> Any:
    from torch import nn

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.out = nn.LSTM(12, 64, batch_first=True), nn.Linear(64, 9)

        def forward(self, x: Any) -> Any:
            return self.out(self.lstm(x)[0][:, -1])

    return Last()


def _linen_mlp() -> Any:
    from flax import linen as nn

    return nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(10)])


def _linen_lenet() -> Any:
    from flax import linen as nn

    def pool(x: jax.Array) -> jax.Array:
        return nn.max_pool(x, (2, 2), (2, 2))

    return nn.Sequential(
        [
            *(nn.Conv(6, (5, 5)), nn.relu, pool, nn.Conv(16, (5, 5), padding="VALID"), nn.relu, pool),
            lambda x: x.reshape(len(x), -1),
            *(nn.Dense(120), nn.relu, nn.Dense(84), nn.relu, nn.Dense(10)),
        ]
    )


def _linen_lstm() -> Any:
    from flax import linen as nn

    return nn.Sequential([nn.RNN(nn.OptimizedLSTMCell(64)), lambda x: x[:, -1], nn.Dense(9)])


def main(rounds: int = 9) -> None:
    """Time and print."""
    torch = importlib.util.find_spec("torch") is not None
    for row in rows():
        contestants: dict[str, Epoch] = {"jaxnets": ours(row), "Flax Linen": linen(row)}
        if torch:
            contestants |= {"PyTorch, eager": pytorch(row, compiled=False)}
            contestants |= {"PyTorch, compiled": pytorch(row, compiled=True)}
        first = {name: timed(epoch)() for name, epoch in contestants.items()}
        took = interleaved({name: timed(epoch) for name, epoch in contestants.items()}, rounds=rounds)
        print(f"\n{row.name}: {len(row.x)} examples in batches of {row.batch_size}")
        for name, seconds in took.items():
            times, low, high = ratio(seconds, took["jaxnets"])
            print(
                f"  {name:<18}{1000 * np.median(seconds):9.1f} ms an epoch, {times:5.2f} times ours "
                f"({low:.2f} to {high:.2f}); the first took {first[name]:.1f} s"
            )


def timed(epoch: Epoch) -> Callable[[], float]:
    """Return a function that runs an epoch and gives the seconds it took."""

    def seconds() -> float:
        began = time.perf_counter()
        epoch()
        return time.perf_counter() - began

    return seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An epoch of training, ours beside its peers.")
    parser.add_argument("--rounds", type=int, default=9, help="how many turns count")
    main(parser.parse_args().rounds)
