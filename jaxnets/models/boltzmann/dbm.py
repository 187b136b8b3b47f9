"""The deep Boltzmann machine, with its top layer as features."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import check_params, check_state, check_train_key
from jaxnets.core.dtypes import param_dtype, to_dtype
from jaxnets.core.errors import NetError, check_count
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Key, Net, Params, State, fold
from jaxnets.models.boltzmann.deep_energy import dbm_gibbs_step, energy, field, mean_field
from jaxnets.models.boltzmann.energy import check_rows
from jaxnets.models.boltzmann.rbm import start_chains


@labeled
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


@labeled
def mean_field_learning(
    widths: Sequence[int],
    *,
    steps: int = 10,
    chains: int = 100,
    moves: int = 1,
    kernel_init: jax.nn.initializers.Initializer = jax.nn.initializers.normal(0.01),
) -> Net:
    """Return the network that learns the parameters of `dbm(widths)`, which are its own too.

    In training it gives E(v, μ) − E(v', h'), with μ the `mean_field` of the data and (v', h') samples of persistent
    chains, the mean over them, all held constant. With `jn.losses.energy_gap` its gradient is that of the negative
    `variational_bound` on log p(v), with the expectation under the model estimated from the chains.

    Args:
        widths: of the hidden layers, from the input on.
        steps: sweeps of `mean_field`.
        chains: how many Markov chains, at least 1; they are the network's state.
        moves: `dbm_gibbs_step`s of each chain a training step, at least 1.
        kernel_init: how each `kernel` is drawn.

    Returns:
        A network from `(batch, features)` to a dict of `energy_gap` `(batch,)`, float32 or wider, and
        `reconstruction` `(batch, features)`, the mean of v given the first layer's μ. It needs a key in training. In
        evaluation nothing is drawn, and E(v, μ) is compared with that of the reconstruction.

    Raises:
        NetError: as `dbm`, for numbers below 1, or for training without a key.

    Salakhutdinov and Hinton, "Deep Boltzmann Machines" (2009), sections 2.1 and 2.2.

    >>> import jax, jax.numpy as jnp
    >>> net, v = mean_field_learning((3, 2), chains=6), jnp.ones((5, 4))
    >>> params, state = net.init(jax.random.key(0), v)
    >>> y, state = net.apply(params, state, v, key=jax.random.key(1), train=True)
    >>> y["energy_gap"].shape, {name: chain.shape for name, chain in state.items()}
    ((5,), {'0': (6, 4), '1': (6, 3), '2': (6, 2)})
    """
    machine = dbm(widths, steps=steps, kernel_init=kernel_init)
    for name, value in (("chains", chains), ("moves", moves)):
        check_count(name, value)

    def shapes(x: Any) -> dict[str, tuple[int, ...]]:
        return {str(place): (chains, width) for place, width in enumerate((x.shape[-1], *widths))}

    def init(key: Key, x: Any) -> tuple[Params, State]:
        params, _ = machine.init(key, x)
        return params, {
            n: start_chains(jax.random.fold_in(key, int(n)), s, param_dtype(x)) for n, s in shapes(x).items()
        }

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        machine.apply(params, {}, x)  # which checks them
        check_state(state, shapes(x), x)
        x = jnp.asarray(x)
        v, wide = x.astype(param_dtype(x)), to_dtype(params, param_dtype(x))
        means = jax.lax.stop_gradient(mean_field(wide, v, steps=steps))
        made = jax.nn.sigmoid(field(wide, [v, *means], 0))
        positive, outputs = energy(wide, [v, *means]), {"reconstruction": made.astype(x.dtype)}
        if not train:
            return {"energy_gap": positive - energy(wide, [made, *means]), **outputs}, state
        check_train_key(key)

        def move(layers: list[jax.Array], key: Key) -> tuple[list[jax.Array], None]:
            return dbm_gibbs_step(key, wide, layers), None

        start = [state[name].astype(v.dtype) for name in shapes(x)]
        samples, _ = jax.lax.scan(move, start, jax.random.split(key, moves))  # type: ignore[arg-type]  # it is there
        samples = jax.lax.stop_gradient(samples)
        state = {name: each.astype(state[name].dtype) for name, each in zip(shapes(x), samples, strict=True)}
        return {"energy_gap": positive - energy(wide, samples).mean(), **outputs}, state

    return Net(init, apply)
