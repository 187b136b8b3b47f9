"""Goals of the rows: minimal ratios of a peer's time to ours, maximal ratios of scans and growth."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """The minimal ratio of a peer's time to ours; `None` for no goal.

    Attributes:
        pytorch: the faster of eager and compiled.
        jax: the fastest library on JAX.
        eager: PyTorch that is not compiled, if it has a goal of its own.
    """

    pytorch: float | None = None
    jax: float | None = None
    eager: float | None = None


GOALS = {
    "mlp": Goal(10, 3),
    "lenet": Goal(1.2, 2),
    "lstm": Goal(1.5),
    "cnn": Goal(1.3, 3),
    "resnet20": Goal(1.0, 2),
    "vgg11": Goal(1.0, 1.5),
    "resnet50-2": Goal(1.3, 3),
    "resnet50-16": Goal(1.0, 3),
    "lstm-gradient": Goal(1.0, 1.3),
    "gru-gradient": Goal(1.0, 1.3),
    "autoencoder": Goal(0.8, 5),
    "gpt": Goal(1.0, 1.3, eager=1.2),
    "sweep-mlp": Goal(10, 3),
    "sweep-lenet": Goal(1.2, 4),
    "sweep-cnn": Goal(1.3, 4),
    "decode-1": Goal(2.0, 1.5),
    "decode-16": Goal(2.0, 1.5),
    "compile-50": Goal(None, 1.3),
    "compile-152": Goal(None, 3),
}
SCAN = 1.0  # a step inside a scan takes at most this many times a step outside
ALONE = 8.4  # times of one network that a sweep of eight takes at most
GROWTH = 1.1  # time grows at most by this power of the work; 1 is linear
START = 3.0  # seconds that the first initialization of ResNet-152 takes at most
