"""PyTorch, eager or by `torch.compile`; on a GPU bfloat16 is autocast and images are channels-last."""
# pyright: reportMissingImports=false

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmarks import architecture as a
from experiments.benchmarks.work import Contestant, Work

BIASES = {"lstm": 8, "gru": 6}
OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD, "momentum": partial(torch.optim.SGD, momentum=0.9)}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cuda":
    torch.set_float32_matmul_precision("high")  # TF32, which is JAX's default on GPUs
    torch.backends.cudnn.benchmark = True  # algorithms are chosen by measurement, as XLA does


class Residual(nn.Module):
    """relu(body(x) + shortcut(x))."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum."""
        return torch.relu(self.body(x) + self.shortcut(x))


class Outputs(nn.Module):
    """A recurrent layer's outputs without its carry."""

    def __init__(self, layer: nn.Module, last: bool) -> None:
        super().__init__()
        self.layer, self.last = layer, last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return all, or the last."""
        outputs = self.layer(x)[0]
        return outputs[:, -1] if self.last else outputs


class Mean(nn.Module):
    """The mean over the positions of an image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return it."""
        return x.mean((2, 3))


class Block(nn.Module):
    """Causal attention and two layers, each after a norm and with a shortcut."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv = nn.LayerNorm(features), nn.Linear(features, 3 * features)
        self.out, self.norm2 = nn.Linear(features, features), nn.LayerNorm(features)
        self.up, self.down = nn.Linear(features, 4 * features), nn.Linear(4 * features, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum."""
        batch, time, features = x.shape
        split = self.qkv(self.norm1(x)).split(features, 2)
        # (batch, heads, time, width)
        q, k, v = (each.view(batch, time, self.heads, -1).transpose(1, 2) for each in split)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, time, features))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Transformer(nn.Module):
    """A language model with one table for the embedding and the logits."""

    def __init__(self, layer: a.Transformer) -> None:
        super().__init__()
        self.tokens = nn.Embedding(layer.vocabulary, layer.features)
        self.positions = nn.Embedding(layer.length, layer.features)
        self.blocks = nn.Sequential(*(Block(layer.features, layer.heads) for _ in range(layer.blocks)))
        self.norm = nn.LayerNorm(layer.features)
        for each in (self.tokens, self.positions):
            nn.init.normal_(each.weight, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.blocks(self.tokens(tokens) + self.positions(places))
        return nn.functional.linear(self.norm(x), self.tokens.weight)


def network(layers: a.Layers, shape: a.Shape) -> nn.Sequential:
    """Return the module."""
    return nn.Sequential(*(_layer(layer, at) for layer, at in a.walk(layers, shape)))


def _layer(layer: a.Layer, shape: a.Shape) -> nn.Module:
    width = shape[-1]
    match layer:
        case a.Dense(features):
            return nn.Linear(width, features)
        case a.Conv(features, window, stride, padding, bias):
            return nn.Conv2d(width, features, window, stride, padding, bias=bias)
        case a.Double(features):
            return nn.ConvTranspose2d(width, features, 3, 2, 1, 1)
        case a.Pool(window, stride, padding):
            return nn.MaxPool2d(window, stride, padding)
        case a.Norm():
            return nn.BatchNorm2d(width)
        case a.Relu():
            return nn.ReLU()
        case a.Flatten():
            return nn.Flatten()
        case a.Fold(new):
            return nn.Unflatten(1, new[-1:] + new[:-1])
        case a.Mean():
            return Mean()
        case a.Recurrent(cell, features, last):
            return Outputs((nn.LSTM if cell == "lstm" else nn.GRU)(width, features, batch_first=True), last)
        case a.Residual(body, shortcut):
            return Residual(network(body, shape), network(shortcut, shape))
        case a.Transformer():
            return Transformer(layer)


def train(work: Work, *, mode: str | None) -> Contestant:
    """Return the contestant: eager if `mode` is `None`, else by `torch.compile` in that mode."""
    net, data = network(work.layers, work.shape), _data(work)
    epoch, generator = _trainer(work, net, mode), np.random.default_rng(0)
    return contestant(work, lambda: epoch(generator, *data, 1e-3))


def evaluate(work: Work, *, mode: str | None) -> Contestant:
    """Return a contestant that evaluates the network on each batch."""
    net, (x, _) = network(work.layers, work.shape).to(DEVICE).eval(), _data(work)
    forward: Any = net if mode is None else torch.compile(net, mode=mode)

    @torch.inference_mode()
    def turn() -> None:
        for part in x.split(work.batch_size):
            forward(part)
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return contestant(work, turn)


def sweep(work: Work, rates: np.ndarray, *, mode: str | None) -> Contestant:
    """Return a contestant that trains a trial for each rate, one after another."""
    data, generator = _data(work), np.random.default_rng(0)

    def turn() -> None:
        for rate in rates:
            _trainer(work, network(work.layers, work.shape), mode)(generator, *data, float(rate))

    return contestant(work, turn, len(rates))


def _trainer(work: Work, net: nn.Module, mode: str | None) -> Callable[..., None]:
    net = net.to(DEVICE)
    if _lies_last(work):
        net = net.to(memory_format=torch.channels_last)  # pyright: ignore
    forward: Any = net if mode is None else torch.compile(net, mode=mode)
    loss = _cross_entropy if work.classifies else nn.functional.mse_loss
    options = {"fused": True} if any(isinstance(layer, a.Transformer) for layer in work.layers) else {}
    held: list[torch.optim.Optimizer] = []
    half = work.precision == "bfloat16"

    def turn(generator: np.random.Generator, x: torch.Tensor, y: torch.Tensor, rate: float) -> None:
        if not held:
            held.append(OPTIMIZERS[work.optimizer](net.parameters(), lr=rate, **options))
        for chosen in work.batches(generator):
            rows = torch.from_numpy(chosen).to(DEVICE)
            held[0].zero_grad()
            with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
                value = loss(forward(x[rows]), y[rows])
            value.backward()
            held[0].step()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return turn


def _cross_entropy(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    # The positions of a sequence are examples: (batch, time, classes) → (batch · time, classes).
    return nn.functional.cross_entropy(logits.flatten(0, -2), y.flatten())


def _data(work: Work) -> tuple[torch.Tensor, torch.Tensor]:
    first = (np.moveaxis(each, -1, 1).copy() if each.ndim == 4 else each for each in (work.x, work.y))
    turned = [torch.from_numpy(each) for each in first]
    if _lies_last(work):
        turned = [each.to(memory_format=torch.channels_last) if each.ndim == 4 else each for each in turned]
    x, y = (each.to(DEVICE) for each in turned)
    return x, y.long() if work.classifies else y


def _lies_last(work: Work) -> bool:
    return DEVICE == "cuda" and len(work.shape) == 3


def contestant(work: Work, turn: Callable[[], None], trials: int = 1) -> Contestant:
    """Return a contestant with its counts."""
    shape = work.shape[-1:] + work.shape[:-1] if len(work.shape) == 3 else work.shape
    dtype = torch.from_numpy(work.x[:1]).dtype
    # On the device of shapes alone a recurrent layer shows the products that it is made of.
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        net = network(work.layers, work.shape)
        net(torch.zeros(work.batch_size, *shape, dtype=dtype))
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return Contestant(work, turn, parameters, counter.get_total_flops() // 2, BIASES, trials)
