"""The other libraries, a file each, written as their own documentation writes a training loop.

Such a file turns each layer of `architecture.py` into the library's own, and has `train(work)`, which gives a
contestant; some have `sweep(work, rates)`, which trains a network for each learning rate, `start(work)`, which makes
parameters, `evaluate(work)`, which evaluates, and `decode(work)`, which writes text. None is imported unless it takes
part, and none has the library's own name, which would hide it.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from experiments.benchmarks.work import Contestant


@dataclass(frozen=True)
class Peer:
    """A library, used in one way.

    Attributes:
        file: of this folder.
        package: what must be installed.
        options: given to `train`, `sweep`, `evaluate` and `decode`.
        jax: whether it uses JAX.
        needs: other packages that it takes.
    """

    file: str
    package: str
    options: dict[str, Any]
    jax: bool = True
    needs: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """With whom it is compared."""
        return "JAX" if self.jax else {"torch": "PyTorch", "transformers": "PyTorch"}.get(self.package, self.package)

    @property
    def installed(self) -> bool:
        """Whether the package and what it needs are installed."""
        return all(importlib.util.find_spec(each) is not None for each in (self.package, *self.needs))

    def call(self, what: str, *given: Any) -> Contestant:
        """Call a function of the file and return its result."""
        make: Callable[..., Contestant] = getattr(importlib.import_module(f"{__name__}.{self.file}"), what)
        return make(*given, **self.options)


PEERS = {
    "PyTorch": Peer("in_pytorch", "torch", {"mode": None}, jax=False),
    "PyTorch, compiled": Peer("in_pytorch", "torch", {"mode": "default"}, jax=False),
    "PyTorch, CUDA graphs": Peer("in_pytorch", "torch", {"mode": "reduce-overhead"}, jax=False),
    "Flax Linen": Peer("in_linen", "flax", {}),
    "Flax NNX": Peer("in_nnx", "flax", {}),
    "Flax NNX, scanned": Peer("in_nnx", "flax", {"scan": True}),
    "Equinox": Peer("in_equinox", "equinox", {}),
    "Haiku": Peer("in_haiku", "haiku", {}),
    "Keras": Peer("in_keras", "keras", {}),
    "transformers": Peer("in_transformers", "transformers", {}, jax=False),
    "onnxruntime": Peer("in_onnxruntime", "onnxruntime", {}, jax=False, needs=("torch", "onnxscript")),
}
