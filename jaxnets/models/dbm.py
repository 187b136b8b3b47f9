"""The deep Boltzmann machine, with its top layer as features."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.errors import NetError, check_count
from jaxnets.layers.checks import check_params, param_dtype
from jaxnets.leaf import labelled, layer
from jaxnets.models.deep_energy import mean_field
from jaxnets.models.energy import check_rows
from jaxnets.net import Key, Net, Params, fold


@labelled
def dbm(
    widths: Sequence[int],
    *,
    steps: int = 10,
    kernel_init: jax.nn.initializers.Initializer = jax.nn.initializers.normal(0.01),
) -> Net:
    """Return a deep Boltzmann machine, which gives the mean-field probabilities of its top layer.

    It is a distribution over binary layers v = h⁰, h¹, …, h^L, p ∝ e^−E with E = −Σ_l h^l W^l h^(l+1) − Σ_l b^l h^l:
    unlike in a deep belief network each layer hears those above it as well as those below. `mean_field_learning`
    learns the parameters.

    Args:
        widths: of the hidden layers, from the input on.
        steps: of `mean_field`.
        kernel_init: how each `kernel` is drawn.

    Returns:
        A network from `(batch, features)`, of 0 and 1 or probabilities between, to `(batch, widths[-1])`, with
        parameters `kernel` and `bias` for each hidden layer `0`, `1`, …, and `0/visible_bias`. Layer `0` is the
        parameters of an `rbm`.

    Raises:
        NetError: for no widths, or input that is not floating `(batch, features)`.

    Salakhutdinov and Hinton, "Deep Boltzmann Machines" (2009).

    >>> import jax, jax.numpy as jnp
    >>> net = dbm((500, 1000))
    >>> params, _ = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 784)))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    894284
    """
    check_count("the number of hidden layers", len(widths))
    for width in widths:
        check_count("each width", width)
    check_count("steps", steps)

    def init(key: Key, x: Any) -> Params:
        check_rows(x)
        dtype, params, below = param_dtype(x), {}, x.shape[1]
        for place, width in enumerate(widths):
            kernel = kernel_init(fold(key, str(place)), (below, width), dtype)
            params[str(place)] = {"kernel": kernel, "bias": jnp.zeros(width, dtype)}
            below = width
        params["0"]["visible_bias"] = jnp.zeros(x.shape[1], dtype)
        return params

    def apply(params: Params, x: Any) -> Any:
        check_rows(x)
        if set(params) != {str(place) for place in range(len(widths))}:
            raise NetError(f"needs parameters for {len(widths)} layers, got {', '.join(params)}", names_differ=True)
        for place, (below, width) in enumerate(zip((x.shape[1], *widths[:-1]), widths, strict=True)):
            shapes = {"kernel": (below, width), "bias": (width,)} | ({} if place else {"visible_bias": (below,)})
            check_params(params[str(place)], shapes, x)
        return mean_field(params, x, steps=steps)[-1]

    return layer(init, apply)
