"""Diagnose under- and overfitting from the curves of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jaxnets.core.errors import NetError, labeled_as

Verdict = Literal["diverged", "unstable", "overfitting", "still learning", "underfitting", "good fit", "too short"]

# The baseline is the loss of the best constant prediction. The whole fall is the first epoch's loss minus the lowest.
EPOCHS = 5  # fewer are too short a curve
SURE = 3.0  # standard errors: one false alarm in about 700
LOST = 0.05  # of the best validation loss: Prechelt's GL above 5 %
FALLING = 0.02  # of the whole fall, from the third quarter to the last: six time constants of an exponential
GAP = 0.2  # of the baseline
POOR, POOR_UNKNOWN = 0.5, 0.9  # of the baseline, and of the first epoch's loss if the baseline is unknown
JUMPED = 0.2  # of the whole fall
ABOVE = 1.1  # times the baseline, or the first epoch's loss
FAR = 2.0  # times the baseline
DOUBT = 1.25  # times the noise, whose estimate has an error of 10 to 20 %
RECENT = 24  # epochs, or the later half: noise is estimated from them


@dataclass(frozen=True)
class Diagnosis:
    """The diagnosis of a run; `print` it.

    Attributes:
        verdict: "diverged", "unstable", "overfitting", "still learning", "underfitting", "good fit" or "too short".
        evidence: the observations, as sentences with numbers.
        advice: what to try, the most promising first.
    """

    verdict: Verdict
    evidence: tuple[str, ...]
    advice: tuple[str, ...]

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # used by IPython and notebooks
        printer.text(str(self))

    def __str__(self) -> str:
        lines = [self.verdict, *(f"- {each}" for each in self.evidence)]
        return "\n".join([*lines, *(["try"] if self.advice else []), *(f"- {each}" for each in self.advice)])


ADVICE: dict[Verdict, tuple[str, ...]] = {
    "diverged": (
        "a smaller learning rate: jn.train.find_learning_rate shows where the loss begins to rise",
        "gradients clipped, optax.chain(optax.clip_by_global_norm(1.0), ...)",
        "a warm-up, optax.schedules.warmup_cosine_decay_schedule",
    ),
    "unstable": (
        "a smaller learning rate, or one that falls, optax.schedules.cosine_decay_schedule",
        "gradients clipped, optax.chain(optax.clip_by_global_norm(1.0), ...)",
        "larger batches",
    ),
    "overfitting": (
        "stopping at the best epoch, jn.train.early_stopping('validation/loss', patience=5)",
        "more data, or augment= and batch_augment=",
        "a penalty (jn.regularizers.l2), dropout, or weight decay (optax.adamw)",
        "a smaller network",
    ),
    "still learning": ("more epochs", "a larger learning rate, see jn.train.find_learning_rate"),
    "underfitting": (
        "a larger network, or one that suits the data",
        "another learning rate, see jn.train.find_learning_rate",
        "weaker penalties, less dropout",
        "inspecting inputs and targets: are they scaled, do they belong together",
    ),
    "good fit": (),
    "too short": (f"at least {EPOCHS} epochs",),
}


def diagnose(history: Mapping[str, Any], *, of: str = "loss", baseline: float | None = None) -> Diagnosis:
    """Diagnose from the curves of a run whether it under- or overfits, still learns, or went wrong.

    Levels are means over the last quarter of the epochs. Noise is the scatter of the epochs around a smooth curve in
    the later half: the standard deviation of second differences, divided by √6, with outliers clipped at three times
    the standard deviation that their median implies; a trend does not change it. The verdict is the first that holds:

    - *too short*: fewer than 5 epochs;
    - *diverged*: a training loss that is not finite, that ends 10 % and 3 standard errors above the first epoch's, or
      that has stopped falling 10 % above the baseline, which a bias alone would reach;
    - *unstable*: the training loss ends above its best quarter by 3 standard errors and 20 % of the whole fall;
    - *overfitting*: the validation loss has risen since its minimum (over a sixteenth of the epochs) by 5 % of it
      (Prechelt's generalization loss), and by 25 % more than noise: 3 standard errors of the last quarter, and
      √(2 ln n) of a sixteenth, by which the minimum of n noisy values is too low;
    - *still learning*: the validation loss (without one, the training loss) fell from the third quarter to the last by
      3 standard errors and 2 % of its whole fall: an exponential does so for six time constants;
    - *underfitting*: the training loss ends above half the baseline; without a baseline, above 90 % of the first
      epoch's;
    - *overfitting* again: validation has settled above training by 20 % of the baseline (or the first epoch's loss);
    - *good fit*: none of these.

    The training loss is a mean over an epoch in which the network changes, with dropout and augmentation, so it may
    be above that of validation. The thresholds are conventions; the evidence has the numbers.

    Args:
        history: as returned by `fit`, `run` or a program, `(epochs,)` for each name; epochs after an early stop, which
            are all NaN, are ignored. `validation/loss` is used if present.
        of: the loss, by its name in training.
        baseline: the loss of the best constant prediction: log(classes) for cross-entropy with balanced classes, the
            targets' variance for the squared error.

    Raises:
        NetError: if the history has no such name, an empty curve, or the curves of several runs.

    Prechelt, "Early Stopping – But When?" (1998), section 2; Goodfellow, Bengio and Courville, *Deep Learning*
    (2016), section 5.2.

    >>> import numpy as np
    >>> epochs = np.arange(1, 41)
    >>> print(diagnose({"loss": 1 / epochs, "validation/loss": 0.3 + 1 / epochs + epochs / 100}).verdict)
    overfitting
    """
    with labeled_as("diagnose"):
        if isinstance(history, tuple) and len(history) == 2:
            raise NetError("expects a history, got a tuple; pass the second value that fit returns")
        if of not in history:
            raise NetError(f"finds no {of!r}; the history has {', '.join(history) or 'nothing'}")
        curves = {name: _values(name, history[name]) for name in (of, f"validation/{of}") if name in history}
    # Epochs at the end with nothing but NaN come after an early stop. Without validation they may be a NaN loss.
    nothing = np.all([np.isnan(curve) for curve in curves.values()], axis=0)
    count = len(nothing) - (int(np.argmin(nothing[::-1])) if not nothing.all() and len(curves) > 1 else 0)
    training, *others = (curve[:count] for curve in curves.values())
    verdict, evidence = _judge(training, others[0] if others else None, baseline)
    found = list(evidence)
    if count < len(nothing):
        found.append(f"epochs {count + 1} to {len(nothing)} report nothing: the run had stopped")
    return Diagnosis(verdict, (*found, *_accuracy(history, count)), ADVICE[verdict])


def _judge(training: np.ndarray, validation: np.ndarray | None, baseline: float | None) -> tuple[Verdict, list[str]]:
    """Return the first verdict that holds, and the observations."""
    if not np.isfinite(training).all():
        epoch = int(np.argmin(np.isfinite(training)))
        return "diverged", [f"the training loss is {training[epoch]:.3g} in epoch {epoch + 1}"]
    if len(training) < EPOCHS:
        return "too short", [f"{len(training)} epochs are too short a curve"]
    # `judged` is the curve that decides whether to continue: validation if there is one.
    taught = judged = _Curve("training", training)
    seen = [taught.course()]
    if validation is not None and np.isfinite(validation).all():
        judged = _Curve("validation", validation)
        seen.append(judged.course())
    elif validation is not None:
        bad = int((~np.isfinite(validation)).sum())
        hint = "look for NaN, infinities or labels out of range in the validation data"
        seen.append(f"the validation loss is not finite in {bad} of {len(validation)} epochs and left out; {hint}")
    checks = (
        _ends_above(taught, baseline), _jumps(taught), _rises(judged), _falls(judged), _is_poor(taught, baseline),
        _stays_above(judged, taught, baseline),
    )  # fmt: skip
    for found in checks:
        if found is not None:
            return found[0], [*seen, found[1]]
    return "good fit", [*seen, f"the {judged.name} loss has settled, without a rise"]


Found = tuple[Verdict, str] | None


def _ends_above(taught: "_Curve", baseline: float | None) -> Found:
    if taught.end - taught.first > max((ABOVE - 1) * abs(taught.first), SURE * taught.error):
        return "diverged", f"training ends above the first epoch's loss, {taught.first:.3g}"
    if baseline is not None and taught.end > ABOVE * baseline > 0 and _falls(taught) is None:
        return "diverged", f"training has settled at {taught.end:.3g}, worse than a constant, {baseline:.3g}"
    return None


def _jumps(taught: "_Curve") -> Found:
    fall, rise = taught.first - taught.low, taught.end - taught.low
    if rise > max(JUMPED * fall, SURE * 2**0.5 * taught.error):
        share = f", {100 * rise / fall:.0f} % of the whole fall" if fall > 0 else ""
        return "unstable", f"training had been at {taught.low:.3g}, and is up again by {rise:.3g}{share}"
    return None


def _rises(judged: "_Curve") -> Found:
    if judged.name != "validation" or judged.epoch > judged.epochs - judged.quarter:
        return None
    rise, least = judged.end - judged.least, judged.least
    # How far the minimum of so many noisy means is below the curve.
    lucky = (2 * np.log(judged.epochs / judged.width) / judged.width) ** 0.5
    noise = DOUBT * judged.noise * (SURE / judged.quarter**0.5 + lucky)
    if rise > max(LOST * (least if least > 0 else judged.first - least), noise):
        where = f"validation was least in epoch {judged.epoch}, {least:.3g}, and has risen by {rise:.3g} since"
        return "overfitting", f"{where}; noise would explain {noise:.2g}"
    return None


def _falls(judged: "_Curve") -> Found:
    sure = SURE * 2**0.5 * judged.error
    if judged.falling > max(FALLING * (judged.first - judged.least), sure):
        noise = f"noise would explain {sure:.2g}"
        return "still learning", f"{judged.name} fell by {judged.falling:.2g} from the last quarter but one; {noise}"
    return None


def _is_poor(taught: "_Curve", baseline: float | None) -> Found:
    scale = taught.first if baseline is None else baseline
    if scale <= 0 or taught.end <= (POOR_UNKNOWN if baseline is None else POOR) * scale:
        return None
    far = ""
    if taught.first > FAR * scale:
        far = f"; it came from {taught.first:.3g}, so the first steps may have been too large"
    return "underfitting", f"training ends at {100 * taught.end / scale:.0f} % of {_level(baseline)}, {scale:.3g}{far}"


def _stays_above(judged: "_Curve", taught: "_Curve", baseline: float | None) -> Found:
    scale, gap = taught.first if baseline is None else baseline, judged.end - taught.end
    if scale > 0 and gap > max(GAP * scale, SURE * float(np.hypot(judged.error, taught.error))):
        share = f"{100 * gap / scale:.0f} % of {_level(baseline)}"
        return "overfitting", f"validation has settled above training by {gap:.3g}, {share}, {scale:.3g}"
    return None


def _level(baseline: float | None) -> str:
    return "the first epoch's loss" if baseline is None else "what a constant would lose"


class _Curve:
    """The statistics of one curve.

    Attributes:
        name: "training" or "validation".
        epochs: how many there are.
        quarter: how many epochs a quarter has, at least 2.
        noise: the standard deviation of an epoch around a smooth curve.
        error: the standard error of a quarter's mean.
        first: the first epoch's value.
        end: the mean of the last quarter.
        low: the lowest mean over the length of a quarter.
        width: how many epochs a sixteenth has, at least 1.
        least: the lowest mean over `width` epochs.
        epoch: the middle one of these epochs, from 1.
        falling: by how much the mean of the last quarter is below that of the quarter before.
    """

    def __init__(self, name: str, values: np.ndarray) -> None:
        self.name, self.epochs = name, len(values)
        self.quarter = k = max(2, len(values) // 4)
        # Second differences remove a trend, and have 1 + 4 + 1 times the variance of independent noise.
        bends = np.diff(values[-max(RECENT, len(values) // 2) :], 2)
        bends = bends - np.median(bends)
        usual = 1.4826 * float(np.median(np.abs(bends)))  # the standard deviation, if they are normal
        self.noise = float(np.clip(bends, -3 * usual, 3 * usual).std()) / 6**0.5
        self.error = self.noise / k**0.5
        means = np.convolve(values, np.full(k, 1 / k), "valid")
        self.first, self.end, self.low = float(values[0]), float(means[-1]), float(means.min())
        self.width = width = max(1, k // 4)
        short = np.convolve(values, np.full(width, 1 / width), "valid")
        self.least, self.epoch = float(short.min()), int(short.argmin()) + (width - 1) // 2 + 1
        self.falling = float(means[-1 - k] - means[-1])

    def course(self) -> str:
        mean = f"the mean of the last {self.quarter} of {self.epochs} epochs"
        return f"the {self.name} loss goes from {self.first:.3g} to {self.end:.3g}, {mean}"


def _values(name: str, values: Any) -> np.ndarray:
    curve = np.asarray(values, np.float64)
    if curve.ndim != 1 or not curve.size:
        hint = "; take those of one trial, {name: values[k] for ...}" if curve.ndim > 1 else ""
        raise NetError(f"expects the values of one run, (epochs,), in {name!r}, got {curve.shape}{hint}")
    return curve


def _accuracy(history: Mapping[str, Any], count: int) -> list[str]:
    names = {"accuracy": "training", "validation/accuracy": "validation"}
    ends = [
        f"{100 * float(np.asarray(history[name])[count - 1]):.1f} % in {word}"
        for name, word in names.items()
        if name in history
    ]
    return [f"accuracy ends at {', '.join(ends)}"] if ends else []
