"""Values drawn together equal those drawn one by one, bit for bit, leaf for leaf."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.core.draws import draw_together
from jaxnets.models.blocks import HE

MANY = 8
SHAPES = [(3, 3, 4, 7), (1,), (130, 127), (), (3, 3), (3, 3)]


def make(key: jax.Array) -> dict[str, Any]:
    """Return draws by keys folded, split and used as they are, scaled and not, read once and twice, beside others."""
    keys = [jax.random.fold_in(jax.random.split(jax.random.fold_in(key, 5), 3)[place % 3], place) for place in range(6)]
    he, lecun = HE, jax.nn.initializers.lecun_normal()
    matrices = [shape for shape in SHAPES if len(shape) > 1]
    twice = jax.random.normal(keys[0], (4, 4))
    return {
        "plain": [jax.random.normal(each, shape) for each, shape in zip(keys, SHAPES, strict=True)],
        "he": [he(each, shape, jnp.float32) for each, shape in zip(keys, matrices, strict=False)],
        "lecun": [lecun(each, (*shape, 2, 3), jnp.float32) for each, shape in zip(keys, SHAPES[2:], strict=False)],
        "twice": (twice, twice * 3.0, 0.3 * jax.random.normal(key, (6,))),
        "half": jax.random.normal(keys[1], (5,), jnp.bfloat16),
        "members": jax.vmap(lambda each: jax.random.normal(each, (3,)))(jnp.stack(keys)),
        "uniform": jax.random.uniform(keys[2], (5,)),
        "drawn": jax.random.normal(jax.random.fold_in(keys[3], jax.random.randint(keys[4], (), 0, 9))),
        "key": keys[5],
        "ones": jnp.ones(3),
    }


def same(given: Any, wanted: Any) -> None:
    """Check that two trees are equal bit for bit, in structure, dtypes and weakness of types."""
    assert jax.tree.structure(given) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(given), jax.tree.leaves(wanted), strict=True):
        assert jax.typeof(one) == jax.typeof(other)
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def wanted() -> Any:
    return make(jax.random.key(3))


WAYS: dict[str, Callable[[jax.Array], Any]] = {
    "eagerly": lambda key: draw_together(make, key),
    "under jit": jax.jit(lambda key: draw_together(make, key)),
    "under vmap": jax.jit(
        lambda key: jax.tree.map(
            lambda leaf: leaf[1], jax.vmap(lambda key: draw_together(make, key))(jnp.stack([jax.random.key(9), key]))
        )
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.slow_cases("under jit", "under vmap")
def test_draws_are_equal_bit_for_bit(way: str, wanted: Any) -> None:
    same(WAYS[way](jax.random.key(3)), wanted)


@pytest.mark.slow
def test_draws_by_old_keys_are_equal() -> None:
    key = jax.random.PRNGKey(3)

    def some(key: jax.Array) -> list[jax.Array]:
        return [jax.random.normal(each, (5, 9)) * 0.3 for each in jax.random.split(key, 3)]

    same(draw_together(some, key), some(key))


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_other_generators_draw_one_by_one(impl: str) -> None:
    def some(key: jax.Array) -> list[jax.Array]:
        return [jax.random.normal(each, (5, 9)) for each in jax.random.split(key, 3)]

    same(draw_together(some, jax.random.key(3, impl=impl)), some(jax.random.key(3, impl=impl)))


def test_a_look_at_the_key_goes_one_by_one() -> None:
    def looks(key: jax.Array) -> jax.Array:
        return jnp.full(2, float(jax.random.uniform(key)))

    key = jax.random.key(0)
    same(draw_together(looks, key), looks(key))


@pytest.mark.slow
def test_a_deep_network_draws_with_few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every convolution here has a shape of its own; one loop draws them all, and values are those of each layer."""
    widths = range(3, 3 + 2 * MANY)
    net = jn.serial(*(jn.conv(n, 1, kernel_init=HE) for n in widths), *(jax.nn.relu for _ in range(4)))
    x = jax.ShapeDtypeStruct((1, 2, 2, 3), jnp.float32)
    key = jax.random.key(1)
    loops = str(jax.make_jaxpr(lambda key: net.init(key, x))(key)).count("random_bits")
    params, state = net.init(key, x)
    monkeypatch.setattr("jaxnets.core.net.DEEP", 10**9)
    same((params, state), net.init(key, x))
    assert loops < MANY <= str(jax.make_jaxpr(lambda key: net.init(key, x))(key)).count("random_bits")
