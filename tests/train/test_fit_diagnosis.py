"""Verdicts on curves that are known, on noise without end, and on runs that went well or wrong on purpose."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

import jaxnets as jn
from tests.oracle import floats

pytestmark = pytest.mark.promotes  # Optax's own arithmetic
KEY = jax.random.key(0)
CLASSES = jn.objective(jn.losses.cross_entropy)
whole = jax.jit(lambda program, key: program(key))


def falling(epochs: int = 60, start: float = 2.3, end: float = 0.1, pace: float = 6.0) -> np.ndarray:
    """Return an exponential from `start` towards `end`."""
    return end + (start - end) * np.exp(-np.arange(epochs) / pace)


def both(training: Any, validation: Any) -> dict[str, Any]:
    return {"loss": np.asarray(training), "validation/loss": np.asarray(validation)}


RISING = falling(60, end=0.5) + 0.01 * np.maximum(np.arange(60) - 20, 0)
KNOWN = {
    "it settles": (both(falling(), falling(end=0.3)), None, "good fit"),
    "it settles, without validation": ({"loss": falling()}, 2.3, "good fit"),
    "validation rises": (both(falling(), RISING), None, "overfitting"),
    "validation stays far above": (both(falling(), falling(end=1.2)), 2.3, "overfitting"),
    "both have far to go": (both(falling(10), falling(10, end=0.3)), 2.3, "still learning"),
    "only five epochs, all of them down": (both(falling(5), falling(5)), 2.3, "still learning"),
    "half a constant's loss": (both(falling(end=1.3), falling(end=1.4)), 2.3, "underfitting"),
    "hardly below the first epoch": ({"loss": falling(start=0.75, end=0.69)}, None, "underfitting"),
    "up and away": ({"loss": np.exp(np.arange(10) / 3)}, None, "diverged"),
    "nan in the fourth epoch": (both([1.0, 0.9, 0.8, np.nan], [1.0, 0.9, 0.9, 0.9]), None, "diverged"),
    "inf in the first": ({"loss": [np.inf, np.nan]}, None, "diverged"),
    "above a constant from below": ({"loss": falling(start=2.0, end=2.6)}, 2.3, "diverged"),
    "above a constant from above": ({"loss": falling(start=9.0, end=2.6)}, 2.3, "diverged"),
    "far above a constant, but falling": ({"loss": falling(30, start=29, pace=20)}, 2.3, "still learning"),
    "back at a constant from above": (both(falling(start=29, end=2.3, pace=1), falling(end=2.3)), 2.3, "underfitting"),
    "a late jump": ({"loss": np.where(np.arange(60) < 40, falling(), 1.5)}, None, "unstable"),
    "two epochs": (both([1.0, 0.9], [1.0, 0.9]), None, "too short"),
    "a log-likelihood that settles": (both(falling() - 9, falling(end=0.3) - 9), None, "good fit"),
    "a log-likelihood that rises": (both(falling() - 9, RISING - 9), None, "overfitting"),
}  # fmt: skip


@pytest.mark.parametrize(("history", "baseline", "verdict"), KNOWN.values(), ids=KNOWN)
def test_known_curves(history: dict[str, Any], baseline: float | None, verdict: str):
    found = jn.train.diagnose(history, baseline=baseline)
    assert found.verdict == verdict, str(found)


def test_noise_alone_is_no_overfitting_and_a_rise_is_found_through_it():
    """Of 400 settled curves 8 at the most are mistaken, and of 400 that rise by twenty standard errors 8 are missed."""
    generator = np.random.default_rng(0)
    for epochs, noise in ((30, 0.05), (100, 0.01), (100, 0.2)):
        settled, rising = falling(epochs, end=0.5, pace=epochs / 15), np.linspace(-1, 1, epochs)
        rise = 20 * noise / (epochs // 4) ** 0.5 + 0.05
        verdicts = []
        for shape in (settled, settled + rise * np.maximum(rising, 0)):
            runs = shape + noise * generator.standard_normal((400, epochs))
            verdicts.append([jn.train.diagnose(both(falling(epochs, end=0.4), run)).verdict for run in runs])
        assert verdicts[0].count("good fit") >= 392
        assert verdicts[1].count("overfitting") >= 392


def test_noise_is_measured_about_any_trend():
    """White noise of σ = 1 on a line and on a parabola; wild outliers, one in 50, count for little."""
    from jaxnets.train.debug.fit_diagnosis import _Curve

    t, white = np.arange(2000.0), np.random.default_rng(1).standard_normal(2000)
    for trend in (0 * t, -3 * t, 1e-3 * t**2):
        np.testing.assert_allclose(_Curve("training", trend + white).noise, 1, rtol=0.07)
    assert _Curve("training", white + np.where(t % 50 == 0, 1000.0, 0.0)).noise < 1.35


def test_the_evidence_has_the_figures():
    found = jn.train.diagnose(
        {**both(falling(), RISING), "accuracy": np.full(60, 0.995), "validation/accuracy": np.full(60, 0.8)}
    )
    thirds = np.convolve(RISING, np.full(3, 1 / 3), "valid")  # a sixteenth of 60 epochs is 3
    least = int(thirds.argmin()) + 1
    end = RISING[-15:].mean()
    last = "the mean of the last 15 of 60 epochs"
    assert found.evidence[0] == f"the training loss goes from 2.3 to {falling()[-15:].mean():.3g}, {last}"
    assert found.evidence[1] == f"the validation loss goes from 2.3 to {end:.3g}, {last}"
    where = f"validation was least in epoch {least + 1}, {thirds.min():.3g}"
    rise = f"{where}, and has risen by {end - thirds.min():.3g} since"
    assert found.evidence[2].startswith(f"{rise}; noise would explain ")
    assert found.evidence[3:] == ("accuracy ends at 99.5 % in training, 80.0 % in validation",)
    assert str(found).startswith("overfitting\n- the training loss goes")
    assert "try\n- stopping at the best epoch" in str(found)


def test_epochs_behind_an_early_stop_are_left_out():
    stopped = {name: np.concatenate([curve, np.full(20, np.nan)]) for name, curve in both(falling(), RISING).items()}
    found = jn.train.diagnose(stopped)
    assert found.verdict == "overfitting"
    assert found.evidence[-1] == "epochs 61 to 80 report nothing: the run had stopped"
    failed = stopped | {"validation/loss": np.concatenate([RISING, [0.7], np.full(19, np.nan)])}
    assert jn.train.diagnose(failed).verdict == "diverged"


def program(
    net: jn.Net, data: Any, held_out: Any, optimizer: Any, epochs: int, batch_size: int | None = 50
) -> jn.train.Program:
    metrics = {"accuracy": jn.metrics.accuracy}
    return jn.train.program(
        net, CLASSES, optimizer, data, epochs=epochs, batch_size=batch_size, validation=held_out, metrics=metrics
    )


def learn(*given: Any) -> dict[str, np.ndarray]:
    return jax.device_get(whole(program(*given), KEY)[1])


@pytest.mark.slow
def test_runs_on_digits_that_fit_well_stop_short_and_go_wrong():
    """One network, one rate too large, one run too short."""
    images, labels = jn.data.digits()
    images = images.reshape(-1, 64)
    data, held_out = (images[:1000], labels[:1000]), (images[1000:], labels[1000:])
    net = jn.serial(hidden=jn.dense(32), relu=jax.nn.relu, out=jn.dense(10))

    @jax.jit
    def both(rates: jax.Array) -> Any:
        return jax.vmap(lambda rate: program(net, data, held_out, optax.sgd(rate), 40)(KEY)[1])(rates)

    histories = jax.device_get(both(jax.numpy.array([0.2, 1e9])))
    healthy, wild = ({name: values[trial] for name, values in histories.items()} for trial in (0, 1))
    found = jn.train.diagnose(healthy, baseline=np.log(10))
    assert found.verdict == "good fit", str(found)
    assert healthy["validation/accuracy"][-1] > 0.9
    short = jn.train.diagnose({name: values[:6] for name, values in healthy.items()}, baseline=np.log(10))
    assert short.verdict == "still learning", str(short)
    found = jn.train.diagnose(wild, baseline=np.log(10))
    assert found.verdict == "diverged", str(found)


@pytest.mark.slow
def test_a_large_network_on_few_examples_overfits():
    images, labels = jn.data.digits()
    images = images.reshape(-1, 64)
    wrong = np.where(np.arange(60) % 5 == 0, (labels[:60] + 1) % 10, labels[:60])  # a fifth of the labels
    net = jn.serial(hidden=jn.dense(256), relu=jax.nn.relu, out=jn.dense(10))
    found = jn.train.diagnose(learn(net, (images[:60], wrong), (images[60:], labels[60:]), optax.adam(3e-3), 80))
    assert found.verdict == "overfitting", str(found)
    assert "has risen by" in found.evidence[2]
    assert found.evidence[-1].startswith("accuracy ends at 100.0 % in training")


def test_a_linear_network_underfits_the_exclusive_or():
    x = np.tile(np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], np.float32), (50, 1)) + 0.1 * floats(200, 2)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int32)
    history = learn(jn.serial(out=jn.dense(2)), (x, y), (x, y), optax.sgd(1.0), 30, None)
    found = jn.train.diagnose(history, baseline=np.log(2))
    assert found.verdict == "underfitting", str(found)


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ({"accuracy": [1.0]}, "finds no 'loss'; the history has accuracy"),
        ({}, "finds no 'loss'; the history has nothing"),
        (
            {"loss": np.ones((3, 10))},
            r"expects the values of one run, \(epochs,\), in 'loss', got \(3, 10\); take those",
        ),
        ({"loss": []}, r"expects the values of one run, \(epochs,\), in 'loss', got \(0,\)"),
    ],
)
def test_what_is_no_history_is_an_error(history: Any, message: str):
    with pytest.raises(jn.NetError, match=message):
        jn.train.diagnose(history)
