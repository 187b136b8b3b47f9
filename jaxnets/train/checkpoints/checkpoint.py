"""Checkpoints of `fit`, and runs that go on from them bit for bit."""

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxnets.errors import NetError, check_count, check_fraction, labelled_as
from jaxnets.net import Key
from jaxnets.train.checkpoints import archive
from jaxnets.train.checkpoints.archive import Saved
from jaxnets.train.checkpoints.fingerprint import MACHINE, changes, fingerprint
from jaxnets.train.checkpoints.restored import restored, row_of
from jaxnets.train.checkpoints.writer import Writer
from jaxnets.train.fit import Callback, Row
from jaxnets.train.names import Mode, settled
from jaxnets.train.program import Program
from jaxnets.train.run import Run
from jaxnets.train.stopping import EarlyStopping, early_stopping


def checkpoint(
    folder: str | Path,
    *,
    every: int = 1,
    keep: int = 3,
    best: str | None = None,
    mode: Mode | None = None,
    overhead: float | None = 0.02,
    config: Mapping[str, Any] | None = None,
    config_change: Literal["refuse", "accept"] = "refuse",
) -> Callback:
    """Save a run in a folder while it goes on, and go on from there when the same `fit` is called again.

    A checkpoint has the whole run (parameters, state, optimizer, key, step, average, early stopping) and its history.
    If there is one in the folder, `fit` goes on from the newest, and ends with the same bits as if it had never been
    broken off: whatever the process died of, a checkpoint is there whole or not at all. One that can't be read is
    renamed, and the one before it is taken, with a warning. A run that is already finished comes back at once.

    Orbax writes them in the background, from a copy on the host; the end of a run and Ctrl-C wait until theirs is
    whole. A run that stands still at a value that is not finite is not saved.

    Args:
        folder: where to; made if it is not there. One run a folder. `~` is the user's home.
        every: how many segments (epochs) lie between two checkpoints. The last is always saved.
        keep: how many of the last checkpoints are kept.
        best: a scalar of the history, `"validation/loss"`. The checkpoint of the segment with the best is kept too,
            whatever `every` says.
        mode: whether "min" or "max" of it is better; what the program's metrics and objective declare if not given.
        overhead: which share of the time saving may take, in [0, 1): checkpoints that come too soon are left out, and
            the best waits in the host's memory until it is its turn. `None` leaves out none.
        config: what else the run depends on, as JSON can hold it; kept, and compared when the run goes on.
        config_change: whether to "accept" that a run goes on under another configuration than it began with.
            A change is named either way. The key stays the saved run's.

    Raises:
        NetError: for an argument out of range; in `fit`, if the folder holds a run of another configuration, key,
            data or net.
        OSError: in `fit`, if the folder can't be written to, or the disk is full.
        ModuleNotFoundError: in `fit`, if Orbax is not installed.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax, tempfile
    >>> folder, data = tempfile.mkdtemp(), (jnp.ones((8, 3)), jnp.zeros(8, int))
    >>> program = jn.train.program(jn.dense(2), jn.objective(jn.losses.cross_entropy), optax.sgd(0.1), data, epochs=2,
    ...                            batch_size=4)
    >>> run, history = jn.train.fit(program, jax.random.key(0), [checkpoint(folder)])
    >>> again, _ = jn.train.fit(program, jax.random.key(0), [checkpoint(folder)])  # already finished
    >>> bool((run.params["kernel"] == again.params["kernel"]).all())
    True
    """
    try:
        check_count("every", every)
        check_count("keep", keep)
        if overhead is not None:
            check_fraction("overhead", overhead)
        if config_change not in ("refuse", "accept"):
            raise NetError(f"expects config_change 'refuse' or 'accept', got {config_change!r}")
        rule = None if best is None else early_stopping(best, patience=1, mode=mode)
        try:
            written = json.loads(json.dumps(dict(config or {})))
        except TypeError as error:
            raise NetError(f"expects a config that JSON can hold: {error}") from None
    except NetError as error:
        error.label = "checkpoint"
        raise
    keeper = _Keeper(Writer(Path(folder).expanduser(), overhead), every, keep, rule, written, config_change == "accept")
    return Callback(
        on_segment=keeper.on_segment, on_end=keeper.writer.close, restore=keeper.restore, on_finish=keeper.on_finish
    )


