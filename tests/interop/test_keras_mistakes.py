"""What `from_keras` refuses, and what it asks for: order, settings, files."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.interop import from_keras
from tests.interop.test_keras import NORMED, STEPS, chain, functional, made
from tests.oracle import floats
from tests.peers import keras

pytestmark = [pytest.mark.promotes, pytest.mark.filterwarnings("ignore::DeprecationWarning:keras")]


def refused(message: str, net: jn.Net, source: Any, x: Any = STEPS, **options: Any) -> None:
    with pytest.raises(jn.NetError, match=re.escape(message)):
        from_keras(net, source, x, **options)


def weights(tmp_path: Path, model: Any) -> Path:
    model.save_weights(tmp_path / "a.weights.h5")
    return tmp_path / "a.weights.h5"


def test_layers_of_equal_shapes_follow_the_order_of_the_model_not_names(tmp_path: Path):
    L = keras().layers
    net = jn.serial(a=jn.dense(4), b=jn.dense(4), **{f"c{k}": jn.dense(4) for k in range(10)})
    names = ["b", "a", *(f"d{9 - k}" for k in range(10))]
    model = made(lambda L: chain(STEPS, *(L.Dense(4, name=name) for name in names)))
    for source in (model, weights(tmp_path, model)):
        params, _ = from_keras(net, source, STEPS)
        for ours, theirs in zip(net.children, model.layers):
            np.testing.assert_array_equal(params[ours]["kernel"], theirs.kernel)
    twice = functional(STEPS, lambda x: L.Dense(4, name="second")(L.Dense(4, name="first")(x)))
    assert [layer.name for layer in twice.layers[1:]] == ["first", "second"]
    from_keras(jn.serial(jn.dense(4), jn.dense(4)), twice, STEPS)


def test_equal_layers_side_by_side_must_be_named(tmp_path: Path):
    def build(L: Any) -> Any:
        return functional(STEPS, lambda x: L.Concatenate()([L.Dense(3, name="b")(x), L.Dense(3, name="a")(x)]))

    model = made(build)
    net = jn.branches(jn.concatenate, left=jn.dense(3), right=jn.dense(3))
    refused(
        "can't tell which of b, a and left, right correspond: the network's order is unknown; map layers", net, model
    )
    refused("of dense, dense_1 and left, right", net, weights(tmp_path, model))
    chained = jn.serial(jn.dense(3), jn.dense(3))
    square = floats(2, 5, 3)
    sides = functional(square, lambda x: keras().layers.Add()([keras().layers.Dense(3, name=name)(x) for name in "ab"]))
    refused("can't tell which of a, b and 0, 1 correspond: the source's order is unknown", chained, sides, square)
    params, _ = from_keras(net, model, STEPS, rename={"a": "right", "b": "left"})
    np.testing.assert_array_equal(params["left"]["kernel"], model.get_layer("b").kernel)


# Keras writes `first` under its name, and the others, whose names come after `layers`, as layers.
def test_layers_in_attributes_are_known_by_their_names_alone(tmp_path: Path):
    K = keras()

    class Theirs(K.Model):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.first = K.layers.Dense(4), K.layers.Dense(4)
            self.norm = K.layers.LayerNormalization()

        def call(self, x: Any) -> Any:
            return self.norm(self.second(self.first(x)))

    model = Theirs()
    model(STEPS)
    for weight in model.weights:
        weight.assign(floats(*weight.shape, seed=len(weight.path)))
    net = jn.serial(jn.dense(4), jn.dense(4), norm=jn.layer_norm(**NORMED))
    path = weights(tmp_path, model)
    refused(
        "can't tell which of first, dense and 0, 1 correspond: the source's order is unknown; pass a .keras", net, path
    )
    params, state = from_keras(net, path, STEPS, rename={"first": "0", "dense": "1"})
    np.testing.assert_allclose(net.apply(params, state, STEPS)[0], model(STEPS), atol=1e-5)


def test_a_layer_of_ones_own_must_be_named(tmp_path: Path):
    K = keras()

    class Scaled(K.layers.Layer):
        def build(self, shape: Any) -> None:
            self.k = self.add_weight(shape=(shape[-1], 4))
            self.b = self.add_weight(shape=(4,))

        def call(self, x: Any) -> Any:
            return x @ self.k + self.b

    model, net = made(lambda L: chain(STEPS, Scaled())), jn.serial(fc=jn.dense(4))
    refused(
        "missing fc (dense); unexpected scaled (unknown 0 (4, 4) 1 (4,)); build the same network, or map", net, model
    )
    params, _ = from_keras(net, model, STEPS, rename={"scaled": "fc"})
    np.testing.assert_array_equal(params["fc"]["kernel"], model.layers[0].k)
    refused(
        "expects layers of the network in rename=, got scaled to head; they are fc",
        net,
        model,
        rename={"scaled": "head"},
    )


def test_other_architectures_are_listed():
    model = made(lambda L: chain(STEPS, L.Dense(3), L.LayerNormalization(), L.Dense(2)))
    net = jn.serial(jn.dense(3), jn.layer_norm(**NORMED), jn.dense(2))
    from_keras(net, model, STEPS)
    refused(
        "missing 1 (rms_norm); unexpected layer_normalization",
        jn.serial(jn.dense(3), jn.rms_norm(), jn.dense(2)),
        model,
    )
    wide = jn.serial(jn.dense(3), jn.layer_norm(**NORMED), jn.dense(7))
    refused("misshapen dense_", wide, model)
    refused("kernel (3, 2) bias (2,) for 2 bias (7,) kernel (3, 7)", wide, model)
    other = jn.serial(jn.dense(3), jn.dense(2), jn.layer_norm(**NORMED))
    refused("misshapen", other, model)
    square = made(lambda L: chain(STEPS, L.LayerNormalization(), L.Dense(4)))
    refused("runs 0 before 1, but the source dense", jn.serial(jn.dense(4), jn.layer_norm(**NORMED)), square)


def test_layers_may_be_drawn_anew():
    model = made(lambda L: chain(STEPS, L.Dense(4), L.Dense(4)))
    net = jn.serial(body=jn.dense(4), head=jn.dense(7))
    params, _ = from_keras(net, model, STEPS, fresh="head/**", key=jax.random.key(0), dtype=jnp.bfloat16)
    np.testing.assert_array_equal(params["body"]["kernel"], model.layers[0].kernel.value.astype(jnp.bfloat16))
    refused("needs a key", net, model, fresh="head/**")
    three = jn.serial(body=jn.dense(4), more=jn.dense(4), head=jn.dense(7))
    refused("can't tell which of dense", three, model, fresh="head/**", key=jax.random.key(0))


DIFFERENT: dict[str, tuple[Callable[[Any], list[Any]], tuple[Any, ...], str]] = {
    "epsilon": (
        lambda L: [L.LayerNormalization()],
        (jn.layer_norm(),),
        "has epsilon=0.001, got 1e-05",
    ),
    "axis": (
        lambda L: [L.LayerNormalization(axis=1, epsilon=1e-5)],
        (jn.layer_norm(),),
        "LayerNormalization has axis=[1], got -1",
    ),
    "axis of a batch": (
        lambda L: [L.BatchNormalization(axis=1)],
        (jn.batch_norm(epsilon=1e-3, decay=0.99),),
        "BatchNormalization has axis=1, which batch_norm does not have",
    ),
    "decay": (
        lambda L: [L.BatchNormalization()],
        (jn.batch_norm(**NORMED),),
        "BatchNormalization has decay=0.99, got 0.9",
    ),
    "padding": (
        lambda L: [L.Conv1D(3, 3, padding="same")],
        (jn.conv(3, 3),),
        "Conv1D has padding=((1, 1),), got ((0, 0),)",
    ),
    "stride": (lambda L: [L.Conv1D(3, 3, strides=2)], (jn.conv(3, 3),), "Conv1D has stride=(2,), got (1,)"),
    "activation": (
        lambda L: [L.Dense(3, activation="relu"), L.Dense(2)],
        (jn.dense(3), jnp.tanh, jn.dense(2)),
        "1 is tanh, but the module is Dense(activation='relu')",
    ),
    "last activation": (
        lambda L: [L.Dense(3, activation="softmax")],
        (jn.dense(3),),
        "0 is dense, but the module is Dense(activation='softmax')",
    ),
    "gelu": (
        lambda L: [L.Dense(3), L.Activation("gelu")],
        (jn.dense(3), jax.nn.gelu),
        "Activation(activation='gelu') has approximate=False, got True",
    ),
    "leaky": (
        lambda L: [L.Dense(3), L.LeakyReLU()],
        (jn.dense(3), jax.nn.leaky_relu),
        "LeakyReLU has negative_slope=0.3, got 0.01",
    ),
    "other activation": (
        lambda L: [L.Dense(3), L.ReLU()],
        (jn.dense(3), jnp.tanh),
        "1 is tanh, but the module is ReLU",
    ),
    "rate": (lambda L: [L.Dropout(0.5), L.Dense(3)], (jn.dropout(0.2), jn.dense(3)), "Dropout has rate=0.5, got 0.2"),
    "gates": (
        lambda L: [L.LSTM(3, recurrent_activation="hard_sigmoid")],
        (jn.recurrent(jn.lstm_cell(3)),),
        "LSTM has recurrent_activation='hard_sigmoid', which lstm_cell does not have",
    ),
    "direction": (
        lambda L: [L.SimpleRNN(3, go_backwards=True)],
        (jn.recurrent(jn.rnn_cell(3)),),
        "SimpleRNN has reverse=True, got False",
    ),
    "outputs in reverse": (
        lambda L: [L.SimpleRNN(3, go_backwards=True, return_sequences=True)],
        (jn.recurrent(jn.rnn_cell(3), reverse=True),),
        "SimpleRNN has go_backwards='with outputs in reverse order', which rnn_cell does not have",
    ),
    "merge": (
        lambda L: [L.Bidirectional(L.LSTM(3), merge_mode="mul")],
        (jn.bidirectional(jn.lstm_cell(3)),),
        "got 'concatenate'",
    ),
    "cell of one direction": (
        lambda L: [L.Bidirectional(L.SimpleRNN(3, activation="relu"))],
        (jn.bidirectional(jn.rnn_cell(3)),),
        "0/forward: SimpleRNN has activation='relu', got 'tanh', 0/backward: SimpleRNN has activation='relu', got",
    ),
    "pool": (
        lambda L: [L.MaxPooling1D(3), L.Dense(3)],
        (jn.max_pool(2), jn.dense(3)),
        "has kernel_size=(3,), got (2,)",
    ),
    "channels": (
        lambda L: [L.Conv1D(3, 3, data_format="channels_first")],
        (jn.conv(3, 3),),
        "which conv does not have",
    ),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_settings_that_differ_are_listed(what: str, tmp_path: Path):
    layers, ours, message = DIFFERENT[what]
    model, net = made(lambda L: chain(floats(2, 4, 4), *layers(L))), jn.serial(*ours)
    refused(message, net, model, floats(2, 4, 4))
    refused("or pass a .weights.h5 file, which has no settings to compare", net, model, floats(2, 4, 4))
    from_keras(net, weights(tmp_path, model), floats(2, 4, 4))


def test_another_number_of_pools_or_heads_is_refused(tmp_path: Path):
    model = made(lambda L: chain(STEPS, L.MaxPooling1D(2), L.Dense(3)))
    refused("expects 1 pools, as the source has, got 0", jn.serial(jn.dense(3)), model)
    attends = made(lambda L: functional(STEPS, lambda x: L.MultiHeadAttention(2, 2)(x, x)))
    for source in (attends, weights(tmp_path, attends)):
        refused("MultiHeadAttention has heads=2, got 4", jn.serial(jn.attention(4, 4)), source)


def test_files_that_are_broken_or_of_another_kind_are_named(tmp_path: Path):
    import h5py

    model, net = (
        made(lambda L: chain(STEPS, L.LayerNormalization(scale=False))),
        jn.serial(jn.layer_norm(use_scale=False)),
    )
    refused(
        "expects scale, bias of a LayerNormalization, got 1 arrays; pass a .keras file", net, weights(tmp_path, model)
    )
    model.save(tmp_path / "a.keras")
    whole = (tmp_path / "a.keras").read_bytes()
    for name, content in (("cut.keras", whole[: len(whole) // 2]), ("empty.weights.h5", b""), ("text.keras", b"PK")):
        (tmp_path / name).write_bytes(content)
        refused("expects a complete .keras or .weights.h5 file, got", net, tmp_path / name)
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    refused("expects a complete .keras or .weights.h5 file, got", net, tmp_path / "other.keras")
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["layer_names"] = ["dense"]
    refused("expects a file of Keras 3, got an older one", net, tmp_path / "old.h5")
    refused("expects a model of Keras or the path of a file, got dict", net, {})
    with pytest.raises(FileNotFoundError, match="no file"):
        from_keras(net, tmp_path / "absent.keras", STEPS)


def test_numbers_that_are_not_finite_are_named():
    model = made(lambda L: chain(STEPS, L.Dense(3)))
    model.layers[0].kernel.assign(np.full((4, 3), np.nan))
    with pytest.warns(UserWarning, match="from_keras: NaN or infinite numbers in dense"):
        from_keras(jn.serial(jn.dense(3)), model, STEPS)


def test_the_last_axis_by_its_number():
    x = floats(2, 4, 4)
    model = made(lambda L: chain(x, L.LayerNormalization(axis=2, epsilon=1e-5)))
    params, state = from_keras(jn.layer_norm(), model, x)
    np.testing.assert_allclose(jn.layer_norm().apply(params, state, x)[0], model(x), atol=1e-6)


def test_masked_padding_needs_lengths():
    tokens = np.array([[1, 2, 0], [3, 1, 2]], np.int32)
    model = made(lambda L: chain(tokens, L.Embedding(5, 3, mask_zero=True), L.LSTM(3)))
    net = jn.serial(jn.embed(5, 3), jn.recurrent(jn.lstm_cell(3), return_sequences=False))
    with pytest.warns(UserWarning, match=r"masks padding .* x is no jn\.Padded"):
        from_keras(net, model, tokens)
    padded = jn.Padded(tokens, np.array([2, 3]))
    params, state = from_keras(net, model, padded)
    np.testing.assert_allclose(net.apply(params, state, padded)[0], model(tokens), atol=1e-6)


def test_a_layer_that_runs_twice_is_refused():
    x = floats(1, 4)

    def twice(L: Any) -> Any:
        dense = L.Dense(4, name="shared")
        return functional(x, lambda start: dense(dense(start)))

    refused("can't convert shared, which runs 2 times", jn.serial(jn.dense(4)), made(twice), x)


def test_whether_attention_looks_ahead_is_compared():
    x = floats(2, 5, 6)
    model = made(lambda L: functional(x, lambda start: L.MultiHeadAttention(2, 3)(start, start, use_causal_mask=True)))
    refused("MultiHeadAttention has causal=True, got False", jn.attention(6, 2), model, x)
    net = jn.attention(6, 2, causal=True)
    np.testing.assert_allclose(net.apply(*from_keras(net, model, x), x)[0], model(x), atol=1e-6)


UNREAD: dict[str, Callable[[Any, Any], Any]] = {
    "Rescaling": lambda L, y: L.Rescaling(0.1)(y),
    "Subtract": lambda L, y: L.Subtract()([y, L.ReLU()(y)]),
    "GlobalMaxPooling1D": lambda L, y: L.GlobalMaxPooling1D()(y),
    "Softmax": lambda L, y: L.Softmax(axis=1)(y),
}


@pytest.mark.parametrize("name", UNREAD)
def test_layers_without_weights_that_are_not_compared_are_named(name: str):
    x = floats(2, 4, 3)
    model = made(lambda L: functional(x, lambda start: UNREAD[name](L, L.Dense(3)(start))))
    with pytest.warns(UserWarning, match=f"does not compare .*{name} .*check that the network does the same"):
        from_keras(jn.dense(3), model, x)
