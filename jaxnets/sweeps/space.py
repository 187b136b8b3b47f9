"""Spaces of hyperparameters, and designs: the hyperparameters and the seed of each trial."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as, shown
from jaxnets.core.net import Key, fold

Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Space:
    """The distribution of a hyperparameter, made by `uniform`, `log_uniform`, `integers` or `choice`.

    Attributes:
        kind: the name of the function that made it.
        low: the least value; for a choice the first index, 0.
        high: the largest value; for a choice the last index.
        options: the values of a choice.
    """

    kind: Literal["uniform", "log_uniform", "integers", "choice"]
    low: float
    high: float
    options: tuple[float, ...] = ()

    def least(self) -> np.ndarray:
        """Return the least value, or the first option of a choice, as an array `(1,)`."""
        if self.options:
            return np.asarray(self.options[:1])
        return np.asarray([int(self.low) if self.kind == "integers" else float(self.low)])

    def draw(self, key: Key, samples: int) -> np.ndarray:
        """Return independent draws `(samples,)`, a pure function of the key."""
        if self.kind in ("integers", "choice"):
            drawn = np.asarray(jax.random.randint(key, (samples,), int(self.low), int(self.high) + 1))
            return np.asarray(self.options)[drawn] if self.options else drawn
        share = np.asarray(jax.random.uniform(key, (samples,)), np.float64)
        if self.kind == "uniform":
            return self.low + share * (self.high - self.low)
        return np.exp(np.log(self.low) + share * (np.log(self.high) - np.log(self.low)))


def uniform(low: float, high: float) -> Space:
    """Return the uniform distribution of real numbers from `low` to `high`.

    Raises:
        NetError: if `low` is not below `high`.

    >>> bool(abs(uniform(-1, 1).draw(jax.random.key(0), 100).mean()) < 0.2)
    True
    """
    return _between("uniform", low, high)


def log_uniform(low: float, high: float) -> Space:
    """Return the distribution of positive numbers with a uniform logarithm: each power of ten is equally likely.

    Raises:
        NetError: if `low` is not below `high`, or not above 0.

    Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization" (2012), section 4.

    >>> drawn = log_uniform(1e-4, 1e-1).draw(jax.random.key(0), 1000)
    >>> bool(drawn.min() >= 1e-4), bool(0.4 < (drawn < 10**-2.5).mean() < 0.6)
    (True, True)
    """
    if not low > 0:
        raise NetError(f"expects low > 0, got {low}; uniform takes any", label="log_uniform")
    return _between("log_uniform", low, high)


def integers(low: int, high: int) -> Space:
    """Return the uniform distribution of integers from `low` to `high`, both included.

    Raises:
        NetError: if they are not integers, or `low` is not below `high`.

    >>> sorted(set(integers(1, 3).draw(jax.random.key(0), 100).tolist()))
    [1, 2, 3]
    """
    if not all(isinstance(value, int | np.integer) for value in (low, high)):
        raise NetError(f"expects integers, got {low!r} and {high!r}", label="integers")
    return _between("integers", low, high)


def choice(options: Sequence[float]) -> Space:
    """Return the uniform distribution over a list of numbers.

    Raises:
        NetError: for an empty list, or one that holds anything but numbers.

    >>> sorted(set(choice([0.0, 0.5]).draw(jax.random.key(0), 100).tolist()))
    [0.0, 0.5]
    """
    with labeled_as("choice"):
        values = _column("options", options)
    return Space("choice", 0, len(values) - 1, tuple(values.tolist()))


@dataclass(frozen=True)
class Design:
    """The trials of a sweep: each configuration of hyperparameters with each seed, one configuration after another.

    Attributes:
        hp: each hyperparameter's values `(trials,)`.
        config: `(trials,)`, the number of each trial's configuration.
        labels: what distinguishes trials of one configuration, `seed` first, `(trials,)` each.
        keys: `(trials,)`, the random key of each trial.
    """

    hp: Values
    config: np.ndarray
    labels: Values
    keys: Any

    def __len__(self) -> int:
        return len(self.config)

    def of(self, trial: int) -> dict[str, Any]:
        """Return a trial's hyperparameters as Python numbers."""
        return {name: values[trial].item() for name, values in self.hp.items()}

    def repeated(self, name: str, count: int) -> "Design":
        """Return each trial `count` times, with a new label that counts them from 0, such as the fold."""
        place = np.repeat(np.arange(len(self)), count)
        hp, labels = ({each: column[place] for each, column in old.items()} for old in (self.hp, self.labels))
        labels[name] = np.tile(np.arange(count), len(self))
        return replace(self, hp=hp, config=self.config[place], labels=labels, keys=self.keys[place])


