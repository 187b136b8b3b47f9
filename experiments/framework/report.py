"""The pages docs/claims, generated from the stored results of full size; nothing on them is written by hand."""

import argparse
import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.framework.running import written
from experiments.framework.study import Finding, Study, Verdict, studies, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLAIMS = Path(__file__).parents[2] / "docs" / "claims"
SIGNS = {
    "confirmed": "✓ confirmed",
    "confirmed with conditions": "◐ with conditions",
    "not confirmed": "✗ not confirmed",
}
OPENING = """# Claims

Much of what is taught about deep learning is a claim that a program can test. Each of these was tested: several seeds,
95 % intervals by bootstrap over them, and a verdict that is computed from the results: *confirmed* if every finding is
as claimed with its whole interval, *with conditions* if what the claim stands on is, and something beside it is not,
else *not confirmed*. What would refute a claim is written on its page.

```bash
python -m experiments list                        # every study: claim, data, cost
python -m experiments run vanishing_gradient      # one of them, at the size of these pages
python -m experiments all --quick                 # all of them, small
python -m experiments report                      # these pages anew, from the results in runs/
```
"""
GALLERY = """---
hide: [navigation, toc]
---

# Gallery

One figure from each [study](index.md), drawn from committed results by `python -m experiments report`. Each links to
its claim, numbers and verdict. Diagrams of networks are on the page of [models](../models.md).
"""


def main(arguments: Sequence[str]) -> None:
    """Copy the newest results of full size from the folder of runs, and write the pages."""
    parser = argparse.ArgumentParser(prog="python -m experiments report")
    parser.add_argument("--root", type=Path, default=Path("runs"))
    parser.add_argument("--check", action="store_true", help="fail if a page is out of date, and write nothing")
    options = parser.parse_args(arguments)
    if not options.check:
        for study in studies().values():
            copy_newest(study, options.root)
    pages = {CLAIMS / name: text for name, text in written_pages().items()}
    stale = [file for file, text in pages.items() if not file.is_file() or file.read_text(encoding="utf-8") != text]
    if options.check and stale:
        raise SystemExit(f"out of date: {', '.join(file.name for file in stale)}; run python -m experiments report")
    CLAIMS.mkdir(exist_ok=True)
    for file in stale:
        file.write_text(text := pages[file], encoding="utf-8")
        print(f"written: docs/claims/{file.name}, {len(text)} characters")


def copy_newest(study: Study, root: Path) -> None:
    """Copy a study's newest results of full size, if there are any, and draw their figure."""
    for folder in sorted((root / study.name).glob("*"), key=lambda each: each.name, reverse=True):
        file = folder / "results.json"
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if found.get("size") != "full":
            continue
        run = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        run.pop("config")
        own, figures = CLAIMS / "results", CLAIMS / "figures"
        own.mkdir(parents=True, exist_ok=True)
        figures.mkdir(exist_ok=True)
        stored = {"run": run, "seconds": found["seconds"], "results": found["results"]}
        (own / f"{study.name}.json").write_text(json.dumps(stored, separators=(",", ":")) + "\n", encoding="utf-8")
        save_small(study.figure(found["results"]), figures / f"{study.name}.png")
        return


def save_small(figure: "Figure", file: Path) -> None:
    """Save a figure as a PNG of 256 colors: it looks the same at a third of the size."""
    from PIL import Image

    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    with Image.open(drawn) as image:
        few = image.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(file, optimize=True)


def written_pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    rows, pages, shown = [], {}, []
    for name, study in studies().items():
        file = CLAIMS / "results" / f"{name}.json"
        if not file.is_file():
            continue
        found = json.loads(file.read_text(encoding="utf-8"))
        verdict = study.verdict(found["results"])
        pages[f"{name}.md"] = page(study, verdict, found)
        shown.append(f"[![{study.about.title}](figures/{name}.png){{ loading=lazy }} {study.about.title}]({name}.md)")
        first = verdict.findings[0]
        rows.append(
            {
                "claim": f"[{study.about.title}]({name}.md): {study.about.claim}",
                "verdict": SIGNS[verdict.outcome],
                "first finding": f"{first.statement}: {_value(first)}",
            }
        )
    pages["index.md"] = f"{OPENING}\n{table(['claim', 'verdict', 'first finding'], rows)}\n"
    figures = "\n\n".join(shown)
    pages["gallery.md"] = f'{GALLERY}\n<div class="gallery" markdown>\n\n{figures}\n\n</div>\n'
    return pages


def page(study: Study, verdict: Verdict, found: dict[str, Any]) -> str:
    """Return a study's page."""
    about, run = study.about, found["run"]
    rows = [
        {
            "finding": each.statement if each.core else f"{each.statement} (a condition)",
            "measured": _value(each),
            "as claimed": "yes" if each.holds else "no",
        }
        for each in verdict.findings
    ]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    where = f"{run['machine']['cores']} cores ({', '.join(run['machine']['devices'])})"
    concepts = f"\n\nWith {', '.join(f'`{each}`' for each in about.concepts)}." if about.concepts else ""
    reservations = f"\n\n{about.reservations}" if about.reservations else ""
    return f"""# {about.title}

**{about.claim}**

Verdict: **{verdict.outcome}**. Usually written in: {about.source}. It would be refuted by {about.refuted_by}

![{about.title}](figures/{study.name}.png)

{table(["finding", "measured", "as claimed"], rows)}

Intervals, and bands in the figure, are 95 %, by bootstrap over seeds. Data: {about.data}.{reservations}{concepts}

```bash
python -m experiments run {study.name}
```

{found["seconds"]:.0f} s on {where}, {run["began"][:10]}; {versions}. The numbers:
[{study.name}.json](results/{study.name}.json); the study: `experiments/studies/{study.name}.py`.
"""


def _value(finding: Finding) -> str:
    return written(finding.value, finding.low, finding.high, finding.unit)
