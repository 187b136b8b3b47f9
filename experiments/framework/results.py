"""Folders of results, and what is written beside them to reproduce them."""

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
    """Make and return `root/name`, or `root/name-2`, `root/name-3`, … if it exists: nothing is overwritten."""
    if not name or Path(name).name != name or name == "..":
        raise ValueError(f"expects a plain name for the run, got {name!r}; --root sets the folder")
    root.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = root / (name if number == 1 else f"{name}-{number}")
        # mkdir alone tells whether the name is free, even if another process asks at the same time.
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def versions() -> dict[str, str]:
    """Return the versions of Python and of what computes.

    Raises:
        PackageNotFoundError: for a package that is not installed.
    """
    packages = ("jaxnets", "jax", "jaxlib", "flax", "optax", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def write_config(folder: Path, config: Any) -> None:
    """Write `config.json`: the configuration, the command, the versions and the machine."""
    program = ["-m", "experiments"] if "experiments" in sys.argv[0] else [sys.argv[0]]
    write_json(
        folder / "config.json",
        {
            "config": dataclasses.asdict(config),
            "command": shlex.join(["python", *program, *sys.argv[1:]]),
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "machine": {
                "platform": platform.platform(),
                "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
                "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
            },
        },
    )


def write_json(file: Path, content: Any) -> None:
    """Write indented JSON to a file that must not exist yet."""
    with file.open("x", encoding="utf-8") as out:
        json.dump(content, out, indent=2, default=_plain)
        out.write("\n")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else np.asarray(value).tolist()
