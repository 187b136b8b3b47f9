"""The runs of a sweep's members in the host's memory."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.train.run import Run
from jaxnets.train.sweeps import members as many


class Held:
    """All members' runs, stacked as NumPy arrays `(members, ...)` that nobody else writes to.

    Attributes:
        like: the shapes of one run.
        arrays: the runs' leaves, keys as the words they are made of; zero for members that have not begun.
        begun: `(members,)`, which have.
    """

    def __init__(self, like: Run, members: int) -> None:
        def blank(leaf: Any) -> np.ndarray:
            plain = jax.eval_shape(jax.random.key_data, leaf) if many.is_key(leaf) else leaf
            return np.zeros((members, *plain.shape), plain.dtype)

        self.like, self.begun = like, np.zeros(members, bool)
        self.arrays: Run = jax.tree.map(blank, like)

    def put(self, members: Sequence[int] | np.ndarray, runs: Run) -> None:
        """Take stacked runs over from the devices; places beyond the members' do not count."""

        def copy(own: np.ndarray, new: Any) -> None:
            own[members] = (np.asarray(jax.random.key_data(new)) if many.is_key(new) else new)[: len(members)]

        jax.tree.map(copy, self.arrays, many.on_host(runs, view=True))
        self.begun[members] = True

    def take(self, members: Sequence[int] | np.ndarray) -> Run:
        """Return copies of members' runs, stacked."""
        return jax.tree.map(lambda own, like: _as(own[members], like), self.arrays, self.like)

    def one(self, member: int) -> Run:
        """Return a copy of a member's run."""
        return jax.tree.map(lambda own, like: _as(np.array(own[member]), like), self.arrays, self.like)


def _as(array: np.ndarray, like: Any) -> Any:
    if not many.is_key(like):
        return array
    # words become keys of the like's kind, which a shape tells to traced code alone
    kind: list[Any] = []
    jax.eval_shape(lambda key: kind.append(jax.random.key_impl(key)), like)
    return jax.random.wrap_key_data(jnp.asarray(array), impl=kind[0])
