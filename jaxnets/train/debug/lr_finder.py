"""The learning-rate range test: one short run whose learning rate grows until the loss explodes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnets.core.checks import check_function
from jaxnets.core.errors import NetError, check_count, check_positive, labeled_as
from jaxnets.core.net import Key, Net, fold
from jaxnets.core.sharding import automatic, batch_sharding_of
from jaxnets.train.arguments import check_data, network, objective_of, pair
from jaxnets.train.evaluation import gather_batch
from jaxnets.train.options import Options
from jaxnets.train.state import Data, TrainState
from jaxnets.train.step import ObjectiveFunction, make_train_step, start

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPLODED = 4.0  # times the lowest smoothed loss
WIDTH = 0.025  # standard deviation of the smoothing, as a fraction of the range


@dataclass(frozen=True)
class LearningRates:
    """The result of a range test.

    Attributes:
        rates: `(steps,)`, the learning rate of each step.
        losses: `(steps,)`, the loss of each step's batch before the step.
        smoothed: `(steps,)`, the smoothed losses; NaN once the loss has exploded.
        suggestion: the rate at which the smoothed loss falls fastest per decade.
        explodes: the rate from which every loss is above four times the lowest smoothed one, or not finite; NaN if
            there is none.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float
    explodes: float

    def plot(self) -> "Figure":
        """Return a figure of the loss over the rate, with the suggestion marked; requires matplotlib.

        >>> rates = np.logspace(-3, 0, 4)
        >>> LearningRates(rates, 1 - rates, 1 - rates, 0.1, np.nan).plot().axes[0].get_xlabel()
        'learning rate'
        """
        from jaxnets.plot.style import BLUE, ORANGE, canvas

        figure = canvas(4.6, 3.4)
        axes = figure.subplots()
        axes.plot(self.rates, self.losses, color=BLUE, alpha=0.3, linewidth=1, label="a batch")
        axes.plot(self.rates, self.smoothed, color=BLUE, label="smoothed")
        axes.axvline(self.suggestion, color=ORANGE, linestyle="--", label=f"suggested: {self.suggestion:.2g}")
        low, high = np.nanmin(self.smoothed), np.nanmax(self.smoothed)
        axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        return figure


