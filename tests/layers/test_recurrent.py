"""Sequences: padding, carries handed on, dropout between cells, both directions, and what is refused."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxnets as jn
from jaxnets import Padded
from jaxnets.core.net import spec
from tests.layers.near import call, near
from tests.oracle import floats, integers, normal_like, variables

KEY = jax.random.key(3)
BATCH, TIME, WIDTH = 3, 4, 3
X = floats(BATCH, TIME, WIDTH)
NETS = {
    "rnn": jn.recurrent(jn.rnn_cell(2), return_carry=True),
    "lstm": jn.recurrent(jn.lstm_cell(2, peepholes=True), return_sequences=False, return_carry=True),
    "gru_reverse": jn.recurrent(jn.gru_cell(2, reset_after=False), reverse=True, return_carry=True),
    "last_reverse": jn.recurrent(jn.gru_cell(2), reverse=True, return_sequences=False, return_carry=True),
    "stacked": jn.recurrent(jn.gru_cell(3), jn.lstm_cell(2), return_carry=True),
    "bidirectional": jn.bidirectional(jn.gru_cell(2), return_carry=True),
    "bidirectional_last": jn.bidirectional(jn.rnn_cell(2), jn.lstm_cell(2), return_sequences=False, return_carry=True),
}
each_net = pytest.mark.parametrize("name", NETS)


def prepare(name):
    """Return parameters, the outputs' spec and a carry to start from."""
    net = NETS[name]
    params, _ = jax.eval_shape(net.init, KEY, X)
    (y, carry), _ = jax.eval_shape(net.apply, params, {}, X)
    return normal_like(params, seed=5), y, normal_like(carry, seed=15)


def weighted(name):
    """Return a jitted `(params, x, carry, weights) -> outputs, gradients` for a weighted sum of all outputs."""

    def loss(params, x, carry, weights):
        (y, last), _ = NETS[name].apply(params, {}, (x, carry))
        y = y.values if isinstance(y, Padded) else y
        return sum(jax.tree.leaves(jax.tree.map(lambda a, b: (a * b).sum(), (y, last), weights))), (y, last)

    def run(params, values, lengths, carry, weights):
        def of(params, values, carry):
            return loss(params, values if lengths is None else Padded(values, lengths), carry, weights)

        gradients, outputs = jax.grad(of, (0, 1, 2), has_aux=True)(params, values, carry)
        return outputs, gradients

    return jax.jit(run)


RUNS = {name: weighted(name) for name in NETS}


def same(left, right, tolerance):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        near(a, b, tolerance)


@each_net
@pytest.mark.slow_cases(*(name for name in NETS if name != "gru_reverse"))
@given(lengths=st.lists(st.integers(0, TIME), min_size=BATCH, max_size=BATCH), seed=st.integers(0, 99))
def test_a_padded_batch_equals_its_sequences_run_alone(name, lengths, seed):
    params, y, carry = prepare(name)
    weights = normal_like((y, carry), seed=seed)
    values = floats(BATCH, TIME, WIDTH, seed=seed)
    for i, length in enumerate(lengths):
        values[i, length:] = (np.nan, np.inf, 1e30)
    (ys, last), (dparams, dvalues, dcarry) = RUNS[name](params, values, np.array(lengths, np.int32), carry, weights)
    total = jax.tree.map(np.zeros_like, params)
    for i, length in enumerate(lengths):
        one = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], (carry, weights[1]))
        own = weights[0][i : i + 1] if y.ndim == 2 else weights[0][i : i + 1, :length]
        (y1, last1), (dp, dv, dc) = RUNS[name](params, values[i : i + 1, :length], None, one[0], (own, one[1]))
        near(ys[i : i + 1] if y.ndim == 2 else ys[i : i + 1, :length], y1, 1e-6)
        same(jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], (last, dcarry)), (last1, dc), 2e-6)
        near(dvalues[i : i + 1, :length], dv, 2e-6)
        assert not np.any(dvalues[i, length:])
        assert y.ndim == 2 or not np.any(ys[i, length:])
        if length == 0:
            same(jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], last), one[0], 0.0)
            assert not np.any(ys[i])
        total = jax.tree.map(np.add, total, dp)
    same(dparams, total, 5e-6)


