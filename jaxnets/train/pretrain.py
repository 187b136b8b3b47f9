"""Greedy layerwise pretraining: a stack trained from the bottom up, each layer on the features of those below."""

from collections.abc import Mapping, Sequence
from typing import Any

import optax

from jaxnets.core.errors import NetError
from jaxnets.core.net import Key, Net, Params, fold
from jaxnets.metrics import Metric
from jaxnets.train.epoch import History
from jaxnets.train.evaluation import predict
from jaxnets.train.program import program
from jaxnets.train.step import ObjectiveFunction


def pretrain_layers(
    stages: Sequence[tuple[Net, Net]],
    objective: ObjectiveFunction,
    optimizer: optax.GradientTransformation,
    x: Any,
    *,
    key: Key,
    epochs: int,
    batch_size: int = 64,
    metrics: Mapping[str, Metric] | None = None,
) -> tuple[dict[str, Params], dict[str, History]]:
    """Train a stack from the bottom up, without labels: each layer is trained on the outputs of those below.

    Each stage is a `program` with its input as the target, and is fixed once it is trained. This is a pure function of
    key and data: jit it, with both as arguments.

    Args:
        stages: for each layer a pair of networks with the same parameters: the one that is trained, and one without
            state whose outputs are the next stage's data. `jn.models.dbn_stages` makes those of a deep belief
            network; `(net, net.upto("encoder"))` are those of an autoencoder.
        objective: `(params, outputs, targets, weights) -> (scalar, parts)`, the same for every stage.
        optimizer: the Optax optimizer, initialized for each stage.
        x: the data, `(examples, ...)`.
        key: the random key; initial values, orders and all other randomness derive from it.
        epochs: how often each stage sees every example.
        batch_size: examples per step.
        metrics: metrics from `jn.metrics`, by the names to report them under.

    Returns:
        The parameters of each stage by its number, `{"0": ..., "1": ...}`, as `serial` of the second networks takes
        them, and the histories in the same form.

    Raises:
        NetError: for no stages, and as in `program`.

    Hinton, Osindero and Teh, "A Fast Learning Algorithm for Deep Belief Nets" (2006); Bengio, Lamblin, Popovici and
    Larochelle, "Greedy Layer-Wise Training of Deep Networks" (2007).

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> x = jax.random.bernoulli(jax.random.key(0), 0.2, (40, 6)).astype(jnp.float32)
    >>> params, history = pretrain_layers(jn.models.dbn_stages((4, 2)), jn.objective(jn.losses.energy_gap),
    ...                                   optax.sgd(0.1), x, key=jax.random.key(1), epochs=2, batch_size=10)
    >>> jn.models.dbn((4, 2)).apply(params, {}, x)[0].shape, history["1"]["loss"].shape
    ((40, 2), (2,))
    """
    if not stages:
        raise NetError("expects at least one stage, got none", label="pretrain_layers")
    params, histories = {}, {}
    for number, (learner, layer) in enumerate(stages):
        name = str(number)
        # An autoencoder of the layer's input: the inputs are the targets.
        stage = program(learner, objective, optimizer, (x, x), epochs=epochs, batch_size=batch_size, metrics=metrics)
        state, histories[name] = stage(fold(key, name))
        params[name] = state.params
        x = predict(layer, (state.params, {}), x)
    return params, histories
