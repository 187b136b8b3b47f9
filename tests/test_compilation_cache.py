"""The compilation cache is tried by a second process, and what is wrong with it is said."""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxnets as jn
from jaxnets import compilation_probe

OLD = jax.__version_info__ < (0, 10, 2)  # refuses what the same machine compiled, on processors with AVX-512
SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def jax_as_it_was() -> Iterator[None]:
    from jax.experimental.compilation_cache import compilation_cache

    before = {name: getattr(jax.config, name) for name in SETTINGS}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def compiled(number: int) -> None:
    """Compile a program of its own, however short that takes."""
    with compilation_probe.settings(compilation_probe.KEEP_ALL):
        jax.jit(lambda x: x + number).lower(jax.ShapeDtypeStruct((3,), jnp.float32)).compile()


def test_a_second_process_finds_what_this_one_compiled(tmp_path: Path):
    with warnings.catch_warnings(action="ignore" if OLD else "error"):
        found = jn.enable_compilation_cache(tmp_path / "new" / "folder")
    if OLD and not found.works:
        assert "jax#38445" in found.reason
        return
    assert found.works is True
    assert found.reason == ""
    assert found.folder == str(tmp_path / "new" / "folder")
    assert str(found) == f"the compilation cache in {found.folder} works"
    assert compilation_probe.told("jax_persistent_cache_min_compile_time_secs") < 1


def test_a_program_that_is_spoilt_in_the_folder_is_no_hit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here = compilation_probe.probe

    def then_spoil(device: Any) -> tuple[list[str], list[str]]:
        result = here(device)
        (entry,) = tmp_path.glob("*-cache")
        entry.write_bytes(entry.read_bytes()[:100])
        return result

    monkeypatch.setattr(compilation_probe, "probe", then_spoil)
    with pytest.warns(UserWarning, match="programs are compiled anew in each process"):
        found = jn.enable_compilation_cache(tmp_path)
    assert found.works is False
    assert "did not find what this one wrote. Error reading persistent compilation cache entry" in found.reason


def test_a_processor_that_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """XLA's words, as in jax#38445, on the standard error of the second process, which reports no hit."""
    line = "Target machine feature +prefer-no-gather is not supported on the host machine."
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho 'Loading XLA:CPU AOT result. {line}' >&2\necho '[[], []]'\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.warns(UserWarning, match="jax#38445"):
        found = jn.enable_compilation_cache(tmp_path / "cache")
    assert found.works is False
    assert line in found.reason


def test_a_second_process_that_fails_settles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'RESOURCE_EXHAUSTED: out of memory' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    found = jn.enable_compilation_cache(tmp_path / "cache")
    assert found.works is None
    assert found.reason == "the second process failed: RESOURCE_EXHAUSTED: out of memory"
    assert "is on, and was not tried: the second" in str(found)


def test_the_second_process_takes_little_memory_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = {}

    def run(command: list[str], *, env: dict[str, str], **_: object) -> None:
        asked.update(env, command=command)
        raise OSError("no second process")

    monkeypatch.setattr(subprocess, "run", run)
    assert jn.enable_compilation_cache(tmp_path).reason.endswith("no second process")
    assert asked["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert asked["command"][3:] == [str(tmp_path), "cpu", "4"]


def test_a_folder_that_cannot_be_written_changes_nothing(tmp_path: Path):
    (tmp_path / "file").write_text("")
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    with pytest.warns(UserWarning, match="expects a folder that can be written, got .*file.*; name another"):
        found = jn.enable_compilation_cache(tmp_path / "file" / "cache")
    assert found.works is False
    assert {name: getattr(jax.config, name) for name in SETTINGS} == before


def test_the_last_call_says_where(tmp_path: Path):
    for number, name in enumerate(("first", "second", "first")):
        jn.enable_compilation_cache(tmp_path / name, verify=False)
        compiled(number)
    assert [len([*(tmp_path / name).glob("*-cache")]) for name in ("first", "second")] == [2, 1]


@pytest.mark.parametrize("configured", [True, False])
def test_the_folder_is_the_users(configured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "told") if configured else None)
    found = jn.enable_compilation_cache(verify=False)
    assert found.works is None
    assert Path(found.folder) == (tmp_path / "told" if configured else tmp_path / "caches" / "jaxnets" / "compiled")
    assert Path(found.folder).is_dir()


def test_nothing_is_turned_on_by_the_import():
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    code = "import jaxnets, jax; print(jax.config.jax_compilation_cache_dir)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "None\n"
