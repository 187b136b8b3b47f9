"""Arguments of training and evaluation: converted if their meaning is clear, otherwise explained in an error."""

import inspect
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnets import losses
from jaxnets import metrics as library_metrics
from jaxnets.core.checks import is_uncalled, name_of, unwrapped
from jaxnets.core.errors import NetError, is_traced, shown
from jaxnets.core.foreign import arrays, library
from jaxnets.core.layer import as_net
from jaxnets.core.net import Net
from jaxnets.core.padded import Padded
from jaxnets.core.paths import Pattern, paths
from jaxnets.data.loader import Stream
from jaxnets.metrics import Metric
from jaxnets.regularizers import Regularizer
from jaxnets.train.callbacks.early_stopping import EarlyStopping
from jaxnets.train.objective import Objective, objective
from jaxnets.train.options import Options
from jaxnets.train.step import ObjectiveFunction

Metrics = Mapping[str, Metric] | Sequence[Metric] | Metric | None
ON_LOGITS: dict[Any, tuple[Any, ...]] = {
    jax.nn.softmax: (losses.cross_entropy, losses.softmax_focal),
    jax.nn.sigmoid: (losses.binary_cross_entropy, losses.focal),
}


def network(net: Any) -> Net:
    """Return a `Net`; a function `x -> y` is converted to one.

    Raises:
        NetError: for anything else.
    """
    try:
        if is_uncalled(net):
            raise NetError(f"expects a Net, got {shown(net)}; call it, jn.models.{net.__name__}(...)")
        if hasattr(net, "recipe"):
            raise NetError(f"expects a Net, got {shown(net)}; take its network, program.recipe.net")
        return as_net(net)
    except TypeError as error:
        raise NetError(str(error)) from None


def objective_of(function: Any) -> ObjectiveFunction:
    """Return an objective; a loss, which requires at most two arguments, is converted by `jn.objective`.

    Raises:
        NetError: for anything else.
    """
    hints: dict[Any, str] = {
        Regularizer: "a regularizer is added to a loss, jn.objective(loss, regularizer)",
        Metric: "metrics are reported, metrics=[...]; losses are in jn.losses",
        optax.GradientTransformation: "the order is program(net, objective, optimizer, data)",
        list: "combine several terms with jn.objective(loss, regularizer)",
    }
    if isinstance(function, (*hints, Net, type)) or not callable(function) or library(function):
        hints_found = (hint for kind, hint in hints.items() if isinstance(function, kind))
        hint = next(hints_found, "such as jn.losses.cross_entropy")
        raise NetError(
            f"expects an objective, or a loss (outputs, targets) of JAX arrays, got {shown(function)}; {hint}"
        )
    given: Any = function
    if isinstance(given, Objective):
        return given
    required = _required_arguments(given)
    return given if required is None or required > 2 else objective(given)


def metrics_of(metrics: Metrics) -> dict[str, Metric]:
    """Return metrics by name; those of a list have their own names.

    Raises:
        NetError: if one is not a metric, or two have the same name.
    """
    named: dict[str, Any]
    if isinstance(metrics, Mapping):
        named = dict(metrics)
    else:
        listed = [metrics] if isinstance(metrics, Metric | str) or callable(metrics) else list(metrics or ())
        named = {each.name if isinstance(each, Metric) else f"number {n}": each for n, each in enumerate(listed)}
        if len(named) < len(listed):
            names = ", ".join(map(str, listed))
            raise NetError(f"expects metrics of different names, got {names}; give a dict, {{name: metric}}")
    for name, metric in named.items():
        if isinstance(metric, str):
            hint = f"jn.metrics.{metric}" if hasattr(library_metrics, metric) else "jn.metrics has them"
            raise NetError(f"expects metrics from jn.metrics, got str {metric!r}; {hint}")
        if not isinstance(metric, Metric):
            hint = "jn.metrics.mean(loss) reports a loss"
            if is_uncalled(metric):
                hint = f"call it, jn.metrics.{metric.__name__}(...)"
            raise NetError(f"expects metrics from jn.metrics, got {shown(metric)} for {name!r}; {hint}")
    return named


def check_optimizer(optimizer: Any) -> None:
    """Check that an optimizer is one of Optax's, or has the same interface, and that its settings are numbers.

    Raises:
        NetError: if not.
    """
    if not all(callable(getattr(optimizer, name, None)) for name in ("init", "update")) or isinstance(optimizer, type):
        hint = "optax.adam(1e-3)"
        if isinstance(optimizer, types.FunctionType):
            hint = f"call it, optax.{optimizer.__name__}(1e-3)" if hasattr(optax, optimizer.__name__) else hint
            if optimizer.__closure__:  # a schedule
                hint = f"{hint}; a schedule takes the place of the rate, optax.adam(schedule)"
        elif isinstance(optimizer, str):
            hint = f"optax.{optimizer}(1e-3)" if hasattr(optax, optimizer) else hint
        raise NetError(f"expects an Optax optimizer, got {shown(optimizer)}; {hint}")
    for name, text in _quoted_numbers(optimizer.update, set()):
        raise NetError(f"expects an optimizer whose settings are numbers, got text for {name}{text}; omit the quotes")