@each_net
@pytest.mark.slow_cases("rnn", "last_reverse", "bidirectional_last")
def test_padding_does_not_change_a_bit(name):
    params, y, carry = prepare(name)
    lengths, weights = np.array([0, 2, 4], np.int32), normal_like((y, carry), seed=5)
    behind = np.arange(TIME)[None, :, None] >= lengths[:, None, None]
    zeros, garbage = (RUNS[name](params, np.where(behind, v, X), lengths, carry, weights) for v in (0.0, np.nan))
    for a, b in zip(jax.tree.leaves(zeros), jax.tree.leaves(garbage), strict=True):
        np.testing.assert_array_equal(a, b)


@functools.cache
def in_pieces(name, cuts):
    """Return a jitted function for outputs and gradients of the pieces between cuts, each from the carry before it."""

    def loss(params, x, lengths, last, weights):
        ys = []
        for start, stop in itertools.pairwise(cuts):
            piece = Padded(x[:, start:stop], jnp.clip(lengths - start, 0, stop - start))
            (out, last), _ = NETS[name].apply(params, {}, (piece, last))
            ys.append(out.values)
        outputs = jnp.concatenate(ys, 1), last
        return sum(jax.tree.leaves(jax.tree.map(lambda a, b: (a * b).sum(), outputs, weights))), outputs

    return jax.jit(jax.grad(loss, (0, 1), has_aux=True))


@pytest.mark.parametrize("name", ["rnn", "stacked"])
@settings(max_examples=6)
@given(cut=st.integers(0, TIME), lengths=st.lists(st.integers(0, TIME), min_size=BATCH, max_size=BATCH))
@pytest.mark.slow_cases("stacked")
def test_two_pieces_with_the_carry_passed_on_equal_the_whole(name, cut, lengths):
    params, y, carry = prepare(name)
    weights = normal_like((y, carry), seed=5)
    given = params, X, np.array(lengths, np.int32), carry, weights
    whole, pieces = (in_pieces(name, cuts)(*given) for cuts in ((0, TIME), (0, cut, TIME)))
    same(pieces, whole, 2e-6)


def test_no_carry_starts_from_the_cells_own():
    net = jn.recurrent(jn.lstm_cell(2), return_carry=True)
    params, _ = net.init(KEY, X)
    start = jn.lstm_cell(2).initial_carry(BATCH, jnp.float32)
    for x in (X, (X, None), (X, start)):
        same(net.apply(params, {}, x)[0], net.apply(params, {}, X)[0], 0.0)


@pytest.mark.parametrize("name", ["lstm", "gru_reverse", "bidirectional"])
@pytest.mark.parametrize("shape", [(1, 0), (1, 1), (2, 0)])
def test_short_sequences_and_small_batches(name, shape):
    net, x = NETS[name], floats(*shape, WIDTH)
    params, y, _ = prepare(name)
    (out, last), _ = call(net, params, {}, x)
    assert out.shape == (shape[0], *y.shape[1:]) if y.ndim == 2 else (*shape, y.shape[-1])
    if shape[1] == 0:
        assert not any(np.any(leaf) for leaf in jax.tree.leaves((out, last)))


@pytest.mark.parametrize("name", ["lstm", "bidirectional"])
def test_a_batch_split_over_devices_equals_the_whole(name):
    params, _, _ = prepare(name)
    x = Padded(floats(4, TIME, WIDTH), np.array([4, 0, 3, 1], np.int32))
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    split, whole = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()

    def run(params, x):
        return NETS[name].apply(params, {}, x)[0]

    sharded = jax.shard_map(run, mesh=mesh, in_specs=(whole, split), out_specs=split, check_vma=False)
    same(jax.jit(sharded)(params, x), run(params, x), 1e-6)


