"""Every loss on one small batch, with the loss of PyTorch to compare it with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from jaxnets import losses
from tests.oracle import floats, integers


@dataclass(frozen=True)
class Row:
    """A loss to test.

    Attributes:
        name: unique.
        loss: the loss from `jaxnets.losses`, without options.
        outputs: float32.
        targets: NumPy.
        torch: `(torch, outputs, targets, **options) -> per-example values`, by a PyTorch loss where there is one,
            by its arithmetic and derivatives otherwise.
        options: real-valued keyword arguments.
        extreme: outputs at which value and gradient must be finite in float32.
    """

    name: str
    loss: Callable[..., Any]
    outputs: np.ndarray
    targets: np.ndarray
    torch: Callable[..., Any]
    options: dict[str, float] = field(default_factory=dict)
    extreme: tuple[np.ndarray, ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def with_options(self) -> Callable[..., Any]:
        return partial(self.loss, **self.options)


def probabilities(*shape: int) -> np.ndarray:
    numbers = np.exp(floats(*shape, seed=3))
    return (numbers / numbers.sum(axis=-1, keepdims=True)).astype(np.float32)


def log_probabilities(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(axis=-1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))).astype(np.float32)


def ends(x: np.ndarray, size: float = 1e4) -> tuple[np.ndarray, ...]:
    """Return arrays like `x` at the ends of the range, at zero, and with one entry far out."""
    one = np.zeros_like(x)
    one.reshape(-1)[:: x.shape[-1] if x.ndim > 1 else 1] = size
    return size * np.sign(x), -size * np.sign(x), np.full_like(x, size), np.full_like(x, -size), 0 * x, one, -one


def per_example(values: Any) -> Any:
    return values.reshape(len(values), -1).mean(dim=1)


def classes_second(x: Any) -> Any:
    return x.movedim(-1, 1)


def cross_entropy(torch: Any, o: Any, t: Any, label_smoothing: float = 0.0) -> Any:
    t = t.long() if t.dtype == torch.int32 else classes_second(t)
    given = torch.nn.functional.cross_entropy(classes_second(o), t, reduction="none", label_smoothing=label_smoothing)
    return per_example(given)


def focal(torch: Any, o: Any, t: Any, gamma: float = 2.0, alpha: float | None = None) -> Any:
    p = torch.sigmoid(o)
    right = t * p + (1 - t) * (1 - p)
    values = -((1 - right) ** gamma) * torch.log(right)
    return per_example(values if alpha is None else (alpha * t + (1 - alpha) * (1 - t)) * values)


def softmax_focal(torch: Any, o: Any, t: Any, gamma: float = 2.0) -> Any:
    p = torch.softmax(o, dim=-1).gather(-1, t.long()[..., None])[..., 0]
    return per_example(-((1 - p) ** gamma) * torch.log(p))


def maximum_a_posteriori(torch: Any, o: Any, t: Any, rubbish: float = 1.0) -> Any:
    with_rubbish = torch.cat([o, torch.full_like(o[..., :1], -rubbish)], dim=-1)
    given = torch.nn.functional.cross_entropy(classes_second(with_rubbish), t.long(), reduction="none")
    return per_example(given)


def crammer_singer(torch: Any, o: Any, t: Any, margin: float = 1.0) -> Any:
    true = torch.nn.functional.one_hot(t.long(), o.shape[-1]).bool()
    worst = o.masked_fill(true, -np.inf).amax(dim=-1)
    return per_example((worst - o[true].reshape(worst.shape) + margin).clamp(min=0))


def multi_margin(torch: Any, o: Any, t: Any, margin: float = 1.0) -> Any:
    flat, labels = o.reshape(-1, o.shape[-1]), t.long().reshape(-1)
    given = torch.nn.functional.multi_margin_loss(flat, labels, margin=margin, reduction="none")
    return per_example(given.reshape(t.shape)) * o.shape[-1]  # PyTorch divides by the number of classes


def element(name: str, **renamed: str) -> Callable[..., Any]:
    """Return PyTorch's elementwise loss of that name, averaged for each example."""

    def compute(torch: Any, o: Any, t: Any, **options: float) -> Any:
        options = {renamed.get(key, key): value for key, value in options.items()}
        return per_example(getattr(torch.nn.functional, name)(o, t.to(o.dtype), reduction="none", **options))

    return compute


