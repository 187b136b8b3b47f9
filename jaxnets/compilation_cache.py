"""Programs that were compiled once are read from a folder by later processes: turned on, and tried."""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import jax

from jaxnets import compilation_probe as probe

KEPT_FROM = 0.2
"""Seconds of compilation from which a program is kept; JAX keeps those of a second and more."""

PATIENCE = 120
"""Seconds after which the second process is given up."""


@dataclass(frozen=True)
class CompilationCache:
    """What became of the compilation cache.

    Attributes:
        folder: where compiled programs are.
        works: whether a second process found there what this one compiled; `None` if that was not tried.
        reason: why not, or why it was not tried; empty if it works.
    """

    folder: str
    works: bool | None
    reason: str = ""

    def __str__(self) -> str:
        said = {True: "works", False: "does not work", None: "is on, and was not tried"}[self.works]
        return f"the compilation cache in {self.folder} {said}{': ' if self.reason else ''}{self.reason}"


def enable_compilation_cache(folder: str | Path | None = None, *, verify: bool = True) -> CompilationCache:
    """Keep compiled programs in a folder, for later processes to read, and try whether that works here.

    This is JAX's persistent compilation cache, with programs kept that took 0.2 s to compile and more. Tracing is not
    saved. A small program is compiled here, and then by a second process, which must report that it was found: that
    takes a second or two. Where it was not (jax#38445: on some processors each program that was kept is refused when
    it is read), a warning says so, and why; runs go on as without the cache.

    The folder is to be trusted: what is in it is run. It is not emptied; JAX's `jax_compilation_cache_max_size` bounds
    it.

    Args:
        folder: of a local disk, or an address such as `gs://...`. By default what JAX has been told
            (JAX_COMPILATION_CACHE_DIR), else `jaxnets/compiled` in the user's folder for caches (XDG_CACHE_HOME). A
            later call with another folder goes on there.
        verify: whether to try it.

    Returns:
        The folder, whether the cache works, and why not.

    >>> import tempfile, jax, jaxnets as jn
    >>> before = jax.config.jax_compilation_cache_dir
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(jn.enable_compilation_cache(folder, verify=False).works)
    ...     jax.config.update("jax_compilation_cache_dir", before)
    None
    """
    place = _place(folder)
    found = _unwritable(place)
    if found is None:
        _turn_on(place)
        found = _tried(place) if verify else CompilationCache(place, None, "verify=False")
    if found.works is False:
        warnings.warn(f"{found}; programs are compiled anew in each process", stacklevel=2)
    return found


def _place(folder: str | Path | None) -> str:
    """Return the folder as text: what was asked for, what JAX was told, or the default."""
    chosen = folder if folder is not None else probe.told("jax_compilation_cache_dir")
    if chosen is None:
        caches = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
        chosen = Path(caches) / "jaxnets" / "compiled"
    return str(chosen) if _remote(str(chosen)) else str(Path(chosen).expanduser().absolute())


def _remote(place: str) -> bool:
    return "://" in place


def _unwritable(place: str) -> CompilationCache | None:
    """Return that a folder can't be written, if it can't."""
    if _remote(place):
        return None
    try:
        Path(place).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return None
    except OSError as error:
        return CompilationCache(place, False, f"expects a folder that can be written, got {error}; name another")


def _turn_on(place: str) -> None:
    from jax.experimental.compilation_cache import compilation_cache

    if probe.told("jax_compilation_cache_dir") != place:
        compilation_cache.reset_cache()  # JAX holds on to the folder that it has begun to use
    jax.config.update("jax_compilation_cache_dir", place)
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", KEPT_FROM)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def _tried(place: str) -> CompilationCache:
    """Compile here and in a second process, and return what became of it."""
    device = jax.local_devices()[0]
    if device.platform == "tpu":
        return CompilationCache(place, None, "a TPU belongs to one process at a time")
    if jax.process_count() > 1:
        return CompilationCache(place, None, "this is one of several processes, of which the first writes")
    if not sys.executable:
        return CompilationCache(place, None, "the interpreter that a second process would run is not known")
    events, said = probe.probe(device)
    if not events:
        return CompilationCache(place, False, f"this process wrote nothing there. {_last(said)}")
    command = [sys.executable, "-P", probe.__file__, place, device.platform, str(probe.told("jax_num_cpu_devices"))]
    platforms = {"JAX_PLATFORMS": probe.told("jax_platforms")} if probe.told("jax_platforms") else {}
    little = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # this process may hold most of a GPU's memory
    environment = os.environ | platforms | little
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE, check=True)
        events, said = json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        return CompilationCache(place, None, f"the second process failed: {_last(error.stderr.splitlines())}")
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        return CompilationCache(place, None, f"the second process failed: {error}")
    refused = [line for line in done.stderr.splitlines() if "host machine" in line]
    if probe.HIT in events and not refused:
        return CompilationCache(place, True)
    if refused:
        return CompilationCache(
            place, False, f"XLA refuses programs that this same machine compiled (jax#38445): {refused[-1][:500]}"
        )
    return CompilationCache(place, False, f"the second process did not find what this one wrote. {_last(said)}")


def _last(lines: list[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "Nothing more was said.")