def test_reverse_runs_the_real_steps_backwards():
    lengths = np.array([4, 2, 3], np.int32)
    forward, backward = (jn.recurrent(jn.gru_cell(2), reverse=reverse) for reverse in (False, True))
    params, _ = forward.init(KEY, X)

    def flip(values):
        flipped = np.zeros_like(values)
        for i, length in enumerate(lengths):
            flipped[i, :length] = values[i, :length][::-1]
        return flipped

    y, _ = call(backward, params, {}, Padded(X, lengths))
    flipped, _ = call(forward, params, {}, Padded(flip(X), lengths))
    near(y.values, flip(np.asarray(flipped.values)), 1e-6)


def test_a_stack_equals_its_cells_one_after_another():
    first, second = jn.gru_cell(3), jn.lstm_cell(2)
    params, _ = jn.recurrent(first, second).init(KEY, X)
    assert spec(params) == jax.eval_shape(lambda: jn.serial(jn.recurrent(first), jn.recurrent(second)).init(KEY, X)[0])
    y, _ = call(jn.recurrent(first, second), params, {}, X)
    want, _ = call(jn.serial(jn.recurrent(first), jn.recurrent(second)), params, {}, X)
    near(y, want, 1e-6)


def test_dropout_is_between_cells_and_new_at_every_step():
    """With cells that hand their input on, an output is 0 or x / (1 - rate), dropped once and by itself."""
    cell = jn.rnn_cell(8, activation=lambda h: h, use_bias=False)
    net, x = jn.recurrent(cell, cell, dropout=0.5), np.abs(floats(3, 40, 8)) + 1
    own = {"kernel": jnp.eye(8), "recurrent_kernel": jnp.zeros((8, 8))}
    params = {"0": own, "1": own}
    near(call(net, params, {}, x, key=KEY)[0], x)
    y, _ = call(net, params, {}, x, key=KEY, train=True)
    kept = np.asarray(y) != 0
    near(y, np.where(kept, 2 * x, 0))
    assert abs(kept.mean() - 0.5) < 0.05
    assert not (kept[:, 1:] == kept[:, :-1]).all(axis=(1, 2)).any()
    three = jn.recurrent(cell, cell, cell, dropout=0.5)
    y, _ = call(three, params | {"2": own}, {}, x, key=KEY, train=True)
    assert abs((np.asarray(y) != 0).mean() - 0.25) < 0.05  # two places drop, each by itself
    near(y, np.where(np.asarray(y) != 0, 4 * x, 0))


def test_a_rate_may_be_traced_and_a_rate_of_zero_needs_no_key():
    cells = jn.rnn_cell(3), jn.rnn_cell(2)
    params, _ = variables(jn.recurrent(*cells), X)

    @jax.jit
    def program(params, rates):
        def run(rate):
            return jn.recurrent(*cells, dropout=rate).apply(params, {}, X, key=KEY, train=True)[0]

        without, _ = jn.recurrent(*cells, dropout=0.0).apply(params, {}, X, train=True)
        evaluated, _ = jn.recurrent(*cells, dropout=0.5).apply(params, {}, X)
        return without, evaluated, jax.vmap(run)(rates), [run(0.25), run(0.5)]

    without, evaluated, together, alone = program(params, jnp.array([0.25, 0.5]))
    same(without, evaluated, 0.0)
    for k in range(2):
        near(together[k], alone[k], 1e-6)


def test_bidirectional_equals_two_directions_concatenated():
    padded = Padded(X, np.array([4, 1, 3], np.int32))
    forward, backward = jn.gru_cell(2), jn.lstm_cell(2)
    params, _ = variables(jn.bidirectional(forward, backward), X)

    @functools.partial(jax.jit, static_argnums=2)
    def run(params, padded, sequences):
        def values(net, params):
            y = net.apply(params, {}, padded)[0]
            return y.values if sequences else y

        nets = [
            jn.bidirectional(forward, backward, merge=merge, return_sequences=sequences)
            for merge in ("concatenate", jnp.multiply)
        ]
        f = values(jn.recurrent(forward, return_sequences=sequences), params["forward"])
        b = values(jn.recurrent(backward, return_sequences=sequences, reverse=True), params["backward"])
        return [values(net, params) for net in nets], [jnp.concatenate([f, b], -1), f * b]

    for sequences in (True, False):
        for found, want in zip(*run(params, padded, sequences), strict=True):
            near(found, want, 1e-6)


