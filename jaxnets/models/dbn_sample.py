"""Examples drawn from a deep belief network."""

from typing import Any

import jax

from jaxnets.layers.checks import param_dtype
from jaxnets.leaf import to_dtype
from jaxnets.models.dbn import dbn, machine_names
from jaxnets.models.energy import Visible, gibbs_step, visible_mean
from jaxnets.net import Key, Params


def dbn_sample(key: Key, params: Params, v: jax.Array, *, steps: int, visible: Visible = "bernoulli") -> jax.Array:
    """Draw examples from a deep belief network: a Markov chain in its top machine, then down through the others.

    Probabilities and draws are in float32 for narrower `v`.

    Args:
        key: of the draws.
        params: of a `dbn`; `fc` is of no account.
        v: `(batch, features)`, where the chains start: any examples, whose features reach the top machine.
        steps: of the chain in the top machine, at least 1.
        visible: what the first machine's visible units are.

    Returns:
        The means of the visible units given the layer above, of the shape of `v`; of a single machine, its samples.

    Raises:
        NetError: for parameters without machines.

    Hinton, Osindero and Teh, "A Fast Learning Algorithm for Deep Belief Nets" (2006), section 2.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> v = jnp.ones((2, 6))
    >>> params, _ = jn.models.dbn((5, 4)).init(jax.random.key(0), v)
    >>> dbn_sample(jax.random.key(1), params, v, steps=10).shape
    (2, 6)
    """
    names = machine_names(params)
    kinds: list[Any] = [visible, *["bernoulli"] * (len(names) - 1)]
    widths = [params[name]["bias"].shape[0] for name in names]
    wide = param_dtype(v)
    params, x = to_dtype(params, wide), v.astype(wide)
    if len(names) > 1:
        x, _ = dbn(widths[:-1], visible=visible).apply({n: params[n] for n in names[:-1]}, {}, x)
    first, *rest = jax.random.split(key, len(names))

    def move(x: jax.Array, key: Key) -> tuple[jax.Array, None]:
        return gibbs_step(key, params[names[-1]], x, visible=kinds[-1]), None

    x, _ = jax.lax.scan(move, x, jax.random.split(first, steps))
    for name, kind, each in zip(names[-2::-1], kinds[-2::-1], rest):
        mean = visible_mean(params[name], x, kind)
        x = mean if name == names[0] else jax.random.bernoulli(each, mean).astype(wide)
    return x.astype(v.dtype)
