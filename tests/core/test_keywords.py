"""Arguments by the names of other libraries, misspelled ones, and too many or too few."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.core import keywords
from tests.oracle import floats

any_: Any = jn  # what is called wrongly here, a type checker would refuse
models: Any = jn.models
flip: Any = jn.data.flip
CELL: Any = jn.lstm_cell(2)

CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "torch conv": (lambda: any_.conv(6, window=3), "conv has no argument window: write kernel_size=3"),
    "keras conv": (
        lambda: any_.conv(filters=6, window_size=(3, 3), strides=2, dilation_rate=1),
        "conv has no argument filters: write features=6; has no argument window_size: write kernel_size=(3, 3); has no "
        "argument strides: write stride=2; has no argument dilation_rate: write dilation=1",
    ),
    "torch conv by place": (
        lambda: any_.conv(3, 6, 5),
        "conv takes 2 unnamed arguments, got 3; sizes of the input are left out, init reads them; it takes "
        "(features, kernel_size, *, stride, padding, dilation, groups, use_bias, kernel_init, bias_init)",
    ),
    "no window": (lambda: any_.conv(6), "conv is called with the wrong arguments, missing a required argument: 'k"),
    "torch linear": (lambda: any_.dense(784, 10), "dense takes 1 unnamed argument, got 2; sizes of the input are left"),
    "torch names": (
        lambda: any_.dense(in_features=784, out_features=10, bias=False),
        "dense has no argument in_features: leave it out: init reads the input's size from the input; has no argument "
        "out_features: write features=10; has no argument bias: write use_bias=False",
    ),
    "keras dense": (
        lambda: any_.dense(units=10, activation="relu", kernel_initializer="he_normal"),
        "dense has no argument units: write features=10; has no argument activation: put it after the layer: "
        "jn.serial(layer, jax.nn.relu); has no argument kernel_initializer: write kernel_init= with one of jax.nn.in",
    ),
    "shape of a norm": (lambda: any_.layer_norm(normalized_shape=8), "normalized_shape: leave it out: init reads"),
    "activation of a cell": (
        lambda: any_.lstm_cell(3, activation="relu"),
        "has no argument activation: there are features",
    ),
    "regularizer": (lambda: any_.dense(3, kernel_regularizer=1), "objective a regularizer: jn.objective(loss, jn"),
    "named": (lambda: any_.dense(3, name="fc"), "dense has no argument name: name it where it is used: jn.serial("),
    "momentum": (
        lambda: any_.batch_norm(momentum=0.1),
        "batch_norm has no argument momentum: its name is decay here (PyTorch's momentum is 1 - decay, Keras' and",
    ),
    "torch batch norm": (lambda: any_.batch_norm(64, eps=1e-3), "batch_norm has no argument eps: write epsilon=0.001"),
    "size by place": (lambda: any_.batch_norm(64), "batch_norm takes 0 unnamed arguments, got 1; sizes of the input"),
    "dropout": (lambda: any_.dropout(p=0.5), "dropout has no argument p: write rate=0.5"),
    "kept": (lambda: any_.dropout(keep_prob=0.9), "its name is rate here (rate is 1 - keep_prob)"),
    "pool": (lambda: any_.max_pool(pool_size=2), "max_pool has no argument pool_size: write kernel_size=2"),
    "embedding": (
        lambda: any_.embed(input_dim=100, output_dim=8),
        "embed has no argument input_dim: write vocabulary_size=100; has no argument output_dim: write features=8",
    ),
    "cell": (lambda: any_.lstm_cell(hidden_size=3), "lstm_cell has no argument hidden_size: write features=3"),
    "recurrent": (lambda: any_.recurrent(CELL, go_backwards=True), "has no argument go_backwards: write reverse=True"),
    "both ways": (lambda: any_.recurrent(CELL, bidirectional=True), "use jn.bidirectional(cell)"),
    "stacked": (lambda: any_.bidirectional(CELL, num_layers=2), "has no argument num_layers: write layers=2"),
    "misspelled": (lambda: any_.conv(6, 3, strid=2), "conv has no argument strid: write stride=2"),
    "given already": (
        lambda: any_.conv(6, kernel_size=3, pool_size=3),
        "has no argument pool_size: it is kernel_size here, which",
    ),
    "unknown": (lambda: any_.dropout(0.1, quantum=3), "has no argument quantum: there are rate, broadcast_axes"),
    "torchvision's flip": (lambda: flip(p=0.5), "flip has no argument p: write probability=0.5"),
    "classes of a model": (lambda: models.resnet18(classes=7), "resnet18 has no argument classes: write num_classes=7"),
    "widths of a model": (lambda: models.mlp(hidden_layer_sizes=(8,)), "its name is widths here (a sequence of"),
    "dropout of a model": (lambda: models.cnn(dropout_rate=0.5), "cnn has no argument dropout_rate: write dropout=0.5"),
}


@pytest.mark.parametrize("name", CALLS)
def test_arguments_of_other_libraries_are_answered_by_ours(name: str):
    call, words = CALLS[name]
    with pytest.raises(jn.NetError, match="^.*" + re.escape(words)) as caught:
        call()
    assert not caught.value.path


def constructors() -> dict[str, inspect.Signature]:
    """Return the signature of every public function that makes a network, a cell or an augmentation, and of others."""
    public = [*((name, getattr(jn, name)) for name in jn.__all__), *vars(jn.models).items(), *vars(jn.data).items()]
    return {name: inspect.signature(make) for name, make in public if inspect.isfunction(make)}


def test_every_name_that_is_offered_is_an_argument_of_some_constructor():
    more = map(inspect.signature, (jn.train.program, jn.train.early_stopping, jn.data.stream))
    ours = {name for signature in (*constructors().values(), *more) for name in signature.parameters}
    assert set(keywords._NAMES) <= ours


def test_functions_that_are_layers_may_be_called_without_an_input():
    x, functions = floats(2, 3, 2, 2), (jn.flatten, jn.global_avg_pool, jn.global_max_pool)
    pairs = [(jn.serial(a=function()), jn.serial(a=function)) for function in functions]
    outputs = jax.jit(lambda x: [[net.apply({}, {}, x)[0] for net in pair] for pair in pairs])(x)
    for function, (called, plain), (y, other) in zip(functions, pairs, outputs, strict=True):
        assert repr(called) == repr(plain) == f"serial\n└─ a: {function.__name__}"
        np.testing.assert_array_equal(y, other)
    params, _ = jax.eval_shape(jn.serial(jn.flatten(), jn.dense(3)).init, jax.random.key(0), x)
    assert params["1"]["kernel"].shape == (12, 3)
