"""Example weights for layers that compute over the whole batch, set while a training step traces the network."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError

_weights: ContextVar[Any] = ContextVar("example weights", default=None)
# Part of the keys of JAX's caches: a trace with the weights of one step is never reused for another.
_step = jax.make_user_context()


@contextmanager
def example_weights(weights: Any) -> Iterator[None]:
    """Make the weights of the examples visible to layers while a network is applied.

    A training step does this. Do so too when you apply a network in training mode yourself.

    Args:
        weights: `(batch,)`, ≥ 0, in the order of the batch axis; 0 leaves an example out. They may be traced. `None`
            weights all examples equally.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, x = jn.batch_norm(decay=0.0), jnp.array([[1.0], [3.0], [1e4]])
    >>> params, state = net.init(jax.random.key(0), x)
    >>> with example_weights(jnp.array([1.0, 1.0, 0.0])):
    ...     _, state = jax.jit(net.apply, static_argnames="train")(params, state, x, train=True)
    >>> state["mean"].item(), state["var"].item()
    (2.0, 2.0)
    """
    if weights is None:
        yield
        return
    before = _weights.set(jnp.asarray(weights))
    try:
        with _step(object()):
            yield
    finally:
        _weights.reset(before)


def weights_of(values: Any) -> Any:
    """Return the weights of the examples in `values` `(batch, ...)`, `None` if all are equal.

    Raises:
        NetError: if the first axis of `values` is not that of the examples.

    >>> import jax.numpy as jnp
    >>> with example_weights(jnp.array([1.0, 0.5])):
    ...     print(weights_of(jnp.ones((2, 3))))
    [1.  0.5]
    """
    weights = _weights.get()
    if weights is not None and weights.shape != values.shape[:1]:
        hint = "keep the examples along the first axis, or give no weights and a batch_size that divides the examples"
        raise NetError(
            f"has the weights of {len(weights)} examples, and can't tell which of them the rows of {values.shape} "
            f"belong to; {hint}"
        )
    return weights
