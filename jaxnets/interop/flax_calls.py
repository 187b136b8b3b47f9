"""How a module of Flax is called, and told whether it trains."""

import inspect
from typing import Any

from jaxnets.core.errors import NetError
from jaxnets.core.padded import Padded

CALL = "call=lambda module, x, train: module(x, ...)"
MODES = {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}
"""What a module may call its mode, and its value in training."""


def taken_by(module: Any) -> list[str]:
    """Return the arguments of a module's call that say whether it trains."""
    parameters = inspect.signature(type(module).__call__).parameters if callable(module) else {}
    return [name for name in MODES if name in parameters]


def check_call(module: Any, call: Any) -> None:
    """Check that a module can be called with an input, and what says whether it trains.

    Raises:
        NetError: if it can't.
    """
    if call is not None:
        return
    if not callable(module):
        raise NetError(
            f"expects a module with __call__, got {name_of(module)}; pass {CALL.replace('module(x', 'module.method(x')}"
        )
    signature = inspect.signature(type(module).__call__)
    try:
        signature.bind(module, None, **dict.fromkeys(taken_by(module)))
    except TypeError as error:
        takes = f"{name_of(module)}.__call__{signature}"
        raise NetError(f"expects a module of one input x, got {takes}: {error}; pass {CALL}") from error


def refuse_padded(x: Any, call: Any) -> None:
    """Refuse `Padded` input of a module without a `call` that takes it apart.

    Raises:
        NetError: for it.
    """
    if isinstance(x, Padded) and call is None:
        hint = "give it values and lengths by call=lambda module, x, train: ..., and return x.with_values(y)"
        raise NetError(f"expects an array, got {type(x).__name__}: a module of Flax would read the padding; {hint}")


def name_of(module: Any) -> str:
    """Return the name of a module's class, or of a class or function."""
    return getattr(module, "__name__", "") or type(module).__name__
