"""Networks with `repeat`s and the same networks written out: one function, and parameters that convert exactly."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.core.net import spec
from tests.once import once
from tests.oracle import floats

KEY = jax.random.key(3)
X = jnp.asarray(floats(5, 4))


def block() -> jn.Net:
    """Return a block with parameters and state."""
    return jn.residual(jn.serial(fc=jn.dense(4), bn=jn.batch_norm()), activation=jnp.tanh)


def times(n: int) -> list[jn.Net]:
    return [block()] * n


PAIRS: dict[str, tuple[Callable[[], jn.Net], Callable[[], jn.Net]]] = {
    "at a position": (
        lambda: jn.serial(jn.dense(4), jn.repeat(block(), 3), jnp.tanh, jn.dense(2)),
        lambda: jn.serial(jn.dense(4), *times(3), jnp.tanh, jn.dense(2)),
    ),
    "two, and a name behind": (
        lambda: jn.serial(jn.repeat(block(), 2), jnp.sin, jn.repeat(jn.dense(4), 3), out=jn.dense(2)),
        lambda: jn.serial(*times(2), jnp.sin, *[jn.dense(4)] * 3, out=jn.dense(2)),
    ),
    "without parameters": (
        lambda: jn.serial(jn.repeat(jnp.tanh, 3), jn.dense(4)),
        lambda: jn.serial(*[jnp.tanh] * 3, jn.dense(4)),
    ),
    "under a name": (
        lambda: jn.serial(first=jn.dense(4), blocks=jn.repeat(block(), 2), last=jn.dense(2)),
        lambda: jn.serial(first=jn.dense(4), blocks=jn.serial(*times(2)), last=jn.dense(2)),
    ),
    "by itself": (lambda: jn.repeat(block(), 3), lambda: jn.serial(*times(3))),
    "stages": (
        lambda: jn.serial(layer1=jn.serial(block(), jn.repeat(block(), 2)), layer2=jn.serial(jn.repeat(block(), 1))),
        lambda: jn.serial(layer1=jn.serial(*times(3)), layer2=jn.serial(block())),
    ),
    "in the body of a residual": (
        lambda: jn.residual(jn.serial(jn.repeat(block(), 2), jn.dense(3)), shortcut=jn.dense(3)),
        lambda: jn.residual(jn.serial(*times(2), jn.dense(3)), shortcut=jn.dense(3)),
    ),
    "in branches, where positions stay": (
        lambda: jn.branches(jn.concatenate, jn.repeat(block(), 2), jn.dense(2)),
        lambda: jn.branches(jn.concatenate, jn.serial(*times(2)), jn.dense(2)),
    ),
    "in one another": (
        lambda: jn.serial(jn.repeat(jn.serial(inner=jn.repeat(block(), 2), fc=jn.dense(4)), 3), jn.dense(2)),
        lambda: jn.serial(*[jn.serial(inner=jn.serial(*times(2)), fc=jn.dense(4))] * 3, jn.dense(2)),
    ),
    "in wrappers": (
        lambda: jn.remat(
            jn.serial(jn.dense(4), jn.remat(jn.cast(jn.repeat(block(), 2), jn.Policy(compute="float32"))))
        ),
        lambda: jn.serial(jn.dense(4), *times(2)),
    ),
    "in members": (
        lambda: jn.ensemble(jn.serial(blocks=jn.repeat(block(), 2), fc=jn.dense(2)), 3),
        lambda: jn.ensemble(jn.serial(blocks=jn.serial(*times(2)), fc=jn.dense(2)), 3),
    ),
}


def assert_equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.slow_cases("stages", "two, and a name behind", "in one another")
def test_written_out_network_is_the_same_function(name: str):
    short, long = (make() for make in PAIRS[name])

    def written_out(trees):
        return [jn.to_unstacked(short, tree) for tree in trees]

    def rolled(trees):
        return [jn.to_stacked(short, tree) for tree in trees]

    def run(made, own):
        converted = written_out(made)
        y, after = short.apply(made[0], made[1], X, train=True)
        return {
            "short": (made, rolled(converted)),
            "long": (own, written_out(rolled(own))),
            "converted": converted,
            "outputs": (y, jn.to_unstacked(short, after)),
            "outputs of long": long.apply(converted[0], converted[1], X, train=True),
        }

    found = once(run, list(short.init(KEY, X)), list(long.init(KEY, X)))
    assert spec(found["converted"]) == spec(found["long"][0])
    (y, after), (y_long, after_long) = found["outputs"], found["outputs of long"]
    np.testing.assert_allclose(y, y_long, rtol=0, atol=2e-6 * np.abs(y_long).max())
    assert jax.tree.structure(after) == jax.tree.structure(after_long)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-6), after, after_long)
    for each in ("short", "long"):
        assert_equal(*found[each])


def test_conversion_can_be_traced_and_differentiated():
    short, long = (make() for make in PAIRS["at a position"])

    def loss(params, net, state):
        return net.apply(params, state, X, train=True)[0].sum()

    def run(params, state):
        direct = jax.grad(loss)(params, short, state)
        written = jn.to_unstacked(short, state)
        return direct, jax.grad(lambda p: loss(jn.to_unstacked(short, p), long, written))(params)

    direct, through = once(run, *short.init(KEY, X))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), through, direct)


def test_a_network_without_repeats_is_unchanged():
    net = PAIRS["stages"][1]()
    params, _ = net.init(KEY, X)
    assert_equal(jn.to_unstacked(net, params), params)
    assert_equal(jn.to_stacked(net, params), params)


MISTAKES = {
    "a rolled tree": (
        lambda net, params: jn.to_unstacked(net, jn.to_unstacked(net, params)),
        r"to_unstacked expects only the names 0, 1, 2, 3, got 0, 1, 2, 3, 5",
    ),
    "too few copies": (
        lambda net, params: jn.to_stacked(net, {k: v for k, v in jn.to_unstacked(net, params).items() if k != "3"}),
        r"^1: to_stacked expects 3 copies, got 0, 1$",
    ),
    "copies that differ": (
        lambda net, params: jn.to_stacked(net, jn.to_unstacked(net, params) | {"2": {"fc": params["3"]}}),
        r"^1: stack expects equal trees, but '1' differs",
    ),
    "another number of copies": (
        lambda net, params: jn.to_unstacked(net, params | {"1": jax.tree.map(lambda leaf: leaf[:2], params["1"])}),
        r"^1: to_unstacked expects 3 copies, got 0, 1$",
    ),
    "unknown names": (
        lambda net, params: jn.to_stacked(net, jn.to_unstacked(net, params) | {"fc": params["0"]}),
        r"^to_stacked expects only the names 0, 1, 2, 3, 4, 5, got .*fc",
    ),
    "an array": (
        lambda net, params: jn.to_unstacked(net, X),
        "^to_unstacked expects only the names 0, 1, 2, 3, got Array",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_raise_with_their_place(name: str):
    net = PAIRS["at a position"][0]()
    convert, message = MISTAKES[name]
    with pytest.raises(jn.NetError, match=message):
        convert(net, net.init(KEY, X)[0])


def test_positions_inside_a_repeat_must_be_named():
    net = jn.serial(blocks=jn.repeat(jn.serial(jn.repeat(block(), 2), jn.dense(4)), 3))
    with pytest.raises(
        jn.NetError, match=r"^blocks: to_unstacked can't tell .* child '0'.*serial\(\.\.\., blocks=repeat"
    ):
        jn.to_unstacked(net, net.init(KEY, X)[0])


def test_copies_of_unknown_origin_are_refused():
    net = jn.serial(replace(jn.repeat(block(), 2), label="my_blocks", kind="", inner=None))
    relabeled = jn.serial(replace(jn.repeat(block(), 2), label="my_blocks"))  # a label is for display
    assert list(jn.to_unstacked(relabeled, relabeled.init(KEY, X)[0])) == ["0", "1"]
    with pytest.raises(jn.NetError, match="my_blocks has copies, but it is unknown"):
        jn.to_unstacked(net, net.init(KEY, X)[0])
