"""From what a checkpoint holds back to a run, its history, and trees of parameters."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.errors import NetError
from jaxnets.select import paths
from jaxnets.train.checkpoints.archive import Saved
from jaxnets.train.checkpoints.fingerprint import is_key
from jaxnets.train.run import Run


def restored(saved: Saved, like: Run, folder: str) -> Run:
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
        mend = "\nIs it of another net or optimizer? Give this run another folder"
        raise NetError(f"holds other arrays than this run:{text}{mend}", label=f"checkpoint {saved.number} in {folder}")
    keys = saved.about["keys"]
    leaves = [_leaf(saved.run[path], each, keys.get(path)) for path, each in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def row_of(saved: Saved, number: int, like: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return a segment's values; those that were not reported then as NaN, or -1 where there is no NaN."""
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


def _plain(run: Run) -> Run:
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, run)
