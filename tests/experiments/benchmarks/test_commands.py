"""Benchmarks that are commands of their own: what they measure still runs."""

import pytest

from experiments.benchmarks import compile_time, vmapped_steps


@pytest.mark.slow
@pytest.mark.promotes
@pytest.mark.parametrize("who", ["jaxnets", "Flax Linen"])
def test_the_first_step_of_a_deep_network_is_timed(who: str):
    *seconds, lines = compile_time.first_step(who, 50)
    assert len(seconds) == len(compile_time.PARTS) - 2  # their sum is not among them
    assert min(seconds) > 0
    assert lines > 1000


@pytest.mark.slow
@pytest.mark.promotes
def test_networks_take_their_steps_side_by_side(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vmapped_steps, "BATCH", 2)
    turns = vmapped_steps.contestants()
    assert {name: steps for name, (_, steps) in turns.items()} == {
        "one network, calls": 8,
        "one network, in a scan": 8,
        "eight by vmap, calls": 64,
        "eight by vmap, in a scan": 64,
    }
    for turn, _ in turns.values():
        turn()
