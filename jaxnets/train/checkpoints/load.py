"""Parameters and state out of a folder of checkpoints."""

from pathlib import Path
from typing import Any, Literal

from jaxnets.errors import NetError
from jaxnets.net import Params, State
from jaxnets.train.checkpoints import archive
from jaxnets.train.checkpoints.restored import tree


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
    >>> run, _ = jn.train.fit(program, jax.random.key(0), [jn.train.checkpoint(folder, config={"seed": 0})])
    >>> params, state, about = load_checkpoint(folder)
    >>> bool((params["kernel"] == run.params["kernel"]).all()), about["epoch"], about["config"]
    (True, 2, {'seed': 0})
    """
    folder = Path(folder).expanduser()
    if not (there := archive.numbers(folder)):
        raise FileNotFoundError(f"there is no checkpoint in {folder}")
    if which == "last":
        saved, _ = archive.newest(folder)
    else:
        number = _best(folder, there) if which == "best" else which
        if number not in there:
            raise FileNotFoundError(f"there is no checkpoint {number} in {folder}; there are {archive.listed(folder)}")
        try:
            saved = archive.read(folder, number)
        except Exception as error:  # whatever a damaged file leads its reader to
            text = f"can't read checkpoint {number}: {archive.brief(error)}"
            raise NetError(text, label=f"load_checkpoint {folder}") from None
        archive.check_kind(saved, "run", folder)
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
    saved, _ = archive.newest(folder)
    best = saved.about["best"]
    if best is None:
        raise NetError("was written without checkpoint(best=...)", label=f"load_checkpoint {folder}")
    values = saved.history[best["metric"]]
    there = [number for number in there if number <= saved.number]  # later ones can't be read
    return max(there, key=lambda number: archive.rank(best["mode"], values[number - 1]))
