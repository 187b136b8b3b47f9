"""Forecasting sunspots: networks against persistence and ARIMA, with the future kept out of training.

The yearly numbers from 1700 to 2008 are cut into six stretches. Each stretch is forecast by models trained on the years
before it alone: networks that read twelve years and forecast the next six, and ARIMA. How long networks train is chosen
on the stretch before. Then the last stretch is forecast by networks trained on windows drawn at random, as a shuffled
split has them: their errors look like those of forecasts, but they have seen later years.
"""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import finish, line, panels
from experiments.framework.study import About, Results, Verdict, above, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Sunspots forecast",
    claim="A recurrent network forecasts sunspots better than persistence, and better than ARIMA.",
    source="Yule (1927) for the data; Box and Jenkins (1970) for ARIMA; Tashman (2000) for the split",
    refuted_by="persistence or ARIMA with errors as small, each having learned from the same years.",
    data="yearly sunspot numbers, 1700 to 2008 (statsmodels), forecast from 1805 on",
    minutes=2.5,
    concepts=("jn.models.lstm", "jn.models.mlp", "jn.data.walk_forward", "jn.data.windows", "jn.data.sunspots"),
)
YEARS, AHEAD, SCALE = 12, 6, 100.0


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 8
    """Networks of each kind and stretch."""
    networks: tuple[str, ...] = ("LSTM", "MLP")
    """The kinds; the first is judged."""
    width: int = 16
    """Hidden units."""
    epochs: int = 150
    """Most epochs of training, one step each."""
    order: tuple[int, int, int] = (9, 0, 0)
    """Order of ARIMA: nine years back, as is usual for sunspots."""
    stretches: int = 5
    """Stretches that are forecast; the first only serves to choose epochs."""


QUICK = Config(seeds=8, networks=("LSTM",), epochs=120)
TINY = Config(seeds=2, networks=("LSTM",), width=4, epochs=2, order=(2, 0, 0), stretches=2)


def run(config: Config) -> Results:
    """Forecast each stretch by each model."""
    _, numbers = jn.data.sunspots()
    whole, _ = jn.data.windows(numbers, YEARS + AHEAD, stride=1)  # (windows, years read and forecast)
    first = YEARS + np.arange(len(whole))  # the first year that each forecasts
    folds = jn.data.walk_forward(len(numbers), config.stretches)
    learned = [first + AHEAD <= past.max() + 1 for past, _ in folds]
    tested = [(first >= future.min()) & (first + AHEAD <= future.max() + 1) for _, future in folds]
    parts = np.random.default_rng(0).integers(config.stretches + 1, size=len(whole))  # of equal size on average
    drawn = [parts != part for part in range(config.stretches + 1)]
    errors: Results = {"persistence": [], "11 years ago": [], "ARIMA": []}
    for (past, _), these in zip(folds[1:], tested[1:], strict=True):
        origins = first[these]
        truth = whole[these, YEARS:]
        forecasts = {
            "persistence": np.repeat(whole[these, YEARS - 1 : YEARS], AHEAD, 1),
            "11 years ago": whole[these, YEARS - 11 : YEARS - 11 + AHEAD],
            "ARIMA": arima(numbers, len(past), origins, config),
        }
        for name, forecast in forecasts.items():
            errors[name].append(np.sqrt(np.square(forecast - truth).mean(0)))
    shuffled = {}
    for name in config.networks:
        squared = learn(name, whole / SCALE, learned + drawn, tested + [~each & tested[-1] for each in drawn], config)
        honest = squared[:, : config.stretches]  # (seeds, stretches, epochs, years ahead)
        chosen = honest.mean((0, 3)).argmin(1)  # what is best for a stretch is used for the next
        own = np.stack([honest[:, k, chosen[k - 1]] for k in range(1, config.stretches)], 1)
        share = np.array([(~each & tested[-1]).sum() for each in drawn])
        among = squared[:, config.stretches :, chosen[-2]][:, share > 0]  # what these years would seem to cost
        seeming = np.einsum("sph,p->sh", among, share[share > 0] / share.sum())
        errors[name] = SCALE * np.sqrt(own)
        shuffled[name] = SCALE * np.sqrt(seeming)
    rounded = {name: np.round(each, 3) for name, each in errors.items()}
    return {"years": [1700 + int(first[each][0]) for each in tested[1:]], "errors": rounded, "shuffled": shuffled}


def arima(numbers: np.ndarray, known: int, origins: np.ndarray, config: Config) -> np.ndarray:
    """Return forecasts of the years from each origin on, by a model of the years known: `(origins, ahead)`."""
    from statsmodels.tsa.arima.model import ARIMA

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of starting values; a fit that fails would show in the errors
        fitted = ARIMA(numbers[:known].astype(float), order=config.order).fit()
        whole = fitted.append(numbers[known:].astype(float), refit=False)
    return np.stack([whole.predict(origin, origin + AHEAD - 1, dynamic=0) for origin in origins])


