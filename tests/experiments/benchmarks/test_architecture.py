"""Counts by arithmetic are those of the literature, of torchvision's tables, and of what our models have."""

import jax
import pytest

from experiments.benchmarks import architecture as a
from experiments.benchmarks import networks, ours
from experiments.benchmarks.peers import stepping
from experiments.benchmarks.rows import training

KNOWN = {  # layers, shape, parameters, multiply-adds of an example
    "mlp": (networks.mlp(64), (64,), 64 * 65 + 65 * 10, 64 * 64 + 64 * 10),
    "lenet5": (networks.lenet(), (28, 28, 1), 61_706, 416_520),
    "resnet20": (networks.resnet20(), (32, 32, 3), 272_474, None),
    "resnet50": (networks.resnet(3, 4, 6, 3), (224, 224, 3), 25_557_032, 4_089_184_256),  # torchvision's table
    "resnet152": (networks.resnet(3, 8, 36, 3), (224, 224, 3), 60_192_808, 11_513_626_624),
    "lstm": (networks.sequence("lstm", 64, 10), (28, 28), 24_458, 28 * 4 * 64 * (28 + 64) + 640),
    # 12 · 6 · 192² + 13 · 6 · 192 + (27 + 128 + 2) · 192; 128 tokens, each of which reads 128.
    "gpt": (networks.gpt(128), (128,), 2_699_328, 128 * (12 * 6 * 192**2 + 6 * 2 * 128 * 192 + 27 * 192)),
    "gpt2": (networks.gpt(1024, 12, 12, 768, 50257), (1024,), 124_439_808, None),  # Hugging Face's count
    "gru": (networks.sequence("gru", 5), (7, 2), 3 * 5 * (2 + 5 + 1), 7 * 3 * 5 * (2 + 5)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_counts_are_the_known_ones(name: str):
    layers, shape, parameters, multiply_adds = KNOWN[name]
    assert a.parameters(layers, shape) == parameters
    assert multiply_adds is None or a.multiply_adds(layers, shape) == multiply_adds


def test_shapes_are_threaded_through():
    layers = networks.autoencoder(28, 32, 64)
    shapes = [shape for _, shape in a.walk(layers, (28, 28, 1))]
    assert (14, 14, 32) in shapes
    assert (7, 7, 64) in shapes
    assert (7 * 7 * 64,) in shapes
    assert a.shape_after(layers, (28, 28, 1)) == (28, 28, 1)
    assert a.shape_after(networks.resnet(1, 1), (65, 33, 3)) == (1000,)
    assert a.after(a.Pool(3, 2, 1), (17, 16, 5)) == (9, 8, 5)


def test_a_second_bias_of_a_recurrent_cell_is_counted():
    layers, shape = networks.sequence("lstm", 5), (7, 2)
    assert a.parameters(layers, shape, {"lstm": 8}) - a.parameters(layers, shape) == 4 * 5


@pytest.mark.parametrize("work", [training.cnn, training.resnet20, training.autoencoder, training.vgg11, training.gpt])
def test_our_models_are_the_networks_described(work):
    """Where a row takes a network from the models' room, it is the one that the peers build."""
    made = work()
    net, x = ours.net_of(made), jax.ShapeDtypeStruct((1, *made.shape), made.x.dtype)
    params, _ = jax.eval_shape(net.init, jax.random.key(0), x)
    assert stepping.count(params) == a.parameters(made.layers, made.shape)
