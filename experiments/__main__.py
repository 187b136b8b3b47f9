"""The command `python -m experiments`: the default study, or the studies of claims.

python -m experiments                    # LeNet-5 on real digits; `--help` lists its options
python -m experiments list               # every study: claim, data, cost
python -m experiments run NAME           # one of them; `--quick` or `--tiny`, and `--help` lists its options
python -m experiments all --quick        # all of them, small; `--full` for the size of docs/claims
python -m experiments report             # rebuild docs/claims from the results
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import tyro

from experiments import lenet_digits
from experiments.framework import report
from experiments.framework.running import conduct, show
from experiments.framework.study import Study, studies

SIZES = {
    "tiny": "seconds: whether it runs at all",
    "quick": "a minute or less: a first look",
    "full": "the size of docs/claims",
}
ROOT_HELP = "the folder of all results (default: runs)"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options and run."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"list": listing, "run": one, "all": everything, "report": report.main}
    if given and given[0] in commands:
        commands[given[0]](given[1:])
    else:
        description = f"{lenet_digits.Config.__doc__}\n\nOther commands: list, run NAME, all, report."
        lenet_digits.run(
            tyro.cli(lenet_digits.Config, prog="python -m experiments", description=description, args=given)
        )


def listing(arguments: Sequence[str]) -> None:
    """Print the claim, data and cost of each study."""
    argparse.ArgumentParser(prog="python -m experiments list").parse_args(arguments)
    for study in studies().values():
        about = study.about
        on_gpu = "not measured" if about.gpu_minutes is None else f"{about.gpu_minutes:g} min"
        print(f"{study.name}\n  {about.claim}\n  data: {about.data}")
        print(f"  cost: {about.minutes:g} min on 2 cores; on a GPU {on_gpu}\n")


def one(arguments: Sequence[str]) -> None:
    """Run one study."""
    known = studies()
    parser = argparse.ArgumentParser(prog="python -m experiments run", add_help=False)
    parser.add_argument("name", choices=known, metavar="NAME", help=f"one of {', '.join(known)}")
    add_sizes(parser, "full").add_argument("--size", choices=SIZES)
    parser.add_argument("--root", type=Path, default=Path("runs"), help=ROOT_HELP)
    if not arguments or arguments[0] in ("-h", "--help"):
        parser.print_help()
        return
    options, rest = parser.parse_known_args(arguments)
    study = known[options.name]
    # The study's own options follow, by tyro, which then exits.
    if {"-h", "--help"} & {*rest}:
        parser.print_help()
        print()
    usual, program = study.config(options.size), f"python -m experiments run {study.name}"
    config = tyro.cli(type(usual), prog=program, description=study.module.__doc__, default=usual, args=rest)
    run_and_show(study, config, options.root, options.size if config == usual else None)


def everything(arguments: Sequence[str]) -> None:
    """Run all studies, or some of them; one that fails does not stop the others."""
    parser = argparse.ArgumentParser(prog="python -m experiments all")
    add_sizes(parser, "quick")
    parser.add_argument("--only", nargs="+", choices=studies(), metavar="NAME")
    parser.add_argument("--root", type=Path, default=Path("runs"), help=ROOT_HELP)
    options = parser.parse_args(arguments)
    failed = []
    for name, study in studies().items():
        if options.only and name not in options.only:
            continue
        try:
            run_and_show(study, study.config(options.size), options.root, options.size)
        # One study that fails does not stop the others; the exit status names all that failed.
        except Exception as error:
            failed.append(name)
            print(f"{name}: failed, {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        # Nobody calls these programs again, and by the end they would hold hundreds of megabytes.
        jax.clear_caches()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def add_sizes(parser: argparse.ArgumentParser, usual: str) -> argparse._MutuallyExclusiveGroup:
    """Add the options `--tiny`, `--quick` and `--full`, one of them at a time, and return their group."""
    group = parser.add_mutually_exclusive_group()
    for name, help in SIZES.items():
        group.add_argument(f"--{name}", dest="size", action="store_const", const=name, help=help)
    parser.set_defaults(size=usual)
    return group


def run_and_show(study: Study, config: object, root: Path, size: object) -> None:
    """Run a study, and print its results and the time it took."""
    began = time.perf_counter()
    folder, verdict = conduct(study, config, root, size)  # pyright: ignore[reportArgumentType]  # checked when read
    show(study, verdict, folder)
    print(f"  {time.perf_counter() - began:.0f} s\n", flush=True)


if __name__ == "__main__":
    main()
