"""Train a network on data: a program and the host's loop around it in one call."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax

from jaxnets.core.errors import labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.net import Key, Net, check_key
from jaxnets.core.paths import Pattern
from jaxnets.train.arguments import Metrics, options_of
from jaxnets.train.callbacks.early_stopping import EarlyStopping
from jaxnets.train.data import Data
from jaxnets.train.epoch import History
from jaxnets.train.loop import Callback, check_callbacks, run_with
from jaxnets.train.objective import Loss
from jaxnets.train.options import Options
from jaxnets.train.program import DEFAULT_BATCH_SIZE, build
from jaxnets.train.state import TrainState
from jaxnets.train.step import ObjectiveFunction


@explained
def fit(
    net: Net | Callable[[Any], Any],
    loss: ObjectiveFunction | Loss,
    optimizer: optax.GradientTransformation,
    data: Any,
    *,
    epochs: int,
    key: Key,
    batch_size: int | None = DEFAULT_BATCH_SIZE,
    validation: Any = None,
    metrics: Metrics = None,
    augment: Callable[[Key, Any], Any] | None = None,
    batch_augment: Callable[[Key, Any, Any, jax.Array], tuple[Any, Any, jax.Array]] | None = None,
    sampler: Callable[[Key, Data], jax.Array] | None = None,
    freeze: Pattern | None = None,
    ema_decay: Any = None,
    options: Options = Options(),
    callbacks: Sequence[Callback | EarlyStopping] = (),
) -> tuple[TrainState, History]:
    """Train a network and return its train state and history.

    The same numbers as `jn.train.run(jn.train.program(...), key=key)`, to the bit. Use `jn.train.program` where
    training is to be jitted, vmapped or swept.

    Args:
        net: the network.
        loss: `(outputs, targets) -> (batch,)`, or `jn.objective(loss, *regularizers)`.
        optimizer: an Optax optimizer.
        data: inputs and targets, pytrees of arrays with the examples along the first axis, and weights `(examples,)`
            as a third if not all examples count alike; or a `jn.data.stream`.
        epochs: how many times every example is seen, at least 1.
        key: a random key, `jax.random.key(0)`; initial values, order and dropout derive from it.
        batch_size: examples per step, by default 64; `None` for all of them.
        validation: inputs and targets to evaluate after each epoch.
        metrics: one of `jn.metrics`, a list, or a dict by the names to report.
        augment: `(key, example) -> example`, such as `jn.data.shift(1)`.
        batch_augment: `(key, x, y, weights) -> (x, y, weights)`, such as `jn.data.mixup(0.2)`.
        sampler: `(key, data) -> indices (examples,)`, such as `jn.data.balanced(10)`.
        freeze: a pattern over the paths of parameters that stay as they are, `"features/**"`.
        ema_decay: decay in [0, 1) of an exponential moving average of the parameters, `state.ema`.
        options: what is rarely changed, such as `jn.train.Options(accumulate=4)`.
        callbacks: `jn.train.progress()`, `jn.train.checkpoint(folder)`, `jn.train.early_stopping(...)`, or any
            `jn.train.Callback`.

    Returns:
        The train state, and the history: a NumPy array `(epochs,)` for each reported name.

    Raises:
        NetError: for arguments that do not fit; the message says how to change them.
        NonFiniteError: at a non-finite loss or gradient; with the last good train state and the history.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> x = jax.random.normal(jax.random.key(0), (100, 3))
    >>> y = (x[:, 0] > 0).astype(int)
    >>> net = jn.serial(jn.dense(8), jax.nn.relu, jn.dense(2))
    >>> state, history = fit(net, jn.losses.cross_entropy, optax.adam(0.1), (x, y), epochs=20, key=jax.random.key(1),
    ...                      metrics=[jn.metrics.accuracy])
    >>> history["loss"].shape, bool(history["accuracy"][-1] > 0.95)
    ((20,), True)
    """
    with labeled_as("fit"):
        check_key(key)
        rule, watchers = check_callbacks(callbacks)
        options = options_of(options, freeze, ema_decay, rule)
    functions = {"augment": augment, "batch_augment": batch_augment, "sampler": sampler}
    made_of = (net, loss, optimizer, data, validation, metrics, functions, rule, options)
    return run_with(build("fit", *made_of, epochs, batch_size), key, watchers)