def _quoted_numbers(function: Any, seen: set[int]) -> Iterator[tuple[str, str]]:
    """Yield the settings of an optimizer that are quoted numbers, as `(name, text)`; Python makes -1 * "0.1" ""."""
    if id(function) in seen:
        return
    seen.add(id(function))
    if isinstance(function, tuple | list):
        for each in function:
            yield from _quoted_numbers(each, seen)
    # Optax's transformations are closures: their settings are the variables that they close over.
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    for name, cell in zip(names, getattr(function, "__closure__", None) or ()):
        try:
            held = cell.cell_contents
        except ValueError:  # an empty cell
            continue
        if isinstance(held, str) and (not held or held.replace(".", "").replace("-", "").replace("e", "").isdigit()):
            yield name, f", {held!r}" if held else ""
        elif callable(held) or isinstance(held, tuple | list):
            yield from _quoted_numbers(held, seen)


def pair(name: str, data: Any, *, needed: bool = True) -> Any:
    """Return data as a tuple of inputs, targets and, if given, weights, each a pytree of arrays.

    Lists, tables, series and the tensors of other libraries become arrays; a list of two or three becomes a tuple.

    Raises:
        NetError: for anything else; the hint says how to convert it.
    """
    if isinstance(data, Stream) or (data is None and not needed):
        return data
    if isinstance(data, list) and len(data) in (2, 3):
        data = tuple(data)
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        got = f"a tuple of {len(data)}" if isinstance(data, tuple) else shown(data)
        raise NetError(
            f"expects {name} as (inputs, targets) or (inputs, targets, weights), got {got}{_data_hint(name, data)}"
        )
    parts = zip(("inputs", "targets", "weights"), data)
    return tuple(arrays(f"the {what} of {name}", part) for what, part in parts)


def _data_hint(name: str, data: Any) -> str:
    """Return a hint on how to make a pair from data of another kind."""
    if isinstance(data, tuple):
        return "; for an autoencoder the inputs are the targets, (x, x)" if len(data) == 1 else ""
    if isinstance(data, Mapping):
        return f"; take its parts, (data[{next(iter(data), 'x')!r}], ...)"
    if isinstance(data, str | Path):
        return "; jn.data.table(path, target=...) reads a CSV file, jn.data.image_folder(path) a folder of images"
    if isinstance(data, np.ndarray | jax.Array | Padded):
        return "; targets are missing"
    if name == "validation" and isinstance(data, float):
        return "; hold out a part of the data with jn.data.split"
    if isinstance(data, list) and data and isinstance(data[0], tuple):
        return "; for a list of pairs, tuple(np.stack(part) for part in zip(*data))"
    if hasattr(data, "columns"):
        return "; jn.data.table(data, target=...) makes inputs and targets of its columns"
    if hasattr(data, "column_names"):
        return "; jn.data.columns(data, inputs, targets) names its columns, for jn.data.stream or jn.data.collect"
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return "; if data[i] is (input, target), jn.data.stream(data, batch_size) or jn.data.collect(data) reads it"
    if hasattr(data, "dataset"):
        return "; read its dataset, jn.data.stream(loader.dataset, batch_size)"
    if hasattr(data, "__iter__"):
        return "; collect its items, tuple(np.stack(part) for part in zip(*data))"
    return ""


def check_data(name: str, data: Any, *, finite: bool = True) -> int:
    """Check data and return the number of examples.

    Args:
        name: the name of the data in errors.
        data: `(inputs, targets)` or `(inputs, targets, weights)`.
        finite: whether NaN is an error; infinity never is, since it may be intended.

    Raises:
        NetError: for anything else, no examples, different lengths, weights of another shape, a negative weight, no
            weight above 0, or NaN in examples whose weight is not 0.
    """
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        got = f"a tuple of {len(data)}" if isinstance(data, tuple) else type(data).__name__
        raise NetError(f"expects {name} as (inputs, targets) or (inputs, targets, weights), got {got}")
    parts = dict(zip(("inputs", "targets", "weights"), data))
    examples = check_examples(name, **parts)
    if len(data) == 3:
        _check_weights(name, data[2])
    if finite:
        for what, part in parts.items():
            _check_numbers(f"the {what} of {name}", part, parts.get("weights"))
    return examples


