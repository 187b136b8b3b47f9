"""Running a study: its results go to a new folder, with a figure and a verdict."""

import json
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from experiments.framework.results import new_folder, versions, write_config, write_json
from experiments.framework.study import Size, Study, Verdict


def conduct(study: Study, config: Any, root: Path, size: Size | None) -> tuple[Path, Verdict]:
    """Run a study, and write `config.json`, `results.json`, `figure.png` and `figure.svg` to `root/study/time`.

    Args:
        study: the study.
        config: its configuration.
        root: the folder of all results.
        size: the size that the configuration is, or `None` for a custom one.

    Returns:
        The folder, and the verdict.
    """
    versions()  # fails now, and not after minutes, if one is unknown
    began = time.perf_counter()
    results = study.run(config)
    seconds = round(time.perf_counter() - began, 1)
    # Judged and drawn as `report` will read them again: lists in place of arrays.
    plain = json.loads(json.dumps(results, default=lambda value: value.tolist()))
    verdict = study.verdict(plain)
    folder = new_folder(root / study.name, datetime.now().strftime("%Y-%m-%d-%H%M%S"))
    write_config(folder, config)
    content = {"study": study.name, "size": size, "seconds": seconds, "verdict": asdict(verdict), "results": plain}
    write_json(folder / "results.json", content)
    figure = study.figure(plain)
    for kind in ("png", "svg"):
        figure.savefig(folder / f"figure.{kind}")
    return folder, verdict


def show(study: Study, verdict: Verdict, folder: Path) -> None:
    """Print the verdict of a study, its findings, and the folder of its results."""
    print(f"{study.name}: {verdict.outcome}")
    for each in verdict.findings:
        sign = "✓" if each.holds else "✗" if each.core else "–"
        print(f"  {sign} {each.statement}: {written(each.value, each.low, each.high, each.unit)}")
    print(f"  {folder}/", flush=True)


def written(value: float, low: float, high: float, unit: str) -> str:
    """Return a number with its interval, to as many digits as the interval's width supports.

    >>> written(0.98765, 0.95, 1.02, "")
    '0.988 (0.950 to 1.020)'
    >>> written(97.531, 97.1, 98.0, "%")
    '97.5 % (97.1 to 98.0)'
    """
    unit = unit and f" {unit}"
    width = max(high - low, 1e-12, abs(value) * 1e-3)
    if not 1e-4 < width < 1e5:
        return f"{value:.3g}{unit} ({low:.3g} to {high:.3g})"
    # The last digit is worth less than a fifth of the width.
    digits = next((d for d in range(6) if 10.0**-d < width / 5), 6)
    return f"{value:.{digits}f}{unit} ({low:.{digits}f} to {high:.{digits}f})"
