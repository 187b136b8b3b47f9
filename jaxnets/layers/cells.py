"""Recurrent cells: the record `Cell`, Elman's RNN, the LSTM, the GRU."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import along_last, check_floating, check_params
from jaxnets.core.contract import check_key
from jaxnets.core.dtypes import param_dtype, to_dtype
from jaxnets.core.equality import Ingredients
from jaxnets.core.errors import NetError, check_count, concrete
from jaxnets.core.layer import labeled
from jaxnets.core.net import Key, Params, spec
from jaxnets.core.value import Value
from jaxnets.ops.recurrent import GRU, LSTM, RNN_RELU, RNN_TANH, Recurrence, recurrent_scan

Initializer = jax.nn.initializers.Initializer
Carry = Any  # a pytree of arrays, batch axis first


@dataclass(frozen=True, eq=False, repr=False)
class Cell(Value):
    """One step of a recurrence, as pure functions; `jn.recurrent(cell)` makes a network from it.

    The memory of a cell, its carry, is an input and output, not part of a network's state: a pytree of arrays, batch
    axis first, whose structure, shapes and dtypes a step preserves.

    Attributes:
        init: `(key, x) -> params` for the input `(batch, in)` of one step; only its shape and dtype are read.
        step: `(params, carry, x) -> (carry, y)` with `x` `(batch, in)` and `y` `(batch, features)` in the dtype of `x`.
        initial_carry: `(batch, dtype) -> carry`, the carry before the first step, from the batch size and the dtype of
            the input.
        features: width of `y`.
        scan: `(params, carry, x, mask, reverse, unroll) -> (carry, y)`, an optional faster way to compute all steps,
            with `x` `(time, batch, in)`, `y` `(time, batch, features)`, and a mask `(time, batch)` of the real steps or
            `None`.
        label: how the cell was written, `lstm_cell(64)`.
        constructor: the function that made it, such as `jn.lstm_cell`, or `None` if unknown.
        arguments: the arguments of that call by name, including defaults.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> cell = jn.gru_cell(3)
    >>> x = jnp.ones((2, 4))
    >>> params = cell.init(jax.random.key(0), x)
    >>> carry, y = cell.step(params, cell.initial_carry(2, x.dtype), x)
    >>> cell, y.shape
    (gru_cell(3), (2, 3))
    """

    init: Callable[[Key, Any], Params]
    step: Callable[[Params, Carry, jax.Array], tuple[Carry, jax.Array]]
    initial_carry: Callable[[int, Any], Carry]
    features: int
    label: str = "cell"
    scan: Callable[..., tuple[Carry, jax.Array]] | None = None
    constructor: Callable[..., Any] | None = field(default=None, init=False)
    arguments: Mapping[str, Any] = field(default_factory=dict, init=False)

    @cached_property
    def ingredients(self) -> Ingredients:
        """The key by which cells are compared: constructor and arguments, or the functions if these are unknown."""
        if self.constructor is None:
            return Ingredients(self.init, self.step, self.initial_carry, self.features, self.scan)
        return Ingredients(self.constructor, self.arguments)

    def __repr__(self) -> str:
        return self.label


class Part(NamedTuple):
    """A parameter of several gates, concatenated: the initializer and shape of one gate, and the number of gates.

    A length of `IN` in the shape stands for the width of the input.
    """

    init: Initializer
    shape: tuple[int, ...]
    gates: int = 1


IN = -1


_GLOROT = jax.nn.initializers.glorot_uniform()
_ORTHOGONAL = jax.nn.initializers.orthogonal()
_ZEROS = jax.nn.initializers.zeros


class LSTMCarry(NamedTuple):
    """The carry of an LSTM: c, in float32 or wider, and h, in the dtype of the input.

    Attributes:
        cell: c, `(batch, features)`. It is a sum over all steps, for which bfloat16 is not precise enough.
        hidden: h, `(batch, features)`, which is also the output.
    """

    cell: Any
    hidden: Any


@labeled
def rnn_cell(
    features: int,
    *,
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
    use_bias: bool = True,
    kernel_init: Initializer = _GLOROT,
    recurrent_init: Initializer = _ORTHOGONAL,
    bias_init: Initializer = _ZEROS,
) -> Cell:
    """Combine the input with the previous output: h' = σ(x W + h U + b).

    Args:
        features: width H of h, at least 1.
        activation: σ. `jax.nn.relu` with the identity as `recurrent_init` is the IRNN of Le, Jaitly and Hinton (2015).
        use_bias: whether to add b.
        kernel_init: initializer of W; Glorot uniform suits tanh.
        recurrent_init: initializer of U; an orthogonal U preserves the norm of h over many steps.
        bias_init: initializer of b.

    Returns:
        A cell whose carry is h, with parameters `kernel` `(in, H)`, `recurrent_kernel` `(H, H)` and `bias`
        `(H,)`.

    Raises:
        NetError: for `features` < 1, input that is not floating `(batch, in)`, a carry of another batch or
            width, or parameters made for another number of features.

    Elman, "Finding Structure in Time" (1990).

    >>> import jax, jax.numpy as jnp
    >>> cell = rnn_cell(3, activation=jax.nn.relu)
    >>> sorted(jax.eval_shape(cell.init, jax.random.key(0), jnp.ones((1, 4))))
    ['bias', 'kernel', 'recurrent_kernel']
    """
    parts = _parts(features, 1, use_bias, kernel_init, recurrent_init, bias_init)

    def step(params: Params, h: Any, x: Any) -> Any:
        # (batch, H)
        h = activation(_affine(params, x) + h @ params["recurrent_kernel"])
        return h, h

    # The fast scan knows the derivatives of these two.
    recurrence = RNN_TANH if activation is jnp.tanh else RNN_RELU if activation is jax.nn.relu else None
    return make_cell(parts, step, recurrence=recurrence)


@labeled
def lstm_cell(
    features: int,
    *,
    forget_bias: Any = 1.0,
    peepholes: bool = False,
    use_bias: bool = True,
    kernel_init: Initializer = _GLOROT,
    recurrent_init: Initializer = _ORTHOGONAL,
    bias_init: Initializer = _ZEROS,
    peephole_init: Initializer = _ZEROS,
) -> Cell:
    """Update a cell state c through an input gate i, a forget gate f and an output gate o: long short-term memory.

    i = σ(x W_i + h U_i + b_i), f and o in the same way, g = tanh(x W_g + h U_g + b_g), with the logistic function σ;
    c' = f c + i g, h' = o tanh(c'). With peepholes, i and f also read c, and o reads c', elementwise:
    i = σ(… + p_i c), f = σ(… + p_f c), o = σ(… + p_o c').

    The order of the gates is i, f, g, o, as in PyTorch and Keras. PyTorch's two biases sum to `bias`.

    Args:
        features: width H of c and h, at least 1.
        forget_bias: initial value of the forget gate's part of `bias`, in place of `bias_init`. With 1, gradients flow
            through the cell from the start. May be traced. It is not added at run time.
        peepholes: whether the gates read the cell state.
        use_bias: whether to add `bias`.
        kernel_init: initializer of each gate's W.
        recurrent_init: initializer of each gate's U.
        bias_init: initializer of b for i, g and o.
        peephole_init: initializer of p; with zeros, training starts as if without peepholes.

    Returns:
        A cell whose carry is `LSTMCarry(cell, hidden)`, with parameters `kernel` `(in, 4 H)`,
        `recurrent_kernel` `(H, 4 H)`, `bias` `(4 H,)`, and with peepholes `peephole` `(3, H)` for i, f, o.

    Raises:
        NetError: for `features` < 1, input that is not floating `(batch, in)`, a carry of another batch or
            width, or parameters made for another number of features.

    Hochreiter and Schmidhuber, "Long Short-Term Memory" (1997); Gers, Schraudolph and Schmidhuber, "Learning
    Precise Timing with LSTM Recurrent Networks" (2002), for peepholes; Jozefowicz, Zaremba and Sutskever,
    "An Empirical Exploration of Recurrent Network Architectures" (2015), for the forget bias.

    >>> import jax, jax.numpy as jnp
    >>> params = lstm_cell(2).init(jax.random.key(0), jnp.ones((1, 3)))
    >>> params["kernel"].shape, params["bias"].tolist()
    ((3, 8), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    """
    concrete(forget_bias, "forget_bias")

    def draw_bias(key: Key, shape: Any, dtype: Any = None, out_sharding: Any = None) -> jax.Array:
        # In the order i, f, g, o.
        b_i, b_g, b_o = (bias_init(each, (features,), dtype) for each in jax.random.split(key, 3))
        return jnp.concatenate([b_i, jnp.full((features,), forget_bias, dtype), b_g, b_o])

    parts = _parts(features, 4, use_bias, kernel_init, recurrent_init, bias_init)
    parts |= {"bias": Part(draw_bias, (4 * features,))} if use_bias else {}
    parts |= {"peephole": Part(peephole_init, (3, features))} if peepholes else {}

    def step(params: Params, carry: LSTMCarry, x: Any) -> Any:
        c, h = carry
        # (batch, 4 H)
        z = _affine(params, x) + h @ params["recurrent_kernel"]
        # Gates are computed in the precision of c.
        i, f, g, o = jnp.split(z.astype(c.dtype), 4, axis=-1)
        # (3, 1, H)
        p = params["peephole"].astype(c.dtype)[:, None] if peepholes else None
        # The input and forget gates read the old c, the output gate the new one.
        if p is not None:
            i, f = i + p[0] * c, f + p[1] * c
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        if p is not None:
            o = o + p[2] * c
        h = (jax.nn.sigmoid(o) * jnp.tanh(c)).astype(x.dtype)
        return LSTMCarry(c, h), h

    def carry(hidden: Any) -> LSTMCarry:
        # c is a sum over all steps: float32 or wider.
        wide = hidden.dtype if jnp.finfo(hidden.dtype).bits >= 32 else jnp.float32
        return LSTMCarry(jax.ShapeDtypeStruct(hidden.shape, wide), hidden)

    return make_cell(parts, step, carry, None if peepholes else LSTM)


@labeled
def gru_cell(
    features: int,
    *,
    reset_after: bool = True,
    use_bias: bool = True,
    kernel_init: Initializer = _GLOROT,
    recurrent_init: Initializer = _ORTHOGONAL,
    bias_init: Initializer = _ZEROS,
) -> Cell:
    """Interpolate between the previous output h and a new one n with an update gate z: h' = (1 - z) n + z h.

    r = σ(x W_r + h U_r + b_r) and z = σ(x W_z + h U_z + b_z), with the logistic function σ. The reset gate r acts after
    the product with U, n = tanh(x W_n + b_n + r (h U_n + b')), as in cuDNN, PyTorch and Keras, or before it,
    n = tanh(x W_n + (r h) U_n + b_n).

    Here z = 1 keeps the old h, as in Cho et al., PyTorch and Keras; in Chung et al. (2014) z = 1 replaces it. The order
    of the gates is r, z, n, as in PyTorch; in Keras it is z, r, n. PyTorch's two biases sum to `bias` for r and z, and
    are `bias` and `recurrent_bias` for n.

    Args:
        features: width H of h, at least 1.
        reset_after: whether r acts after the product with U.
        use_bias: whether to add biases.
        kernel_init: initializer of each gate's W.
        recurrent_init: initializer of each gate's U.
        bias_init: initializer of each gate's b, and of b'.

    Returns:
        A cell whose carry is h, with parameters `kernel` `(in, 3 H)`, `recurrent_kernel` `(H, 3 H)`, `bias`
        `(3 H,)` and, with `reset_after`, `recurrent_bias` `(H,)`, which is b'.

    Raises:
        NetError: for `features` < 1, input that is not floating `(batch, in)`, a carry of another batch or
            width, or parameters made for another number of features.

    Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
    Translation" (2014), equations 5 to 8: version 3 resets before the product, version 1 after it.

    >>> import jax, jax.numpy as jnp
    >>> params = jax.eval_shape(gru_cell(2).init, jax.random.key(0), jnp.ones((1, 3)))
    >>> params["recurrent_kernel"].shape, params["recurrent_bias"].shape
    ((2, 6), (2,))
    """
    parts = _parts(features, 3, use_bias, kernel_init, recurrent_init, bias_init)
    parts |= {"recurrent_bias": Part(bias_init, (features,))} if use_bias and reset_after else {}

    def step(params: Params, h: Any, x: Any) -> Any:
        # (batch, 3 H) and (H, 3 H)
        from_x, U = _affine(params, x), params["recurrent_kernel"]
        # r and z together, (batch, 2 H), and n, (batch, H)
        x_gates, x_new = jnp.split(from_x, [2 * features], axis=-1)
        if reset_after:
            h_gates, h_new = jnp.split(h @ U, [2 * features], axis=-1)
            r, z = jnp.split(jax.nn.sigmoid(x_gates + h_gates), 2, axis=-1)
            h_new = h_new + along_last(params["recurrent_bias"], h_new) if use_bias else h_new
            n = jnp.tanh(x_new + r * h_new)
        else:
            r, z = jnp.split(jax.nn.sigmoid(x_gates + h @ U[:, : 2 * features]), 2, axis=-1)
            n = jnp.tanh(x_new + (r * h) @ U[:, 2 * features :])
        h = (1 - z) * n + z * h
        return h, h

    return make_cell(parts, step, recurrence=GRU if reset_after else None)


def _parts(
    features: int,
    gates: int,
    use_bias: bool,
    kernel_init: Initializer,
    recurrent_init: Initializer,
    bias_init: Initializer,
) -> dict[str, Part]:
    """Return the parameters that all cells have: `kernel`, `recurrent_kernel` and `bias`."""
    check_count("features", features)
    bias = {"bias": Part(bias_init, (features,), gates)} if use_bias else {}
    return {
        "kernel": Part(kernel_init, (IN, features), gates),
        "recurrent_kernel": Part(recurrent_init, (features, features), gates),
    } | bias


def make_cell(
    parts: Mapping[str, Part],
    step: Callable[[Params, Carry, Any], tuple[Carry, Any]],
    carry: Callable[[Any], Carry] = lambda hidden: hidden,
    recurrence: Recurrence | None = None,
) -> Cell:
    """Make a cell that checks its arguments.

    Args:
        parts: the parameters by name.
        step: as in `Cell`, with parameters in the dtype of the input.
        carry: the spec of the carry, from the spec of the output h.
        recurrence: the same as `step`, for a fast scan.
    """
    features = parts["recurrent_kernel"].shape[0]

    def sized(width: int) -> dict[str, Part]:
        shapes = {name: tuple(width if n == IN else n for n in part.shape) for name, part in parts.items()}
        return {name: part._replace(shape=shapes[name]) for name, part in parts.items()}

    def init_fn(key: Key, x: Any) -> Params:
        check_key(key)
        x = spec(x)  # (batch, in)
        _check_step(x)
        params = {}
        # Each parameter, and each gate of it, has its own key.
        for own, (name, part) in zip(jax.random.split(key, len(parts)), sized(x.shape[-1]).items(), strict=True):
            draws = [part.init(each, part.shape, param_dtype(x)) for each in jax.random.split(own, part.gates)]
            params[name] = jnp.concatenate(draws, axis=-1)
        return params

    def checked(params: Params, carried: Carry, x: Any) -> tuple[Params, Carry]:
        _check_step(x)
        # Gates are concatenated along the last axis.
        shapes = {name: (*s[:-1], gates * s[-1]) for name, (_, s, gates) in sized(x.shape[-1]).items()}
        check_params(params, shapes, x)
        like = carry(jax.ShapeDtypeStruct((x.shape[0], features), x.dtype))
        return to_dtype(params, x.dtype), match_carry(carried, like)

    def step_fn(params: Params, carried: Carry, x: Any) -> tuple[Carry, Any]:
        params, carried = checked(params, carried, spec(x))
        return step(params, carried, jnp.asarray(x))

    def scan_fn(params: Params, carried: Carry, x: Any, mask: Any, *, reverse: bool, unroll: int) -> Any:
        assert recurrence is not None
        # x is (time, batch, in); a step gets (batch, in).
        params, carried = checked(params, carried, jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
        return recurrent_scan(recurrence, params, carried, x, mask, reverse=reverse, unroll=unroll)

    def initial_carry(batch: int, dtype: Any) -> Carry:
        if not jnp.issubdtype(dtype, jnp.floating):
            hint = "pass the dtype of the input, x.dtype"
            raise NetError(f"expects a floating dtype, got {jnp.dtype(dtype)}; {hint}", label="initial_carry")
        like = carry(jax.ShapeDtypeStruct((batch, features), jnp.dtype(dtype)))
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)

    return Cell(init_fn, step_fn, initial_carry, features, scan=scan_fn if recurrence else None)


def _check_step(x: Any) -> None:
    check_floating(x)
    if len(x.shape) != 2:
        raise NetError(f"expects one step (batch, features), got {x.shape}; run sequences with jn.recurrent(cell)")


def match_carry(carry: Carry, like: Carry) -> Carry:
    """Cast a carry to the dtypes of `like`, a pytree of `jax.ShapeDtypeStruct`.

    Raises:
        NetError: if the structures or the shapes differ.
    """

    def shapes(tree: Carry) -> Any:
        return jax.tree.map(np.shape, tree)

    if jax.tree.structure(carry) != jax.tree.structure(like) or shapes(carry) != shapes(like):
        raise NetError(
            f"expects the carry {shapes(like)}, got {shapes(carry)}; pass the carry that return_carry=True returned "
            f"for the same batch, or start from cell.initial_carry(batch, dtype)"
        )
    return jax.tree.map(lambda leaf, wanted: jnp.asarray(leaf, wanted.dtype), carry, like)


def _affine(params: Params, x: Any) -> Any:
    """Return x W + b."""
    y = x @ params["kernel"]
    return y + along_last(params["bias"], y) if "bias" in params else y
