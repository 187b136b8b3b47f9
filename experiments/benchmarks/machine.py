"""The machine: a description, its fastest matrix product, and the memory of a turn."""

import ctypes
import os
import platform
import resource
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "jaxnets",
    "jax",
    "jaxlib",
    "optax",
    "flax",
    "equinox",
    "dm-haiku",
    "keras",
    "torch",
    "transformers",
    "numpy",
)
STAT, STATUS, CLEAR = Path("/proc/stat"), Path("/proc/self/status"), Path("/proc/self/clear_refs")

ALLOCATORS = {
    "default": "",
    "tuned": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647:glibc.malloc.arena_max=1",
}
"""Settings of glibc's allocator, as values of GLIBC_TUNABLES."""


PEAKS = dict.fromkeys(("NVIDIA H200", "NVIDIA H100 80GB HBM3"), 989e12) | dict.fromkeys(
    ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB", "NVIDIA A100-PCIE-40GB", "NVIDIA A100 80GB PCIe"), 312e12
)
"""Floating-point operations a second in bfloat16, dense, by the data sheets, for JAX's names of GPUs."""


def versions() -> dict[str, str]:
    """Return the versions of the relevant installed packages."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def description() -> dict[str, Any]:
    """Return a description of the machine, without its name."""
    import jax

    return {
        "system": f"{platform.system()} on {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "platform": jax.devices()[0].platform,
        "devices": [device.device_kind for device in jax.devices()],
    }


def matmul_peak(*, seconds: float = 2.0) -> dict[str, float]:
    """Return the floating-point operations a second of the fastest large matrix product seen, by dtype."""
    import jax
    import jax.numpy as jnp

    on_cpu = jax.devices()[0].platform == "cpu"
    found = {}
    for dtype in (jnp.float32,) if on_cpu else (jnp.float32, jnp.bfloat16):
        best = 0.0
        for size in (1024, 2048) if on_cpu else (4096, 8192):
            a = jnp.ones((size, size), dtype)
            product = jax.jit(jnp.matmul)
            jax.block_until_ready(product(a, a))
            end = time.perf_counter() + seconds / 2
            while time.perf_counter() < end:
                began = time.perf_counter()
                jax.block_until_ready(product(a, a))
                best = max(best, 2 * size**3 / (time.perf_counter() - began))
        found[jnp.dtype(dtype).name] = best
    return found


def page_faults() -> int:
    """Return the number of page faults of the process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def others_seconds() -> float:
    """Return the seconds of cores that all other processes used since the machine started; 0 where it isn't told."""
    if not STAT.exists():
        return 0.0
    user, nice, system = (int(each) for each in STAT.read_text().split()[1:4])
    own = os.times()
    return (user + nice + system) / os.sysconf("SC_CLK_TCK") - own.user - own.system


def memory_of(turn: Callable[[], object]) -> int | None:
    """Return by how many bytes a turn's peak of resident memory lies above what was there before; Linux alone."""
    if not CLEAR.exists():
        return None
    ctypes.CDLL(None).malloc_trim(0)  # return freed memory, so that it counts if it is needed again
    before = _kilobytes("VmRSS")
    try:
        CLEAR.write_text("5")  # reset the peak
    except OSError:
        return None
    turn()
    return 1024 * max(0, _kilobytes("VmHWM") - before)


def _kilobytes(name: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise ValueError(f"expects {name} in {STATUS}")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor()
