"""The default study, at its smallest."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxnets as jn
from experiments.framework.results import new_folder
from experiments.lenet_digits import Config, interval, run

pytestmark = pytest.mark.promotes
FILES = {
    "config.json",
    "results.json",
    "metrics.jsonl",
    "params-0.safetensors",
    "curves.png",
    "confusion.png",
    "misclassified.png",
    "kernels.png",
}


@pytest.mark.slow
def test_study_saves_everything_and_overwrites_nothing(tmp_path: Path, capsys):
    config = Config(root=tmp_path, seeds=1, epochs=1)
    first = run(config)
    content = {file.name: file.read_bytes() for file in first["folder"].iterdir()}
    assert set(content) == FILES
    assert first["test_accuracy"] > 0.8
    assert "test accuracy" in capsys.readouterr().out
    second = run(config)
    assert second["folder"].name == "lenet_digits-2"
    assert {file.name: file.read_bytes() for file in first["folder"].iterdir()} == content
    # The same seed gives the same network, and the file holds it.
    assert (second["folder"] / "params-0.safetensors").read_bytes() == content["params-0.safetensors"]

    written = json.loads(content["config.json"])
    assert written["config"]["epochs"] == 1
    assert written["versions"]["jax"] == jax.__version__
    line = json.loads(content["metrics.jsonl"].splitlines()[0])
    assert {"seed", "epoch", "step", "loss", "accuracy", "validation/loss", "validation/accuracy"} <= set(line)

    params, state, metadata, net = jn.load(first["folder"] / "params-0.safetensors")
    assert metadata == {"seed": 0}
    assert net is not None
    assert net == jn.models.lenet5()
    images, labels = jn.data.mnist5k()
    test = jn.data.split_indices(labels, (0.8, 0.1, 0.1))[2]
    logits = jn.predict(net, (params, state), images[test])
    np.testing.assert_allclose((np.asarray(logits).argmax(-1) == labels[test]).mean(), first["test_accuracy"])


@pytest.mark.parametrize(
    "wrong", [{"seeds": 0}, {"epochs": 0}, {"batch_size": 0}, {"batch_size": 9999}, {"l2": -1.0}, {"shift": -1}]
)
def test_wrong_options_leave_no_folder(tmp_path: Path, wrong):
    with pytest.raises(ValueError, match="expect"):
        run(Config(root=tmp_path, **wrong))
    assert not list(tmp_path.iterdir())


def test_help_reads_well():
    command = [sys.executable, "-m", "experiments", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout
    for word in ("--seeds", "--epochs", "--learning-rate", "--root", "Nothing is downloaded"):
        assert word in shown


def test_folders_are_never_taken_twice(tmp_path: Path):
    names = [new_folder(tmp_path / "runs", "a").name for _ in range(3)]
    assert names == ["a", "a-2", "a-3"]
    for bad in ("", "../a", "a/b", ".."):
        with pytest.raises(ValueError, match="plain name"):
            new_folder(tmp_path, bad)


def test_the_interval_covers_the_binomial_interval():
    right = np.random.default_rng(0).random((1, 500)) < 0.9
    low, high = interval(right)
    mean = right.mean()
    deviation = np.sqrt(mean * (1 - mean) / 500)
    np.testing.assert_allclose([low, high], [mean - 1.96 * deviation, mean + 1.96 * deviation], atol=2.5e-3)
    assert interval(np.ones((3, 10))) == (1.0, 1.0)
    # Seeds that disagree widen the interval.
    alike = np.repeat(right, 4, 0)
    unlike = np.stack([np.roll(right[0], 50) if k % 2 else np.zeros(500, bool) for k in range(4)])
    assert np.ptp(interval(unlike)) > np.ptp(interval(alike))
