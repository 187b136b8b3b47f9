"""Memory that was used once is kept, where the C library is glibc; elsewhere it is said that nothing is done."""

import platform
import subprocess
import sys

import pytest

import jaxnets as jn
from jaxnets import allocator

ARRAYS = """
import resource, sys, warnings, numpy as np, jaxnets as jn
def faults():  # of ten arrays of 32 MiB, one after another
    np.ones(2**22)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10): np.ones(2**22)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(), jn.tune_allocator(), faults())"""


def test_pages_are_given_once():
    """Before, each array has 8,192 pages of its own, and numpy asks for huge ones where it may."""
    done = subprocess.run([sys.executable, "-c", ARRAYS], capture_output=True, text=True, check=True)
    before, tuned, after = done.stdout.split()
    assert tuned == "True"
    assert int(after) < 5 < 100 < int(before)


def test_the_environments_words_are_the_same_settings():
    assert allocator.TUNABLES == (
        "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647:glibc.malloc.arena_max=1"
    )


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with pytest.warns(UserWarning, match="expects glibc on Linux, got Darwin's C library"):
        assert jn.tune_allocator() is False


def test_a_setting_that_glibc_refuses_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(allocator, "_mallopt", lambda: lambda number, value: int(number != -8))
    with pytest.warns(UserWarning, match="refuses arena_max"):
        assert jn.tune_allocator() is False
