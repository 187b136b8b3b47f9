"""Random permutations beside JAX's own, to the bit, and the order of keys beside NumPy's stable sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxnets.ops.permutation import LEAST, MOST, order, permutation

KEY = jax.random.key(5)


@pytest.mark.parametrize("n", [1, LEAST - 1, LEAST, 1437, 1797, 5000, MOST, MOST + 1])
def test_it_is_that_of_jax_to_the_bit(n: int):
    """Of one and two sorts, and outside what it sorts itself."""
    np.testing.assert_array_equal(permutation(KEY, n), jax.random.permutation(KEY, n))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_it_is_that_of_jax_with_every_kind_of_key(impl: str):
    key = jax.random.key(7, impl=impl)
    np.testing.assert_array_equal(permutation(key, 3000), jax.random.permutation(key, 3000))
    raw = jax.random.key_data(jax.random.key(7))
    np.testing.assert_array_equal(permutation(raw, 3000), jax.random.permutation(raw, 3000))


def test_it_is_that_of_jax_under_jit_vmap_and_in_64_bits():
    keys = jax.random.split(KEY, 4)
    own = jax.jit(jax.vmap(lambda key: permutation(key, 1797)))(keys)
    theirs = jax.vmap(lambda key: jax.random.permutation(key, 1797))(keys)
    np.testing.assert_array_equal(own, theirs)
    with jax.enable_x64(True):
        own, theirs = permutation(KEY, 2000), jax.random.permutation(KEY, 2000)
        np.testing.assert_array_equal(own, theirs)
        assert own.dtype == theirs.dtype


def test_it_runs_wherever_it_is_exported_to():
    draw = jax.jit(lambda raw: permutation(jax.random.wrap_key_data(raw), 1500))
    call = jax.export.export(draw, platforms=["cpu", "cuda", "tpu"])(jax.ShapeDtypeStruct((2,), jnp.uint32)).call
    np.testing.assert_array_equal(call(jax.random.key_data(KEY)), jax.random.permutation(KEY, 1500))


keys = st.integers(1, 300).flatmap(
    lambda n: st.integers(0, 32).flatmap(
        lambda bits: arrays(np.uint32, n, elements=st.integers(0, 2**bits - 1), fill=st.nothing())
    )
)


@given(keys)
def test_keys_are_ordered_as_a_stable_sort_orders_them(keys: np.ndarray):
    """Down to keys that are all equal."""
    np.testing.assert_array_equal(order(jnp.asarray(keys)), np.argsort(keys, kind="stable"))


def test_keys_that_differ_in_low_bits_alone_are_ordered_too():
    """All high bits are equal: the exchanges do the whole work, from the opposite order."""
    keys = np.arange(64, dtype=np.uint32)[::-1].copy()
    np.testing.assert_array_equal(order(jnp.asarray(keys)), np.argsort(keys))
