"""The learning-rate range test: one short run whose rate grows until the loss explodes."""

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
from jaxnets.train import evaluation
from jaxnets.train.arguments import network, objective_of, pair
from jaxnets.train.data import Data, check_data
from jaxnets.train.state import TrainState
from jaxnets.train.step import ObjectiveFunction, Options, make_train_step, start

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPLODED = 4.0  # times the least smoothed loss
WIDTH = 0.025  # of the smoothing, as a part of the range


@dataclass(frozen=True)
class LearningRates:
    """What a range test saw.

    Attributes:
        rates: `(steps,)`, the learning rate of each step.
        losses: `(steps,)`, the loss of each step's batch before the step.
        smoothed: `(steps,)`, the same, smoothed; NaN from where it has exploded.
        suggestion: the rate at which the smoothed loss falls fastest, by decade.
        explodes: the rate from which on every loss lies above four times the least smoothed one, or is not finite; NaN
            if there is none.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float
    explodes: float

    def plot(self) -> "Figure":
        """Return a figure of the loss over the rate, with the suggestion marked; matplotlib comes with an extra.

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
    key: Key,
    *,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    batch_size: int = 64,
) -> LearningRates:
    """Train for a few steps while the learning rate grows from step to step by one factor, until the loss explodes.

    One compiled scan. The batches follow one another through random orders of the data. Losses are smoothed by a
    Gaussian over the logarithm of the rate, alike on both sides, so that nothing is shifted. The suggestion is where
    the smoothed loss falls fastest by the logarithm of the rate, before its least. It is meant for the constant rate of
    a run, or the peak of a schedule.

    Args:
        net: the network.
        objective: `(params, outputs, targets, weights) -> (scalar, parts)`, as `jn.objective` makes.
        optimizer_of: from a rate, traced, to an Optax optimizer, such as `optax.adam`.
        data: inputs and targets, and weights if any, with the examples along the first axis.
        key: initial values and the order come from it, as in a run.
        low: the first rate, > 0.
        high: the last rate, above `low`.
        steps: how many steps, at least 10.
        batch_size: how many examples a step, at most as many as there are.

    Raises:
        NetError: for data that `program` would refuse, rates or counts out of range, or a loss that is not finite from
            the beginning.

    Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), section 3.3; the steepest descent is fastai's.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> x = jax.random.normal(jax.random.key(0), (100, 3))
    >>> data = x, (x[:, 0] > 0).astype(int)
    >>> found = find_learning_rate(jn.dense(2), jn.objective(jn.losses.cross_entropy), optax.adam, data,
    ...                            jax.random.key(1), batch_size=20)
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
        passes = jax.random.split(fold(key, "order"), -(-steps * batch_size // examples))
        order = jax.vmap(lambda key: jax.random.permutation(key, examples))(passes).ravel()

        def one(run: TrainState, place: tuple[jax.Array, jax.Array]) -> tuple[TrainState, jax.Array]:
            rate, rows = place
            batch = evaluation.take(data, rows, jnp.ones(batch_size, jnp.float32), batch_sharding)
            run, _, parts = make_train_step(net, objective, optimizer_of(rate), Options(weighted=False))(run, batch)
            return run, parts["loss"]

        run = start(net, optimizer_of(rates[0]), key, jax.tree.map(lambda leaf: leaf[:1], data[0]))
        return jax.lax.scan(one, run, (rates, order[: steps * batch_size].reshape(steps, batch_size)))[1]

    losses = np.asarray(test(device, jnp.asarray(rates, jnp.float32), key), np.float64)
    return _read(rates, losses)


def _read(rates: np.ndarray, losses: np.ndarray) -> LearningRates:
    """Return what the losses say of the rates."""
    finite = np.isfinite(losses)
    count = len(losses) if finite.all() else int(np.argmin(finite))
    if count < 5:
        raise NetError(f"finds a loss of {losses[count]:g} in step {count}; lower low=", label="find_learning_rate")
    first = losses[: int(losses[:count].argmin()) + 1].max()
    shown = np.minimum(losses[:count], _above(first))  # what has exploded must not reach back through the smoothing
    smoothed = np.full(len(losses), np.nan)
    smoothed[:count] = _smooth(shown, WIDTH * len(losses))
    least = int(np.nanargmin(smoothed))
    if least == 0:
        hint = "lower low=, or look whether the loss can fall at all"
        raise NetError(f"finds no rate at which the loss falls; {hint}", label="find_learning_rate")
    calm = np.flatnonzero(losses <= _above(smoothed[least]))
    end = max(least, int(calm[-1]) if len(calm) else 0) + 1
    smoothed[end:] = np.nan
    steepest = int(np.gradient(smoothed[:end])[:least].argmin())
    explodes = float(rates[end]) if end < len(rates) else float("nan")
    return LearningRates(rates, losses, smoothed, float(rates[steepest]), explodes)


def _above(loss: float) -> float:
    """Return what counts as an explosion: four times a loss, or as far above one that is negative."""
    return loss + (EXPLODED - 1) * abs(loss)


def _smooth(values: np.ndarray, width: float) -> np.ndarray:
    """Return means weighted by a Gaussian around each value; at the ends, over what there is."""
    place = np.arange(len(values))
    weights = np.exp(-0.5 * ((place[:, None] - place) / width) ** 2)
    return weights @ values / weights.sum(1)
