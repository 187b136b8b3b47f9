"""Where a study's results go, and what is written beside them so that they can be had again."""

import dataclasses
import json
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np


def new_folder(root: Path, name: str) -> Path:
    """Make and return `root/name`, or `root/name-2`, `root/name-3`, … if there is one: nothing is overwritten."""
    if not name or Path(name).name != name or name == "..":
        raise ValueError(f"expected a plain name for the run, got {name!r}: the folder is given by --root")
    root.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = root / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def write_config(folder: Path, config: Any) -> None:
    """Write `config.json`: the configuration, the command, the versions and the machine."""
    packages = ("jaxnets", "jax", "jaxlib", "flax", "optax", "numpy")
    write_json(
        folder / "config.json",
        {
            "config": dataclasses.asdict(config),
            "command": shlex.join(
                ["python", *(["-m", "experiments"] if "experiments" in sys.argv[0] else [sys.argv[0]]), *sys.argv[1:]]
            ),
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
            "machine": {
                "platform": platform.platform(),
                "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
                "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
            },
        },
    )


def write_json(file: Path, content: Any) -> None:
    """Write JSON that a person can read, to a file that must not be there yet."""
    with file.open("x", encoding="utf-8") as out:
        json.dump(content, out, indent=2, default=_plain)
        out.write("\n")


def bootstrap(right: np.ndarray, *, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of a mean over seeds and examples, by resampling both.

    Args:
        right: `(seeds, examples)`, numbers or booleans.
        draws: how many resampled means the percentiles are taken from.
        seed: of the resampling.
    """
    generator = np.random.default_rng(seed)
    seeds, examples = right.shape
    # A resampled mean needs only how often each seed and each example was drawn.
    often_seed = generator.multinomial(seeds, np.full(seeds, 1 / seeds), draws)
    often_example = generator.multinomial(examples, np.full(examples, 1 / examples), draws)
    totals = np.einsum("ds,se,de->d", often_seed, right.astype(np.float64), often_example, optimize=True)
    means = totals / right.size
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else np.asarray(value).tolist()
