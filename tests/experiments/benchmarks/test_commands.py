"""Benchmarks that are commands of their own: what they measure still runs."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.benchmarks import attention, compile_time, flow_sampling, search_cv, vmapped_steps


@pytest.mark.slow
@pytest.mark.promotes
@pytest.mark.parametrize("who", ["jaxnets"])
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


@pytest.mark.slow
@pytest.mark.promotes
def test_a_search_is_measured():
    found = search_cv.measure(search_cv.OURS, True, 16, 32)
    assert found["fits"] == 8
    assert found["seconds"] > 0
    assert found["params"].keys() == {"learning_rate", "l2"}
    other = search_cv.search(search_cv.SCIKIT, True, 16, 32)
    choices = search_cv.search(search_cv.OURS, True, 16, 32).param_grid
    assert other.param_grid["learning_rate_init"] == choices["learning_rate"]
    # The gradient of Σ w² times l2, and that of ½ alpha ‖w‖² over the batch
    np.testing.assert_allclose(2 * np.array(choices["l2"]), np.array(other.param_grid["alpha"]) / 32)


@pytest.mark.slow
@pytest.mark.promotes
def test_pictures_are_the_same_in_both(capsys):
    turns = flow_sampling.contestants(3, 7, 4, (4, 8))
    ours, theirs = (turn() for turn in turns.values())
    assert ours.shape == (3, 7, 7, 1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    flow_sampling.main(2, tiny=True)
    assert "PyTorch eager / jaxnets: " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.promotes
def test_attentions_are_one_function():
    turns, memory = attention.contestants(300)
    expected = attention.gradient(attention.OURS, 300)(*attention.inputs(300))
    assert memory.keys() == turns.keys() - {attention.TORCH} == attention.WAYS.keys()
    assert min(memory.values()) > 0
    for turn in turns.values():
        for found, each in zip(turn(), expected, strict=True):
            found = np.asarray(found)
            found = found if found.shape == each.shape else found.swapaxes(1, 2)
            np.testing.assert_allclose(found, each, atol=1e-3 * float(jax.numpy.abs(each).max()))


@pytest.mark.slow
def test_attention_is_measured():
    command = [
        sys.executable,
        "-m",
        "experiments.benchmarks.attention",
        "--time",
        "64",
        "--long",
        "96",
        *("--blocks", "1", "2"),
        "--rounds",
        "1",
    ]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    names = [*attention.WAYS, "96 steps", "GPT, 1 blocks", "GPT, 2 blocks", "2 blocks over 1"]
    for name in names:
        assert any(line.startswith(name) for line in lines), name