def find_learning_rate(
    net: Net,
    objective: ObjectiveFunction,
    optimizer_of: Callable[[Any], optax.GradientTransformation],
    data: Any,
    *,
    key: Key,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    batch_size: int = 64,
) -> LearningRates:
    """Train for a few steps with a learning rate that grows geometrically until the loss explodes.

    It is one compiled scan over batches in random order. Losses are smoothed by a Gaussian over the logarithm of the
    rate, which is symmetric and so does not shift the curve. The suggestion is the rate at which the smoothed loss
    falls fastest over the logarithm of the rate, before its minimum. It is meant for a constant rate, or the peak of a
    schedule.

    Args:
        net: the network.
        objective: `(params, outputs, targets, weights) -> (scalar, parts)`, as `jn.objective` makes it, or a loss.
        optimizer_of: a function from a traced rate to an Optax optimizer, such as `optax.adam`.
        data: inputs, targets and, if any, weights, with the examples along the first axis.
        key: the random key; initial values and the order derive from it, as in a run.
        low: the first rate, > 0.
        high: the last rate, above `low`.
        steps: the number of steps, at least 10.
        batch_size: examples per step, at most as many as there are.

    Raises:
        NetError: for data that `program` does not accept, rates or counts out of range, or a loss that is not finite
            from the beginning.

    Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), section 3.3; the steepest descent is fastai's.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> x = jax.random.normal(jax.random.key(0), (100, 3))
    >>> data = x, (x[:, 0] > 0).astype(int)
    >>> found = find_learning_rate(jn.dense(2), jn.objective(jn.losses.cross_entropy), optax.adam, data,
    ...                            key=jax.random.key(1), batch_size=20)
    >>> bool(1e-3 < found.suggestion < 1)
    True
    """
    with labeled_as("find_learning_rate"):
        net, objective, data = network(net), objective_of(objective), pair("data", data)
        check_function("optimizer_of", optimizer_of, "(rate) -> optimizer")
        examples = check_data("data", data)
        check_positive("low", low)
        for name, count in (("steps", steps), ("batch_size", batch_size)):
            check_count(name, count)
        if not high > low:
            raise NetError(f"expects high > low, got {high:g} for low={low:g}")
        if steps < 10:
            raise NetError(f"expects at least 10 steps, got {steps}")
        if batch_size > examples:
            raise NetError(f"expects a batch no larger than the data, got batch_size={batch_size} for {examples}")
    rates = np.geomspace(low, high, steps)
    device = automatic(jax.tree.map(jnp.asarray, tuple(data)))
    batch_sharding = batch_sharding_of(device)

    @jax.jit
    def test(data: Data, rates: jax.Array, key: Key) -> jax.Array:
        # As many permutations of the data as the steps need, one after another.
        passes = jax.random.split(fold(key, "order"), -(-steps * batch_size // examples))
        order = jax.vmap(lambda key: jax.random.permutation(key, examples))(passes).ravel()
        rows = order[: steps * batch_size].reshape(steps, batch_size)

        def one_step(state: TrainState, step: tuple[jax.Array, jax.Array]) -> tuple[TrainState, jax.Array]:
            rate, rows = step
            batch = gather_batch(data, rows, jnp.ones(batch_size, jnp.float32), batch_sharding)
            train_step = make_train_step(net, objective, optimizer_of(rate), Options(weighted=False))
            state, _, parts = train_step(state, batch)
            return state, parts["loss"]

        first = jax.tree.map(lambda leaf: leaf[:1], data[0])
        return jax.lax.scan(one_step, start(net, optimizer_of(rates[0]), first, key=key), (rates, rows))[1]

    losses = np.asarray(test(device, jnp.asarray(rates, jnp.float32), key), np.float64)
    return _analyze(rates, losses)


def _analyze(rates: np.ndarray, losses: np.ndarray) -> LearningRates:
    """Return the suggestion and where the loss explodes.

    Raises:
        NetError: if there are too few finite losses, or the loss never falls.
    """
    finite = np.isfinite(losses)
    count = len(losses) if finite.all() else int(np.argmin(finite))
    if count < 5:
        raise NetError(f"finds a loss of {losses[count]:g} in step {count}; lower low=", label="find_learning_rate")
    # Exploded losses are clipped, so that smoothing does not spread them to lower rates.
    first = losses[: int(losses[:count].argmin()) + 1].max()
    clipped = np.minimum(losses[:count], _exploded(first))
    smoothed = np.full(len(losses), np.nan)
    smoothed[:count] = _smooth(clipped, WIDTH * len(losses))
    lowest = int(np.nanargmin(smoothed))
    if lowest == 0:
        hint = "lower low=, or check whether the loss can fall at all"
        raise NetError(f"finds no rate at which the loss falls; {hint}", label="find_learning_rate")
    # The loss has exploded after its last value that is not above the bound.
    below = np.flatnonzero(losses <= _exploded(smoothed[lowest]))
    end = max(lowest, int(below[-1]) if len(below) else 0) + 1
    smoothed[end:] = np.nan
    steepest = int(np.gradient(smoothed[:end])[:lowest].argmin())
    explodes = float(rates[end]) if end < len(rates) else float("nan")
    return LearningRates(rates, losses, smoothed, float(rates[steepest]), explodes)


def _exploded(loss: float) -> float:
    """Return the bound above which a loss has exploded: 3 |loss| above it, which is four times a positive loss."""
    return loss + (EXPLODED - 1) * abs(loss)


def _smooth(values: np.ndarray, width: float) -> np.ndarray:
    """Return means weighted by a Gaussian around each value, truncated at the ends."""
    place = np.arange(len(values))
    weights = np.exp(-0.5 * ((place[:, None] - place) / width) ** 2)
    return weights @ values / weights.sum(1)
