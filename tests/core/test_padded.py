"""`Padded`: the mask, the zeros, the gradient, and its passage through JAX's transformations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn
from jaxnets import Padded
from jaxnets.core.padded import check_padded
from tests.models.weights import draw
from tests.oracle import floats, integers

zeroed_and_mask = jax.jit(lambda padded: (padded.zeroed(), padded.mask))


@given(lengths=st.lists(st.integers(0, 4), min_size=3, max_size=3), rank=st.integers(2, 4), whole=st.booleans())
def test_padding_is_zeroed_and_values_are_kept(lengths, rank, whole):
    shape = (len(lengths), 4, 2, 3)[:rank]
    values = integers(*shape, low=1, high=9) if whole else floats(*shape)
    want = values.copy()
    for i, length in enumerate(lengths):
        want[i, length:] = 0
        values[i, length:] = 99 if whole else np.nan
    zeroed, mask = zeroed_and_mask(Padded(values, np.array(lengths, np.int32)))
    assert zeroed.dtype == values.dtype
    np.testing.assert_array_equal(zeroed, want)
    np.testing.assert_array_equal(mask, [[step < length for step in range(4)] for length in lengths])


def test_no_gradient_flows_into_padding():
    values = floats(3, 4, 2)
    values[0, 1:] = np.inf
    gradient = jax.jit(jax.grad(lambda v: (Padded(v, np.array([1, 0, 4])).zeroed() ** 2).sum()))(values)
    want = 2 * values
    want[0, 1:], want[1] = 0, 0
    np.testing.assert_array_equal(gradient, want)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int16])
def test_lengths_are_any_integers(dtype):
    mask = Padded(np.zeros((2, 3), np.float32), np.array([3, 1], dtype)).mask
    np.testing.assert_array_equal(mask, [[True, True, True], [True, False, False]])


def test_it_passes_through_transformations():
    @jax.jit
    def sums(padded):
        together = jax.vmap(lambda p: p.zeroed().sum())(padded)
        _, scanned = jax.lax.scan(lambda _, p: (None, p.zeroed().sum()), None, padded)
        return together, scanned

    values, lengths = floats(5, 3, 4, 2), integers(5, 3, high=5)
    expected = np.where(np.arange(4) < lengths[..., None], values.sum(-1), 0).sum((1, 2))
    for found in sums(Padded(values, lengths)):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_layers_of_one_step_keep_padded_and_others_refuse_it():
    values, lengths = floats(3, 4, 2), np.array([4, 1, 2])
    real = np.arange(4)[None] < lengths[:, None]
    padded = Padded(np.where(real[..., None], values, np.float32(np.nan)), lengths)
    net = jn.serial(jn.dense(5), jax.nn.relu)

    @jax.jit
    def run(params, padded, values):
        y, want = net.apply(params, {}, padded)[0], net.apply(params, {}, values)[0]
        return y, want, jax.grad(lambda p: net.apply(p, {}, padded)[0].zeroed().sum())(params)

    y, want, gradient = jax.tree.map(np.asarray, run(draw(net, padded)[0], padded, values))
    np.testing.assert_array_equal(y.values[real], want[real])
    np.testing.assert_array_equal(y.lengths, lengths)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    with pytest.raises(jn.NetError, match=r"0: flatten turns Padded values \(3, 4, 2\) into \(3, 8\)"):
        jn.serial(jn.flatten).apply({}, {}, padded)


@pytest.mark.parametrize(
    ("values", "lengths"),
    [
        (np.zeros(3, np.float32), np.array([1, 2, 3])),
        (np.zeros((3, 4), np.float32), np.array([1, 2])),
        (np.zeros((3, 4), np.float32), np.array([[1], [2], [3]])),
        (np.zeros((3, 4), np.float32), np.array([1.0, 2.0, 3.0], np.float32)),
    ],
)
def test_wrong_shapes_raise(values, lengths):
    said = r"expects values \(batch, time, ...\) and integer lengths \(batch,\), got values \("
    with pytest.raises(jn.NetError, match=f"^Padded {said}"):
        Padded(values, lengths)
    with pytest.raises(jn.NetError, match=f"^{said}"):
        check_padded(Padded.tree_unflatten(None, (values, lengths)))
    check_padded(Padded(np.zeros((3, 4), np.float32), np.array([1, 2, 3])))


@pytest.mark.parametrize(
    ("values", "lengths", "message"),
    [
        ([[1, 2], [3]], [2, 1], r"unequal lengths; jn.data.pad\(sequences\)"),
        (np.ones((2, 3)), np.array([4, 2]), "lengths from 0 to 3, the width of the values, got 4"),
        (np.ones((2, 3)), jnp.array([-1, 2]), "lengths from 0 to 3, .*, got -1"),
        (np.ones((5, 2, 3)), np.array([[1, 2]] * 4 + [[1, 9]]), "lengths from 0 to 3, .*, got 9"),
        (np.ones((2, 3)), 2, r"integer lengths \(batch,\), got int 2"),
        (np.ones((2, 3)), np.ones((2, 3), bool), r"got .* lengths \(2, 3\) bool; .* mask.sum\(1\)"),
    ],
)
def test_wrong_lengths_raise(values, lengths, message):
    with pytest.raises(jn.NetError, match=f"^Padded expects .*{message}"):
        Padded(values, lengths)


def test_a_pytree_takes_any_leaves():
    padded = Padded([[1.0, 2.0], [3.0, 4.0]], [1, 2])
    assert jax.tree.map(np.shape, padded).values == (2, 2)
    assert jax.vmap(lambda p: p.mask, in_axes=(Padded(0, 0),))(jax.tree.map(lambda a: a[None], padded)).shape == (
        1,
        2,
        2,
    )
    pairs, _ = jax.tree_util.tree_flatten_with_path(padded)
    assert [jax.tree_util.keystr(path) for path, _ in pairs] == [".values", ".lengths"]


def test_sequences_are_padded():
    padded = Padded.from_sequences([np.ones((2, 3), np.float32), np.ones((1, 3), np.float32), []], fill=np.nan)
    assert padded.values.dtype == np.float32
    np.testing.assert_array_equal(np.isfinite(padded.values).all(-1), [[True, True], [True, False], [False, False]])
    np.testing.assert_array_equal(padded.mask, [[True, True], [True, False], [False, False]])
    for wrong in ([], [[1], [[2]]], [1, 2], [[[1], [1, 2]]]):
        with pytest.raises(jn.NetError, match=r"^Padded.* expects .*sequence"):
            Padded.from_sequences(wrong)


WEIGHTS = jnp.asarray(floats(3, 5))
STEP_BY_STEP = {
    "softmax over features": jax.nn.softmax,
    "gelu": jax.nn.gelu,
    "product": lambda h: h @ WEIGHTS,
    "standardized": lambda h: (h - h.mean(-1, keepdims=True)) / h.std(-1, keepdims=True),
    "one by one": jax.vmap(jax.vmap(lambda step: step / jnp.abs(step).max())),
    "chosen features": lambda h: jnp.sort(h, -1)[..., jnp.array([2, 0])],
    "running sum": lambda h: jnp.cumsum(h, 1),
    "running maximum": lambda h: jax.lax.cummax(h, 1),
    "causal window": lambda h: h + jnp.pad(h, ((0, 0), (1, 0), (0, 0)))[:, : h.shape[1]],
    "less the first": lambda h: h - h[:, :1],
    "loop": lambda h: jax.lax.scan(lambda c, x: (c + x, c * x), h[:, 0], h.swapaxes(0, 1))[1].swapaxes(0, 1),
}


@functools.cache
def step_by_step():
    """Return lengths, and for each function its outputs for padded sequences, and for each of them alone."""
    values, lengths = floats(3, 4, 3), np.array([2, 4, 1])
    values[0, 2:], values[2, 1:] = np.nan, 1e4

    @jax.jit
    def run(values):
        padded, cut = Padded(values, lengths), [values[row : row + 1, :length] for row, length in enumerate(lengths)]
        return {
            name: (jn.serial(function).apply({}, {}, padded)[0].values, [function(alone) for alone in cut])
            for name, function in STEP_BY_STEP.items()
        }

    return lengths, run(values)


@pytest.mark.parametrize("name", STEP_BY_STEP)
def test_causal_functions_return_what_they_return_for_each_sequence_alone(name):
    lengths, answers = step_by_step()
    together, alone = jax.tree.map(np.asarray, answers[name])
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(together[row, :length], alone[row][0], rtol=2e-6, atol=1e-6)


def test_a_softmax_over_time_is_refused_and_may_use_the_mask():
    padded = Padded(np.ones((2, 4, 1), np.float32), np.array([2, 4]))  # of equal scores, of which 2 and 4 are real
    with pytest.raises(
        jn.NetError,
        match=r"^weights: test_\w+ expects a function of each step and those before it for Padded values \(2, 4, 1\), "
        r"got one that mixes later steps into earlier ones: padding would change its outputs; write jn\.Net",
    ):
        jn.serial(weights=lambda h: jax.nn.softmax(h, axis=1)).apply({}, {}, padded)

    def apply(params, state, x, *, key=None, train=False):
        scores = jnp.where(x.mask[..., None], x.values, -jnp.inf)
        return Padded(jax.nn.softmax(scores, axis=1), x.lengths), state

    net = jn.serial(jn.Net(lambda key, x: ({}, {}), apply, "softmax"))
    y = jax.jit(lambda padded: net.apply({}, {}, padded)[0].values)(padded)
    np.testing.assert_allclose(np.asarray(y)[..., 0], [[0.5, 0.5, 0, 0], [0.25] * 4], rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda h: h - h.mean(1, keepdims=True), "later steps into earlier ones"),
        (lambda h: jax.lax.cumsum(h, 1, reverse=True), "later steps into earlier ones"),
        (lambda h: h[:, ::-1], "later steps into earlier ones"),
        (lambda h: jnp.fft.fft(h, axis=1).real, "later steps into earlier ones"),
        (lambda h: jax.nn.softmax(h @ h.swapaxes(1, 2)) @ h, "later steps into earlier ones"),
        (jax.jit(jax.checkpoint(lambda h: jax.nn.softmax(h, 1))), "later steps into earlier ones"),
        (lambda h: h - h.mean(0, keepdims=True), "the sequences of a batch"),
    ],
)
def test_functions_that_mix_are_refused(function, what):
    padded = Padded(floats(2, 4, 3), np.array([2, 4]))
    with pytest.raises(jn.NetError, match=f"got one that mixes {what}: padding would change its outputs"):
        jax.eval_shape(lambda x: jn.serial(function).apply({}, {}, x)[0], padded)  # when it is traced
    with pytest.raises(jn.NetError, match=f"mine expects .* got one that mixes {what}"):
        jn.layer(None, lambda _, h: function(h), label="mine").apply({}, {}, padded)
    y = jax.eval_shape(lambda x: jn.serial(function).apply({}, {}, x)[0], padded.values)  # an array has no padding
    assert y.shape == padded.values.shape


def test_a_merge_that_mixes_is_refused():
    padded = Padded(floats(2, 4, 3), np.array([2, 4]))
    net = jn.bidirectional(jn.rnn_cell(3), merge=lambda a, b: jax.nn.softmax(a + b, axis=1))
    with pytest.raises(jn.NetError, match=r"^bidirectional\(.* got one that mixes later steps"):
        jax.eval_shape(lambda x: net.apply(*net.init(jax.random.key(0), x), x)[0], padded)


def test_an_undecidable_function_passes_and_is_traced_once():
    padded, calls = Padded(floats(2, 4, 3), np.array([2, 4])), []

    def function(h):
        calls.append(h)
        return jax.lax.while_loop(lambda h: h.max() > 1, lambda h: h / 2, h)

    net = jn.serial(function)
    net.apply({}, {}, padded)
    net.apply({}, {}, padded)
    assert len(calls) == 3  # each time, and once to look at its program


def test_a_function_of_traced_weights():
    padded = Padded(floats(2, 4, 3), np.array([2, 4]))
    gradient = jax.jit(jax.grad(lambda w: jn.serial(lambda h: h @ w).apply({}, {}, padded)[0].zeroed().sum()))(WEIGHTS)
    real = np.where(np.arange(4)[None, :, None] < padded.lengths[:, None, None], padded.values, 0)
    np.testing.assert_allclose(gradient, np.tile(real.sum((0, 1))[:, None], 5), rtol=1e-5)


RAGGED = [[1, 2], [3, 4, 5], [6], [], [7, 8, 9, 10]]


@pytest.mark.parametrize("on_device", [False, True])
def test_indices_select_sequences(on_device: bool):
    padded = jn.data.pad(RAGGED)
    padded = jax.tree.map(jnp.asarray, padded) if on_device else padded
    assert len(padded) == 5
    assert [each.tolist() for each in padded] == RAGGED
    assert padded[-1].tolist() == padded[np.int64(4)].tolist() == padded[jnp.array(4)].tolist() == RAGGED[4]
    mask = np.array([True, False, True, False, False])
    for index, want in (
        *((slice(1, 3), [1, 2]), (slice(None, None, 2), [0, 2, 4]), ([3, 0], [3, 0]), (np.array([4, 4]), [4, 4])),
        *((jnp.array([1]), [1]), (mask, [0, 2]), (mask.tolist(), [0, 2])),
    ):
        chosen = padded[index]
        assert isinstance(chosen, jn.Padded)
        assert [row.tolist() for row in chosen] == [RAGGED[place] for place in want]
        assert chosen.values.shape == (len(want), 4)
    for outside in (5, -6):
        with pytest.raises(IndexError, match=rf"index {outside} is out of range for 5 sequences"):
            padded[outside]
    assert len(padded[[]]) == 0
    for wrong in (True, np.array([0.0])):
        with pytest.raises(jn.NetError, match="Padded expects integers or a mask as indices, got ndarray"):
            padded[wrong]
    with pytest.raises(jn.NetError, match=r"Padded expects one index, .*, got tuple \(1, 2\); index the values"):
        padded[1, 2]
    with pytest.raises(
        jn.NetError, match=r"expects a sequence of known length, got a traced one; .*x\[index\[None\]\]"
    ):
        jax.jit(lambda index: padded[index])(1)
    assert jax.jit(lambda index: padded[index[None]].values.sum())(1) == 12


def test_indices_keep_documents_and_stacked_batches():
    rows = jn.data.pack([[1, 2, 3], [4], [5, 6]], 4)
    assert isinstance(rows[1:], jn.Packed)
    assert rows[1:].segments.tolist() == rows.segments[1:].tolist()
    assert rows[0].tolist() == [1, 2, 3, 4]
    stacked = jax.tree.map(lambda x: np.stack([x, x]), jn.data.pad(RAGGED))
    assert isinstance(stacked[1], jn.Padded)
    assert stacked[1][1].tolist() == RAGGED[1]


def test_sequences_are_split_folded_and_streamed():
    padded, y = jn.data.pad(RAGGED * 2), np.arange(10)
    parts = jn.data.split((padded, y), (0.6, 0.4), stratify=False)
    for x, numbers in parts:
        assert [row.tolist() for row in x] == [RAGGED[number % 5] for number in numbers]
    (train, *_), (held_out, *_) = jn.data.fold((padded, y), jn.data.folds(y % 2, 2), 0)
    assert len(train) + len(held_out) == 10
    for batch in jn.data.stream((padded, y), 4, transforms=[lambda generator, example: example]):
        assert [row.tolist() for row in batch.x] == [RAGGED[int(number) % 5] for number in batch.y]
    for batch in jn.data.stream((padded, y), 5, workers=0):
        assert [row.tolist() for row in batch.x] == [RAGGED[int(number) % 5] for number in batch.y]
