"""`Padded`: the mask, the zeros, the gradient, and its passage through JAX's transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn
from jaxnets import Padded
from jaxnets.padded import check_padded
from tests.oracle import floats, integers


@given(lengths=st.lists(st.integers(0, 4), min_size=1, max_size=4), rank=st.integers(2, 4), whole=st.booleans())
def test_padding_is_zeroed_and_the_rest_kept(lengths, rank, whole):
    shape = (len(lengths), 4, 2, 3)[:rank]
    values = integers(*shape, low=1, high=9) if whole else floats(*shape)
    want = values.copy()
    for i, length in enumerate(lengths):
        want[i, length:] = 0
        values[i, length:] = 99 if whole else np.nan
    padded = Padded(values, np.array(lengths, np.int32))
    zeroed = padded.zeroed()
    assert zeroed.dtype == values.dtype
    np.testing.assert_array_equal(zeroed, want)
    np.testing.assert_array_equal(padded.mask, [[step < length for step in range(4)] for length in lengths])


def test_no_gradient_flows_into_padding():
    values = floats(3, 4, 2)
    values[0, 1:] = np.inf
    gradient = jax.grad(lambda v: (Padded(v, np.array([1, 0, 4])).zeroed() ** 2).sum())(jnp.asarray(values))
    want = 2 * values
    want[0, 1:], want[1] = 0, 0
    np.testing.assert_array_equal(gradient, want)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int16])
def test_lengths_are_any_integers(dtype):
    mask = Padded(np.zeros((2, 3), np.float32), np.array([3, 1], dtype)).mask
    np.testing.assert_array_equal(mask, [[True, True, True], [True, False, False]])


def test_it_passes_through_transformations():
    padded = Padded(jnp.asarray(floats(5, 3, 4, 2)), jnp.asarray(integers(5, 3, high=5)))
    together = jax.jit(jax.vmap(lambda p: p.zeroed().sum()))(padded)
    _, scanned = jax.lax.scan(lambda _, p: (None, p.zeroed().sum()), None, padded)
    one_by_one = [Padded(v, n).zeroed().sum() for v, n in zip(padded.values, padded.lengths, strict=True)]
    np.testing.assert_allclose(together, one_by_one, rtol=1e-6)
    np.testing.assert_allclose(scanned, one_by_one, rtol=1e-6)


def test_layers_of_a_step_pass_it_on_and_others_refuse():
    values, lengths = floats(3, 4, 2), np.array([4, 1, 2])
    real = np.arange(4)[None] < lengths[:, None]
    padded = Padded(np.where(real[..., None], values, np.float32(np.nan)), lengths)
    net = jn.serial(jn.dense(5), jax.nn.relu)
    params, state = net.init(jax.random.key(0), padded)
    y, _ = net.apply(params, state, padded)
    want, _ = net.apply(params, state, values)
    np.testing.assert_array_equal(y.values[real], want[real])
    np.testing.assert_array_equal(y.lengths, lengths)
    gradient = jax.grad(lambda p: net.apply(p, state, padded)[0].zeroed().sum())(params)
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
def test_wrong_shapes_are_named(values, lengths):
    said = r"expects values \(batch, time, ...\) and integer lengths \(batch,\), got values \("
    with pytest.raises(jn.NetError, match=f"^Padded {said}"):
        Padded(values, lengths)
    with pytest.raises(jn.NetError, match=f"^{said}"):
        check_padded(Padded.tree_unflatten(None, (values, lengths)))
    check_padded(Padded(np.zeros((3, 4), np.float32), np.array([1, 2, 3])))


@pytest.mark.parametrize(
    ("values", "lengths", "message"),
    [
        ([[1, 2], [3]], [2, 1], r"unequal lengths; Padded.from_sequences\(sequences\)"),
        (np.ones((2, 3)), np.array([4, 2]), "lengths from 0 to 3, the width of the values, got 4"),
        (np.ones((2, 3)), jnp.array([-1, 2]), "lengths from 0 to 3, .*, got -1"),
        (np.ones((5, 2, 3)), np.array([[1, 2]] * 4 + [[1, 9]]), "lengths from 0 to 3, .*, got 9"),
        (np.ones((2, 3)), 2, r"integer lengths \(batch,\), got int 2"),
        (np.ones((2, 3)), np.ones((2, 3), bool), r"got .* lengths \(2, 3\) bool; .* mask.sum\(1\)"),
    ],
)
def test_lengths_that_do_not_fit_are_named(values, lengths, message):
    with pytest.raises(jn.NetError, match=f"^Padded expects .*{message}"):
        Padded(values, lengths)


def test_transformations_put_in_what_they_like():
    padded = Padded([[1.0, 2.0], [3.0, 4.0]], [1, 2])
    assert jax.tree.map(np.shape, padded).values == (2, 2)
    assert jax.vmap(lambda p: p.mask, in_axes=(Padded(0, 0),))(jax.tree.map(lambda a: a[None], padded)).shape == (
        1,
        2,
        2,
    )
    pairs, _ = jax.tree_util.tree_flatten_with_path(padded)
    assert [jax.tree_util.keystr(path) for path, _ in pairs] == [".values", ".lengths"]


def test_sequences_are_filled_up():
    padded = Padded.from_sequences([np.ones((2, 3), np.float32), np.ones((1, 3), np.float32), []], fill=np.nan)
    assert padded.values.dtype == np.float32
    np.testing.assert_array_equal(np.isfinite(padded.values).all(-1), [[True, True], [True, False], [False, False]])
    np.testing.assert_array_equal(padded.mask, [[True, True], [True, False], [False, False]])
    for wrong in ([], [[1], [[2]]], [1, 2], [[[1], [1, 2]]]):
        with pytest.raises(jn.NetError, match=r"^Padded.* expects .*sequence"):
            Padded.from_sequences(wrong)
