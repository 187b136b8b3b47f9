"""The restricted Boltzmann machine: its energy, its Markov chain, and its training by contrastive divergence."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxnets.core.checks import along_last, check_floating, check_params, check_state, check_train_key
from jaxnets.core.dtypes import param_dtype, to_dtype
from jaxnets.core.errors import NetError, check_count
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Key, Net, Params, State, fold

Initializer = jax.nn.initializers.Initializer
Visible = Literal["bernoulli", "gaussian"]


@labeled
def rbm(
    hidden: int, *, visible: Visible = "bernoulli", kernel_init: Initializer = jax.nn.initializers.normal(0.01)
) -> Net:
    """Return a restricted Boltzmann machine, a network that returns the probabilities of its hidden units, σ(v W + b).

    It is a distribution over visible units v and binary hidden units h, p(v, h) ∝ e^−E(v, h), with the energy
    E = −v W h − a v − b h for binary v, and E = ½ ‖v − a‖² − v W h − b h for real v (of variance 1 given h). As a
    layer it equals `dense(hidden)` and a sigmoid with the same `kernel` and `bias`. `contrastive_divergence` learns the
    parameters.

    Args:
        hidden: the number of hidden units.
        visible: "bernoulli" for v of 0 and 1, or probabilities in between; "gaussian" for standardized real v.
        kernel_init: the initializer of `kernel`.

    Returns:
        A network from `(batch, features)` to `(batch, hidden)`, with parameters `kernel` W `(features, hidden)`,
        `bias` b `(hidden,)` and `visible_bias` a `(features,)`.

    Raises:
        NetError: for `hidden` < 1, another kind of visible units, or an input that is not floating `(batch, features)`.

    Hinton, "Training Products of Experts by Minimizing Contrastive Divergence" (2002); Hinton, "A Practical Guide to
    Training Restricted Boltzmann Machines" (2010), sections 8 and 13.2, for initial weights and Gaussian units.

    >>> import jax, jax.numpy as jnp
    >>> net = rbm(3)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> net.apply(params, state, jnp.ones((2, 4)))[0].shape, params["visible_bias"].shape
    ((2, 3), (4,))
    """
    check_count("hidden", hidden)
    check_visible(visible)

    def init(key: Key, x: Any) -> Params:
        check_rows(x)
        (_, features), dtype = x.shape, param_dtype(x)
        kernel = kernel_init(key, (features, hidden), dtype)
        return {"kernel": kernel, "bias": jnp.zeros(hidden, dtype), "visible_bias": jnp.zeros(features, dtype)}

    def apply(params: Params, x: Any) -> Any:
        check_rows(x)
        features = x.shape[1]
        check_params(params, {"kernel": (features, hidden), "bias": (hidden,), "visible_bias": (features,)}, x)
        return jax.nn.sigmoid(hidden_field(params, x))

    return layer(init, apply)


@labeled
def contrastive_divergence(
    hidden: int,
    *,
    visible: Visible = "bernoulli",
    steps: int = 1,
    chains: int = 0,
    kernel_init: Initializer = jax.nn.initializers.normal(0.01),
) -> Net:
    """Return a network with the parameters of `rbm(hidden, visible=visible)` that learns them.

    In training it returns F(v) − F(v'), with F the `free_energy` and v' a sample after `steps` of `gibbs_step`, held
    constant. With `jn.losses.energy_gap` its gradient is ⟨∂F/∂θ⟩_data − ⟨∂F/∂θ⟩_samples: CD-k, an estimate of the
    gradient of −log p(v) that becomes exact as k → ∞. So `jn.train.program` trains it like any network:

        net = jn.models.contrastive_divergence(256)
        jn.train.program(net, jn.objective(jn.losses.energy_gap), optax.sgd(0.1), (v, v), epochs=10)

    Chains start at the data or, with `chains` > 0, where the previous step ended (persistent contrastive divergence);
    then they are the network's state, and F(v') is the mean over all chains.

    Args:
        hidden: the number of hidden units.
        visible: the kind of visible units, as for `rbm`.
        steps: k, at least 1.
        chains: the number of persistent chains; 0 for chains that start at the data.
        kernel_init: the initializer of `kernel`.

    Returns:
        A network from `(batch, features)` to a dict of `energy_gap` `(batch,)`, float32 or wider, and
        `reconstruction` `(batch, features)`, for a metric. It requires a key in training. In evaluation nothing is
        drawn, and v' is the reconstruction.

    Raises:
        NetError: as in `rbm`, for `steps` < 1 or `chains` < 0, or for training without a key.

    Hinton, "Training Products of Experts by Minimizing Contrastive Divergence" (2002); Tieleman, "Training Restricted
    Boltzmann Machines using Approximations to the Likelihood Gradient" (2008), for persistent chains.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, v = contrastive_divergence(3, steps=2), jnp.ones((5, 4))
    >>> params, state = net.init(jax.random.key(0), v)
    >>> y, _ = net.apply(params, state, v, key=jax.random.key(1), train=True)
    >>> jn.losses.energy_gap(y).shape, y["reconstruction"].shape
    ((5,), (5, 4))
    """
    machine = rbm(hidden, visible=visible, kernel_init=kernel_init)
    check_count("steps", steps)
    if isinstance(chains, bool) or not hasattr(chains, "__index__") or chains < 0:
        raise NetError(f"expects an integer ≥ 0 for chains, got {chains!r}")

    def init(key: Key, x: Any) -> tuple[Params, State]:
        params, _ = machine.init(key, x)
        return params, {"chain": start_chains(key, (chains, x.shape[-1]), param_dtype(x))} if chains else {}

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        # Checks the parameters and the input.
        machine.apply(params, {}, x)
        x = jnp.asarray(x)
        v, wide = x.astype(param_dtype(x)), to_dtype(params, param_dtype(x))
        reconstruction = reconstruct(wide, v, visible=visible)
        if not train:
            gap = free_energy(wide, v, visible=visible) - free_energy(wide, reconstruction, visible=visible)
            return {"energy_gap": gap, "reconstruction": reconstruction.astype(x.dtype)}, state
        check_train_key(key)
        if chains:
            check_state(state, {"chain": (chains, v.shape[-1])}, x)
        start = state["chain"].astype(v.dtype) if chains else v
        sample = walk(lambda key, v: gibbs_step(key, wide, v, visible=visible), key, start, steps)
        # The gradient is that of F at the samples, not through the chain.
        sample = jax.lax.stop_gradient(sample)
        negative = free_energy(wide, sample, visible=visible)
        gap = free_energy(wide, v, visible=visible) - (negative.mean() if chains else negative)
        state = {"chain": sample.astype(state["chain"].dtype)} if chains else state
        return {"energy_gap": gap, "reconstruction": reconstruction.astype(x.dtype)}, state

    return Net(init, apply)


def free_energy(params: Params, v: jax.Array, *, visible: Visible = "bernoulli") -> jax.Array:
    """Return the free energy F(v) = −log Σ_h e^−E(v, h), so that p(v) = e^−F(v) / Z.

    F = −a v − Σ_j log(1 + e^(v W + b)_j) for binary v; for real v, ½ ‖v − a‖² replaces −a v.

    Args:
        params: the parameters of an `rbm`.
        v: `(batch, features)`.
        visible: the kind of visible units, as for `rbm`.

    Returns:
        `(batch,)`.

    Hinton, "A Practical Guide to Training Restricted Boltzmann Machines" (2010), section 16.1.

    >>> import jax.numpy as jnp
    >>> params = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3), "visible_bias": jnp.array([1.0, -1.0])}
    >>> print(free_energy(params, jnp.array([[1.0, 0.0]])).round(2))
    [-3.08]
    """
    check_visible(visible)
    bias = along_last(params["visible_bias"], v)
    unit_term = -(v * bias).sum(-1) if visible == "bernoulli" else jnp.square(v - bias).sum(-1) / 2
    return unit_term - jax.nn.softplus(hidden_field(params, v)).sum(-1)


def gibbs_step(key: Key, params: Params, v: jax.Array, *, visible: Visible = "bernoulli") -> jax.Array:
    """Draw h from p(h|v), then v from p(v|h): one step of a Markov chain whose stationary distribution is p(v).

    Probabilities and draws are in float32 for narrower input.

    Args:
        key: the random key.
        params: the parameters of an `rbm`.
        v: `(batch, features)`, one chain per row.
        visible: the kind of visible units, as for `rbm`.

    Returns:
        The next v, of the same shape and dtype.

    >>> import jax, jax.numpy as jnp
    >>> params = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3), "visible_bias": jnp.array([99.0, -99.0])}
    >>> print(gibbs_step(jax.random.key(0), params, jnp.zeros((1, 2))))
    [[1. 0.]]
    """
    check_visible(visible)
    first, second = jax.random.split(key)
    # In bfloat16, JAX draws in steps of 1/128, and σ rounds to them.
    wide = param_dtype(v)
    params = to_dtype(params, wide)
    # (batch, hidden)
    h = jax.random.bernoulli(first, jax.nn.sigmoid(hidden_field(params, v.astype(wide)))).astype(wide)
    mean = visible_mean(params, h, visible)
    if visible == "gaussian":
        return (mean + jax.random.normal(second, v.shape, wide)).astype(v.dtype)
    return jax.random.bernoulli(second, mean).astype(v.dtype)


def reconstruct(params: Params, v: jax.Array, *, visible: Visible = "bernoulli") -> jax.Array:
    """Return the reconstruction of v: the mean of p(v|h), with h replaced by its probabilities given v.

    Args:
        params: the parameters of an `rbm`.
        v: `(batch, features)`.
        visible: the kind of visible units, as for `rbm`.

    Returns:
        An array in the shape of `v`; probabilities for binary units.

    >>> import jax.numpy as jnp
    >>> params = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3), "visible_bias": jnp.zeros(2)}
    >>> print(reconstruct(params, jnp.ones((1, 2))))
    [[0.5 0.5]]
    """
    check_visible(visible)
    return visible_mean(params, jax.nn.sigmoid(hidden_field(params, v)), visible)


def hidden_field(params: Params, v: jax.Array) -> jax.Array:
    """Return the logits of the hidden units given the visible ones, v W + b."""
    field = jnp.matmul(v, params["kernel"])
    return field + along_last(params["bias"], field)


def visible_mean(params: Params, h: jax.Array, visible: Visible) -> jax.Array:
    """Return the mean of the visible units given the hidden ones."""
    field = jnp.matmul(h, params["kernel"].T)
    field = field + along_last(params["visible_bias"], field)
    return jax.nn.sigmoid(field) if visible == "bernoulli" else field


def check_visible(visible: Any) -> None:
    """Check the kind of visible units.

    Raises:
        NetError: for an unknown kind.
    """
    if visible not in get_args(Visible):
        raise NetError(f"expects visible 'bernoulli' or 'gaussian', got {visible!r}")


def check_rows(x: Any) -> None:
    """Check that an input is floating `(batch, features)`.

    Raises:
        NetError: if it is not.
    """
    check_floating(x)
    if len(x.shape) != 2:
        raise NetError(f"expects (batch, features), got {x.shape}; flatten images first, x.reshape(len(x), -1)")


def start_chains(key: Key, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Draw the initial units of Markov chains, 0 or 1 with equal probability."""
    return jax.random.bernoulli(fold(key, "chain"), shape=shape).astype(dtype)


def walk(step: Callable[[Key, Any], Any], key: Key | None, start: Any, steps: int) -> Any:
    """Return the units of Markov chains after a number of steps, each `(key, units) -> units`.

    Raises:
        NetError: without a key.
    """
    check_train_key(key)

    def move(units: Any, key: Key) -> tuple[Any, None]:
        return step(key, units), None

    return jax.lax.scan(move, start, jax.random.split(key, steps))[0]  # type: ignore[arg-type]  # it has been checked
