"""A run in a process of its own, killed at any instant, ends with the bits of a run that nobody disturbed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jaxnets.train.checkpoint import storage
from tests.train.mortal import EPOCHS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent
KILLS = 10


class Processes:
    """Starts `mortal` in one folder after another."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.train.mortal"]
        self.parent = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.parent.stdin is not None
        assert self.parent.stdout is not None
        self.stdin, self.stdout = self.parent.stdin, self.parent.stdout

    def start(self, folder: Path, room: int = 0) -> int:
        """Begin a run, where no file has room for more than some bytes, and return the number of its process."""
        self.stdin.write(f"{folder} {room}\n")
        self.stdin.flush()
        return int(self.stdout.readline())

    def end(self) -> int:
        """Wait for it, and return its exit status."""
        return int(self.stdout.readline())


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    one = Processes()
    yield one
    one.stdin.close()
    assert one.parent.wait(60) == 0
    one.stdout.close()


@pytest.fixture(scope="module")
def undisturbed(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """Return the folder above all runs, and every array of the run that is left in peace."""
    root = tmp_path_factory.mktemp("runs")
    processes.start(root / "undisturbed")
    assert processes.end() == 0
    return root, result(root / "undisturbed")


def result(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "result.npz", allow_pickle=False) as stored:
        return dict(stored)


def assert_same_bits(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        assert found[path].dtype == array.dtype, path
        assert found[path].tobytes() == array.tobytes(), path


def newest(folder: Path) -> int:
    return max(storage.numbers(folder / "checkpoints"), default=0)


def wait_for(condition) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 120
        time.sleep(0.0005)


def is_saving(folder: Path) -> bool:
    return (folder / "checkpoints").is_dir() and any("tmp" in name for name in os.listdir(folder / "checkpoints"))


def test_a_run_killed_ten_times_ends_with_the_same_bits(processes, undisturbed):
    root, expected = undisturbed
    folder, random, during_a_save = root / "killed", np.random.default_rng(0), 0
    for number in range(KILLS):
        before = newest(folder)
        process = processes.start(folder)
        goal = min(before + int(random.integers(1, 3)), EPOCHS - 1)
        wait_for(lambda goal=goal: newest(folder) >= goal)
        if number % 2:
            wait_for(lambda: is_saving(folder))
        else:
            time.sleep(random.uniform(0, 0.05))
        os.kill(process, signal.SIGKILL)
        assert processes.end() == -signal.SIGKILL
        during_a_save += is_saving(folder)
        assert newest(folder) < EPOCHS
    assert during_a_save >= 2  # halves of checkpoints were left behind
    processes.start(folder)
    assert processes.end() == 0
    assert_same_bits(result(folder), expected)
    assert not is_saving(folder)  # and cleared away


def test_a_stream_killed_in_the_middle_of_epochs_goes_on_to_the_same_bits(processes, undisturbed):
    root, _ = undisturbed
    random = np.random.default_rng(1)
    processes.start(root / "streamed-undisturbed")
    assert processes.end() == 0
    folder = root / "streamed-killed"
    for _ in range(3):
        goal = newest(folder) + 3
        process = processes.start(folder)
        wait_for(lambda goal=goal: newest(folder) >= goal)
        time.sleep(random.uniform(0, 0.02))
        os.kill(process, signal.SIGKILL)
        assert processes.end() == -signal.SIGKILL
        assert newest(folder) < EPOCHS
    processes.start(folder)
    assert processes.end() == 0
    assert_same_bits(result(folder), result(root / "streamed-undisturbed"))


def test_ctrl_c_ends_a_process_in_order_and_the_run_goes_on_later(processes, undisturbed):
    root, expected = undisturbed
    folder = root / "interrupted"
    process = processes.start(folder)
    wait_for(lambda: newest(folder) >= 3)
    os.kill(process, signal.SIGINT)
    assert processes.end() == 0  # the script went on behind `fit`, and wrote
    there = len(result(folder)["history/loss"])
    assert 3 <= there < EPOCHS
    assert newest(folder) == there
    processes.start(folder)
    assert processes.end() == 0
    assert_same_bits(result(folder), expected)


@pytest.mark.parametrize("room", [1_000, 4_000])  # too little for the arrays; enough for all but the last file
def test_a_full_disk_leaves_the_checkpoints_before_it(processes, undisturbed, room):
    root, expected = undisturbed
    folder = root / f"full-{room}"
    for source in (root / "undisturbed" / "checkpoints").iterdir():
        if int(source.name) < EPOCHS:
            shutil.copytree(source, folder / "checkpoints" / source.name)
    there = storage.numbers(folder / "checkpoints")
    processes.start(folder, room)
    said = processes.stdout.readline()
    assert re.match(
        rf"a checkpoint could not be written to .*; complete ones: {', '.join(map(str, there))}\. Once there", said
    )
    assert processes.end() == 3
    assert storage.numbers(folder / "checkpoints") == there
    processes.start(folder)
    assert processes.end() == 0
    assert_same_bits(result(folder), expected)
