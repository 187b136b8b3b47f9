"""How the C library hands memory to the whole process: an opt-in, since it isn't ours alone."""

import ctypes
import platform
import warnings
from collections.abc import Callable

# Settings of glibc's malloc, as in GLIBC_TUNABLES, and their numbers in mallopt(3).
TUNING = {"mmap_max": (-4, 0), "trim_threshold": (-1, 2**31 - 1), "arena_max": (-8, 1)}

TUNABLES = ":".join(f"glibc.malloc.{name}={value}" for name, (_, value) in TUNING.items())
"""The same settings as a value of GLIBC_TUNABLES."""


def tune_allocator() -> bool:
    """Keep memory that was used once, for the whole process: large arrays on CPU get no fresh pages in every step.

    glibc takes each large array from the system and gives it back after use. The system hands it out anew as pages of
    4 KiB that it clears at first touch, at about 2 µs each. Here all memory comes from one heap that is never given
    back: of later steps none waits for pages. The process stays as large as it ever was, and threads that allocate
    much at once wait for each other. Other libraries in the process, PyTorch among them, are affected as well.

    Call it before the first computation, as threads that allocated before keep heaps of their own. The environment
    variable GLIBC_TUNABLES with the value of `jaxnets.allocator.TUNABLES` does the same from a process's start.

    Returns:
        Whether it was done. Where the C library is not glibc (macOS, Windows, musl) nothing is, and a warning says so.

    >>> import subprocess, sys
    >>> program = "import jaxnets as jn; print(jn.tune_allocator())"
    >>> print(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip())
    True
    """
    mallopt = _mallopt()
    if mallopt is None:
        warnings.warn(f"the allocator stays as it is: expects glibc on Linux, got {_library()}", stacklevel=2)
        return False
    refused = [name for name, (number, value) in TUNING.items() if not mallopt(number, value)]
    if refused:
        warnings.warn(f"the allocator is not tuned whole: glibc refuses {', '.join(refused)}", stacklevel=2)
    return not refused


def _library() -> str:
    name, version = platform.libc_ver()
    return f"{name} {version}" if name else f"{platform.system()}'s C library"


def _mallopt() -> Callable[[int, int], int] | None:
    """Return glibc's mallopt(3), or `None` where there is another library."""
    if platform.libc_ver()[0] != "glibc":
        return None
    return getattr(ctypes.CDLL(None), "mallopt", None)
