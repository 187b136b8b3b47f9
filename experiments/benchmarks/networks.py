"""The networks of the benchmark, described once as data; all contestants build from these."""

from experiments.benchmarks.architecture import (
    Conv,
    Dense,
    Double,
    Flatten,
    Fold,
    Layers,
    Mean,
    Norm,
    Pool,
    Recurrent,
    Relu,
    Residual,
    Transformer,
)


def mlp(*widths: int, classes: int = 10) -> Layers:
    """Return dense layers of some widths with ReLU between them."""
    return (*(layer for width in widths for layer in (Dense(width), Relu())), Dense(classes))


def lenet() -> Layers:
    """Return LeNet-5 as it is built today."""
    return (
        *(Conv(6, 5, padding=2), Relu(), Pool(2, 2), Conv(16, 5), Relu(), Pool(2, 2), Flatten()),
        *mlp(120, 84),
    )


def cnn(*widths: int, hidden: int = 128) -> Layers:
    """Return convolutions of window 3, each with ReLU and a pool of 2, and two dense layers."""
    stages = (layer for width in widths for layer in (Conv(width, 3, padding=1), Relu(), Pool(2, 2)))
    return (*stages, Flatten(), *mlp(hidden))


def vgg11(hidden: int = 512) -> Layers:
    """Return VGG-11 with batch norm for images of 32 × 32, which shrink to one position; then one hidden layer."""
    layers: Layers = ()
    for widths in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for width in widths:
            layers += (Conv(width, 3, padding=1), Norm(), Relu())
        layers += (Pool(2, 2),)
    return (*layers, Flatten(), *mlp(hidden))


def resnet20(blocks: int = 3) -> Layers:
    """Return the ResNet of 6 `blocks` + 2 layers for small images, with projections where the shape changes."""
    layers: Layers = (_conv(16, 3), Norm(), Relu())
    for width in (16, 32, 64):
        for place in range(blocks):
            stride = 2 if place == 0 and width > 16 else 1
            body = (_conv(width, 3, stride), Norm(), Relu(), _conv(width, 3), Norm())
            layers += (Residual(body, (_conv(width, 1, stride), Norm()) if stride == 2 else ()),)
    return (*layers, Mean(), Dense(10))


def resnet(*blocks: int, classes: int = 1000) -> Layers:
    """Return the ResNet of so many bottleneck blocks a stage, version 1.5; 3, 4, 6, 3 for ResNet-50."""
    layers: Layers = (_conv(64, 7, 2), Norm(), Relu(), Pool(3, 2, 1))
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for place in range(count):
            stride = 2 if place == 0 and stage else 1
            body = (
                *(_conv(width, 1), Norm(), Relu()),
                *(_conv(width, 3, stride), Norm(), Relu()),
                *(_conv(4 * width, 1), Norm()),
            )
            layers += (Residual(body, () if place else (_conv(4 * width, 1, stride), Norm())),)
    return (*layers, Mean(), Dense(classes))


def sequence(cell: str, width: int, classes: int | None = None) -> Layers:
    """Return a recurrent layer with all its outputs, or with classes read off the last."""
    made = {"lstm": Recurrent("lstm", width, classes is not None), "gru": Recurrent("gru", width, classes is not None)}
    return (made[cell],) if classes is None else (made[cell], Dense(classes))


def autoencoder(size: int, *widths: int, code: int = 32) -> Layers:
    """Return strided convolutions down to a code, and transposed ones back to one channel of `size` × `size`."""
    small = (size // 2 ** len(widths),) * 2 + widths[-1:]
    down = (layer for width in widths for layer in (Conv(width, 3, 2, 1), Relu()))
    up = (layer for width in widths[-2::-1] for layer in (Double(width), Relu()))
    flat = small[0] * small[1] * small[2]
    return (*down, Flatten(), Dense(code), Dense(flat), Relu(), Fold(small), *up, Double(1))


def gpt(length: int, blocks: int = 6, heads: int = 6, features: int = 192, vocabulary: int = 27) -> Layers:
    """Return a language model of characters for texts of up to a length."""
    return (Transformer(vocabulary, length, blocks, heads, features),)


def _conv(features: int, window: int, stride: int = 1) -> Conv:
    return Conv(features, window, stride, window // 2, bias=False)
