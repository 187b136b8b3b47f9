"""Networks over sequences: cells that run along time, in one direction or both."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.combinators.serial import build_child
from jaxnets.core.contract import check_key
from jaxnets.core.dtypes import to_dtype
from jaxnets.core.errors import NetError, check_count, concrete, labeled_as
from jaxnets.core.layer import labeled
from jaxnets.core.net import Key, Net, Params, State, apply_child, compose, fold, spec
from jaxnets.core.padded import Padded, step_check
from jaxnets.core.value import made_by
from jaxnets.layers.cells import Carry, Cell, match_carry
from jaxnets.layers.dropout import dropout as dropout_layer
from jaxnets.layers.inputs import refuse_packed, values_of


@labeled
def recurrent(
    *cells: Cell,
    dropout: Any = 0.0,
    reverse: bool = False,
    return_sequences: bool = True,
    return_carry: bool = False,
    unroll: int = 1,
) -> Net:
    """Run a cell over a sequence; further cells run over the outputs of the previous one.

    Sequences are `(batch, time, in)`, an array or the values of a `Padded`. Padding has no effect: outputs there are
    zero, the carry remains that of the last real step, and no gradient flows. An input `(x, carry)` starts from that
    carry instead of the cell's initial one, and with `return_carry=True` the output is `(y, carry)`. For truncated
    backpropagation, pass the carry from one piece of a long sequence to the next, under `jax.lax.stop_gradient`.

    Args:
        *cells: at least one cell, such as `jn.lstm_cell(64)`.
        dropout: dropout rate in [0, 1) between two cells in training, with a new mask at every step. May be traced.
        reverse: whether to run from the last real step to the first; outputs keep the input's order.
        return_sequences: whether to return all outputs, `(batch, time, features)`, or only that of the step computed
            last, `(batch, features)`: the last real step, or the first one in reverse. It is zero for a sequence
            without steps.
        return_carry: whether to also return the carry after the step computed last.
        unroll: how many steps one iteration of the loop computes.

    Returns:
        A network over sequences. Its parameters are those of the cell, or with several cells those of each under `0`,
        `1`, …; its carry is that of the cell, or a tuple with one carry per cell.

    Raises:
        NetError: for an argument that is not a cell, a rate outside [0, 1), dropout with a single cell, no key in
            training with dropout, input that is not floating `(batch, time, in)`, a carry of another structure or
            shape, or parameters made for another number of features.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = recurrent(jn.lstm_cell(4), jn.lstm_cell(2), return_carry=True)
    >>> x = jax.random.normal(jax.random.key(1), (3, 10, 5))
    >>> params, _ = net.init(jax.random.key(0), x)
    >>> (y, carry), _ = net.apply(params, {}, x)
    >>> y.shape, carry[1].hidden.shape
    ((3, 10, 2), (3, 2))

    Two halves of a sequence, with the carry passed on, equal the whole:

    >>> (first, carry), _ = net.apply(params, {}, x[:, :5])
    >>> (second, carry), _ = net.apply(params, {}, (x[:, 5:], jax.lax.stop_gradient(carry)))
    >>> bool(jnp.allclose(jnp.concatenate([first, second], 1), y, atol=1e-6))
    True
    """
    if not cells:
        raise NetError("expects at least one cell, such as jn.lstm_cell(64), got none")
    for cell in cells:
        _check_cell(cell)
    check_count("unroll", unroll)
    between, single = _between(dropout, len(cells), "cell"), len(cells) == 1
    # Options that converters and summaries read from each child.
    recorded = {"dropout": dropout, "reverse": reverse}
    # All cells but the last pass on all outputs.
    nets = [
        _scanned(
            cell, reverse, return_sequences or place + 1 < len(cells), return_carry or not single, recorded, unroll
        )
        for place, cell in enumerate(cells)
    ]
    return nets[0] if single else _stacked(cells, nets, between, return_carry)


@labeled
def bidirectional(
    forward_cell: Cell,
    backward_cell: Cell | None = None,
    *,
    layers: int = 1,
    dropout: Any = 0.0,
    merge: str | Callable[[jax.Array, jax.Array], jax.Array] = "concatenate",
    return_sequences: bool = True,
    return_carry: bool = False,
) -> Net:
    """Run one cell forward and one backward over a sequence, and merge their outputs step by step.

    The input is `x` or `(x, (carry, carry))`, as for `recurrent`; with `return_carry=True` the output is
    `(y, (carry, carry))`, forward first. The carry of several layers, each over the merged outputs of the previous one,
    is a tuple with one such pair per layer. Stack layers of different cells with `jn.serial`, without carries.

    Args:
        forward_cell: the cell that runs from the first step to the last real one.
        backward_cell: the cell that runs in the other direction; default: one like `forward_cell`, with its own
            parameters.
        layers: number of layers.
        dropout: dropout rate in [0, 1) between layers, as for `recurrent`. May be traced.
        merge: how to merge the outputs: `"concatenate"` along the features, or a function of both, such as `jnp.add`.
        return_sequences: whether to return the outputs of all steps, or only the final output of each direction:
            forward that of the last real step, backward that of the first.
        return_carry: whether to also return the final carries.

    Returns:
        A network from `(batch, time, in)` to `(batch, time, features)`, or `(batch, features)` with
        `return_sequences=False`, with the parameters of the cells under `forward` and `backward`, and with several
        layers those of each under `0`, `1`, ….

    Raises:
        NetError: as in `recurrent`, and for another string as `merge`.

    Schuster and Paliwal, "Bidirectional Recurrent Neural Networks" (1997).

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, x = bidirectional(jn.gru_cell(4)), jnp.ones((2, 10, 3))
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> sorted(params), jax.eval_shape(net.apply, params, state, x)[0].shape
    (['backward', 'forward'], (2, 10, 8))
    >>> net = bidirectional(jn.gru_cell(4), layers=2, return_carry=True)
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> (y, carry), _ = jax.eval_shape(net.apply, params, state, x)
    >>> jax.tree.map(jnp.shape, carry)
    (((2, 4), (2, 4)), ((2, 4), (2, 4)))
    """
    cells = (forward_cell, forward_cell if backward_cell is None else backward_cell)
    for cell in cells:
        _check_cell(cell)
    if isinstance(merge, str) and merge != "concatenate":
        raise NetError(f"expects merge 'concatenate' or a function of two arrays, got {merge!r}")
    check_count("layers", layers)
    between, single = _between(dropout, layers, "layer"), layers == 1
    # All layers but the last pass on all outputs.
    nets = [
        _both_ways(cells, merge, return_sequences or place + 1 < layers, return_carry or not single, dropout)
        for place in range(layers)
    ]
    return nets[0] if single else _stacked((cells,) * layers, nets, between, return_carry)


def _between(dropout: Any, n: int, what: str) -> Net:
    """Return the dropout between several cells or layers."""
    between = dropout_layer(dropout)
    if n == 1 and concrete(dropout) != 0.0:
        raise NetError(f"has one {what}, and dropout acts between {what}s; put jn.dropout(rate) after it")
    return between


def _both_ways(
    cells: tuple[Cell, Cell],
    merge: str | Callable[[jax.Array, jax.Array], jax.Array],
    return_sequences: bool,
    return_carry: bool,
    dropout: Any,
) -> Net:
    """Make a network of two cells that run in opposite directions."""
    children = {
        name: _scanned(cell, name == "backward", return_sequences, True, {"dropout": dropout})
        for name, cell in zip(("forward", "backward"), cells, strict=True)
    }

    # A merge that mixes steps would mix in padding.
    check_steps = step_check(lambda _, *both: merge(*both), merge)  # pyright: ignore[reportCallIssue]

    def join(forward: Any, backward: Any) -> Any:
        if isinstance(forward, Padded):
            if callable(merge):
                check_steps((), forward.values, backward.values)
            return forward.with_values(join(forward.values, backward.values))
        return merge(forward, backward) if callable(merge) else jnp.concatenate([forward, backward], axis=-1)

    # `forward` and `backward` are pairs (y, carry).
    def finish(forward: tuple[Any, Carry], backward: tuple[Any, Carry]) -> Any:
        y = join(forward[0], backward[0])
        return (y, (forward[1], backward[1])) if return_carry else y

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        x, _ = _split_input(x)
        params: dict[str, Any] = {}
        # Without a carry, each child starts from its cell's initial one.
        runs = [build_child(child, name, key, (x, None), params, {}) for name, child in children.items()]
        return params, {}, jax.eval_shape(finish, *runs)

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        x, given = _split_input(x)
        runs = [
            apply_child(child, name, params, state, (x, carry), key=key, train=train)[0]
            for (name, child), carry in zip(children.items(), _start_carry(cells, given, x), strict=True)
        ]
        return finish(*runs), state

    return compose(build, apply, label="bidirectional", children=children)


def _scanned(
    cell: Cell,
    reverse: bool,
    return_sequences: bool,
    return_carry: bool,
    recorded: Mapping[str, Any],
    unroll: int = 1,
) -> Net:
    """Make a network of one cell, which records further arguments for converters and summaries."""
    # Under `jit`, so that eager calls compile the loop only once. The cache belongs to the network.
    run = jax.jit(functools.partial(_scan, cell, reverse=reverse, sequences=return_sequences, unroll=unroll))

    def init_fn(key: Key, x: Any) -> tuple[Params, State]:
        with labeled_as(cell.label):
            check_key(key)
            # (batch, time, in)
            values = values_of(_split_input(spec(x))[0])
            return cell.init(key, jax.ShapeDtypeStruct((values.shape[0], values.shape[2]), values.dtype)), {}

    def apply_fn(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        with labeled_as(cell.label):
            x, given = _split_input(x)
            carry, y = run(params, _start_carry(cell, given, x), x)
            y = x.with_values(y) if isinstance(x, Padded) and return_sequences else y
            return ((y, carry) if return_carry else y), state

    return made_by(Net(init_fn, apply_fn, cell.label), None, {"cells": (cell,), **recorded})


def _stacked(cells: tuple[Any, ...], nets: list[Net], between: Net, return_carry: bool) -> Net:
    """Stack networks, each on the outputs of the previous one. `cells` is a tuple with the structure of the carries."""
    children = {str(place): net for place, net in enumerate(nets)}

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        x, _ = _split_input(x)
        params: dict[str, Any] = {}
        final = []
        for name, child in children.items():
            x, carry = build_child(child, name, key, (x, None), params, {})
            final.append(carry)
        return params, {}, (x, tuple(final)) if return_carry else x

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        x, given = _split_input(x)
        final = []
        for (name, child), carry in zip(children.items(), _start_carry(cells, given, x), strict=True):
            # Dropout acts between cells, not before the first.
            if final:
                x, _ = between.apply({}, {}, x, key=fold(key, f"dropout{name}"), train=train)
            (x, carry), _ = apply_child(child, name, params, state, (x, carry), key=key, train=train)
            final.append(carry)
        return ((x, tuple(final)) if return_carry else x), state

    return compose(build, apply, label="recurrent", children=children)


def _scan(
    cell: Cell, params: Params, carry: Carry, x: Any, *, reverse: bool, sequences: bool, unroll: int
) -> tuple[Carry, Any]:
    """Run a cell over `x`, an array or `Padded`; return the final carry, and the outputs of all steps or of the last.

    A cell with its own `scan` uses that; any other runs step by step.
    """
    values, mask = (x.zeroed(), x.mask.T) if isinstance(x, Padded) else (x, None)
    # (time, batch, in); the mask is (time, batch)
    values = jnp.swapaxes(values, 0, 1)
    if cell.scan is not None:
        # (time, batch, features)
        carry, ys = cell.scan(params, carry, values, mask, reverse=reverse, unroll=unroll)
    else:
        params = to_dtype(params, values.dtype)

        def step(carry: Carry, now: tuple[Any, Any]) -> tuple[Carry, Any]:
            x, real = now
            new, y = cell.step(params, carry, x)
            # Past the end of a sequence the carry is kept, and the output is zero.
            return (new, y) if real is None else _where(real, (new, y), (carry, jnp.zeros_like(y)))

        carry, ys = jax.lax.scan(step, carry, (values, mask), reverse=reverse, unroll=unroll)
    return carry, jnp.swapaxes(ys, 0, 1) if sequences else _last(ys, mask, reverse)


def _last(ys: jax.Array, mask: jax.Array | None, reverse: bool) -> jax.Array:
    """Return the output of the step computed last, from `(time, batch, features)`; zero if there are no steps."""
    if not len(ys):
        return jnp.zeros(ys.shape[1:], ys.dtype)
    # In reverse, the first step is computed last, for sequences of any length.
    if mask is None or reverse:
        return ys[0 if reverse else -1]
    # The last real step, (batch,)
    step = jnp.maximum(jnp.sum(mask, 0) - 1, 0)
    return jnp.take_along_axis(ys, step[None, :, None], axis=0)[0]


def _where(real: jax.Array, new: Any, old: Any) -> Any:
    """Choose `new` for examples whose step is real, otherwise `old`, leaf by leaf."""

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        # (batch,) to (batch, 1, ...)
        return jnp.where(jnp.expand_dims(real, tuple(range(1, new.ndim))), new, old)

    return jax.tree.map(choose, new, old)


def _split_input(x: Any) -> tuple[Any, Carry]:
    """Return the sequences and the carry of an input `x` or `(x, carry)`; without a carry it is `None`."""
    carry = None
    if isinstance(x, tuple):
        if len(x) != 2:
            raise NetError(f"expects x or (x, carry), got a tuple of {len(x)}")
        x, carry = x
    refuse_packed(x, "the carry would pass from one document to the next")
    values = values_of(x)
    if len(values.shape) != 3:
        raise NetError(
            f"expects (batch, time, features), got {values.shape}; add an axis, x[None] for one sequence or "
            f"x[..., None] for one feature, or merge axes by reshape"
        )
    return (x if isinstance(values, jax.ShapeDtypeStruct) else jax.tree.map(jnp.asarray, x)), carry


def _start_carry(cells: Any, given: Carry, x: Any) -> Any:
    """Return the given carry, checked, or the initial one if it is `None`, of a cell or of nested tuples of cells."""
    batch, dtype = values_of(x).shape[0], values_of(x).dtype

    # The structure of `cells` is that of the carries.
    def initial() -> Carry:
        return jax.tree.map(lambda cell: cell.initial_carry(batch, dtype), cells)

    return initial() if given is None else match_carry(given, jax.eval_shape(initial))


def _check_cell(cell: Any) -> None:
    """Check that an argument is a cell."""
    if isinstance(cell, Cell):
        return
    name = getattr(cell, "__name__", type(cell).__name__)
    if getattr(cell, "makes_net", False):
        raise NetError(f"expects cells such as jn.lstm_cell(64), got the constructor {name}: call it, {name}(...)")
    if isinstance(cell, Net):
        raise NetError(
            f"expects cells such as jn.lstm_cell(64), got the network {cell.label}; stack networks with jn.serial"
        )
    hint = "; unpack it with *" if isinstance(cell, list | tuple) else ""
    raise NetError(f"expects cells such as jn.lstm_cell(64), got {type(cell).__name__} {cell!r}{hint}")