@dataclass(eq=False)
class _Keeper:
    """What `checkpoint` does around the segments of a run."""

    writer: Writer
    every: int
    keep: int
    rule: EarlyStopping | None
    config: dict[str, Any]
    accept: bool
    rows: list[dict[str, np.ndarray]] = field(default_factory=list)
    best: archive.Packed | None = None

    def restore(self, program: Program, key: Key) -> tuple[Run, list[Row]] | None:
        folder = self.writer.check_folder()
        settings, like, self.row = fingerprint(program, key)
        if self.rule is not None:
            with labelled_as("checkpoint"):
                self._check_metric()
                mode = settled(self.rule.metric, self.rule.mode, program.recipe.directions)
            self.rule = replace(self.rule, mode=mode)
        best = None if self.rule is None else {"metric": self.rule.metric, "mode": self.rule.mode}
        self.about = {"settings": settings, "config": self.config, "best": best}
        self.stream = None if program.stream is None else program.stream.batches
        self.rows, self.best, saved, found = [], None, 0, None
        if archive.numbers(folder):
            checkpoint, unreadable = archive.newest(folder)
            run = restored(checkpoint, like, str(folder))
            self._check_stream(checkpoint)
            self._compare(checkpoint)
            for number in unreadable:
                archive.move_away(folder, number)
            self.rows = [row_of(checkpoint, number, self.row) for number in range(checkpoint.number)]
            saved, found = checkpoint.number, (run, list[Row](self.rows))
        self.highest = max(map(self._rank, self.rows), default=-math.inf)
        self.writer.open(self.keep, self.rule and self._rank, saved)
        return found

    def on_segment(self, number: int, run: Run, row: Row) -> None:
        self.rows.append({name: np.asarray(value, self.row[name].dtype) for name, value in row.items()})
        affordable = self.writer.affordable()
        if _stands(run):
            return
        rank = self._rank(self.rows[-1])
        better, self.highest = rank > self.highest, max(rank, self.highest)
        if better:
            self.best = archive.pack(number + 1, run, self._history())
        if affordable and self.best is not None:
            self._save(self.best)
        elif affordable and (number + 1) % self.every == 0:
            self._save(archive.pack(number + 1, run, self._history()))

    def on_finish(self, number: int, run: Run) -> None:
        if self.best is not None:
            self._save(self.best)
        if number > self.writer.saved and not _stands(run):
            self._save(archive.pack(number, run, self._history()))

    def _history(self) -> dict[str, np.ndarray]:
        return {name: np.stack([row[name] for row in self.rows]) for name in self.row}

    def _save(self, packed: archive.Packed) -> None:
        metrics = {}
        if self.rule is not None:
            metrics[self.rule.metric] = float(packed.arrays[f"history/{self.rule.metric}"][-1])
        self.writer.save(packed, self.about | self._position(packed), metrics)
        self.best = None

    def _rank(self, row: Mapping[str, Any]) -> float:
        if self.rule is None or self.rule.mode is None:
            return -math.inf
        return archive.rank(self.rule.mode, row.get(self.rule.metric, math.nan))

    def _check_metric(self) -> None:
        if self.rule is not None and (self.rule.metric not in self.row or self.row[self.rule.metric].shape):
            scalars = ", ".join(name for name, value in self.row.items() if not value.shape)
            raise NetError(f"finds no scalar {self.rule.metric!r} in the history; it has {scalars}", label="checkpoint")

    def _position(self, packed: archive.Packed) -> dict[str, Any]:
        """Return where the stream stood: the run has taken one of its batches a step."""
        if self.stream is None:
            return {}
        return {"stream": {"position": int(packed.arrays["run/step"]), **self.stream.reading.mark}}

    def _check_stream(self, checkpoint: Saved) -> None:
        """Refuse a position in another stream, which would mean other examples."""
        if self.stream is None or "stream" not in checkpoint.about:
            return
        try:
            self.stream.again().set_state(checkpoint.about["stream"])
        except NetError as error:
            mend = "give a run on another stream another folder; jn.train.pretrained takes parameters over"
            place = f"checkpoint {checkpoint.number} in {self.writer.folder}"
            raise NetError(f"is of a run on another stream: {error}; {mend}", label=place) from None

    def _compare(self, checkpoint: Saved) -> None:
        """Say what differs from the saved run's configuration, or refuse to go on."""
        found = changes(_configuration(checkpoint.about), _configuration(self.about))
        place = f"checkpoint {checkpoint.number} in {self.writer.folder}"
        text = "".join(f"\n  {name}: {change}" for name, change in found.items())
        if found and all(name in MACHINE for name in found):
            warnings.warn(f"{place} was written elsewhere, the last bits may differ from here on:{text}", stacklevel=4)
        elif found and self.accept:
            warnings.warn(f"{place} goes on under another configuration:{text}", stacklevel=4)
        elif found:
            mend = "give a new run another folder, or go on all the same with config_change='accept'"
            raise NetError(f"is of a run with another configuration:{text}\n{mend}", label=place)


def _configuration(about: Mapping[str, Any]) -> dict[str, str]:
    return about["settings"] | {f"config {name}": json.dumps(value) for name, value in about["config"].items()}


def _stands(run: Run) -> bool:
    return run.failed is not None and int(run.failed) >= 0