def test_directions_have_separate_parameters():
    params, _ = jn.bidirectional(jn.gru_cell(2)).init(KEY, X)
    assert not np.allclose(params["forward"]["kernel"], params["backward"]["kernel"])


def test_embedding_recurrence_and_output_ignore_padding():
    net = jn.serial(embed=jn.embed(9, 4), rnn=jn.bidirectional(jn.lstm_cell(3)), relu=jax.nn.relu, out=jn.dense(2))
    indices, lengths = integers(3, 5, high=9), np.array([5, 0, 2], np.int32)
    params, state = variables(net, Padded(indices, lengths))
    behind = np.arange(5)[None] >= lengths[:, None]
    outputs = []
    for filler in (0, 8):
        x = Padded(np.where(behind, filler, indices), lengths)
        y, _ = call(net, params, state, x)
        outputs.append(Padded(y.values, y.lengths).zeroed())
    np.testing.assert_array_equal(*outputs)
    alone, _ = call(net, params, state, indices[2:, :2])
    near(outputs[0][2:, :2], alone, 1e-6)


def test_a_custom_cell_runs_like_any_other():
    """A cell with a dict for its carry: a running mean, which a scan over the real steps must give."""

    def step(params, carry, x):
        count, total = carry["count"] + 1, carry["total"] + x
        return {"count": count, "total": total}, params["scale"] * total / count

    mean = jn.Cell(
        init=lambda key, x: {"scale": jnp.ones((), x.dtype)},
        step=step,
        initial_carry=lambda n, dtype: {"count": jnp.zeros((n, 1), dtype), "total": jnp.zeros((n, WIDTH), dtype)},
        features=WIDTH,
        label="mean",
    )
    net, lengths = jn.recurrent(mean, return_sequences=False), np.array([4, 1, 2], np.int32)
    assert repr(net) == "recurrent(mean, return_sequences=False)"
    params, _ = net.init(KEY, X)
    y, _ = call(net, params, {}, Padded(X, lengths))
    near(y, np.stack([X[i, :length].mean(0) for i, length in enumerate(lengths)]), 1e-6)


def test_a_cell_may_hold_a_traced_number():
    """A slope in an activation, mapped over and differentiated, leaves no tracer behind."""
    params, _ = variables(jn.recurrent(jn.rnn_cell(2)), X)

    def total(slope):
        cell = jn.rnn_cell(2, activation=lambda h: jnp.tanh(slope * h))
        return jn.recurrent(cell).apply(params, {}, X)[0].sum()

    slopes = jnp.array([0.5, 1.0, 2.0])
    with jax.checking_leaks():
        values, slants = jax.jit(jax.vmap(jax.value_and_grad(total)))(slopes)
    alone = jax.jit(total)
    for k, slope in enumerate(slopes):
        near(values[k], alone(slope))
        near(slants[k], (alone(slope + 1e-2) - alone(slope - 1e-2)) / 2e-2, 1e-3)


@pytest.mark.parametrize("output", [jnp.float32, jnp.bfloat16])
def test_mixed_precision_keeps_the_carries_dtypes(output):
    inner = jn.recurrent(jn.lstm_cell(3), jn.rnn_cell(2), return_carry=True)
    net, x = jn.cast(inner, jn.Policy(output=output)), Padded(X, np.array([4, 0, 2], np.int32))
    params, state = variables(net, x)
    (y, carry), _ = call(net, params, state, x)
    (again, _), _ = call(net, params, state, (x, carry))
    assert {leaf.dtype for leaf in jax.tree.leaves((y.values, again.values, carry))} == {jnp.dtype(output)}
    full, _ = call(inner, params, {}, x)
    near(y.values, full[0].values, 2e-2)


