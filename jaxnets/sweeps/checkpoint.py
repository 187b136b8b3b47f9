"""A sweep in a folder: one that was killed goes on, and ends with the same bits."""

import hashlib
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.compiled import compiled
from jaxnets.core.errors import NetError
from jaxnets.sweeps import execution as many
from jaxnets.sweeps.space import Design
from jaxnets.sweeps.state import Ledger
from jaxnets.sweeps.strategy import Computed, Team
from jaxnets.train.checkpoint import storage
from jaxnets.train.checkpoint.callback import restored
from jaxnets.train.checkpoint.compatibility import MACHINE, changes, described
from jaxnets.train.checkpoint.storage import Writer

KEEP = 2  # the newest, and the one before for when it can't be read


class Kept:
    """A folder with the checkpoints of one sweep: every trial's run and history, and where each is computed.

    Raises:
        NetError: if none of the checkpoints in the folder can be read, or there are several processes.
        OSError: if it can't be written to.
        ModuleNotFoundError: if Orbax is not installed.
    """

    def __init__(self, folder: str | Path, overhead: float | None) -> None:
        if jax.process_count() > 1:
            raise NetError(f"saves sweeps of one process, and there are {jax.process_count()}", label="checkpoint")
        self.writer = Writer(Path(folder).expanduser(), overhead)
        self.found, self.unreadable = None, list[int]()
        if storage.numbers(self.writer.check_folder()):
            try:
                self.found, self.unreadable = storage.newest(self.writer.folder, "sweep")
            except NetError:
                self.writer.close()
                raise

    def adopt(self, how: Computed) -> Computed:
        """Return how trials are computed, with what was measured then, so that the bits stay."""
        if self.found is None or how.get("strategy") not in (None, "measure"):
            return how
        return {**how, "strategy": self.found.about["layout"]["strategy"]}

    def restore(self, team: Team, design: Design, ledger: Ledger, more: dict[str, str]) -> Team:
        """Write on the ledger what the newest checkpoint has, and return the sweep with as many trials at a time.

        Args:
            team: the sweep.
            design: its trials.
            ledger: where they stand.
            more: what else the sweep depends on, as short text by name.

        Raises:
            NetError: if it is of another sweep.
        """
        if self.found is not None:
            team = replace(team, width=self.found.about["layout"]["width"])
        layout = {"strategy": team.layout.strategy, "width": team.width, "devices": team.layout.devices}
        self.about = {"settings": _settings(team, design, layout) | more, "layout": layout}
        if self.found is not None:
            self._compare()
            with jax.default_device(jax.local_devices(backend="cpu")[0]):
                saved = many.on_host(restored(self.found, cast(Any, _shapes(team)), str(self.writer.folder)))
            ledger.done, ledger.over = saved["done"].astype(int), saved["over"]
            ledger.dropped, ledger.judged = saved["dropped"], int(saved["judged"])
            ledger.history = {name: np.array(rows) for name, rows in self.found.history.items()}
            ledger.held.put(np.arange(len(design)), saved["runs"])
            ledger.held.begun = ledger.done > 0
            ledger.inside, ledger.width = [k for k in saved["inside"].tolist() if k >= 0], int(saved["width"])
            for number in self.unreadable:
                storage.move_away(self.writer.folder, number)
        self.writer.open(KEEP, saved=0 if self.found is None else self.found.number)
        return team

    def keep(self, team: Team, ledger: Ledger, *, last: bool = False) -> None:
        """Save where all trials stand, if it is time to, or the last.

        Raises:
            OSError: if the one before could not be written.
        """
        number = int(ledger.done.sum())
        if number == self.writer.saved or not (last or self.writer.affordable()):
            return
        ledger.hold()
        inside = np.full(len(ledger.done), -1, np.int32)
        inside[: len(ledger.inside)] = ledger.inside
        everything = {
            "runs": ledger.stacked(),
            "done": ledger.done.astype(np.int32),
            "over": ledger.over,
            "dropped": ledger.dropped,
            "judged": np.asarray(ledger.judged, np.int32),
            "inside": inside,
            "width": np.asarray(ledger.width, np.int32),
        }
        self.writer.save(storage.pack(number, everything, ledger.history), self.about, {})

    def _compare(self) -> None:
        """Refuse to go on with another sweep, and name what differs."""
        assert self.found is not None
        found = changes(self.found.about["settings"], self.about["settings"])
        place = f"checkpoint {self.found.number} in {self.writer.folder}"
        text = "".join(f"\n  {name}: {change}" for name, change in found.items())
        if any(name not in MACHINE for name in found):
            raise NetError(f"is of another sweep:{text}\ngive a new sweep another folder", label=place)
        if found:
            warnings.warn(f"{place} was written elsewhere, the last bits may differ from here on:{text}", stacklevel=5)


def _shapes(team: Team) -> dict[str, Any]:
    trials = len(team.keys)
    count, flag = jax.ShapeDtypeStruct((trials,), jnp.int32), jax.ShapeDtypeStruct((trials,), bool)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    runs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((trials, *leaf.shape), leaf.dtype), team.shared.run)
    return {
        "runs": runs,
        "done": count,
        "over": flag,
        "dropped": flag,
        "judged": number,
        "inside": count,
        "width": number,
    }


def _settings(team: Team, design: Design, layout: dict[str, Any]) -> dict[str, str]:
    """Return what a sweep is made of, as short text by name."""
    first = jax.tree.map(lambda column: column[0], team.inputs)
    arrays = team.given, team.shared.data, first, team.shared.run
    one = compiled(many.alone, [team.build], arrays).trace(*arrays)
    values = {name: ", ".join(f"{each:g}" for each in dict.fromkeys(rows.tolist())) for name, rows in design.hp.items()}
    labels = {name: ", ".join(map(str, dict.fromkeys(rows.tolist()))) for name, rows in design.labels.items()}
    table = hashlib.sha256(repr([rows.tolist() for rows in (*design.hp.values(), *design.labels.values())]).encode())
    keys = zlib.crc32(np.asarray(jax.random.key_data(design.keys)).tobytes())
    return {
        **described(many.program_of(team.build, team.given, first), one.jaxpr),
        **{f"hyperparameter {name}": text for name, text in values.items()},
        **labels,
        "trials": f"{len(design)}, {table.hexdigest()[:8]}",
        "keys": f"CRC-32 {keys:08x}",
        "computed by": f"{layout['strategy']}, {layout['width']} at a time on {layout['devices']} devices",
    }
