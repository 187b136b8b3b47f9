"""The deep Boltzmann machine: its energy, mean field and Markov chain, and the network that learns its parameters."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.combinators.serial import serial
from jaxnets.core.checks import along_last, check_params, check_state
from jaxnets.core.dtypes import param_dtype, to_dtype
from jaxnets.core.errors import NetError, check_count
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.models.boltzmann.rbm import check_rows, rbm, start_chains, walk

Initializer = jax.nn.initializers.Initializer
# The visible units, then each hidden layer: (batch, units)
Layers = Sequence[jax.Array]


@labeled
def dbm(widths: Sequence[int], *, steps: int = 10, kernel_init: Initializer = jax.nn.initializers.normal(0.01)) -> Net:
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
        params, _ = serial(*(rbm(width, kernel_init=kernel_init) for width in widths)).init(key, x)
        # The visible units of each machine above the first are the hidden units of the one below.
        for place in range(1, len(widths)):
            del params[str(place)]["visible_bias"]
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
    kernel_init: Initializer = jax.nn.initializers.normal(0.01),
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
        NetError: as in `dbm`, for numbers below 1, or for training without a key.

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
        start = [state[name].astype(v.dtype) for name in shapes(x)]
        samples = walk(lambda key, layers: dbm_gibbs_step(key, wide, layers), key, start, moves)
        # The gradient is that of E at the samples, not through the chains.
        samples = jax.lax.stop_gradient(samples)
        state = {name: each.astype(state[name].dtype) for name, each in zip(shapes(x), samples, strict=True)}
        return {"energy_gap": positive - energy(wide, samples).mean(), **outputs}, state

    return Net(init, apply)


def mean_field(params: Params, v: jax.Array, *, steps: int = 10) -> list[jax.Array]:
    """Return a factorial distribution over the hidden layers that approximates p(h|v): Πᵢ Bernoulli(μᵢ).

    It starts bottom-up, with the input from below doubled for every layer but the top, in place of that from the layer
    above, and sweeps upward `steps` times: μ^l ← σ(μ^(l−1) W^(l−1) + W^l μ^(l+1) + b^l). No sweep lowers the
    `variational_bound`.

    Args:
        params: the parameters of a `dbm`.
        v: `(batch, features)`.
        steps: the number of sweeps.

    Returns:
        The means μ `(batch, width)` of each hidden layer.

    Salakhutdinov and Hinton, "Deep Boltzmann Machines" (2009), section 2.2, and 3.1 for the initial means.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> params, _ = jn.models.dbm((3, 2)).init(jax.random.key(0), jnp.ones((1, 4)))
    >>> [mean.shape for mean in jax.jit(mean_field)(params, jnp.ones((5, 4)))]
    [(5, 3), (5, 2)]
    """
    top = len(params)
    layers = [v]
    for place, factor in enumerate([2] * (top - 1) + [1], start=1):
        layers.append(jax.nn.sigmoid(factor * _from_below(params, layers, place) + _bias(params, place, v)))

    def sweep(means: list[jax.Array], _: None) -> tuple[list[jax.Array], None]:
        layers = [v, *means]
        for place in range(1, top + 1):
            layers[place] = jax.nn.sigmoid(field(params, layers, place))
        return layers[1:], None

    return jax.lax.scan(sweep, layers[1:], length=steps)[0]


def variational_bound(params: Params, v: jax.Array, means: Layers) -> jax.Array:
    """Return a lower bound on log p(v) + log Z: −E(v, μ) plus the entropy of the factorial distribution μ.

    The gap of the bound is KL(μ ‖ p(h|v)). At a fixed point of `mean_field` its derivative with respect to μ is 0: hold
    the means constant when differentiating with respect to the parameters.

    Args:
        params: the parameters of a `dbm`.
        v: `(batch, features)`.
        means: the means from `mean_field`, or any others in [0, 1].

    Returns:
        `(batch,)`, in nats.

    Salakhutdinov and Hinton, "Deep Boltzmann Machines" (2009), section 2.2.

    >>> import jax, jax.numpy as jnp
    >>> params = {"0": {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3), "visible_bias": jnp.zeros(4)}}
    >>> print(variational_bound(params, jnp.ones((1, 4)), [jnp.full((1, 3), 0.5)]).round(4))  # 3 log 2
    [2.0794]
    """
    entropy = sum((jax.scipy.special.entr(m) + jax.scipy.special.entr(1 - m)).sum(-1) for m in means)
    return entropy - energy(params, [v, *means])


def dbm_gibbs_step(key: Key, params: Params, layers: Sequence[jax.Array]) -> list[jax.Array]:
    """Draw the odd layers given the even ones, then the even ones given the odd ones: one step of a Markov chain.

    Its stationary distribution is p(v, h¹, …, h^L). Probabilities and draws are in float32 for narrower layers.

    Args:
        key: the random key.
        params: the parameters of a `dbm`.
        layers: the visible units and each hidden layer, `(batch, units)`, one chain per row.

    Returns:
        The next layers, in the same shapes and dtypes.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> params, _ = jn.models.dbm((3, 2)).init(jax.random.key(0), jnp.ones((1, 4)))
    >>> layers = jax.eval_shape(dbm_gibbs_step, jax.random.key(1), params, [jnp.zeros((5, n)) for n in (4, 3, 2)])
    >>> [units.shape for units in layers]
    [(5, 4), (5, 3), (5, 2)]
    """
    keys, dtypes, wide = jax.random.split(key, len(layers)), [units.dtype for units in layers], param_dtype(layers[0])
    params, layers = to_dtype(params, wide), [units.astype(wide) for units in layers]
    # Layers of one parity are independent given the others.
    for place in (*range(1, len(layers), 2), *range(0, len(layers), 2)):
        p = jax.nn.sigmoid(field(params, layers, place))
        layers[place] = jax.random.bernoulli(keys[place], p).astype(wide)
    return [units.astype(dtype) for units, dtype in zip(layers, dtypes, strict=True)]


def energy(params: Params, layers: Layers) -> jax.Array:
    """Return the energy E of all layers, `(batch,)`; each connection counts once, with the layer above it."""
    total = jnp.zeros(len(layers[0]), layers[0].dtype)
    for place, units in enumerate(layers):
        total -= (units * (_from_below(params, layers, place) + _bias(params, place, units))).sum(-1)
    return total


def field(params: Params, layers: Layers, place: int) -> jax.Array:
    """Return the logits of one layer given its neighbors, `(batch, units)`."""
    total = _from_below(params, layers, place) + _bias(params, place, layers[0])
    return total + jnp.matmul(layers[place + 1], params[str(place)]["kernel"].T) if str(place) in params else total


def _from_below(params: Params, layers: Layers, place: int) -> jax.Array:
    if place:
        return jnp.matmul(layers[place - 1], params[str(place - 1)]["kernel"])
    return jnp.zeros_like(layers[0])


def _bias(params: Params, place: int, like: jax.Array) -> jax.Array:
    bias = params[str(place - 1)]["bias"] if place else params["0"]["visible_bias"]
    return along_last(bias, like)
