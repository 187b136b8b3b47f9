"""Greedy layerwise training: a stack learned from the bottom up, each layer on the features of those below."""

from collections.abc import Mapping, Sequence
from typing import Any

import optax

from jaxnets.core.errors import NetError
from jaxnets.core.net import Key, Net, Params, fold
from jaxnets.metrics import Metric
from jaxnets.train.evaluation import predict
from jaxnets.train.program import History, program
from jaxnets.train.step import ObjectiveFunction


def greedy(
    stages: Sequence[tuple[Net, Net]],
    objective: ObjectiveFunction,
    optimizer: optax.GradientTransformation,
    key: Key,
    x: Any,
    *,
    epochs: int,
    batch_size: int = 64,
    metrics: Mapping[str, Metric] | None = None,
) -> tuple[dict[str, Params], dict[str, History]]:
    """Learn a stack from the bottom up, without labels: each layer is trained on what those below make of the data.

    Each stage is a `program` of its own, with its input as the target, and then stays as it is. It is a pure function
    of key and data: jit it, with both as arguments.

    Args:
        stages: for each layer a pair of networks with the same parameters: the one that learns, and the one, without
            state, whose evaluation is the next stage's data. `jn.models.dbn_stages` makes those of a deep belief
            network; `(net, net.upto("encoder"))` are those of an autoencoder.
        objective: `(params, outputs, targets, weights) -> (scalar, parts)`, the same for every stage.
        optimizer: the Optax optimizer, starting anew for each stage.
        key: initial values, orders and all other randomness come from it.
        x: the data, `(examples, ...)`.
        epochs: how often each stage sees every example.
        batch_size: examples a step.
        metrics: `jn.metrics` by the names to report them under.

    Returns:
        The parameters of each stage by its number, `{"0": ..., "1": ...}`, as `serial` of the second networks takes
        them, and likewise the histories.

    Raises:
        NetError: for no stages, and as `program`.

    Hinton, Osindero and Teh, "A Fast Learning Algorithm for Deep Belief Nets" (2006); Bengio, Lamblin, Popovici and
    Larochelle, "Greedy Layer-Wise Training of Deep Networks" (2007).

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> x = jax.random.bernoulli(jax.random.key(0), 0.2, (40, 6)).astype(jnp.float32)
    >>> params, history = greedy(jn.models.dbn_stages((4, 2)), jn.objective(jn.losses.energy_gap), optax.sgd(0.1),
    ...                          jax.random.key(1), x, epochs=2, batch_size=10)
    >>> jn.models.dbn((4, 2)).apply(params, {}, x)[0].shape, history["1"]["loss"].shape
    ((40, 2), (2,))
    """
    if not stages:
        raise NetError("expects at least one stage, got none", label="greedy")
    params, histories = {}, {}
    for number, (learner, layer) in enumerate(stages):
        name = str(number)
        learn = program(learner, objective, optimizer, (x, x), epochs=epochs, batch_size=batch_size, metrics=metrics)
        run, histories[name] = learn(fold(key, name))
        params[name] = run.params
        x = predict(layer, (run.params, {}), x)
    return params, histories
