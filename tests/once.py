"""Programs that run once: compiling them with all the care of XLA would take longer than it saves."""

from collections.abc import Callable
from typing import Any

import jax

QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def once(function: Callable[..., Any], *args: Any) -> Any:
    """Return `jax.jit(function)(*args)`, compiled quickly; two programs may round a value differently."""
    return jax.jit(function).lower(*args).compile(QUICKLY)(*args)