NOT_CELLS = [
    (jn.lstm_cell, r"^recurrent\(lstm_cell\) expects cells .*got the constructor lstm_cell: call it, lstm_cell\(...\)"),
    (jn.dense(3), r"expects cells .*got the network dense\(3\); stack networks with jn.serial"),
    ([jn.rnn_cell(2)], r"expects cells .*got list \[rnn_cell\(2\)\]; unpack it with \*"),
    (jnp.tanh, r"expects cells .*got .*tanh"),
    (64, r"^recurrent\(64\) expects cells such as jn.lstm_cell\(64\), got int 64"),
]


@pytest.mark.parametrize(("cell", "message"), NOT_CELLS)
def test_arguments_that_are_not_cells_raise(cell, message):
    with pytest.raises(jn.NetError, match=message):
        jn.recurrent(cell)
    with pytest.raises(jn.NetError, match=message.split(") ", 1)[-1]):
        jn.bidirectional(jn.rnn_cell(2), cell)  # type: ignore[arg-type]


MISTAKES = [
    (jn.recurrent, r"^recurrent\(\) expects at least one cell"),
    (lambda: jn.bidirectional(jn.gru_cell(2), merge="sum"), r"expects merge 'concatenate' or a function .*got 'sum'"),
    (
        lambda: jn.recurrent(jn.rnn_cell(2), jn.rnn_cell(2), dropout=50),
        r"expects rate in \[0, 1\), got 50; 50 % is 0.5",
    ),
    (lambda: jn.recurrent(jn.rnn_cell(2), dropout=0.5), r"has one cell, and dropout acts between cells"),
    (lambda: jn.recurrent(jn.rnn_cell(2), unroll=0), r"expects unroll ≥ 1"),
    (
        lambda: jn.bidirectional(jn.rnn_cell(2), layers=0),
        r"^bidirectional\(rnn_cell\(2\), layers=0\) expects layers ≥ 1",
    ),
    (lambda: jn.bidirectional(jn.rnn_cell(2), dropout=0.5), r"has one layer, and dropout acts between layers"),
    (lambda: jn.bidirectional(jn.rnn_cell(2), layers=2, dropout=2), r"expects rate in \[0, 1\), got 2"),
]


def test_bidirectional_layers_equal_a_serial_with_carries_passed_on():
    """The same parameters, outputs and dropout as by `serial`; values with carries are compared with PyTorch's."""
    cell, rate = jn.gru_cell(2), 0.5
    net = jn.bidirectional(cell, layers=2, dropout=rate, return_sequences=False)
    both = [jn.bidirectional(cell), jn.bidirectional(cell, return_sequences=False)]
    chain = jn.serial(**{"0": both[0], "dropout1": jn.dropout(rate), "1": both[1]})
    params, _ = net.init(KEY, X)
    near(params, chain.init(KEY, X)[0], 0)
    runs = [(each, train) for train in (False, True) for each in (net, chain)]
    outputs = jax.jit(lambda params: [each.apply(params, {}, X, key=KEY, train=train)[0] for each, train in runs])(
        params
    )
    for found, wanted in (outputs[:2], outputs[2:]):
        near(found, wanted, 1e-6)
    with pytest.raises(jn.NetError, match=r"rnn: bidirectional\(.*\) is random in training and needs a key"):
        jn.serial(rnn=net).apply({"rnn": params}, {}, X, train=True)
    net = jn.bidirectional(cell, layers=2, return_carry=True)
    (_, carry), _ = jax.eval_shape(net.apply, params, {}, X)
    assert jax.tree.map(jnp.shape, carry) == (((BATCH, 2),) * 2,) * 2
    with pytest.raises(
        jn.NetError, match=r"expects the carry \(\(\(3, 2\), \(3, 2\)\), \(\(3, 2\), .*got \(\(3, 2\), "
    ):
        net.apply(params, {}, (X, carry[0]))


