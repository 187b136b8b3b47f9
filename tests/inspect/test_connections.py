"""Connections, against the table of LeNet and the Jacobians of layers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

import jaxnets as jn
from jaxnets.inspect import connections
from tests.inspect.test_counts import shaped
from tests.once import once
from tests.oracle import floats

# LeCun et al. (1998), section II.B: parameters and connections.
LENET = {
    **{"c1": (156, 122_304), "s2": (12, 5_880), "c3": (1_516, 151_600), "s4": (32, 2_000)},
    **{"c5": (48_120, 48_120), "f6": (10_164, 10_164), "output": (0, 840)},
}


@pytest.mark.parametrize("trainable", [False, True])
def test_lenets_table(trainable: bool):
    net = jn.models.lenet5_1998(trainable_codes=trainable)
    account = jn.summary(net, shaped(1, 32, 32, 1), columns=["parameters", "connections"])
    rows = {row.path: (row.parameters, row.connections) for row in account.rows if row.parameters or row.connections}
    assert rows == LENET | ({"output": (840, 840)} if trainable else {})
    assert account.total.connections == connections(net, shaped(1, 32, 32, 1)) == 340_908


def test_the_modern_lenet():
    net, x = jn.models.lenet5(), shaped(1, 28, 28, 1)
    account = jn.summary(net, x, columns=["connections"])
    inside = (np.convolve(np.ones(28), np.ones(5))[2:-2].sum() ** 2) * 6  # padding does not count
    by_layer = {"conv1": inside + 4704, "pool1": 1176 * 4, "conv2": 1600 * 151, "pool2": 400 * 4}
    by_layer |= {"fc1": 120 * 401, "fc2": 84 * 121, "fc3": 850}
    assert {row.path: row.connections for row in account.rows if row.connections} == by_layer
    assert connections(net, shaped(3, 28, 28, 1)) == 3 * connections(net, x)


def read(function: Callable, *shape: int) -> int:
    """Return how many pairs of an output and an input have a nonzero derivative at a random input."""
    return int((np.asarray(once(jax.jacobian(function), np.abs(floats(*shape)) + np.float32(0.1))) != 0).sum())


@given(
    places=st.tuples(st.integers(4, 7), st.integers(4, 7)),
    kernel_size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.integers(0, 1),
    ceil=st.booleans(),
)
def test_pools_read_their_windows(places: Any, kernel_size: Any, stride: Any, padding: int, ceil: bool):
    settings: dict[str, Any] = {"stride": stride, "padding": min(padding, min(kernel_size) - 1), "ceil_mode": ceil}
    mean, largest = (pool(kernel_size, **settings) for pool in (jn.avg_pool, jn.max_pool))
    x, n = shaped(1, *places, 2), places[0] * places[1]
    joined = 2 * np.count_nonzero(mean.apply({}, {}, np.eye(n, dtype=np.float32).reshape(n, *places, 1))[0])
    single = max(kernel_size) == 1  # each output reads one input at most, so there are no connections
    assert connections(mean, x) == connections(largest, x) == (0 if single else joined)


def long_window(x: jax.Array) -> jax.Array:
    return lax.reduce_window(
        x, np.float32(0), lax.add, (1, 3, 1), (1, 2, 1), [(0, 0), (2, 3), (0, 0)], window_dilation=(1, 2, 1)
    )


@pytest.mark.parametrize(
    "layer",
    [
        *(jn.adaptive_avg_pool(3), jn.adaptive_avg_pool(2), jn.global_avg_pool, jn.avg_pool((9, 9), padding=4)),
        *(jn.local_response_norm(3), jax.nn.softmax, lambda x: x.mean((0, 1), keepdims=True)),
        *(lambda x: jnp.cumsum(x, 1), lambda x: lax.cumsum(x, 2, reverse=True), lambda x: x[:, ::-1] + x * x),
        *(lambda x: jnp.concatenate([x, x.mean(1, keepdims=True)], 1), lambda x: jnp.diff(x, axis=2)),
        *(
            lambda x: sum(jnp.split(x, 2, axis=2)),
            lambda x: x.reshape(3, -1).sum(0),
        ),
        *(lambda x: jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1] + x, lambda x: long_window(x[..., 0])),
        *(lambda x: jnp.square(x[0, 0, :, None] - jnp.ones((6, 5, 4))).sum(-1), lambda x: x.sum(2) * x[:, :, 0]),
    ],
)
def test_layers_without_products_read_what_they_depend_on(layer: Any):
    net = jn.as_net(layer)
    assert connections(net, shaped(1, 6, 6, 4)) == read(lambda x: net.apply({}, {}, x)[0], 1, 6, 6, 4)


def test_maxima_read_their_bins():
    # Bins of 8 positions in 3: 3, 4 and 3; of 7 in 3: 3, 3 and 3; of 8 in 2: 4 and 4; of 7 in 2: 4 and 4.
    assert connections(jn.adaptive_max_pool(3), shaped(2, 8, 7, 4)) == 2 * 4 * 10 * 9
    assert connections(jn.adaptive_max_pool(2), shaped(2, 8, 7, 4)) == 2 * 4 * 8 * 8


def test_a_dependence_across_axes_has_an_upper_bound():
    def mirrored(x: jax.Array) -> jax.Array:
        return x[0] + x[0].swapaxes(0, 1)

    assert connections(mirrored, shaped(1, 6, 6, 4)) > read(mirrored, 1, 6, 6, 4)
    assert connections(lambda x: jnp.sort(x, 1), shaped(2, 3)) == 6 * 3
    # Without a rule every output may depend on every input.
    assert connections(jnp.linalg.cholesky, shaped(3, 3)) == 9 * 9


def test_pairs_of_examples_read_two_examples():
    def sums(x: jax.Array) -> jax.Array:
        return x[:, None] + x[None]

    assert connections(sums, shaped(3, 4)) == read(sums, 3, 4) == (6 * 2 + 3) * 4
    assert connections(lambda x: x[:, None] + 1.0, shaped(3, 4)) == 0


def test_elementwise_layers_have_no_connections():
    x = shaped(1, 6, 6, 4)
    for layer in (jnp.tanh, jn.flatten, lambda x: x * x + 2.0, lambda x: x[:, :, ::2], jn.dropout(0.5), jn.max_pool(1)):
        assert connections(jn.as_net(layer), x) == 0
    assert connections(jn.batch_norm(), x) == 144  # its biases
    assert connections(jn.prelu(), x) == 0


def test_kernels_assembled_from_parameters():
    def banded(x: Any) -> jn.Net:
        def apply(params: Any, x: Any) -> jax.Array:
            return x @ jnp.tril(params["kernel"])

        return jn.layer(lambda key, x: {"kernel": jnp.ones((5, 5))}, apply)

    x = shaped(3, 5)
    assert connections(banded(x), x) == 3 * 15
    assert connections(jn.repeat(jn.dense(5), 4), x) == 4 * connections(jn.dense(5), x) == 4 * 3 * 30
    assert connections(jn.ensemble(jn.dense(2), 4), x) == 4 * 3 * 12
    cell = jn.serial(jn.recurrent(jn.lstm_cell(4)))
    smooth = jn.repeat(jn.avg_pool((1, 3), stride=1, padding=((0, 0), (1, 1))), 4)
    assert connections(smooth, shaped(1, 2, 5, 1)) == 4 * 2 * 13
    assert connections(cell, shaped(2, 7, 3)) == 2 * 7 * (16 * (3 + 4) + 16)
    assert connections(lambda x: x @ x.T, shaped(3, 5)) == 45


def test_a_hidden_bias_counts_and_a_distance_has_none():
    def init(key: jax.Array, x: Any) -> Any:
        return {"first": jnp.ones((4, 3)), "bias": jnp.ones(3), "second": jnp.ones((3, 2)), "codes": jnp.ones((6, 2))}

    def apply(params: Any, x: Any) -> jax.Array:
        hidden = jnp.tanh(x @ params["first"] + params["bias"][None])
        y = hidden @ params["second"]
        return jnp.square(y[:, None] - params["codes"][None]).sum(-1)

    assert connections(jn.layer(init, apply), shaped(1, 4)) == 12 + 3 + 6


def test_stacking_and_unstacking_keep_the_dependence():
    """Each sum reads one number of every stacked array, whatever the axis."""
    x = shaped(1, 3, 4)
    assert connections(lambda x: jnp.stack([x[:, 0], x[:, 1]], -1).sum(-1), x) == 4 * 2
    assert connections(lambda x: jnp.stack([x[:, 0], x[:, 1], x[:, 2]], 1).sum(2), x) == 3 * 4
    assert connections(lambda x: sum(jnp.unstack(x, axis=2)), x) == 3 * 4
