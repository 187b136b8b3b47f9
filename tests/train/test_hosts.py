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


def test_a_run_and_a_sweep_over_two_processes_are_those_of_one(tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    files = [tmp_path / f"{number}.npz" for number in range(2)]
    hosts = [
        subprocess.Popen([sys.executable, "-m", "tests.train.hosts", port, str(number), str(file)], cwd=ROOT)
        for number, file in enumerate(files)
    ]
    expected = results(Mesh(np.array(jax.devices()), ("all",)))
    assert [host.wait(300) for host in hosts] == [0, 0]
    for file in files:
        with np.load(file, allow_pickle=False) as found:
            assert "checkpoint saves runs of one process, and there are 2" in str(found["said"])
            for name, array in expected.items():
                np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
    assert expected["failed"].tolist() == [-1, -1, -1, -1, expected["failed"][4]]
    assert expected["failed"][4] > 0
