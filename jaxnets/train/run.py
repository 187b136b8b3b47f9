"""What a training run is made of between two steps, and the step itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnets.net import Key, Net, Params, State, fold, spec

ObjectiveFunction = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Run:
    """All that changes while a network is trained: a pytree of arrays alone.

    Attributes:
        params: the network's parameters.
        state: the network's state, such as batch-norm statistics.
        opt_state: the optimizer's memory.
        key: the key that every step's randomness is folded from.
        step: how many steps have been taken, int32.
    """

    params: Params
    state: State
    opt_state: Any
    key: Any
    step: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Examples that a step learns from.

    Attributes:
        x: inputs, a pytree with the batch axis first.
        y: targets, likewise.
        weights: `(batch,)`, the weight of each example in the mean; 0 masks it.
    """

    x: Any
    y: Any
    weights: Any


def start(net: Net, optimizer: optax.GradientTransformation, key: Key, x: Any) -> Run:
    """Return the run before its first step.

    Args:
        net: the network.
        optimizer: the Optax optimizer.
        key: initial values and all later randomness come from it.
        x: an input, read for its shape and dtype alone.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> run = start(jn.dense(2), optax.sgd(0.1), jax.random.key(0), jnp.ones((1, 3)))
    >>> int(run.step), run.params["kernel"].shape
    (0, (3, 2))
    """
    params, state = net.init(fold(key, "init"), spec(x))
    return Run(params, state, optimizer.init(params), fold(key, "train"), jnp.zeros((), jnp.int32))


def step(
    net: Net, objective: ObjectiveFunction, optimizer: optax.GradientTransformation
) -> Callable[[Run, Batch], tuple[Run, Any, Mapping[str, jax.Array]]]:
    """Return the pure function of one step of gradient descent: `(run, batch) -> (run, outputs, parts)`.

    θ ← θ + u(∇ L(θ)), where L is the objective on the batch and u the optimizer's update. The network's
    randomness comes from the run's key folded by the number of the step.

    Args:
        net: the network.
        objective: `(params, outputs, targets, weights) -> (scalar, parts)`, as `jn.objective` makes.
        optimizer: the Optax optimizer.

    Returns:
        A function that gives the next run, the batch's outputs, and the parts of the objective by name,
        the whole as `loss`.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> net, adam = jn.dense(2), optax.adam(1e-2)
    >>> one = jax.jit(step(net, jn.objective(jn.losses.cross_entropy), adam))
    >>> run = start(net, adam, jax.random.key(0), jnp.ones((4, 3)))
    >>> run, outputs, parts = one(run, Batch(jnp.ones((4, 3)), jnp.zeros(4, int), jnp.ones(4)))
    >>> int(run.step), sorted(parts)
    (1, ['cross_entropy', 'loss'])
    """

    def step_fn(run: Run, batch: Batch) -> tuple[Run, Any, Mapping[str, jax.Array]]:
        key = jax.random.fold_in(run.key, run.step)

        def loss(params: Params) -> tuple[jax.Array, tuple]:
            outputs, state = net.apply(params, run.state, batch.x, key=key, train=True)
            total, parts = objective(params, outputs, batch.y, batch.weights)
            return total, (outputs, state, {"loss": total, **parts})

        grads, (outputs, state, parts) = jax.grad(loss, has_aux=True)(run.params)
        updates, opt_state = optimizer.update(grads, run.opt_state, run.params)
        params = optax.apply_updates(run.params, updates)
        return Run(params, state, opt_state, run.key, run.step + 1), outputs, parts

    return step_fn
