"""From what a checkpoint holds back to a run, its history, and trees of parameters."""

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError, check_count, check_fraction, labeled_as
from jaxnets.core.net import Key, Params, State
from jaxnets.core.paths import paths
from jaxnets.train.callbacks.early_stopping import EarlyStopping, early_stopping
from jaxnets.train.checkpoint import storage
from jaxnets.train.checkpoint.compatibility import MACHINE, changes, fingerprint, is_key
from jaxnets.train.checkpoint.storage import Saved, Writer
from jaxnets.train.loop import Callback, Row
from jaxnets.train.names import Mode, settled
from jaxnets.train.program import Program
from jaxnets.train.state import TrainState


def restored(saved: Saved, like: TrainState, folder: str) -> TrainState:
    """Return the saved run in the structure, shapes and dtypes of one that begins."""
    wanted, here = paths(like), paths(jax.eval_shape(_plain, like))
    wrong = [f"{path} {each.shape} is missing in it" for path, each in here.items() if path not in saved.run]
    wrong += [f"{path} {each.shape} is not in this run" for path, each in saved.run.items() if path not in here]
    for path, each in here.items():
        there = saved.run.get(path)
        if there is not None and (there.shape != each.shape or there.dtype != each.dtype):
            wrong.append(f"{path} is {there.shape} {there.dtype} in it, {each.shape} {each.dtype} here")
    if wrong:
        more = f"\n  and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        text = "".join(f"\n  {line}" for line in wrong[:10]) + more
        hint = "\nIs it of another net or optimizer? Give this run another folder"
        raise NetError(f"holds other arrays than this run:{text}{hint}", label=f"checkpoint {saved.number} in {folder}")
    keys = saved.about["keys"]
    leaves = [_leaf(saved.run[path], each, keys.get(path)) for path, each in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def row_of(saved: Saved, number: int, like: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return a epoch's values; those that were not reported then as NaN, or -1 where there is no NaN."""
    row: dict[str, np.ndarray] = {}
    for name, each in like.items():
        old = saved.history.get(name)
        if old is not None and old.shape[1:] == each.shape and old.dtype == each.dtype:
            row[name] = np.asarray(old[number])
        else:
            row[name] = np.full(each.shape, math.nan if jnp.issubdtype(each.dtype, jnp.inexact) else -1, each.dtype)
    return row


def tree(leaves: Mapping[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """Return the leaves below a prefix as nested dicts of arrays."""
    whole: dict[str, Any] = {}
    for path, leaf in leaves.items():
        if path.startswith(prefix):
            *inner, last = path.removeprefix(prefix).split("/")
            place = whole
            for name in inner:
                place = place.setdefault(name, {})
            place[last] = jnp.array(leaf)
    return whole


def _leaf(array: np.ndarray, like: Any, key: str | None) -> jax.Array:
    if is_key(like):
        return jax.random.wrap_key_data(jnp.array(array), impl=key)
    if like.weak_type and not array.shape:
        return jnp.asarray(array.item())  # a Python number, so that it stays weak
    return jnp.array(array)


def _plain(run: TrainState) -> TrainState:
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, run)


def load_checkpoint(
    folder: str | Path, which: Literal["last", "best"] | int = "last"
) -> tuple[Params, State, dict[str, Any]]:
    """Read parameters and state out of a folder of checkpoints, and what is known about them.

    Args:
        folder: as `checkpoint` wrote it. It is only read, also while a run is writing there.
        which: `"last"`, the run as `fit` would return it, under early stopping with the best parameters; `"best"`,
            the checkpoint best by what `checkpoint(best=...)` named; or a number of epochs.

    Returns:
        The parameters, the state, and a dict of `epoch`, `step`, `history`, `average` (the averaged parameters or
        `None`), `settings` (how the program was written) and `config`.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        NetError: if none can be read, or no best was asked for.

    Warns:
        UserWarning: if the newest can't be read and the one before is taken.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax, tempfile
    >>> folder, data = tempfile.mkdtemp(), (jnp.ones((8, 3)), jnp.zeros(8, int))
    >>> program = jn.train.program(jn.dense(2), jn.objective(jn.losses.cross_entropy), optax.sgd(0.1), data, epochs=2,
    ...                            batch_size=4)
    >>> keep = jn.train.checkpoint(folder, config={"seed": 0})
    >>> run, _ = jn.train.run(program, key=jax.random.key(0), callbacks=[keep])
    >>> params, state, about = load_checkpoint(folder)
    >>> bool((params["kernel"] == run.params["kernel"]).all()), about["epoch"], about["config"]
    (True, 2, {'seed': 0})
    """
    folder = Path(folder).expanduser()
    if not (there := storage.numbers(folder)):
        raise FileNotFoundError(f"there is no checkpoint in {folder}")
    if which == "last":
        saved, _ = storage.newest(folder)
    else:
        number = _best(folder, there) if which == "best" else which
        if number not in there:
            raise FileNotFoundError(f"there is no checkpoint {number} in {folder}; there are {storage.listed(folder)}")
        try:
            saved = storage.read(folder, number)
        except Exception as error:  # whatever a damaged file leads its reader to
            text = f"can't read checkpoint {number}: {storage.brief(error)}"
            raise NetError(text, label=f"load_checkpoint {folder}") from None
        storage.check_kind(saved, "run", folder)
    # As `fit` ends: the parameters that early stopping kept, if there was a best.
    has_best = saved.run.get("stopping/best_segment", -1) >= 0 and any("stopping/kept/" in path for path in saved.run)
    kept = "stopping/kept/" if which == "last" and has_best else ""
    average = tree(saved.run, f"{kept}average/")
    return (
        tree(saved.run, f"{kept}params/"),
        tree(saved.run, f"{kept}state/"),
        {
            "epoch": saved.number,
            "step": int(saved.run["step"]),
            "history": dict(saved.history),
            "average": average or None,
            "settings": saved.about["settings"],
            "config": saved.about["config"],
        },
    )


def _best(folder: Path, there: list[int]) -> int:
    saved, _ = storage.newest(folder)
    best = saved.about["best"]
    if best is None:
        raise NetError("was written without checkpoint(best=...)", label=f"load_checkpoint {folder}")
    values = saved.history[best["metric"]]
    there = [number for number in there if number <= saved.number]  # later ones can't be read
    return max(there, key=lambda number: storage.rank(best["mode"], values[number - 1]))


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
        every: how many epochs (epochs) lie between two checkpoints. The last is always saved.
        keep: how many of the last checkpoints are kept.
        best: a scalar of the history, `"validation/loss"`. The checkpoint of the epoch with the best is kept too,
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
    >>> run, history = jn.train.run(program, key=jax.random.key(0), callbacks=[checkpoint(folder)])
    >>> again, _ = jn.train.run(program, key=jax.random.key(0), callbacks=[checkpoint(folder)])  # already finished
    >>> bool((run.params["kernel"] == again.params["kernel"]).all())
    True
    """
    with labeled_as("checkpoint"):
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
    keeper = _Keeper(Writer(Path(folder).expanduser(), overhead), every, keep, rule, written, config_change == "accept")
    return Callback(
        on_epoch_end=keeper.on_epoch_end, on_end=keeper.writer.close, restore=keeper.restore, on_finish=keeper.on_finish
    )


@dataclass(eq=False)
class _Keeper:
    """What `checkpoint` does around the epochs of a run."""

    writer: Writer
    every: int
    keep: int
    rule: EarlyStopping | None
    config: dict[str, Any]
    accept: bool
    rows: list[dict[str, np.ndarray]] = field(default_factory=list)
    best: storage.Packed | None = None

    def restore(self, program: Program, key: Key) -> tuple[TrainState, list[Row]] | None:
        folder = self.writer.check_folder()
        settings, like, self.row = fingerprint(program, key)
        if self.rule is not None:
            with labeled_as("checkpoint"):
                self._check_metric()
                mode = settled(self.rule.metric, self.rule.mode, program.recipe.directions)
            self.rule = replace(self.rule, mode=mode)
        best = None if self.rule is None else {"metric": self.rule.metric, "mode": self.rule.mode}
        self.about = {"settings": settings, "config": self.config, "best": best}
        self.stream = None if program.stream is None else program.stream.batches
        self.rows, self.best, saved, found = [], None, 0, None
        if storage.numbers(folder):
            checkpoint, unreadable = storage.newest(folder)
            run = restored(checkpoint, like, str(folder))
            self._check_stream(checkpoint)
            self._compare(checkpoint)
            for number in unreadable:
                storage.move_away(folder, number)
            self.rows = [row_of(checkpoint, number, self.row) for number in range(checkpoint.number)]
            saved, found = checkpoint.number, (run, list[Row](self.rows))
        self.highest = max(map(self._rank, self.rows), default=-math.inf)
        self.writer.open(self.keep, self.rule and self._rank, saved)
        return found

    def on_epoch_end(self, number: int, run: TrainState, row: Row) -> None:
        self.rows.append({name: np.asarray(value, self.row[name].dtype) for name, value in row.items()})
        affordable = self.writer.affordable()
        if _stands(run):
            return
        rank = self._rank(self.rows[-1])
        better, self.highest = rank > self.highest, max(rank, self.highest)
        if better:
            self.best = storage.pack(number + 1, run, self._history())
        if affordable and self.best is not None:
            self._save(self.best)
        elif affordable and (number + 1) % self.every == 0:
            self._save(storage.pack(number + 1, run, self._history()))

    def on_finish(self, number: int, run: TrainState) -> None:
        if self.best is not None:
            self._save(self.best)
        if number > self.writer.saved and not _stands(run):
            self._save(storage.pack(number, run, self._history()))

    def _history(self) -> dict[str, np.ndarray]:
        return {name: np.stack([row[name] for row in self.rows]) for name in self.row}

    def _save(self, packed: storage.Packed) -> None:
        metrics = {}
        if self.rule is not None:
            metrics[self.rule.metric] = float(packed.arrays[f"history/{self.rule.metric}"][-1])
        self.writer.save(packed, self.about | self._position(packed), metrics)
        self.best = None

    def _rank(self, row: Mapping[str, Any]) -> float:
        if self.rule is None or self.rule.mode is None:
            return -math.inf
        return storage.rank(self.rule.mode, row.get(self.rule.metric, math.nan))

    def _check_metric(self) -> None:
        if self.rule is not None and (self.rule.metric not in self.row or self.row[self.rule.metric].shape):
            scalars = ", ".join(name for name, value in self.row.items() if not value.shape)
            raise NetError(f"finds no scalar {self.rule.metric!r} in the history; it has {scalars}", label="checkpoint")

    def _position(self, packed: storage.Packed) -> dict[str, Any]:
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
            hint = "give a run on another stream another folder; jn.train.pretrained takes parameters over"
            place = f"checkpoint {checkpoint.number} in {self.writer.folder}"
            raise NetError(f"is of a run on another stream: {error}; {hint}", label=place) from None

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
            hint = "give a new run another folder, or go on all the same with config_change='accept'"
            raise NetError(f"is of a run with another configuration:{text}\n{hint}", label=place)


def _configuration(about: Mapping[str, Any]) -> dict[str, str]:
    return about["settings"] | {f"config {name}": json.dumps(value) for name, value in about["config"].items()}


def _stands(run: TrainState) -> bool:
    return run.failed is not None and int(run.failed) >= 0
