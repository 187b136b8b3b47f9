"""Checkpoints of a sweep in a folder: a killed sweep resumes bit for bit."""

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxnets.core.compiled import compiled
from jaxnets.core.errors import NetError
from jaxnets.sweeps import execution
from jaxnets.sweeps.state import SweepState
from jaxnets.sweeps.strategy import ExecutionOptions, Plan
from jaxnets.train.checkpoint import storage
from jaxnets.train.checkpoint.callback import restored
from jaxnets.train.checkpoint.compatibility import check_same, described
from jaxnets.train.checkpoint.storage import Writer

KEEP = 2  # the newest checkpoint, and the one before in case the newest can't be read


class SweepCheckpoint:
    """A folder with the checkpoints of one sweep: the train state and history of each trial, and its place.

    Raises:
        NetError: if none of the checkpoints in the folder can be read, or there are several processes.
        OSError: if the folder can't be written to.
        ModuleNotFoundError: if Orbax is not installed.
    """

    def __init__(self, folder: str | Path, overhead: float | None) -> None:
        if jax.process_count() > 1:
            raise NetError(f"saves sweeps of one process, and there are {jax.process_count()}", label="checkpoint")
        self.writer: Writer = Writer(Path(folder).expanduser(), overhead)
        self.found: storage.Saved | None = None
        self.unreadable: list[int] = []
        if storage.numbers(self.writer.check_folder()):
            try:
                self.found, self.unreadable = storage.newest(self.writer.folder, "sweep")
            except NetError:
                self.writer.close()
                raise

    def adopt(self, options: ExecutionOptions) -> ExecutionOptions:
        """Return the options, with the checkpoint's strategy instead of a measured one: the bits depend on it."""
        if self.found is None or options.get("strategy") not in (None, "measure"):
            return options
        return {**options, "strategy": self.found.about["layout"]["strategy"]}

    def restore(self, plan: Plan, state: SweepState, settings: Mapping[str, str]) -> Plan:
        """Restore the newest checkpoint, if there is one, and open the folder for saving.

        Args:
            plan: the sweep.
            state: the state of the sweep, which is updated in place.
            settings: what else the sweep depends on, as short text by name.

        Returns:
            The sweep with as many places as it had before: bits depend on them, too.

        Raises:
            NetError: if the checkpoint is of another sweep.
        """
        if self.found is not None:
            plan = replace(plan, width=self.found.about["layout"]["width"])
        layout = {"strategy": plan.layout.strategy, "width": plan.width, "devices": plan.layout.devices}
        self.about: dict[str, Any] = {"settings": {**_settings(plan, layout), **settings}, "layout": layout}
        if self.found is not None:
            check_same(
                self.found.about["settings"],
                self.about["settings"],
                place=f"checkpoint {self.found.number} in {self.writer.folder}",
                other=("is of another sweep", "give a new sweep another folder"),
            )
            trials, one = len(plan.design), plan.shared.state
            runs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((trials, *leaf.shape), leaf.dtype), one)
            like = {"runs": runs, **jax.eval_shape(lambda: _progress(state))}
            # All trials together may not fit on an accelerator.
            with jax.default_device(jax.local_devices(backend="cpu")[0]):
                saved = execution.on_host(restored(self.found, like, str(self.writer.folder)))
            state.done, state.over = saved["done"].astype(int), saved["over"]
            state.dropped, state.judged = saved["dropped"], int(saved["judged"])
            state.history = {name: np.array(rows) for name, rows in self.found.history.items()}
            state.host.put(np.arange(trials), saved["runs"])
            state.host.begun = state.done > 0
            state.placed, state.width = [k for k in saved["inside"].tolist() if k >= 0], int(saved["width"])
            for number in self.unreadable:
                storage.move_away(self.writer.folder, number)
        self.writer.open(KEEP, saved=0 if self.found is None else self.found.number)
        return plan

    def save(self, plan: Plan, state: SweepState, *, last: bool = False) -> None:
        """Save all trials, if this is the `last` time or enough time has passed.

        Raises:
            OSError: if the previous checkpoint could not be written.
        """
        number = int(state.done.sum())
        if number == self.writer.saved or not (last or self.writer.affordable()):
            return
        state.to_host()
        everything = {"runs": state.stacked(), **_progress(state)}
        self.writer.save(storage.pack(number, everything, state.history), self.about, {})


def _progress(state: SweepState) -> dict[str, np.ndarray]:
    """Return how far the trials are, and which are on the devices."""
    # The trial in each place, and -1 after the last.
    inside = np.full(len(state.done), -1, np.int32)
    inside[: len(state.placed)] = state.placed
    return {
        "done": state.done.astype(np.int32),
        "over": state.over,
        "dropped": state.dropped,
        "judged": np.asarray(state.judged, np.int32),
        "inside": inside,
        "width": np.asarray(state.width, np.int32),
    }


def _settings(plan: Plan, layout: dict[str, Any]) -> dict[str, str]:
    """Return what the bits of a sweep depend on, as short text by name."""
    design, first = plan.design, plan.inputs_of(0)
    arrays = plan.extra, plan.shared.data, first, plan.shared.state
    epoch = compiled(execution.run_epoch_alone, [plan.builder], arrays).trace(*arrays)
    values = {name: ", ".join(f"{each:g}" for each in dict.fromkeys(rows.tolist())) for name, rows in design.hp.items()}
    labels = {name: ", ".join(map(str, dict.fromkeys(rows.tolist()))) for name, rows in design.labels.items()}
    # The texts above do not say which trial has which value.
    table = hashlib.sha256(repr([rows.tolist() for rows in (*design.hp.values(), *design.labels.values())]).encode())
    keys = zlib.crc32(np.asarray(jax.random.key_data(design.keys)).tobytes())
    return {
        **described(execution.build_program(plan.builder, plan.extra, first), epoch.jaxpr),
        **{f"hyperparameter {name}": text for name, text in values.items()},
        **labels,
        "trials": f"{len(design)}, {table.hexdigest()[:8]}",
        "keys": f"CRC-32 {keys:08x}",
        "computed by": f"{layout['strategy']}, {layout['width']} at a time on {layout['devices']} devices",
    }
