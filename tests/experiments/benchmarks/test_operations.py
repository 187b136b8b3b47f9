"""Where time goes: what the profiler recorded, and the command that is written beside figures."""

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmarks.__main__ import parser, written
from experiments.benchmarks.operations import operations


def test_operations_are_counted_by_kind():
    """A loop of seven sorts, two turns of it."""
    keys = jax.random.normal(jax.random.key(0), (1000,))
    loop = jax.jit(lambda x: jax.lax.fori_loop(0, 7, lambda _, x: jnp.sort(-x), x)).lower(keys).compile()

    def turn() -> None:
        for _ in range(2):
            jax.block_until_ready(loop(keys))

    found = {kind: (seconds, count) for kind, seconds, count in operations(turn)}
    assert found["sort"][1] == 14
    assert found["while"][0] >= found["sort"][0] > 0


def test_passes_of_the_compiler_are_counted_as_well():
    def turn() -> None:
        jax.jit(lambda x: jnp.tanh(x) + 1).lower(jnp.ones(3)).compile()

    found = {kind: count for kind, _, count in operations(turn, programs=True)}
    assert found["TaskDispatcher::dispatch"] >= 1


@pytest.mark.parametrize(
    "line",
    [
        *("", "--full", "--full --only mlp lenet --allocators default --peers PyTorch Haiku --rounds 3"),
        *("--gpu", "--gpu --tiny --only lstm-gpu --limit 90 --rounds 2"),
    ],
)
def test_a_command_is_written_as_it_is_typed(line: str):
    assert " ".join(written(parser().parse_args([*line.split(), "--json", "own.json"]))) == line
