"""The convolutional LSTM against Keras, in pieces, and what it refuses."""

import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.layers.near import near, pull
from tests.oracle import floats, variables, witness
from tests.peers import keras

FILM, PULLED = floats(2, 4, 5, 6, 3), floats(2, 4, 5, 6, 2, seed=1)
KEY = jax.random.key(0)


@pytest.mark.parametrize("kernel_size", [3, (1, 5)])
def test_values_and_gradients_are_those_of_keras(kernel_size: Any):
    net = jn.conv_lstm(2, kernel_size)
    params, state = variables(net, FILM, scale=0.4)

    def theirs() -> dict[str, Any]:
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return of_keras()

    def of_keras() -> dict[str, Any]:
        layer = keras().layers.ConvLSTM2D(2, kernel_size, padding="same", return_sequences=True)
        layer.build(FILM.shape)
        layer.set_weights([params["kernel"], params["recurrent_kernel"], params["bias"]])

        def call(weights: Any, x: Any) -> Any:
            return layer.stateless_call(weights, layer.non_trainable_variables, x)[0]

        y, back = jax.vjp(call, [each.value for each in layer.trainable_variables], jnp.asarray(FILM))
        (kernel, recurrent, bias), dx = back(jnp.asarray(PULLED))
        return {"y": y, "dx": dx, "dkernel": kernel, "drecurrent_kernel": recurrent, "dbias": bias}

    want = witness(f"layers/conv_lstm_{np.prod(kernel_size)}", theirs,
                   installed=importlib.util.find_spec("keras") is not None)  # fmt: skip
    ours = pull(net, params, state, FILM, PULLED)
    near({name: ours[name] for name in want}, want, 1e-4)


def test_two_halves_equal_the_whole_and_the_last_is_the_last():
    net = jn.conv_lstm(2, return_carry=True)
    params, state = variables(net, FILM, scale=0.4)

    @jax.jit
    def run(x: Any) -> Any:
        whole = net.apply(params, state, x)[0]
        first, carry = net.apply(params, state, x[:, :2])[0]
        rest, end = net.apply(params, state, (x[:, 2:], carry))[0]
        last = jn.conv_lstm(2, return_sequences=False).apply(params, state, x)[0]
        half = jn.conv_lstm(2).apply(params, state, x.astype(jnp.bfloat16))[0]
        return whole, (jnp.concatenate([first, rest], 1), end), last, half

    (y, carry), (joined, end), last, half = run(FILM)
    near(joined, y)
    near(end.cell, carry.cell)
    near(last, y[:, -1])
    near(carry.hidden, y[:, -1])
    assert half.dtype == jnp.bfloat16
    near(half.astype(jnp.float32), y, 0.03)


def test_parameters_are_drawn_gate_by_gate():
    params, _ = jax.jit(jn.conv_lstm(8, forget_bias=2.0).init)(KEY, FILM)
    limit = np.sqrt(6 / (9 * (3 + 8)))  # Glorot uniform for the fans of one gate
    assert 0.9 * limit < np.abs(params["kernel"]).max() <= limit
    np.testing.assert_array_equal(params["bias"], np.repeat([0, 2, 0, 0], 8))
    assert "bias" not in jax.eval_shape(jn.conv_lstm(8, use_bias=False).init, KEY, FILM)[0]


@pytest.mark.parametrize(
    ("make", "x", "says"),
    [
        (lambda: jn.conv_lstm(0), FILM, "expects features"),
        (
            lambda: jn.conv_lstm(2, 4),
            FILM,
            r"conv_lstm\(2, 4\) expects kernel_size odd, an integer or a pair, got int 4",
        ),
        (lambda: jn.conv_lstm(2), FILM[0], r"expects \(batch, time, .* got \(4, 5, 6, 3\); add the missing axis"),
        (lambda: jn.conv_lstm(2), FILM[:, :0], "expects at least one frame"),
        (lambda: jn.conv_lstm(2), jn.Padded(FILM, np.array([1, 2])), "takes no Padded films"),
        (lambda: jn.conv_lstm(2), FILM.astype(int), "floating"),
    ],
)
def test_mistakes(make: Any, x: Any, says: str):
    with pytest.raises(jn.NetError, match=says):
        jax.eval_shape(make().init, KEY, x)


def test_other_sizes_are_told():
    net = jn.conv_lstm(2)
    params, state = variables(net, FILM)
    with pytest.raises(jn.NetError, match=r"kernel.*\(3, 3, 1, 8\)"):
        net.apply(params, state, FILM[..., :1])
    with pytest.raises(jn.NetError, match="expects the carry"):
        net.apply(params, state, (FILM, jn.LSTMCarry(np.zeros((2, 5, 5, 2)), np.zeros((2, 5, 5, 2)))))
