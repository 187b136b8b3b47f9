"""The checkpoint callback, and functions that read a checkpoint: train state, history, parameters."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
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
from jaxnets.train.checkpoint.compatibility import check_same, fingerprint
from jaxnets.train.checkpoint.storage import Saved, Writer
from jaxnets.train.loop import Callback, Row
from jaxnets.train.names import Mode, check_scalar
from jaxnets.train.program import Program
from jaxnets.train.state import TrainState, is_key


def restored(saved: Saved, like: Any, folder: str) -> Any:
    """Return the saved train state in the structure of another, whose shapes and dtypes it must have.

    Args:
        saved: the checkpoint.
        like: a pytree of arrays, or of their shapes and dtypes.
        folder: where the checkpoint is, for the error.

    Raises:
        NetError: if arrays are missing, unexpected, or of another shape or dtype; they are listed.
    """
    # Random keys are saved as their data.
    data = jax.eval_shape(partial(jax.tree.map, lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf), like)
    wanted, here = paths(like), paths(data)
    wrong = [f"{path} {each.shape} is missing in it" for path, each in here.items() if path not in saved.leaves]
    wrong += [f"{path} {each.shape} is not in this run" for path, each in saved.leaves.items() if path not in here]
    for path, each in here.items():
        there = saved.leaves.get(path)
        if there is not None and (there.shape != each.shape or there.dtype != each.dtype):
            wrong.append(f"{path} is {there.shape} {there.dtype} in it, {each.shape} {each.dtype} here")
    if wrong:
        more = f"\n  and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        text = "".join(f"\n  {line}" for line in wrong[:10]) + more
        hint = "\nIs it of another net or optimizer? Give this run another folder"
        raise NetError(f"holds other arrays than this run:{text}{hint}", label=f"checkpoint {saved.number} in {folder}")
    keys = saved.about["keys"]
    leaves = [_leaf(saved.leaves[path], each, keys.get(path)) for path, each in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _leaf(array: np.ndarray, like: Any, key: str | None) -> jax.Array:
    if is_key(like):
        return jax.random.wrap_key_data(jnp.array(array), impl=key)
    if like.weak_type and not array.shape:
        return jnp.asarray(array.item())  # a Python number makes a weakly typed array
    return jnp.array(array)


def _row_of(saved: Saved, number: int, like: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return an epoch's values; those that were not reported then are NaN, or -1 if their dtype has no NaN."""
    row: dict[str, np.ndarray] = {}
    for name, each in like.items():
        old = saved.history.get(name)
        if old is not None and old.shape[1:] == each.shape and old.dtype == each.dtype:
            row[name] = np.asarray(old[number])
        else:
            row[name] = np.full(each.shape, math.nan if jnp.issubdtype(each.dtype, jnp.inexact) else -1, each.dtype)
    return row


