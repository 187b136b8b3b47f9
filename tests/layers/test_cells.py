"""One step of each cell: its formula in NumPy, how its parameters are drawn, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxnets as jn
from tests.oracle import floats

KEY = jax.random.key(0)
SMALL = jax.nn.initializers.normal(0.5)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rnn(p, h, x):
    h = np.tanh(x @ p["kernel"] + h @ p["recurrent_kernel"] + p["bias"])
    return h, h


def lstm(p, carry, x):
    """Gers, Schraudolph and Schmidhuber (2002), with the full carry; without peepholes p is zero."""
    c, h = carry
    width = h.shape[-1]
    W, U, b, peephole = p["kernel"], p["recurrent_kernel"], p["bias"], p.get("peephole", np.zeros((3, width)))
    gate = [x @ W[:, k : k + width] + h @ U[:, k : k + width] + b[k : k + width] for k in range(0, 4 * width, width)]
    i, f = sigmoid(gate[0] + peephole[0] * c), sigmoid(gate[1] + peephole[1] * c)
    new = f * c + i * np.tanh(gate[2])
    h = sigmoid(gate[3] + peephole[2] * new) * np.tanh(new)
    return jn.LSTMCarry(new, h), h


def gru_before(p, h, x):
    """Cho et al. (2014), equations 5 to 8; Keras with reset_after=False, whose gates stand z, r, n."""
    W_r, W_z, W_n = np.split(p["kernel"], 3, axis=1)
    U_r, U_z, U_n = np.split(p["recurrent_kernel"], 3, axis=1)
    b_r, b_z, b_n = np.split(p["bias"], 3)
    r, z = sigmoid(x @ W_r + h @ U_r + b_r), sigmoid(x @ W_z + h @ U_z + b_z)
    h = z * h + (1 - z) * np.tanh(x @ W_n + (r * h) @ U_n + b_n)
    return h, h


def gru_after(p, h, x):
    """Keras with reset_after=True: the product with U carries a bias of its own, which r gates too."""
    W_r, W_z, W_n = np.split(p["kernel"], 3, axis=1)
    U_r, U_z, U_n = np.split(p["recurrent_kernel"], 3, axis=1)
    b_r, b_z, b_n = np.split(p["bias"], 3)
    r, z = sigmoid(x @ W_r + h @ U_r + b_r), sigmoid(x @ W_z + h @ U_z + b_z)
    h = z * h + (1 - z) * np.tanh(x @ W_n + b_n + r * (h @ U_n + p["recurrent_bias"]))
    return h, h


CELLS = {
    "rnn": (lambda n: jn.rnn_cell(n, bias_init=SMALL), rnn),
    "lstm": (lambda n: jn.lstm_cell(n, bias_init=SMALL), lstm),
    "lstm_peepholes": (lambda n: jn.lstm_cell(n, bias_init=SMALL, peepholes=True, peephole_init=SMALL), lstm),
    "gru": (lambda n: jn.gru_cell(n, bias_init=SMALL), gru_after),
    "gru_reset_before": (lambda n: jn.gru_cell(n, bias_init=SMALL, reset_after=False), gru_before),
}
each_cell = pytest.mark.parametrize("name", CELLS)


@each_cell
@settings(max_examples=4)
@given(batch=st.integers(1, 4), width=st.integers(1, 5), features=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_step_equals_its_formula_in_numpy(name, batch, width, features, seed):
    make, reference = CELLS[name]
    with jax.enable_x64(True):
        cell, x = make(features), floats(batch, width, seed=seed).astype(float)

        def numbers(tree):
            return jax.tree.map(lambda leaf: floats(*leaf.shape, seed=seed + 1).astype(float), tree)

        params = numbers(jax.eval_shape(cell.init, KEY, x))
        drawn = numbers(jax.eval_shape(lambda: cell.initial_carry(batch, jnp.float64)))

        @jax.jit
        def steps(params, drawn, x):
            starts = cell.initial_carry(batch, jnp.float64), drawn
            return [(start, cell.step(params, start, x)) for start in starts]

        for start, got in steps(params, drawn, x):
            want = reference(params, jax.tree.map(np.asarray, start), x)
            assert jax.tree.structure(got) == jax.tree.structure(want)
            for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
                assert a.dtype == jnp.float64
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@each_cell
def test_parameters_are_drawn_gate_by_gate(name):
    params = CELLS[name][0](6).init(KEY, jnp.ones((1, 9)))
    gates = params["kernel"].shape[1] // 6
    limit = np.sqrt(6 / (9 + 6))  # Glorot uniform for the fans of one gate
    assert 0.9 * limit < np.abs(params["kernel"]).max() <= limit
    blocks = np.split(np.asarray(params["recurrent_kernel"]), gates, axis=1)
    for block in blocks:
        np.testing.assert_allclose(block @ block.T, np.eye(6), atol=1e-5)
    assert gates == 1 or not np.allclose(blocks[0], blocks[-1])


def test_forget_bias_is_the_forget_gates_part_of_the_bias():
    x = jnp.ones((1, 3))
    bias = jn.lstm_cell(2, forget_bias=2.5).init(KEY, x)["bias"]
    np.testing.assert_array_equal(bias, [0, 0, 2.5, 2.5, 0, 0, 0, 0])
    drawn = jn.lstm_cell(2, bias_init=SMALL).init(KEY, x)["bias"]
    assert (drawn[2:4] == 1).all()
    assert len(set(drawn.tolist())) == 7
    many = jax.jit(jax.vmap(lambda b: jn.lstm_cell(2, forget_bias=b).init(KEY, x)["bias"]))(jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(many[:, 2], [0, 1])


def test_peepholes_from_zero_start_as_without():
    x, carry = jnp.asarray(floats(3, 4)), jn.LSTMCarry(jnp.asarray(floats(3, 2)), jnp.asarray(floats(3, 2, seed=1)))
    cell = jn.lstm_cell(2, peepholes=True)
    params = cell.init(KEY, x)
    plain = {name: leaf for name, leaf in params.items() if name != "peephole"}
    for a, b in zip(
        jax.tree.leaves(cell.step(params, carry, x)),
        jax.tree.leaves(jn.lstm_cell(2).step(plain, carry, x)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_an_lstm_counts_in_float32_under_bfloat16():
    """A cell that adds 1/256 at every step: bfloat16 would stop at 1, where the spacing is 1/128."""
    cell = jn.lstm_cell(1)
    params = {"kernel": jnp.zeros((1, 4)), "recurrent_kernel": jnp.zeros((1, 4))}
    params["bias"] = jnp.array([30.0, 30.0, np.arctanh(1 / 256), 0.0])  # i = f = 1, g = 1/256
    net = jn.recurrent(cell, return_carry=True)
    (y, carry), _ = net.apply(params, {}, jnp.zeros((1, 512, 1), jnp.bfloat16))
    assert (y.dtype, carry.hidden.dtype, carry.cell.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(carry.cell, 2.0, rtol=4e-3)  # the bias itself is rounded to bfloat16


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@each_cell
def test_a_step_keeps_the_dtypes_of_the_carry(name, dtype):
    cell, x = CELLS[name][0](2), np.ones((3, 4), dtype)
    start = cell.initial_carry(3, dtype)
    carry, y = jax.eval_shape(lambda: cell.step(cell.init(KEY, x), start, x))
    assert y.dtype == dtype
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), carry) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), start
    )


MISTAKES = [
    (lambda: jn.rnn_cell(0), r"rnn_cell\(0\) expects features ≥ 1"),
    (lambda: jn.lstm_cell(2.5), r"lstm_cell\(2.5\) expects an integer for features"),  # type: ignore[arg-type]
    (lambda: jn.gru_cell(2).init(KEY, jnp.ones((1, 4, 3))), r"gru_cell\(2\) expects one step .*\(1, 4, 3\).*recurrent"),
    (lambda: jn.gru_cell(2).init(KEY, jnp.ones((1, 3), int)), r"gru_cell\(2\) expects floating.*jn.embed"),
    (lambda: jn.rnn_cell(2).init(3, jnp.ones((1, 3))), r"rnn_cell\(2\) expects a key"),  # type: ignore[arg-type]
    (
        lambda: jn.gru_cell(2).step(jn.gru_cell(2).init(KEY, jnp.ones((1, 5))), jnp.ones((1, 2)), jnp.ones((1, 3))),
        r"gru_cell\(2\) has kernel \(5, 6\), but input \(1, 3\) needs kernel \(3, 6\)",
    ),
    (
        lambda: jn.gru_cell(2).step(jn.rnn_cell(2).init(KEY, jnp.ones((1, 3))), jnp.ones((1, 2)), jnp.ones((1, 3))),
        r"gru_cell\(2\) needs the parameters kernel, .*recurrent_bias, got kernel, recurrent_kernel, bias",
    ),
    (
        lambda: jn.lstm_cell(2).step(
            jn.lstm_cell(2).init(KEY, jnp.ones((1, 3))), (jnp.ones((1, 2)), jnp.ones((1, 2))), jnp.ones((1, 3))
        ),
        r"lstm_cell\(2\) expects the carry LSTMCarry\(cell=\(1, 2\), hidden=\(1, 2\)\), got \(\(1, 2\), \(1, 2\)\)",
    ),
    (
        lambda: jn.rnn_cell(2).step(jn.rnn_cell(2).init(KEY, jnp.ones((1, 3))), jnp.ones((4, 2)), jnp.ones((1, 3))),
        r"rnn_cell\(2\) expects the carry \(1, 2\), got \(4, 2\)",
    ),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES)
def test_mistakes_are_named(mistake, message):
    with pytest.raises(jn.NetError, match=message):
        mistake()


@pytest.mark.parametrize("make", [jn.rnn_cell, jn.gru_cell, jn.lstm_cell])
@pytest.mark.parametrize("dtype", [jnp.int32, bool, jnp.complex64])
def test_a_carry_is_floating(make, dtype):
    with pytest.raises(
        jn.NetError, match=f"initial_carry expects a floating dtype, got {jnp.dtype(dtype)}; pass the dtype"
    ):
        make(3).initial_carry(2, dtype)