def formula(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda torch, o, t, **options: per_example(function(torch, o, t.to(o.dtype), **options))


MATRIX, OTHER = floats(5, 3), floats(5, 3, seed=1)
SIGNS = np.sign(floats(5, 3, seed=2)).astype(np.int32)
BITS = (SIGNS + 1) // 2
LOGITS, STEPS = floats(5, 4, scale=2.0), floats(5, 3, 4, scale=2.0)
LABELS, STEP_LABELS = integers(5, high=4), integers(5, 3, high=4)

ROWS = [
    Row("absolute_error", losses.absolute_error, MATRIX, OTHER, element("l1_loss"), extreme=ends(MATRIX)),
    Row("squared_error", losses.squared_error, MATRIX, OTHER, element("mse_loss"), extreme=ends(MATRIX)),
    Row("squared_error_vector", losses.squared_error, floats(5), floats(5, seed=1), element("mse_loss")),
    Row(
        "half_squared_error",
        losses.half_squared_error,
        MATRIX,
        OTHER,
        formula(lambda torch, o, t: 0.5 * (o - t) ** 2),
        extreme=ends(MATRIX),
    ),
    Row("huber", losses.huber, MATRIX, OTHER, element("huber_loss"), {"delta": 0.7}, ends(MATRIX)),
    Row("smooth_l1", losses.smooth_l1, MATRIX, OTHER, element("smooth_l1_loss"), {"beta": 0.7}, ends(MATRIX)),
    Row(
        "log_cosh",
        losses.log_cosh,
        MATRIX,
        OTHER,
        formula(lambda torch, o, t: torch.log(torch.cosh(o - t))),
        extreme=ends(MATRIX),
    ),
    Row(
        "squared_log_error",
        losses.squared_log_error,
        np.abs(MATRIX),
        np.abs(OTHER),
        formula(lambda torch, o, t: (torch.log1p(o) - torch.log1p(t)) ** 2),
        extreme=(np.full_like(MATRIX, 1e4), 0 * MATRIX),
    ),
    Row(
        "absolute_percentage_error",
        losses.absolute_percentage_error,
        MATRIX,
        OTHER,
        formula(lambda torch, o, t, epsilon: (o - t).abs() / t.abs().clamp(min=epsilon)),
        {"epsilon": 0.5},
        ends(MATRIX),
    ),
    Row(
        "cosine",
        losses.cosine,
        floats(5, 2, 4),
        floats(5, 2, 4, seed=1),
        lambda torch, o, t: per_example(1 - torch.nn.functional.cosine_similarity(o, t, dim=-1)),
        extreme=(*ends(floats(5, 2, 4)), *ends(floats(5, 2, 4), 1e-30)),
    ),
    Row("cross_entropy", losses.cross_entropy, LOGITS, LABELS, cross_entropy, extreme=ends(LOGITS)),
    Row(
        "cross_entropy_smooth",
        losses.cross_entropy,
        STEPS,
        STEP_LABELS,
        cross_entropy,
        {"label_smoothing": 0.2},
        ends(STEPS),
    ),
    Row(
        "cross_entropy_soft",
        losses.cross_entropy,
        STEPS,
        probabilities(5, 3, 4),
        cross_entropy,
        {"label_smoothing": 0.1},
        ends(STEPS),
    ),
    Row(
        "negative_log_likelihood",
        losses.negative_log_likelihood,
        log_probabilities(STEPS),
        STEP_LABELS,
        lambda torch, o, t: per_example(torch.nn.functional.nll_loss(classes_second(o), t.long(), reduction="none")),
        extreme=tuple(log_probabilities(x) for x in ends(STEPS)),
    ),
    Row(
        "negative_log_likelihood_soft",
        losses.negative_log_likelihood,
        log_probabilities(STEPS),
        probabilities(5, 3, 4),
        lambda torch, o, t: per_example(-(o * t).sum(dim=-1)),
        extreme=tuple(log_probabilities(x) for x in ends(STEPS)),
    ),
    Row(
        "maximum_a_posteriori",
        losses.maximum_a_posteriori,
        STEPS,
        STEP_LABELS,
        maximum_a_posteriori,
        {"rubbish": 1.5},
        ends(STEPS),
    ),
    Row(
        "binary_cross_entropy",
        losses.binary_cross_entropy,
        MATRIX,
        BITS,
        element("binary_cross_entropy_with_logits"),
        extreme=ends(MATRIX),
    ),
    Row("focal", losses.focal, MATRIX, BITS, focal, {"gamma": 1.5, "alpha": 0.3}, ends(MATRIX)),
    Row("focal_below_one", losses.focal, MATRIX, BITS, focal, {"gamma": 0.5}, ends(MATRIX)),
    Row("softmax_focal", losses.softmax_focal, STEPS, STEP_LABELS, softmax_focal, {"gamma": 1.5}, ends(STEPS)),
    Row(
        "hinge",
        losses.hinge,
        MATRIX,
        SIGNS,
        formula(lambda torch, o, t: (1 - o * t).clamp(min=0)),
        extreme=ends(MATRIX),
    ),
    Row(
        "squared_hinge",
        losses.squared_hinge,
        MATRIX,
        SIGNS,
        formula(lambda torch, o, t: (1 - o * t).clamp(min=0) ** 2),
        extreme=ends(MATRIX),
    ),
    Row(
        "perceptron",
        losses.perceptron,
        MATRIX,
        SIGNS,
        formula(lambda torch, o, t: (-o * t).clamp(min=0)),
        extreme=ends(MATRIX),
    ),
    Row(
        "exponential",
        losses.exponential,
        MATRIX,
        SIGNS,
        formula(lambda torch, o, t: torch.exp(-o * t)),
        extreme=ends(MATRIX, 80.0),
    ),
    Row("multiclass_hinge", losses.multiclass_hinge, STEPS, STEP_LABELS, multi_margin, {"margin": 0.8}, ends(STEPS)),
    Row("margin_below_0", losses.multiclass_hinge, STEPS, STEP_LABELS, multi_margin, {"margin": -0.4}, ends(STEPS)),
    Row(
        "crammer_singer", losses.crammer_singer_hinge, STEPS, STEP_LABELS, crammer_singer, {"margin": 0.8}, ends(STEPS)
    ),
    Row(
        "kl_divergence",
        losses.kl_divergence,
        log_probabilities(STEPS),
        probabilities(5, 3, 4),
        lambda torch, o, t: per_example(torch.nn.functional.kl_div(o, t, reduction="none").sum(dim=-1)),
        extreme=tuple(log_probabilities(x) for x in ends(STEPS)),
    ),
]
