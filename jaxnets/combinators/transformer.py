"""The blocks of a transformer: attention and a feed-forward network, each with a shortcut and a norm."""

from collections.abc import Callable
from typing import Any, Literal

import jax

from jaxnets.combinators.attention import attention, first, second
from jaxnets.combinators.graph import graph
from jaxnets.combinators.serial import add
from jaxnets.core.errors import NetError, check_count, concrete
from jaxnets.core.layer import labeled
from jaxnets.core.net import Net, describe, spec
from jaxnets.layers.dense import dense
from jaxnets.layers.dropout import dropout as drop
from jaxnets.layers.gated import gated_dense
from jaxnets.layers.norm import layer_norm

Activation = Callable[[jax.Array], jax.Array]
Initializer = jax.nn.initializers.Initializer
Positions = Literal["rotary", "distance"]


@labeled
def encoder_block(
    features: int,
    heads: int,
    *,
    hidden: int | None = None,
    norm_first: bool = True,
    norm: Callable[[], Net] = layer_norm,
    activation: Activation = jax.nn.gelu,
    gated: bool = False,
    dropout: Any = 0.0,
    attention_dropout: Any = None,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.glorot_uniform(),
    out_init: Initializer | None = None,
    width: int | None = None,
    kv_heads: int | None = None,
    causal: bool = False,
    window: int | None = None,
    positions: Positions | None = None,
    period: Any = 10000.0,
) -> Net:
    """Attend, then map each position by two layers, each with a shortcut: x + A(norm(x)), then x + F(norm(x)).

    With `norm_first=False`, as in the paper, it is norm(x + A(x)), then norm(x + F(x)). F is
    `dense(features)` of the activation of `dense(hidden)`, or of `gated_dense(hidden)`. With `causal=True` this is the
    block of a language model.

    Args:
        features: of the input and the output.
        heads: the number of heads of the attention.
        hidden: features between the two layers of F; the default is 4 · features.
        norm_first: whether norms stand before A and F, or after the sums.
        norm: makes a norm, `jn.layer_norm` or `jn.rms_norm`.
        activation: of F.
        gated: whether F multiplies by a second map, as SwiGLU does with `jax.nn.silu`.
        dropout: the rate after A, after the activation, and after F. May be traced.
        attention_dropout: the rate inside the attention; the default is `dropout`, as in PyTorch.
        use_bias: whether projections and layers have biases; norms have their own.
        kernel_init: initializer of all kernels.
        out_init: initializer of the last kernel of A and of F, if it is another; smaller for deep networks, as GPT-2's.
        width: as for `jn.attention`, like all that follow.
        kv_heads: see there.
        causal: see there.
        window: see there.
        positions: see there.
        period: see there.

    Returns:
        A network from `(batch, time, features)`, or `Padded` sequences, to the same shape, with the children `norm1`,
        `attention`, `norm2`, `up` and `down`, for both values of `norm_first`.

    Raises:
        NetError: as in `jn.attention`; for input with another number of features.

    Vaswani et al., "Attention Is All You Need" (2017), sections 3.1 and 3.3; Xiong et al., "On Layer Normalization in
    the Transformer Architecture" (2020), for norms that come first; values as `torch.nn.TransformerEncoderLayer`.

    >>> import jax, jax.numpy as jnp
    >>> net, x = encoder_block(8, heads=2), jax.ShapeDtypeStruct((2, 5, 8), jnp.float32)
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> sorted(params), jax.eval_shape(net.apply, params, state, x)[0].shape
    (['attention', 'down', 'norm1', 'norm2', 'up'], (2, 5, 8))
    """
    rules: Any = {"causal": causal, "window": window, "positions": positions, "period": period}
    layers: Any = {"use_bias": use_bias, "kernel_init": kernel_init, "out_init": out_init}
    rate = dropout if attention_dropout is None else attention_dropout
    attend = attention(features, heads, width=width, kv_heads=kv_heads, dropout=rate, **rules, **layers)
    feed_forward = _feed_forward(features, hidden, activation, gated, dropout, **layers)
    return graph(**_steps([{"attention": attend}, feed_forward], "input", norm, norm_first, dropout))