def design(
    *,
    grid: Mapping[str, Any] | None = None,
    random: Mapping[str, Space] | None = None,
    samples: int | None = None,
    trials: Sequence[Mapping[str, Any]] | None = None,
    seeds: int | Sequence[int] | Any = 1,
    key: Key | None = None,
) -> Design:
    """Return a design; `sweep` describes the arguments.

    Raises:
        NetError: for several designs at once, an empty design, or values that are not numbers.

    >>> two = design(grid={"lr": [0.1, 0.01], "l2": [0.0]}, seeds=2)
    >>> two.hp["lr"].tolist(), two.config.tolist(), two.labels["seed"].tolist()
    ([0.1, 0.1, 0.01, 0.01], [0, 0, 1, 1], [0, 1, 0, 1])
    """
    given = [name for name, value in (("grid", grid), ("random", random), ("trials", trials)) if value is not None]
    if len(given) > 1:
        raise NetError(f"expects one of grid, random and trials, got {' and '.join(given)}")
    if (random is None) != (samples is None):
        raise NetError("expects random={...} and samples=n together")
    if random is not None:
        values = _drawn(random, samples, jax.random.key(0) if key is None else key)
    elif trials is not None:
        values = _listed(trials)
    else:
        values = _combined(grid) if grid is not None else {}
    return crossed({name: tidy(column) for name, column in values.items()}, seeds)


def crossed(hp: Values, seeds: Any) -> Design:
    """Return the design of each configuration with each seed."""
    numbers, keys = _seeds(seeds)
    configs = len(next(iter(hp.values()))) if hp else 1
    config = np.repeat(np.arange(configs), len(numbers))
    place = np.tile(np.arange(len(numbers)), configs)
    return Design({name: column[config] for name, column in hp.items()}, config, {"seed": numbers[place]}, keys[place])


def inputs(hp: Values) -> Values:
    """Return hyperparameters in the form that a trial function gets: floats in JAX's default precision."""
    real = jnp.result_type(float)
    return {name: column.astype(real) if column.dtype.kind == "f" else column for name, column in hp.items()}


def _between(kind: Any, low: float, high: float) -> Space:
    if not low < high:
        raise NetError(f"expects low < high, got {low} and {high}", label=kind)
    return Space(kind, low, high)


def _seeds(seeds: Any) -> tuple[np.ndarray, Any]:
    """Return each seed's number and key."""
    if isinstance(seeds, jax.Array) and jnp.issubdtype(seeds.dtype, jax.dtypes.prng_key):
        if seeds.ndim != 1 or len(seeds) == 0:
            raise NetError(f"expects keys (seeds,), got {seeds.shape}; jax.random.split makes them")
        return np.arange(len(seeds)), seeds
    if hasattr(seeds, "__index__"):
        check_count("seeds", seeds)
        numbers = np.arange(int(seeds))
    else:
        numbers = _column("seeds", seeds)
        if numbers.dtype.kind not in "iu":
            raise NetError(f"expects seeds as a count, integers or keys, got {numbers.dtype}")
    return numbers, jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(0), seed))(jnp.asarray(numbers))


def _column(name: str, values: Any) -> np.ndarray:
    try:
        column = np.asarray(values)
    except (TypeError, ValueError):
        raise NetError(f"expects numbers for {name}, got {values!r}") from None
    if column.ndim != 1 or column.dtype.kind not in "biuf":
        hint = "; for other values, sweep over an index and look it up in the trial function, or run a sweep for each"
        raise NetError(f"expects a list of numbers for {name}, got {column.dtype} {column.shape}{hint}")
    if len(column) == 0:
        raise NetError(f"expects at least one value for {name}, got none")
    return column


def _combined(grid: Mapping[str, Any]) -> Values:
    if not isinstance(grid, Mapping):
        hint = "; trials= takes a list of dicts" if isinstance(grid, list) else ""
        raise NetError(f"expects grid as a dict of lists, {{'lr': [0.1, 0.01]}}, got {shown(grid)}{hint}")
    if not grid:
        raise NetError("expects at least one hyperparameter in grid, got none")
    columns = {name: _column(f"{name!r} in grid", values) for name, values in grid.items()}
    places = np.array(list(itertools.product(*(range(len(column)) for column in columns.values()))))
    return {name: column[places[:, number]] for number, (name, column) in enumerate(columns.items())}


def _drawn(random: Mapping[str, Any], samples: Any, key: Key) -> Values:
    if not random:
        raise NetError("expects at least one hyperparameter in random, got none")
    check_count("samples", samples)
    check_spaces("random", random)
    return {name: space.draw(fold(key, name), samples) for name, space in random.items()}


def check_spaces(what: str, spaces: Mapping[str, Any]) -> None:
    """Check that each hyperparameter has a `Space`.

    Raises:
        NetError: if one does not.
    """
    for name, space in spaces.items():
        if not isinstance(space, Space):
            hint = "such as jn.sweeps.log_uniform(1e-4, 1e-1) or jn.sweeps.choice([...])"
            raise NetError(f"expects a space for {name!r} in {what}, {hint}; got {type(space).__name__}")


def _listed(trials: Sequence[Mapping[str, Any]]) -> Values:
    if not trials:
        raise NetError("expects at least one trial, got none")
    names = list(trials[0])
    for number, trial in enumerate(trials):
        if set(trial) != set(names):
            raise NetError(f"expects {', '.join(names)} in each trial, got {', '.join(trial)} in trial {number}")
    return {name: _column(f"{name!r} in trials", [trial[name] for trial in trials]) for name in names}


def tidy(column: np.ndarray) -> np.ndarray:
    """Return floats as the shortest decimals that are equal in JAX's default precision: 0.1, not 0.10000000149."""
    if column.dtype.kind != "f":
        return column
    return np.array([float(str(value)) for value in column.astype(jnp.result_type(float))])
