"""Speech recognizers: convolutions over time that make it shorter, then a recurrent network or a transformer."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.combinators.serial import serial
from jaxnets.combinators.transformer import encoder_block
from jaxnets.core.errors import NetError, check_count, check_counts, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.layer import labeled
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.padded import Padded
from jaxnets.layers import conv, dense, gru_cell, layer_norm, sinusoidal_positions
from jaxnets.layers import dropout as drop
from jaxnets.layers.inputs import refuse_packed, sequence_width
from jaxnets.models.recurrent import MakeCell, recurrent_stack


@explained
def conv_gru(
    num_classes: int,
    hidden: int = 128,
    *,
    layers: int = 2,
    widths: Sequence[int] = (64, 64),
    kernel_size: int = 3,
    stack: int = 2,
    dropout: Any = 0.0,
    cell: MakeCell = gru_cell,
) -> Net:
    """Return a speech recognizer of convolutions over time and bidirectional GRUs, to be trained by `jn.losses.ctc`.

    The input is features of sound `(batch, time, features)`, such as `jn.ops.log_mel`, an array or `Padded`. Before
    each convolution, `stack` steps are joined to one, which makes it a convolution of that stride; after it follows a
    ReLU. The output is logits `(batch, steps, num_classes)`, of which class 0 is the blank, with steps = time / stackᵏ
    after k convolutions, rounded up each time. A sound with more labels than steps can't be aligned, see
    `jn.losses.ctc`. The children are `stem`, `gru`, `dropout` and `fc`.

    Args:
        num_classes: the number of labels, and one for the blank.
        hidden: the units of each direction of a GRU.
        layers: the number of bidirectional GRUs.
        widths: the features of each convolution.
        kernel_size: of each convolution, in joined steps.
        stack: the number of steps that are joined before each convolution; 1 keeps all.
        dropout: the rate in [0, 1) between the GRUs and before the output. May be traced.
        cell: a function from a width to a cell, such as `jn.lstm_cell`.

    Raises:
        NetError: for fewer than 2 classes, or a size or rate out of range.

    After Amodei and others, "Deep Speech 2: End-to-End Speech Recognition in English and Mandarin" (2016), section 3,
    with convolutions over time alone and without batch norms.

    >>> import jax, jax.numpy as jnp
    >>> net, x = conv_gru(28), jax.ShapeDtypeStruct((2, 101, 40), jnp.float32)
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> jax.eval_shape(net.apply, params, state, x)[0].shape
    (2, 26, 28)
    """
    with labeled_as("conv_gru"):
        _check_classes(num_classes)
        gru = recurrent_stack(cell, hidden, layers, dropout, both_ways=True)
        return serial(stem=_stem(widths, kernel_size, stack), gru=gru, dropout=drop(dropout), fc=dense(num_classes))


@explained
def conv_transformer(
    num_classes: int,
    features: int = 128,
    *,
    heads: int = 4,
    layers: int = 4,
    widths: Sequence[int] = (64,),
    kernel_size: int = 3,
    stack: int = 2,
    hidden: int | None = None,
    dropout: Any = 0.0,
) -> Net:
    """Return a speech recognizer of convolutions over time and a transformer's encoder, for `jn.losses.ctc`.

    Input and output are those of `conv_gru`. After the convolutions, the last of which has `features` features,
    sinusoidal positions are added, and blocks of attention follow, whose norms come first. The children are `stem`,
    `positions`, `encoder`, `norm` and `fc`.

    Args:
        num_classes: the number of labels, and one for the blank.
        features: of the last convolution and the blocks.
        heads: of the attention.
        layers: the number of blocks.
        widths: the features of the convolutions before the last one.
        kernel_size: as for `conv_gru`.
        stack: see there.
        hidden: the units inside of a block; the default is 4 · features.
        dropout: the rate in the blocks. May be traced.

    Raises:
        NetError: for fewer than 2 classes, or a size or rate out of range.

    After Mohamed, Okhonko and Zettlemoyer, "Transformers with convolutional context for ASR" (2019), with convolutions
    over time alone, and CTC in place of a decoder.

    >>> import jax, jax.numpy as jnp
    >>> net, x = conv_transformer(28), jax.ShapeDtypeStruct((2, 101, 40), jnp.float32)
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> jax.eval_shape(net.apply, params, state, x)[0].shape
    (2, 26, 28)
    """
    with labeled_as("conv_transformer"):
        _check_classes(num_classes)
        check_count("layers", layers)
        block = encoder_block(features, heads, hidden=hidden, dropout=dropout)
        return serial(
            stem=_stem((*widths, features), kernel_size, stack),
            positions=sinusoidal_positions(),
            encoder=serial(*[block] * layers),
            norm=layer_norm(),
            fc=dense(num_classes),
        )


def _stem(widths: Sequence[int], kernel_size: int, stack: int) -> Net:
    check_counts("widths", widths)
    check_count("stack", stack)
    layers: dict[str, Any] = {}
    for place, width in enumerate(widths, start=1):
        kernel = conv(width, (kernel_size,), padding="SAME", kernel_init=jax.nn.initializers.he_normal())
        layers |= {f"join{place}": joined_steps(stack), f"conv{place}": kernel, f"relu{place}": jax.nn.relu}
    return serial(**layers)


@labeled
def joined_steps(count: int) -> Net:
    """Return a network from sequences `(batch, time, features)`, an array or `Padded`, to ones with fewer steps.

    Each step of the output, `(batch, ⌈time / count⌉, count · features)`, is `count` steps of the input one after the
    other, with zeros after the last.
    """

    def init(key: Key, x: Any) -> tuple[Params, State]:
        return {}, {}

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        refuse_packed(x, "steps of two documents would be joined")
        sequence_width(x)
        values = jnp.asarray(x.zeroed() if isinstance(x, Padded) else x)
        batch, time, features = values.shape
        values = jnp.pad(values, ((0, 0), (0, -time % count), (0, 0)))
        values = values.reshape(batch, -(-time // count), count * features)
        return (Padded(values, -(-x.lengths // count)) if isinstance(x, Padded) else values), state

    return Net(init, apply, f"joined_steps({count})")


def _check_classes(num_classes: int) -> None:
    check_count("num_classes", num_classes)
    if num_classes < 2:
        raise NetError(f"expects at least 2 classes, a label and the blank, got {num_classes}")
