"""The deep Boltzmann machine, and the network that trains it by mean field and persistent chains."""

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
    """Return a deep Boltzmann machine, a network that returns the mean-field probabilities of its top layer.

    It is a distribution over binary layers v = h⁰, h¹, …, h^L, p ∝ e^−E with E = −Σ_l h^l W^l h^(l+1) − Σ_l b^l h^l.
    Unlike in a deep belief network, each layer depends on the layers above and below it. `mean_field_learning` learns
    the parameters.

    Args:
        widths: the widths of the hidden layers, from the input up.
        steps: the number of sweeps of `mean_field`.
        kernel_init: the initializer of each `kernel`.

    Returns:
        A network from `(batch, features)`, of 0 and 1 or probabilities between, to `(batch, widths[-1])`, with
        parameters `kernel` and `bias` for each hidden layer `0`, `1`, …, and `0/visible_bias`. The entry `0` has the
        parameters of an `rbm`.

    Raises:
        NetError: for no widths, or an input that is not floating `(batch, features)`.

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
            raise NetError(f"expects parameters of {len(widths)} layers, got {', '.join(params)}", names_differ=True)
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
    """Return a network with the parameters of `dbm(widths)` that learns them.

    In training it returns E(v, μ) − E(v', h'), with μ the `mean_field` of the data and E(v', h') the mean over samples
    of persistent chains; μ and the samples are held constant. With `jn.losses.energy_gap` its gradient is that of the
    negative `variational_bound` on log p(v), with the expectation under the model estimated from the chains.

    Args:
        widths: the widths of the hidden layers, from the input up.
        steps: the number of sweeps of `mean_field`.
        chains: the number of Markov chains, at least 1; they are the network's state.
        moves: the number of `dbm_gibbs_step`s per training step, at least 1.
        kernel_init: the initializer of each `kernel`.

    Returns:
        A network from `(batch, features)` to a dict of `energy_gap` `(batch,)`, float32 or wider, and
        `reconstruction` `(batch, features)`, the mean of v given the first layer's μ. It requires a key in training. In
        evaluation nothing is drawn, and the gap is E(v, μ) minus the energy of the reconstruction.

    Raises:
        NetError: as `dbm`, for numbers below 1, or for training without a key.

    Salakhutdinov and Hinton, "Deep Boltzmann Machines" (2009), sections 2.1 and 2.2.

    >>> import jax, jax.numpy as jnp
    >>> net, v = mean_field_learning((3, 2), chains=6), jnp.ones((5, 4))
    >>> params, state = net.init(jax.random.key(0), v)
    >>> y, state = jax.jit(net.apply, static_argnames="train")(params, state, v, key=jax.random.key(1), train=True)
    >>> y["energy_gap"].shape, {name: chain.shape for name, chain in state.items()}
    ((5,), {'0': (6, 4), '1': (6, 3), '2': (6, 2)})
    """
    machine = dbm(widths, steps=steps, kernel_init=kernel_init)
    for name, value in (("chains", chains), ("moves", moves)):
        check_count(name, value)

    # The state has the units of every layer, the visible ones first.
    def shapes(x: Any) -> dict[str, tuple[int, ...]]:
        return {str(place): (chains, width) for place, width in enumerate((x.shape[-1], *widths))}

    def init(key: Key, x: Any) -> tuple[Params, State]:
        params, _ = machine.init(key, x)
        state = {
            name: start_chains(jax.random.fold_in(key, int(name)), shape, param_dtype(x))
            for name, shape in shapes(x).items()
        }
        return params, state

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        # Checks the parameters and the input.
        machine.apply(params, {}, x)
        check_state(state, shapes(x), x)
        x = jnp.asarray(x)
        v, wide = x.astype(param_dtype(x)), to_dtype(params, param_dtype(x))
        means = jax.lax.stop_gradient(mean_field(wide, v, steps=steps))
        reconstruction = jax.nn.sigmoid(field(wide, [v, *means], 0))
        positive, outputs = energy(wide, [v, *means]), {"reconstruction": reconstruction.astype(x.dtype)}
        if not train:
            return {"energy_gap": positive - energy(wide, [reconstruction, *means]), **outputs}, state
        check_train_key(key)

        def move(layers: list[jax.Array], key: Key) -> tuple[list[jax.Array], None]:
            return dbm_gibbs_step(key, wide, layers), None

        start = [state[name].astype(v.dtype) for name in shapes(x)]
        samples, _ = jax.lax.scan(move, start, jax.random.split(key, moves))  # type: ignore[arg-type]  # the key has been checked
        # The gradient is that of E at the samples, not through the chains.
        samples = jax.lax.stop_gradient(samples)
        state = {name: each.astype(state[name].dtype) for name, each in zip(shapes(x), samples, strict=True)}
        return {"energy_gap": positive - energy(wide, samples).mean(), **outputs}, state

    return Net(init, apply)