def _tree(leaves: Mapping[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """Return the leaves below a prefix as nested dicts of arrays."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        if path.startswith(prefix):
            *inner, last = path.removeprefix(prefix).split("/")
            place = tree
            for name in inner:
                place = place.setdefault(name, {})
            place[last] = jnp.array(leaf)
    return tree


def load_checkpoint(
    folder: str | Path, which: Literal["last", "best"] | int = "last"
) -> tuple[Params, State, dict[str, Any]]:
    """Read parameters and state from a folder of checkpoints, without the program.

    Args:
        folder: a folder that `checkpoint` wrote. It is only read, and may be read while a run writes there.
        which: `"last"`, what `jn.train.run` would return, with the best parameters under early stopping; `"best"`, the
            checkpoint that is best by the value named in `checkpoint(best=...)`; or a number of epochs.

    Returns:
        The parameters, the state, and a dict of `epoch`, `step`, `history`, `ema` (the averaged parameters or `None`),
        `settings` (how the program was written) and `config`.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        NetError: if none can be read, or for "best" if none was kept.

    Warns:
        UserWarning: if the newest can't be read and the one before is used.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax, tempfile
    >>> folder, data = tempfile.mkdtemp(), (jnp.ones((8, 3)), jnp.zeros(8, int))
    >>> program = jn.train.program(jn.dense(2), jn.losses.cross_entropy, optax.sgd(0.1), data, epochs=2, batch_size=4)
    >>> keep = jn.train.checkpoint(folder, config={"seed": 0})
    >>> final, _ = jn.train.run(program, key=jax.random.key(0), callbacks=[keep])
    >>> params, state, about = load_checkpoint(folder)
    >>> bool((params["kernel"] == final.params["kernel"]).all()), about["epoch"], about["config"]
    (True, 2, {'seed': 0})
    """
    folder = Path(folder).expanduser()
    if not (there := storage.numbers(folder)):
        raise FileNotFoundError(f"there is no checkpoint in {folder}")
    if which == "last":
        saved, _ = storage.newest(folder)
    else:
        with labeled_as(f"load_checkpoint {folder}"):
            number = _best(folder, there) if which == "best" else which
        if number not in there:
            raise FileNotFoundError(f"there is no checkpoint {number} in {folder}; there are {storage.listed(folder)}")
        try:
            saved = storage.read(folder, number)
        except Exception as error:  # whatever a damaged file makes its reader raise
            text = f"can't read checkpoint {number}: {storage.brief(error)}"
            raise NetError(text, label=f"load_checkpoint {folder}") from None
        storage.check_kind(saved, "run", folder)
    # A run that stops early ends with the parameters of its best epoch, if there was one.
    has_best = saved.leaves.get("stopping/best_epoch", -1) >= 0 and any(
        path.startswith("stopping/kept/") for path in saved.leaves
    )
    prefix = "stopping/kept/" if which == "last" and has_best else ""
    return (
        _tree(saved.leaves, f"{prefix}params/"),
        _tree(saved.leaves, f"{prefix}state/"),
        {
            "epoch": saved.number,
            "step": int(saved.leaves["step"]),
            "history": dict(saved.history),
            "ema": _tree(saved.leaves, f"{prefix}ema/") or None,
            "settings": saved.about["settings"],
            "config": saved.about["config"],
        },
    )


def _best(folder: Path, there: list[int]) -> int:
    saved, _ = storage.newest(folder)
    best = saved.about.get("best")
    if best is None:
        raise NetError("was written without checkpoint(best=...)")
    values = saved.history[best["metric"]]
    readable = [number for number in there if number <= saved.number]  # `newest` skipped the later ones
    return max(readable, key=lambda number: storage.rank(best["mode"], values[number - 1]))


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
    """Save a run in a folder while it trains, and resume it from there when the same program is run again.

    A checkpoint holds the whole train state and the history. If the folder has one, the run resumes from the newest,
    and ends with the same bits as an uninterrupted run: whatever killed the process, an incomplete checkpoint is
    ignored. One that can't be read is renamed, and the one before it is used, with a warning. A run that is already
    finished returns at once.

    Orbax writes checkpoints in the background, from a copy on the host; the end of a run and Ctrl-C wait until the last
    one is complete. A run that halted at a non-finite value is not saved.

    Args:
        folder: the folder, created if needed; one run per folder. `~` is the user's home.
        every: the number of epochs between two checkpoints. The last epoch is always saved.
        keep: how many of the last checkpoints are kept.
        best: a scalar of the history, `"validation/loss"`. The checkpoint of the epoch with the best value is kept,
            too, whatever `every` is.
        mode: whether "min" or "max" of it is better; by default what the program's metrics and objective declare.
        overhead: the fraction of the time that saving may take, in [0, 1): checkpoints that come too soon are skipped,
            and the best is held in the host's memory until it can be saved. `None` skips none.
        config: what else the run depends on, as JSON can hold it; saved, and compared when the run resumes.
        config_change: whether to "refuse" or "accept" resuming with another configuration. Changes are reported either
            way. The key is always that of the saved run.

    Raises:
        NetError: for an argument out of range; when the run starts, if the folder holds a run of another configuration,
            key, data or network.
        OSError: during the run, if the folder can't be written to, or the disk is full.
        ModuleNotFoundError: when the run starts, if Orbax is not installed.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax, tempfile
    >>> folder, data = tempfile.mkdtemp(), (jnp.ones((8, 3)), jnp.zeros(8, int))
    >>> program = jn.train.program(jn.dense(2), jn.losses.cross_entropy, optax.sgd(0.1), data, epochs=2, batch_size=4)
    >>> state, history = jn.train.run(program, key=jax.random.key(0), callbacks=[checkpoint(folder)])
    >>> again, _ = jn.train.run(program, key=jax.random.key(0), callbacks=[checkpoint(folder)])  # already finished
    >>> bool((state.params["kernel"] == again.params["kernel"]).all())
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
    writer = Writer(Path(folder).expanduser(), overhead)
    checkpointer = _Checkpointer(writer, every, keep, rule, written, config_change == "accept")
    return Callback(
        on_epoch_end=checkpointer.on_epoch_end,
        on_end=writer.close,
        restore=checkpointer.restore,
        on_finish=checkpointer.on_finish,
    )


@dataclass(eq=False)
class _Checkpointer:
    """The functions of the callback that `checkpoint` returns.

    Attributes:
        writer: writes into the folder.
        every: the number of epochs between two checkpoints.
        keep: how many of the last are kept.
        rule: the value whose best epoch is kept, with its mode.
        config: what else the run depends on.
        accept: whether another configuration is accepted.
        rows: the values of every epoch so far.
        best: the best epoch's checkpoint, until it is written.
    """

    writer: Writer
    every: int
    keep: int
    rule: EarlyStopping | None
    config: dict[str, Any]
    accept: bool
    rows: list[dict[str, np.ndarray]] = field(default_factory=list)
    best: Saved | None = None

    def restore(self, program: Program, key: Key) -> tuple[TrainState, list[Row]] | None:
        folder = self.writer.check_folder()
        settings, like, self.row = fingerprint(program, key)
        best = None
        if self.rule is not None:
            check_scalar(self.rule.metric, self.row, "checkpoint")
            with labeled_as("checkpoint"):
                self.rule = self.rule.settle(program.recipe.directions)
            best = {"metric": self.rule.metric, "mode": self.rule.mode}
        self.about = {"settings": settings, "config": self.config, "best": best}
        self.stream = None if program.stream is None else program.stream.batches
        self.rows, self.best, saved, found = [], None, 0, None
        if storage.numbers(folder):
            checkpoint, unreadable = storage.newest(folder)
            state = restored(checkpoint, like, str(folder))
            self._check_stream(checkpoint)
            self._compare(checkpoint)
            # Only now is it certain that the folder belongs to this run.
            for number in unreadable:
                storage.move_away(folder, number)
            self.rows = [_row_of(checkpoint, number, self.row) for number in range(checkpoint.number)]
            saved, found = checkpoint.number, (state, list[Row](self.rows))
        self.highest = max(map(self._rank, self.rows), default=-math.inf)
        self.writer.open(self.keep, self.rule and self._rank, saved)
        return found

    def on_epoch_end(self, number: int, state: TrainState, row: Row) -> None:
        self.rows.append({name: np.asarray(value, self.row[name].dtype) for name, value in row.items()})
        affordable = self.writer.affordable()
        if _has_failed(state):
            return
        rank = self._rank(self.rows[-1])
        better, self.highest = rank > self.highest, max(rank, self.highest)
        if better:
            self.best = storage.pack(number + 1, state, self._history())
        if affordable and self.best is not None:
            self._save(self.best)
        elif affordable and (number + 1) % self.every == 0:
            self._save(storage.pack(number + 1, state, self._history()))

    def on_finish(self, number: int, state: TrainState) -> None:
        if self.best is not None:
            self._save(self.best)
        if number > self.writer.saved and not _has_failed(state):
            self._save(storage.pack(number, state, self._history()))

    def _history(self) -> dict[str, np.ndarray]:
        return {name: np.stack([row[name] for row in self.rows]) for name in self.row}

    def _save(self, packed: Saved) -> None:
        about, metrics = dict(self.about), {}
        if self.rule is not None:
            metrics[self.rule.metric] = float(packed.history[self.rule.metric][-1])
        if self.stream is not None:
            # A run takes one batch of the stream per step.
            about["stream"] = {"position": int(packed.leaves["step"]), **self.stream.reading.mark}
        self.writer.save(packed, about, metrics)
        self.best = None

    def _rank(self, row: Mapping[str, Any]) -> float:
        if self.rule is None or self.rule.mode is None:
            return -math.inf
        return storage.rank(self.rule.mode, row.get(self.rule.metric, math.nan))

    def _check_stream(self, checkpoint: Saved) -> None:
        """Check that the position is of this stream: in another stream it would mean other examples."""
        if self.stream is None or "stream" not in checkpoint.about:
            return
        try:
            self.stream.again().set_state(checkpoint.about["stream"])
        except NetError as error:
            hint = "give a run on another stream another folder; jn.train.pretrained takes parameters over"
            place = f"checkpoint {checkpoint.number} in {self.writer.folder}"
            raise NetError(f"is of a run on another stream: {error}; {hint}", label=place) from None

    def _compare(self, checkpoint: Saved) -> None:
        """Warn about differences from the saved run's configuration, or raise an error."""
        hint = "give a new run another folder, or resume anyway with config_change='accept'"
        check_same(
            _configuration(checkpoint.about),
            _configuration(self.about),
            place=f"checkpoint {checkpoint.number} in {self.writer.folder}",
            other=("is of a run with another configuration", hint),
            accept=self.accept,
        )


def _configuration(about: Mapping[str, Any]) -> dict[str, str]:
    return about["settings"] | {f"config {name}": json.dumps(value) for name, value in about["config"].items()}


def _has_failed(state: TrainState) -> bool:
    return state.failed is not None and int(state.failed) >= 0
