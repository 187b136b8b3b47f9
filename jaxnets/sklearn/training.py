"""The training run of an estimator, as one pure function of its parameters and data."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets import regularizers
from jaxnets.core.compiled import compiled
from jaxnets.core.errors import NetError, check_positive, concrete, is_traced
from jaxnets.core.net import Key, Net
from jaxnets.train.callbacks.early_stopping import EarlyStopping
from jaxnets.train.objective import Objective, objective
from jaxnets.train.program import Program, program
from jaxnets.train.state import TrainState, is_key


def program_of(
    params: Mapping[str, Any],
    net: Net,
    loss: Any,
    data: tuple[Any, ...],
    validation: tuple[Any, ...] | None = None,
    *,
    stopping: EarlyStopping | None = None,
) -> Program:
    """Return the training run of an estimator.

    It is a pure function: `learning_rate`, `l2` and the strengths of `regularizer` may be traced.

    Args:
        params: the parameters of the estimator by name, `estimator.get_params(deep=False)`.
        net: the network.
        loss: the loss, or an objective of `jn.objective`.
        data: inputs, targets and, if any, weights.
        validation: the same of the part that is held out.
        stopping: when to stop early.

    Raises:
        NetError: for a negative rate or strength, and what `jn.train.program` raises.
    """
    terms = [] if params["regularizer"] is None else params["regularizer"]
    terms = list(terms) if isinstance(terms, list | tuple) else [terms]
    # Left out at 0, so that a network without kernels needs no other setting.
    if concrete(params["l2"], "l2") != 0.0:
        terms.insert(0, regularizers.l2(params["l2"]))
    if isinstance(loss, Objective):
        loss, terms = loss.loss, [*loss.regularizers, *terms]
    examples, size = len(data[0]), params["batch_size"]
    return program(
        net,
        objective(loss, *terms) if terms else loss,
        _optimizer(params["optimizer"], params["learning_rate"]),
        data,
        epochs=params["epochs"],
        batch_size=min(int(size), examples) if isinstance(size, int | np.integer) else size,
        validation=validation,
        metrics=params["metrics"],
        stopping=stopping,
        **params["fit_options"] or {},
    )


def _optimizer(given: Any, rate: Any) -> Any:
    """Return the optimizer of a learning rate, unless it is ready."""
    if not callable(given) or hasattr(given, "init"):
        return given
    if not callable(rate):  # a schedule
        check_positive("learning_rate", rate, zero=True)
        # Python's `float`, so that equal rates share what is compiled.
        rate = rate if is_traced(rate) else float(rate)
    return given(rate)


def precision(dtype: Any) -> AbstractContextManager[Any]:
    """Return the context in which JAX computes with inputs of a dtype: double precision for float64."""
    return jax.enable_x64(True) if np.dtype(dtype) == np.float64 else nullcontext()


def to_host(state: TrainState) -> TrainState:
    """Return a train state of NumPy arrays, which is pickled with its dtypes: keys become their data."""
    return jax.tree.map(lambda leaf: np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf), state)


def resumed(program: Program, before: TrainState, key: Key) -> TrainState:
    """Return the train state from which a program goes on where another ended; early stopping starts anew.

    Args:
        program: the program.
        before: the last train state, on the host.
        key: any key.

    Raises:
        NetError: if the other program had parameters or an optimizer of other shapes.
    """
    fresh: Any = compiled(type(program.recipe).start, [program.recipe, program.row], [key]).trace(key).out_info
    state = jax.tree.map(jnp.array, replace(before, stopping=None))  # copied, as the run reuses its memory
    state = replace(state, key=jax.random.wrap_key_data(state.key))
    for what in ("params", "state", "opt_state", "ema"):
        wanted, given = (jax.tree.map(np.shape, getattr(each, what)) for each in (fresh, state))
        if wanted != given:
            hint = "fit with warm_start=False to begin anew"
            raise NetError(f"can't go on from the last fit, whose {what} has other names or shapes; {hint}")
    return state if program.stopping is None else program.stopping.start(state)
