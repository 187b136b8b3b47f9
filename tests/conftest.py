"""Settings for every test: strict types and ranks, several devices, no time limit on Hypothesis."""

import gc
import itertools
import os
import signal
from pathlib import Path

import hypothesis
import jax
import jaxlib.version
import pytest

jax.config.update("jax_num_cpu_devices", 4)

hypothesis.settings.register_profile("jaxnets", deadline=None, max_examples=15, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("jaxnets")


SUITES = "not slow", "slow and not exact", "exact"
"""The suites of the Makefile, by their marks."""


def pytest_configure(config: pytest.Config) -> None:
    """Compile the suites quickly: they compile many small programs, run each once, and wait mostly for LLVM.

    One module a program, hardly optimized, and by XLA's older emitters where it still has them. Tests that are asked
    for without a mark are compiled as users' programs are.
    """
    if config.option.markexpr in SUITES and "XLA_FLAGS" not in os.environ:
        # Below level 2 a value of two programs may differ by its last bit, which tests marked `exact` exclude.
        level = 2 if config.option.markexpr == "exact" else 0
        flags = [f"--xla_backend_optimization_level={level}", "--xla_cpu_parallel_codegen_split_count=1"]
        if jaxlib.version.__version_info__ < (0, 11):  # later an unknown flag, at which XLA ends the process
            flags.append("--xla_cpu_use_fusion_emitters=false")
        os.environ["XLA_FLAGS"] = " ".join(flags)


def pytest_sessionstart() -> None:
    """Let Ctrl-C raise, as tests send it: a shell starts commands in the background with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cases of a parametrized test that take long: `slow_cases` stands beside the test and has their ids."""
    for item in items:
        marker, case = item.get_closest_marker("slow_cases"), getattr(item, "callspec", None)
        if marker is not None and case is not None and case.id in marker.args:
            item.add_marker("slow")


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of garbage collection, which would walk through it again and again."""
    gc.collect()
    gc.freeze()


MAPS = Path("/proc/self/maps")
tests_begun = itertools.count()


@pytest.fixture(autouse=True)
def give_back():
    """Drop compiled programs before they are too many: each holds three mappings, and Linux gives a process 65,530."""
    if next(tests_begun) % 20 == 0 and MAPS.is_file() and MAPS.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def strict(request: pytest.FixtureRequest):
    """Forbid implicit promotion of dtypes and ranks, but in tests marked `promotes` (Optax's own code does)."""
    if request.node.get_closest_marker("promotes"):
        yield
        return
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
