"""Two processes with two devices each give what one process with four gives."""

import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from tests.train.hosts import results

pytestmark = pytest.mark.promotes
ROOT = Path(__file__).parent.parent.parent


def start(files: list[Path], *more: str) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "tests.train.hosts", port]
    return [
        subprocess.Popen([*command, str(number), str(file), *more], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for number, file in enumerate(files)
    ]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.slow
def test_an_error_in_one_process_ends_both(tmp_path: Path, number: int):
    hosts = start([tmp_path / f"{each}.npz" for each in range(2)], str(number))
    told = [host.communicate(timeout=120)[1] for host in hosts]  # they waited for each other for ever
    assert hosts[number].returncode == 1
    assert "RuntimeError: one process has an error" in told[number]
    assert hosts[1 - number].returncode != 0


@pytest.mark.slow
def test_a_run_and_a_sweep_over_two_processes_are_those_of_one(tmp_path: Path):
    files = [tmp_path / f"{number}.npz" for number in range(2)]
    hosts = start(files)
    expected = results(Mesh(np.array(jax.devices()), ("all",)))
    told = [host.communicate(timeout=300)[1] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], told
    for file in files:
        with np.load(file, allow_pickle=False) as found:
            assert "checkpoint saves runs of one process, and there are 2" in str(found["said"])
            for name, array in expected.items():
                np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
            for name in ("signal", "callback"):  # of the second process: both end after the same epoch
                assert found[name].shape == (2,), name
    assert expected["failed"].tolist() == [-1, -1, -1, -1, expected["failed"][4]]
    assert expected["failed"][4] > 0
