"""Recurrent scans: values and every derivative against the plain loop over a cell's step, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxnets as jn
from jaxnets import Padded
from jaxnets.ops.recurrent import GRU, LSTM, RNN_RELU, RNN_TANH, recurrent_scan
from jaxnets.tracing.jaxprs import scan_parts
from tests.once import once
from tests.oracle import floats, normal_like, variables

WIDTH, FEATURES = 3, 2
KINDS = {
    "rnn": (functools.partial(recurrent_scan, RNN_TANH), jn.rnn_cell(FEATURES)),
    "rnn_relu": (functools.partial(recurrent_scan, RNN_RELU), jn.rnn_cell(FEATURES, activation=jax.nn.relu)),
    "lstm": (functools.partial(recurrent_scan, LSTM), jn.lstm_cell(FEATURES)),
    "lstm_no_bias": (functools.partial(recurrent_scan, LSTM), jn.lstm_cell(FEATURES, use_bias=False)),
    "gru": (functools.partial(recurrent_scan, GRU), jn.gru_cell(FEATURES)),
    "gru_no_bias": (functools.partial(recurrent_scan, GRU), jn.gru_cell(FEATURES, use_bias=False)),
}


def plain(cell, params, carry, x, mask, reverse):
    """Loop over the cell's step; behind a sequence's end keep the carry and give zero."""

    def step(carry, now):
        x, real = now
        new, y = cell.step(params, carry, x)
        real = real[:, None]
        return jax.tree.map(lambda a, b: jnp.where(real, a, b), new, carry), jnp.where(real, y, 0 * y)

    return jax.lax.scan(step, carry, (x, jnp.ones(x.shape[:2], bool) if mask is None else mask), reverse=reverse)


def drawn(kind, time, batch, lengths=None, seed=0):
    """Return (parameters, carry, inputs), a direction of the same structure, and the mask."""
    cell = KINDS[kind][1]
    params = jax.eval_shape(cell.init, jax.random.key(0), np.zeros((batch, WIDTH)))
    carry = jax.eval_shape(lambda: cell.initial_carry(batch, jnp.float64))
    like = params, carry, jax.ShapeDtypeStruct((time, batch, WIDTH), jnp.float64)
    mask = None if lengths is None else np.arange(time)[:, None] < np.array(lengths, int)[None]
    return normal_like(like, seed=seed, dtype=np.float64), normal_like(like, seed=seed + 9, dtype=np.float64), mask


def same(actual, expected, tolerance=1e-12):
    left, right = jax.tree.leaves(actual), jax.tree.leaves(expected)
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max(initial=0)))


def loss(outputs):
    return sum((jnp.sin(leaf) * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape)).sum() for leaf in outputs)


def everything(run, args, direction):
    """Return values and derivatives of a scan: first and second, both modes, of members too."""

    def value(*args):
        return loss(jax.tree.leaves(run(*args)))

    gradient = jax.grad(value, (0, 1, 2))
    members = jax.tree.map(lambda a, b: jnp.stack([a, b, a - b]), args, direction)
    return {
        "value": run(*args),
        "gradient": gradient(*args),
        "jvp": jax.jvp(run, args, direction),
        "forward over reverse": jax.jvp(gradient, args, direction)[1],
        "reverse over reverse": jax.vjp(gradient, *args)[1](direction),
        "reverse over forward": jax.grad(lambda args: jax.jvp(value, args, direction)[1])(args),
        "members": jax.vmap(gradient)(*members),
        "members of weights": jax.vmap(gradient, (0, None, None))(members[0], *args[1:]),
        "checkpoint": jax.grad(jax.checkpoint(value))(*args),
    }


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
@jax.enable_x64(True)
@pytest.mark.slow_cases("rnn")
def test_values_and_gradients_of_members(kind):
    """Backwards, over sequences of several lengths."""
    scan, cell = KINDS[kind]
    args, others, mask = drawn(kind, 4, 3, [4, 0, 2])
    members = jax.tree.map(lambda a, b: np.stack([a, b]), args, others)

    def derivatives(of, *args):
        def total(*args):
            outputs = of(*args, mask, reverse=True)
            return loss(jax.tree.leaves(outputs)), outputs

        return jax.grad(total, (0, 1, 2), has_aux=True)(*args)

    ways = [functools.partial(derivatives, of) for of in (scan, functools.partial(plain, cell))]
    same(*once(lambda members: [jax.vmap(way)(*members) for way in ways], members))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "reverse"), [("rnn", False), ("lstm", True), ("gru", False)])
def test_every_derivative_is_the_plain_loops(kind, reverse):
    scan, cell = KINDS[kind]
    with jax.enable_x64(True):
        args, direction, mask = drawn(kind, 4, 3, [4, 0, 2])

        def both(args, direction):
            ours = everything(lambda p, c, x: scan(p, c, x, mask, reverse=reverse), args, direction)
            return ours, everything(lambda p, c, x: plain(cell, p, c, x, mask, reverse), args, direction)

        ours, theirs = once(both, args, direction)
        for name in theirs:
            same(ours[name], theirs[name])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
@settings(max_examples=4)
@given(time=st.integers(0, 5), batch=st.integers(1, 3), data=st.data())
def test_values_and_gradients_of_any_shape(kind, time, batch, data):
    scan, cell = KINDS[kind]
    lengths = data.draw(st.none() | st.lists(st.integers(0, time), min_size=batch, max_size=batch))
    reverse, unroll = data.draw(st.booleans()), data.draw(st.integers(1, 2))
    with jax.enable_x64(True):
        args, _, mask = drawn(kind, time, batch, lengths, seed=time)

        def run(of, args):
            outputs, pull = jax.vjp(lambda *args: loss(jax.tree.leaves(of(*args))), *args)
            return outputs, pull(jnp.ones(()))

        ours = jax.jit(lambda a: run(lambda p, c, x: scan(p, c, x, mask, reverse=reverse, unroll=unroll), a))(args)
        theirs = jax.jit(lambda a: run(lambda p, c, x: plain(cell, p, c, x, mask, reverse), a))(args)
        same(ours, theirs)


@pytest.mark.parametrize("kind", ["rnn_relu", "lstm_no_bias", "gru"])
@pytest.mark.slow
def test_gradients_by_one_argument_alone_and_the_hessian(kind):
    """What is not asked for is not computed, which must not change what is."""
    scan, cell = KINDS[kind]
    with jax.enable_x64(True):
        (params, carry, x), _, _ = drawn(kind, 3, 2)

        def value(of, params, carry, x):
            return loss(jax.tree.leaves(of(params, carry, x, None, reverse=False)))

        def derivatives(of):
            by_bias = {k: jax.grad(lambda b, k=k: value(of, params | {k: b}, carry, x))(params[k]) for k in params}
            by_carry, by_x = (jax.grad(functools.partial(value, of), place)(params, carry, x) for place in (1, 2))
            return by_bias, by_carry, by_x, jax.hessian(functools.partial(value, of, params, carry))(x)

        same(*once(lambda: [derivatives(of) for of in (scan, functools.partial(plain, cell))]))


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_nan_is_handed_on_to_later_steps_of_the_same_sequence(kind):
    scan, cell = KINDS[kind]
    x = floats(4, 2, WIDTH)
    x[1, 0] = np.nan
    _, y = jax.jit(lambda params, x: scan(params, cell.initial_carry(2, x.dtype), x))(variables(cell, x[0]), x)
    np.testing.assert_array_equal(np.isnan(y).any(-1), [[False, False], *[[True, False]] * 3])


def test_large_gates_saturate():
    params = {"kernel": np.full((1, 4), 1e4, np.float32), "recurrent_kernel": np.zeros((1, 4), np.float32)}

    @jax.jit
    @jax.value_and_grad
    def total(x):
        zeros = jnp.zeros((1, 1))
        return recurrent_scan(LSTM, params, (zeros, zeros), x)[0][0].sum()

    for sign, c in ((1.0, 3.0), (-1.0, 0.0)):
        value, slope = total(np.full((3, 1, 1), sign, np.float32))
        assert float(value) == c
        np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
@pytest.mark.slow_cases("rnn", "gru")
def test_bfloat16_is_near_float32(kind):
    scan, cell = KINDS[kind]
    x = floats(6, 4, WIDTH)

    def run(params, x):
        def total(params, x):
            y = scan(params, cell.initial_carry(4, x.dtype), x)[1]
            return jnp.square(y.astype(jnp.float32)).sum(), y

        return jax.grad(total, (0, 1), has_aux=True)(params, x)

    def both(*wide):
        return run(*jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), wide)), run(*wide)

    narrow, wide = once(both, variables(cell, x[0]), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow)} == {jnp.dtype(jnp.bfloat16)}
    same(jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), narrow), wide, 4e-2)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_weight_gradients_are_single_products(kind):
    """The gradient has one product a step in its reverse scan, which carries no sum of the size of the weights."""
    scan, cell = KINDS[kind]
    x = np.ones((5, 4, WIDTH), np.float32)

    def total(params, x):
        return scan(params, cell.initial_carry(4, x.dtype), x)[1].sum()

    program = jax.make_jaxpr(jax.grad(total, (0, 1)))(variables(cell, x[0]), x)
    loops = [eqn for eqn in program.eqns if eqn.primitive.name == "scan"]
    scans = [scan_parts(loop) for loop in loops]
    products = [str(each.body).count("dot_general") for each in scans]
    assert products == [2 if kind == "gru" else 1, 1]
    carried = [aval.size for aval in scans[1].outputs(scans[1].body.out_avals)[0]]
    assert max(carried) == 4 * FEATURES  # no weight's gradient is among what the reverse scan carries


def test_export_to_another_platform():
    x = floats(5, 4, WIDTH)
    params = {kind: variables(KINDS[kind][1], x[0]) for kind in ("lstm", "gru")}

    @jax.jit
    @jax.grad
    def gradient(params, x):
        each = [(*KINDS[kind], own) for kind, own in params.items()]
        return sum(scan(own, cell.initial_carry(4, x.dtype), x)[1].sum() for scan, cell, own in each)

    exported = jax.export.export(gradient, platforms=["cpu", "cuda", "tpu"])(params, x)
    same(exported.call(params, x), gradient(params, x), 1e-6)


def test_layers_scan_with_their_cells_own_and_others_step_by_step():
    own = {name for name, (_, cell) in KINDS.items() if cell.scan is not None}
    assert own == set(KINDS)
    for cell in (
        jn.lstm_cell(2, peepholes=True),
        jn.gru_cell(2, reset_after=False),
        jn.rnn_cell(2, activation=jax.nn.silu),
    ):
        assert cell.scan is None
    x = Padded(floats(3, 4, WIDTH), np.array([4, 0, 2], np.int32))
    for cell in (jn.rnn_cell(FEATURES), jn.lstm_cell(FEATURES)):
        bare = jn.Cell(cell.init, cell.step, cell.initial_carry, cell.features)
        hows = [{"reverse": reverse, "return_sequences": reverse, "return_carry": True} for reverse in (True, False)]
        params = variables(jn.recurrent(cell), x)[0]

        def both(params, x, cells=(cell, bare), hows=hows):
            return [[jn.recurrent(cell, **how).apply(params, {}, x)[0] for how in hows] for cell in cells]

        fast, slow = once(both, params, x)
        same(fast, slow, 1e-6)
