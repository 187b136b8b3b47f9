"""Rematerialization: recompute a network's intermediate values in the backward pass, to save memory."""

from collections.abc import Callable
from typing import Any

import jax

from jaxnets.combinators.serial import Layer
from jaxnets.core.layer import as_net
from jaxnets.core.net import Apply, Key, Net, Params, State, compose
from jaxnets.core.value import recorded


@recorded
def remat(net: Layer, *, policy: Callable[..., bool] | None = None) -> Net:
    """Recompute a network's intermediate values in the backward pass instead of storing them.

    Of the residuals only the network's input is stored; time rises by about one forward pass. Outputs, gradients,
    names and parameters are unchanged.

    Args:
        net: the network, usually a block of a deep one.
        policy: which values to store anyway, one of `jax.checkpoint_policies`.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> remat(jn.dense(3)).init(jax.random.key(0), jnp.ones((1, 4)))[0]["kernel"].shape
    (4, 3)
    """
    inner = as_net(net)

    def around(apply_inner: Apply) -> Apply:
        def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
            def run(params: Params, state: State, x: Any, key: Key | None) -> tuple[Any, State]:
                return apply_inner(params, state, x, key=key, train=train)

            return jax.checkpoint(run, policy=policy)(params, state, x, key)

        return apply

    return wrap("remat", inner, around, inner.init_with_output, f"remat({inner.label})")


def wrap(kind: str, inner: Net, around: Callable[[Apply], Apply], build: Callable, label: str) -> Net:
    """Return a network that runs another one differently, with the same names and parameters."""
    cut = inner.cut
    return compose(
        build,
        around(inner.apply),
        label=label,
        children=inner.children,
        cut=None if cut is None else lambda path: around(cut(path)),
        full_precision=inner.full_precision,
        copies=inner.copies,
        kind=kind,
        inner=inner,
    )