def learn(name: str, whole: np.ndarray, learned: list, tested: list, config: Config) -> np.ndarray:
    """Return squared errors `(seeds, splits, epochs, years ahead)` of networks that learn from some of the windows."""
    x, y = whole[:, :YEARS, None], jnp.asarray(whole[:, YEARS:] - whole[:, YEARS - 1 : YEARS])
    net = {"LSTM": jn.models.lstm(config.width, num_outputs=AHEAD),
           "MLP": jn.serial(jn.flatten, jn.dense(config.width), jnp.tanh, jn.dense(AHEAD))}[name]  # fmt: skip

    def sums(outputs: Any, targets: Any, weights: Any = None) -> dict[str, jax.Array]:
        return {"total": (weights[:, None] * jnp.square(outputs - targets)).sum(0), "weight": weights.sum()}

    squared = jn.metrics.Metric(sums, lambda sums: sums["total"] / sums["weight"], "squared")

    def trial(hp: dict[str, Any]) -> jn.train.Program:
        here, there = (jnp.asarray(np.stack(masks), jnp.float32)[hp["split"]] for masks in (learned, tested))
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01))
        return jn.train.program(
            net, jn.objective(jn.losses.squared_error), optimizer, (x, y, here), epochs=config.epochs, batch_size=None,
            validation=(x, y, there), metrics={"squared": squared},
        )  # fmt: skip

    result = jn.sweeps.sweep(trial, seeds=config.seeds, grid={"split": np.arange(len(learned))}, strategy="map")
    found = result.history["validation/squared"]
    return found.reshape(len(learned), config.seeds, config.epochs, AHEAD).swapaxes(0, 1)


def figure(results: Results) -> "Figure":
    """Draw errors by how far ahead and by stretch, and what shuffling makes of the last stretch."""
    drawn, (ahead, stretch, split) = panels(3, width=3.5, height=2.9)
    years, starts = range(1, AHEAD + 1), results["years"]
    for place, (name, values) in enumerate(results["errors"].items()):
        found = np.asarray(values)
        many = found if found.ndim == 3 else found[None]  # (seeds or 1, stretches, years ahead)
        style = {} if found.ndim == 3 else {"linestyle": "--"}
        line(ahead, years, many.mean(1), name, place, **style)
        line(stretch, starts, many[:, :, 0], name, place, **style)
        if name in results["shuffled"]:
            line(split, years, many[:, -1], f"{name}, years before alone", place)
            line(split, years, results["shuffled"][name], f"{name}, shuffled", place, linestyle=":")
    stretch.set_xticks(starts, [f"{year}–\n{year + 50}" for year in starts])
    ahead.set_ylim(0, 100)
    for panel in (stretch, split):
        panel.set_ylim(0, 50)
    error = "root mean square error, sunspots"
    finish(ahead, f"{starts[0]} to 2008, bands over seeds", "years ahead", error)
    finish(stretch, "One year ahead, by stretch", "years forecast", error, legend=False)
    finish(split, f"{starts[-1]} to 2008, by what was learned from", "years ahead", error)
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by the mean error over the stretches, each network less the others' one error."""
    errors = {name: np.asarray(each) for name, each in results["errors"].items()}
    name = next(iter(results["shuffled"]))
    own = errors[name].mean(1)  # (seeds, years ahead)
    other = {each: found.mean(0) for each, found in errors.items() if found.ndim == 2}
    honest, seeming = errors[name][:, -1, 0], np.asarray(results["shuffled"][name])[:, 0]
    unit = "sunspots"
    findings = [
        above(f"error one year ahead, persistence less {name}", other["persistence"][0] - own[:, 0], 0, unit),
        above(f"error one year ahead, ARIMA less {name}", other["ARIMA"][0] - own[:, 0], 0, unit),
        above(f"mean over {AHEAD} years ahead, 11 years ago less {name}",
              other["11 years ago"].mean() - own.mean(1), 0, unit, core=False),
        above(f"mean over {AHEAD} years ahead, ARIMA less {name}", other["ARIMA"].mean() - own.mean(1), 0, unit,
              core=False),
        above(f"last stretch one year ahead, {name}: error less what a shuffled split makes of it", honest - seeming, 0,
              unit, core=False),
    ]  # fmt: skip
    if "MLP" in errors and name != "MLP":
        gain = errors["MLP"].mean(1)[:, 0] - own[:, 0]
        findings.insert(2, above(f"error one year ahead, MLP less {name}", gain, 0, unit, core=False))
    return judge(*findings)