@pytest.mark.parametrize(("mistake", "message"), MISTAKES)
def test_mistakes_in_the_making_are_named(mistake, message):
    with pytest.raises(jn.NetError, match=message):
        mistake()


def test_serial_refuses_a_bare_cell():
    for cell, message in (
        (jn.lstm_cell, "constructor lstm_cell: call it"),
        (jn.lstm_cell(2), r"got Cell lstm_cell\(2\)"),
    ):
        with pytest.raises(TypeError, match=message):
            jn.serial(cell)  # type: ignore[arg-type]


ONE, TWO = jn.recurrent(jn.gru_cell(2)), jn.recurrent(jn.gru_cell(2), jn.lstm_cell(2))
BOTH = jn.bidirectional(jn.rnn_cell(2))
H = floats(BATCH, 2)
WRONG_INPUTS = [
    (ONE, X[0], r"^rnn: recurrent\(gru_cell\(2\)\) expects \(batch, time, features\), got \(4, 3\); add an axis"),
    (ONE, X[None], r"expects \(batch, time, features\), got \(1, 3, 4, 3\)"),
    (TWO, X[0], r"^rnn: recurrent\(gru_cell\(2\), lstm_cell\(2\)\) expects \(batch, time, features\)"),
    (ONE, X.astype(np.int32), r"^rnn: recurrent.* expects floating input, got int32 .*jn.embed"),
    (ONE, Padded(X.astype(np.int32), np.array([1, 2, 3])), r"expects floating input"),
    (ONE, [[1.0]], r"expects an array, got list"),
    (ONE, (X, H, H), r"expects x or \(x, carry\), got a tuple of 3"),
    (ONE, (X, H[:2]), r"^rnn: recurrent\(gru_cell\(2\)\) expects the carry \(3, 2\), got \(2, 2\); pass the carry"),
    (ONE, (X, (H, H)), r"expects the carry \(3, 2\), got \(\(3, 2\), \(3, 2\)\)"),
    (TWO, (X, H), r"expects the carry \(\(3, 2\), LSTMCarry\(cell=\(3, 2\), hidden=\(3, 2\)\)\), got \(3, 2\)"),
    (TWO, (X, (H, (H, H))), r"expects the carry .*LSTMCarry.*got \(\(3, 2\), \(\(3, 2\), \(3, 2\)\)\)"),
    (BOTH, (X, H), r"^rnn: bidirectional\(rnn_cell\(2\)\) expects the carry \(\(3, 2\), \(3, 2\)\), got \(3, 2\)"),
    (
        ONE,
        floats(3, 4, 5),
        r"^rnn: recurrent\(gru_cell\(2\)\) has kernel \(3, 6\), but input \(3, 5\) needs kernel \(5, 6\)",
    ),
    (TWO, floats(3, 4, 5), r"^rnn/0: gru_cell\(2\) has kernel \(3, 6\), but .* needs kernel \(5, 6\)"),
    (BOTH, floats(3, 4, 5), r"^rnn/forward: rnn_cell\(2\) has kernel \(3, 2\), but .* needs kernel \(5, 2\)"),
]


@pytest.mark.parametrize(("net", "x", "message"), WRONG_INPUTS)
def test_wrong_inputs_are_named_with_their_place(net, x, message):
    outer = jn.serial(rnn=net)
    params, state = outer.init(KEY, X)
    with pytest.raises(jn.NetError, match=message):
        outer.apply(params, state, x)


def test_parameters_of_another_net_are_listed():
    params, _ = jn.serial(rnn=TWO).init(KEY, X)
    for net in (ONE, BOTH):
        with pytest.raises(jn.NetError, match=r"another net: missing .*rnn/.*kernel.*; unexpected parameters rnn/0/"):
            jn.serial(rnn=net).apply(params, {}, X)
    with pytest.raises(jn.NetError, match=r"needs the parameters kernel, .*got none"):
        ONE.apply({}, {}, X)
    with pytest.raises(jn.NetError, match=r"expects a key"):
        ONE.init(3, X)  # type: ignore[arg-type]
