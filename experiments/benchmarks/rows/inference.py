"""Evaluating one network, batch after batch: ours with its batch norms folded, and as it was trained."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

from experiments.benchmarks import ours
from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.rows import training
from experiments.benchmarks.rows.row import OURS, Makers, Row
from experiments.benchmarks.work import Work

RUNTIMES = ("PyTorch", "PyTorch, compiled", "onnxruntime")


def calls(work: Callable[[], Work], names: Sequence[str]) -> Makers:
    """Return us, folded and not, and the peers."""
    work = cache(work)
    peers = {name: lambda peer=PEERS[name]: peer.call("evaluate", work()) for name in names}
    return {
        OURS: lambda: ours.evaluate(work(), folded=True),
        "jaxnets, not folded": lambda: ours.evaluate(work(), folded=False),
        **peers,
    }


def batches(work: Callable[[], Work], batch: int, count: int) -> Work:
    """Return some batches of a work of training."""
    whole = work()
    return replace(whole, x=whole.x[: batch * count], y=whole.y[: batch * count], batch_size=batch)


def _row(name: str, title: str, work: Callable[[], Work], batch: int, count: int) -> Row:
    makers = partial(calls, partial(batches, work, batch, count))
    return Row(f"evaluate-{name}-{batch}", f"{title}, batch {batch}, evaluation", "call", makers, RUNTIMES, quick=0)


ROWS = (
    _row("lenet", "LeNet-5", training.lenet, 1, 200),
    _row("lenet", "LeNet-5", training.lenet, 16, 50),
    _row("vgg11", "VGG-11-BN, 32×32", training.vgg11, 1, 32),
    _row("vgg11", "VGG-11-BN, 32×32", training.vgg11, 16, 8),
    _row("resnet50", "ResNet-50, 224×224", partial(training.resnet50, 1, 8, 224), 1, 8),
    _row("resnet50", "ResNet-50, 224×224", partial(training.resnet50, 16, 2, 224), 16, 2),
)