def check_examples(name: str, **parts: Any) -> int:
    """Return the number of examples in pytrees of arrays.

    Args:
        name: the name of all of them in errors.
        **parts: pytrees by name, `inputs=x, targets=y`.

    Raises:
        NetError: for no examples, different lengths, or an array without an axis of examples.
    """
    shapes = {what: [np.shape(leaf) for leaf in jax.tree.leaves(part)] for what, part in parts.items()}
    lengths = {shape[:1] for part in shapes.values() for shape in part}
    if () in lengths or not all(shapes.values()):
        raise NetError(f"expects arrays with the examples along the first axis in {name}")
    if len(lengths) > 1:
        found = ", ".join(f"{what} {shape}" for what, shape in shapes.items())
        raise NetError(f"expects as many {' as '.join(list(parts)[:2])} in {name}, got {found}")
    if (0,) in lengths:
        raise NetError(f"expects at least one example in {name}, got none")
    return lengths.pop()[0]


def _check_weights(name: str, weights: Any) -> None:
    if jnp.ndim(weights) != 1:
        raise NetError(f"expects weights (examples,) in {name}, got {np.shape(weights)}")
    if is_traced(weights):
        return
    if (least := float(jnp.min(weights))) < 0:
        raise NetError(f"expects weights ≥ 0 in {name}, got {least}")
    if float(jnp.max(weights)) == 0:
        raise NetError(f"expects some weight above 0 in {name}, got 0 for every example: there is nothing to average")


def _check_numbers(name: str, part: Any, weights: Any = None) -> None:
    """Check that there is no NaN, except in examples of weight 0."""
    excluded = None if weights is None or is_traced(weights) else weights == 0
    for path, leaf in paths(part).items():
        if is_traced(leaf) or not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            continue
        # An array that is distributed over several processes is searched by all of them together.
        addressable = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
        bad = np.isnan(np.asarray(leaf)) if addressable else jnp.isnan(leaf)
        if excluded is not None:
            bad = bad & ~excluded.reshape(-1, *[1] * (bad.ndim - 1))
        if bad.any():
            first = int(bad.reshape(len(bad), -1).any(1).argmax())
            where = f"{name} ({path})" if path else name
            hint = "leave such examples out or fill them in; halt_on_nonfinite=False takes them anyway"
            raise NetError(f"finds {int(bad.sum())} NaN in {where}, the first in example {first}; {hint}")


def check_stream(stream: Stream, epochs: int, batch_size: int | None, default: int, sampler: Any) -> None:
    """Check that a stream fits the other arguments of a program.

    Raises:
        NetError: if it ends too early, has batches of another size, or a sampler is passed.
    """
    own, given = stream.epochs, stream.reading.batch_size
    # A single pass is the default of a stream, which is then read as often as needed.
    if own not in (None, 1) and own < epochs:
        raise NetError(f"expects a stream of epochs={epochs} or None, got one that ends after {own}")
    if batch_size is not default and batch_size != given:
        raise NetError(f"uses the batches of the stream, of {given} examples, got batch_size={batch_size}")
    if sampler is not None:
        raise NetError("gets a sampler for a stream, whose order is set by jn.data.stream(..., shuffle=, seed=)")


def options_of(options: Any, freeze: Pattern | None, ema_decay: Any, stopping: Any) -> Options:
    """Return the options of a program, completed by its arguments.

    Raises:
        NetError: for something other than `Options`, for something other than a rule for early stopping, or for an
            option that is given twice.
    """
    if not isinstance(options, Options):
        raise NetError(f"expects options=jn.train.Options(...), got {shown(options)}")
    if stopping is not None and not isinstance(stopping, EarlyStopping):
        raise NetError(
            f"expects stopping=jn.train.early_stopping('validation/loss', patience=5), got {shown(stopping)}"
        )
    given = {name: value for name, value in (("freeze", freeze), ("ema_decay", ema_decay)) if value is not None}
    for name in given:
        if getattr(options, name) is not None:
            raise NetError(f"gets {name} twice, as an argument and in options; give it once")
    return replace(options, **given)


def warn_of_probabilities(net: Net, objective: Any) -> None:
    """Warn if a network ends in probabilities and the loss takes logits."""
    # Only containers that run their children in order have a `cut`: descend to the last layer.
    while net.children and net.cut is not None:
        net = net.children[list(net.children)[-1]]
    last, given = unwrapped(net.arguments.get("function")), getattr(objective, "loss", None)
    loss, options = unwrapped(given), given.keywords if isinstance(given, partial) else {}
    applied_twice = any(last is function and loss in takers for function, takers in ON_LOGITS.items())
    if applied_twice and options.get("from_logits", True):
        name = name_of(last)
        text = f"the network ends in {name}, and {name_of(loss)} takes logits and applies it itself"
        # The warning names the caller of `program` or `fit`, past `build` and the wrappers of `explained`.
        warnings.warn(f"{text}; leave {name} out, and apply it to the network's predictions", stacklevel=6)


def _required_arguments(function: Any) -> int | None:
    """Return the number of required positional arguments, `None` if a function takes any number or it is unknown."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return None
    return sum(each.default is each.empty and each.kind is not each.KEYWORD_ONLY for each in parameters)