@labeled
def decoder_block(
    features: int,
    heads: int,
    *,
    hidden: int | None = None,
    norm_first: bool = True,
    norm: Callable[[], Net] = layer_norm,
    activation: Activation = jax.nn.gelu,
    gated: bool = False,
    dropout: Any = 0.0,
    attention_dropout: Any = None,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.glorot_uniform(),
) -> Net:
    """Attend to what is before, then to another sequence, then map each position, each with a shortcut.

    Args:
        features: of x, and of the output.
        heads: the number of heads of both attentions.
        hidden: as for `encoder_block`, like all that follow.
        norm_first: see there.
        norm: see there.
        activation: see there.
        gated: see there.
        dropout: see there.
        attention_dropout: see there.
        use_bias: see there.
        kernel_init: see there.

    Returns:
        A network from `(x, memory)`, `(batch, time, features)` and `(batch, source, in)` or `Padded` sequences, to
        `(y, memory)`, so that blocks can follow each other. Its children are `norm1`, `attention`, `norm2`, `cross`,
        `norm3`, `up` and `down`.

    Raises:
        NetError: as in `encoder_block`; for an input that is not a pair.

    Vaswani et al., "Attention Is All You Need" (2017), section 3.1; values as `torch.nn.TransformerDecoderLayer`.

    >>> import jax, jax.numpy as jnp
    >>> net = decoder_block(8, heads=2)
    >>> pair = jax.ShapeDtypeStruct((2, 5, 8), jnp.float32), jax.ShapeDtypeStruct((2, 7, 6), jnp.float32)
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), pair)
    >>> [each.shape for each in jax.eval_shape(net.apply, params, state, pair)[0]]
    [(2, 5, 8), (2, 7, 6)]
    """
    layers: Any = {"use_bias": use_bias, "kernel_init": kernel_init}
    rate = dropout if attention_dropout is None else attention_dropout
    steps = [
        {"attention": attention(features, heads, causal=True, dropout=rate, **layers)},
        {"cross": (attention(features, heads, cross=True, dropout=rate, **layers), "memory")},
        _feed_forward(features, hidden, activation, gated, dropout, **layers),
    ]
    ends = {"x": (first, "input"), "memory": (second, "input")}
    nodes = _steps(steps, "x", norm, norm_first, dropout)
    return graph(**ends, **nodes, output=(tuple, [*nodes][-1], "memory"))


def _feed_forward(
    features: int,
    hidden: int | None,
    activation: Activation,
    gated: bool,
    dropout: Any,
    out_init: Initializer | None = None,
    **layers: Any,
) -> dict[str, Any]:
    """Return the layers of F by name."""
    hidden = 4 * features if hidden is None else hidden
    check_count("hidden", hidden)
    if gated:
        up: dict[str, Any] = {"up": gated_dense(hidden, activation=activation, **layers)}
    else:
        up = {"up": dense(hidden, **layers), "activation": activation}
    layers |= {} if out_init is None else {"kernel_init": out_init}
    down = dense(features, **layers)
    return up | _dropout("dropout", dropout) | {"down": down}


def _dropout(name: str, rate: Any) -> dict[str, Any]:
    """Return a dropout by name, nothing if its rate is known to be 0."""
    return {} if concrete(rate) == 0.0 else {name: drop(rate)}


def _steps(
    steps: list[dict[str, Any]], x: str, norm: Callable[[], Net], norm_first: bool, dropout: Any
) -> dict[str, Any]:
    """Return the nodes of steps, each of which adds to `x` what its layers, given by name, make of it."""
    nodes: dict[str, Any] = {}
    for place, layers in enumerate(steps, start=1):
        before = x
        if norm_first:
            x = f"norm{place}"
            nodes[x] = (norm(), before)
        (head, layer), *rest = layers.items()
        # A node of several inputs reads x as its first.
        layer, *beside = layer if isinstance(layer, tuple) else (layer,)
        nodes |= {head: (layer, x, *beside), **dict(rest), **_dropout(f"dropout{place}", dropout)}
        x, last = f"sum{place}", [*nodes][-1]
        nodes[x] = (plus, before, last)
        if not norm_first:
            x = f"norm{place}"
            nodes[x] = norm()
    return nodes


def plus(pair: tuple[Any, Any]) -> Any:
    """Return the sum of what a step reads and what it makes of it, arrays or `Padded` sequences of equal shapes."""
    x, y = (spec(each) for each in pair)
    if x != y:
        raise NetError(f"adds {describe(y)} to the input {describe(x)}; give the block the features of its input")
    return add(*pair)
