"""Networks as data, so that every contestant builds the same one; their exact counts.

A network is a tuple of layers. A shape is that of one example, channels last. A library turns each layer into its own
(`peers/`), and the result is checked against `parameters` and `multiply_adds` before anything is timed.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Dense:
    """A matrix and a bias over the last axis."""

    features: int


@dataclass(frozen=True)
class Conv:
    """A convolution over two axes, with `padding` zeros on all sides."""

    features: int
    window: int
    stride: int = 1
    padding: int = 0
    bias: bool = True


@dataclass(frozen=True)
class Double:
    """A transposed convolution of stride 2 and window 3, with a bias, that doubles both sizes."""

    features: int


@dataclass(frozen=True)
class Pool:
    """The maximum over windows."""

    window: int
    stride: int
    padding: int = 0


@dataclass(frozen=True)
class Norm:
    """Batch norm over all axes but the last, with scale and bias, in training."""


@dataclass(frozen=True)
class Relu:
    """max(x, 0)."""


@dataclass(frozen=True)
class Flatten:
    """Merge all axes of an example."""


@dataclass(frozen=True)
class Fold:
    """Reshape the features of an example."""

    shape: Shape


@dataclass(frozen=True)
class Mean:
    """The mean over the two axes of an image."""


@dataclass(frozen=True)
class Recurrent:
    """An LSTM or GRU over (time, features): all of its outputs, or the last."""

    cell: Literal["lstm", "gru"]
    features: int
    last: bool = False


@dataclass(frozen=True)
class Residual:
    """relu(body(x) + shortcut(x)); without layers the shortcut is x itself."""

    body: "Layers"
    shortcut: "Layers" = ()


@dataclass(frozen=True)
class Transformer:
    """A language model like GPT-2, from tokens (time,) to logits of the next ones (time, vocabulary).

    The embedding, whose table is also the last kernel, and learned positions are added; then blocks of causal attention
    and two layers with a tanh-GELU between them, 4 · features wide, each of the two after a layer norm and with a
    shortcut; then a layer norm and the logits. All layers of blocks have biases.
    """

    vocabulary: int
    length: int
    blocks: int
    heads: int
    features: int


Layer = Dense | Conv | Double | Pool | Norm | Relu | Flatten | Fold | Mean | Recurrent | Residual | Transformer
Layers = tuple[Layer, ...]

GATES = {"lstm": 4, "gru": 3}


def after(layer: Layer, shape: Shape) -> Shape:
    """Return the output shape of a layer."""
    match layer:
        case Dense(features):
            return (*shape[:-1], features)
        case Conv(features, window, stride, padding):
            return (*(_places(n, window, stride, padding) for n in shape[:-1]), features)
        case Double(features):
            return (*(2 * n for n in shape[:-1]), features)
        case Pool(window, stride, padding):
            return (*(_places(n, window, stride, padding) for n in shape[:-1]), shape[-1])
        case Flatten():
            return (math.prod(shape),)
        case Fold(new):
            return new
        case Mean():
            return shape[-1:]
        case Recurrent(_, features, last):
            return (features,) if last else (shape[0], features)
        case Residual(body):
            return shape_after(body, shape)
        case Transformer(vocabulary):
            return (*shape, vocabulary)
    return shape


def walk(layers: Layers, shape: Shape) -> Iterator[tuple[Layer, Shape]]:
    """Yield each layer with its input shape."""
    for layer in layers:
        yield layer, shape
        shape = after(layer, shape)


def shape_after(layers: Layers, shape: Shape) -> Shape:
    """Return the output shape of layers."""
    for layer in layers:
        shape = after(layer, shape)
    return shape


def parameters(layers: Layers, shape: Shape, biases: Mapping[str, int] = GATES) -> int:
    """Return how many parameters a network has.

    Args:
        layers: the network.
        shape: that of an example.
        biases: number of bias vectors of each recurrent cell, the only difference between libraries.
    """
    total = 0
    for layer, (*_, width) in walk(layers, shape):
        match layer:
            case Dense(features):
                total += (width + 1) * features
            case Conv(features, window, bias=bias):
                total += window**2 * width * features + bias * features
            case Double(features):
                total += 9 * width * features + features
            case Norm():
                total += 2 * width
            case Recurrent(cell, features):
                total += GATES[cell] * (width + features) * features + biases[cell] * features
            case Transformer(vocabulary, length, blocks, _, features):
                # A block: 12 matrices of features², 9 biases, 2 scales and 2 shifts; a norm in the end.
                total += (vocabulary + length + 2) * features + blocks * (12 * features + 13) * features
    inner = [(part, at) for layer, at in walk(layers, shape) if isinstance(layer, Residual) for part in _parts(layer)]
    return total + sum(parameters(part, at, biases) for part, at in inner)


def multiply_adds(layers: Layers, shape: Shape) -> int:
    """Return the multiply-adds of convolutions and matrix products for one example.

    A transposed convolution has one for each pair of an input and an element of the window.
    """
    total = 0
    for layer, at in walk(layers, shape):
        places, width = math.prod(at[:-1]), at[-1]
        match layer:
            case Dense(features):
                total += places * width * features
            case Conv(features, window):
                total += math.prod(after(layer, at)[:-1]) * window**2 * width * features
            case Double(features):
                total += places * 9 * width * features
            case Recurrent(cell, features):
                total += places * GATES[cell] * (width + features) * features
            case Transformer(vocabulary, _, blocks, _, features):
                # A token reads all of them: those after it are computed, and not used. Here `width` is the time.
                total += width * features * (blocks * (12 * features + 2 * width) + vocabulary)
            case Residual():
                total += sum(multiply_adds(part, at) for part in _parts(layer))
    return total


def _parts(layer: Residual) -> tuple[Layers, Layers]:
    return layer.body, layer.shortcut


def _places(n: int, window: int, stride: int, padding: int) -> int:
    return (n + 2 * padding - window) // stride + 1
