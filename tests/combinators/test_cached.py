"""Causal networks that continue: parts against the whole, examples of unequal length against each alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.core.cache import Cache, take_rows
from jaxnets.decoding import grow
from tests.oracle import floats, integers, variables

WORDS, FEATURES, TIME = 11, 8, 9
TOKENS = integers(3, TIME, high=WORDS)
block = partial(jn.encoder_block, FEATURES, 4, causal=True)


def model(layers, **positions):
    return jn.cached(jn.serial(e=jn.embed(WORDS, FEATURES), **positions, layers=layers, out=jn.dense(WORDS)))


NETS = {
    "learned": lambda: model(jn.serial(block(), block()), positions=jn.learned_positions(TIME)),
    "sinusoidal": lambda: model(block(), positions=jn.sinusoidal_positions()),
    "rotary": lambda: model(jn.serial(block(kv_heads=2, positions="rotary"), block(positions="rotary"))),
    "distance": lambda: model(block(positions="distance")),
    "window": lambda: model(jn.serial(block(window=3, positions="rotary"), block(window=2))),
    "repeat": lambda: model(jn.repeat(block(positions="rotary"), 3), positions=jn.learned_positions(TIME)),
    "remat": lambda: model(jn.remat(block(kv_heads=1)), positions=jn.learned_positions(TIME)),
}


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * float(np.abs(wanted).max(initial=1.0)))


def whole(net, params):
    return np.asarray(jax.jit(net.apply)(params, {}, TOKENS)[0])


@pytest.mark.parametrize("name", NETS)
def test_parts_are_the_whole_outside_of_jit_and_in_it(name):
    net = NETS[name]()
    params, _ = variables(net, TOKENS, scale=0.5)
    wanted, carry, parts = whole(net, params), None, []
    # The second part doubles the room, the third does not fit into that.
    for start, stop in ((0, 2), (2, 3), (3, 7)):
        (y, carry), state = net.apply(params, {}, (TOKENS[:, start:stop], carry))
        parts.append(y)
        assert state == {}
    close(jnp.concatenate(parts, 1), wanted[:, :7])
    step = jax.jit(net.apply)
    carry = grow(carry, TIME - 7)
    for place in (7, 8):
        (y, carry), _ = step(params, {}, (TOKENS[:, place : place + 1], carry))
        close(y[:, 0], wanted[:, place])
    assert all((each == TIME).all() for each in jax.tree.leaves(carry) if each.dtype == jnp.int32)


@pytest.mark.parametrize("name", ["learned", "rotary", "distance", "repeat"])
def test_examples_of_unequal_length_continue_each_as_if_alone(name):
    net = NETS[name]()
    params, _ = variables(net, TOKENS, scale=0.5)
    wanted, lengths = whole(net, params), np.array([2, 5, 3], np.int32)
    # Anything may stand behind the ends.
    first = np.where(np.arange(5)[None] < lengths[:, None], TOKENS[:, :5], 10**6)
    (y, carry), _ = jax.jit(net.apply)(params, {}, (jn.Padded(first, lengths), None))
    for row, length in enumerate(lengths):
        close(y.values[row, :length], wanted[row, :length])
    carry, step = grow(carry, 4), jax.jit(net.apply)
    # Parts of unequal lengths as well, one of them empty.
    more = np.array([1, 0, 2], np.int32)
    second = np.stack([TOKENS[row, length : length + 2] for row, length in enumerate(lengths)])
    (y, carry), _ = step(params, {}, (jn.Padded(second, more), carry))
    for row, length in enumerate(lengths):
        close(y.values[row, : more[row]], wanted[row, length : length + more[row]])
    lengths = lengths + more
    for _ in range(2):
        (y, carry), _ = step(params, {}, (TOKENS[np.arange(3), lengths][:, None], carry))
        close(y[:, 0], wanted[np.arange(3), lengths])
        lengths = lengths + 1


def test_without_room_a_traced_carry_gives_nan_and_not_a_wrong_number():
    net = NETS["rotary"]()
    params, _ = variables(net, TOKENS, scale=0.5)
    lengths = np.array([1, 4, 2], np.int32)
    (_, carry), _ = net.apply(params, {}, (jn.Padded(TOKENS[:, :4], lengths), None))
    (y, carry), _ = jax.jit(net.apply)(params, {}, (TOKENS[:, 4:5], carry))
    assert jnp.isnan(y).any((1, 2)).tolist() == [False, True, False]
    net = NETS["learned"]()
    params, _ = variables(net, TOKENS, scale=0.5)
    (_, carry), _ = net.apply(params, {}, (TOKENS[:, :TIME], None))
    y = jax.jit(net.apply)(params, {}, (TOKENS[:, :1], grow(carry, 1)))[0][0]
    assert jnp.isnan(y).all()


@pytest.mark.parametrize("name", ["rotary", "repeat"])
def test_a_step_that_was_lost_stays_nan_when_there_is_room_again(name):
    net = NETS[name]()
    params, _ = variables(net, TOKENS, scale=0.5)
    lengths = np.array([1, 4, 2], np.int32)
    (_, carry), _ = net.apply(params, {}, (jn.Padded(TOKENS[:, :4], lengths), None))
    (_, carry), _ = jax.jit(net.apply)(params, {}, (TOKENS[:, 4:5], carry))
    # Outside of transformations the carry is doubled here.
    for _ in range(2):
        (y, carry), _ = net.apply(params, {}, (TOKENS[:, 5:6], carry))
        assert jnp.isnan(y).any((1, 2)).tolist() == [False, True, False]


def test_gradients_flow_through_a_carry():
    net = NETS["rotary"]()
    params, _ = variables(net, TOKENS, scale=0.5)
    weigh = floats(3, TIME, WORDS)

    def together(params):
        return (net.apply(params, {}, TOKENS)[0] * weigh).sum()

    def apart(params):
        (a, carry), _ = net.apply(params, {}, (TOKENS[:, :4], None))
        (b, _), _ = net.apply(params, {}, (TOKENS[:, 4:], grow(carry, TIME - 4)))
        return (jnp.concatenate([a, b], 1) * weigh).sum()

    wanted = jax.jit(jax.grad(together))(params)
    jax.tree.map(close, jax.jit(jax.grad(apart))(params), wanted)


def test_it_maps_over_parameters():
    net = NETS["repeat"]()
    several = [variables(net, TOKENS, seed=seed, scale=0.5)[0] for seed in (1, 2)]

    def run(params):
        (_, carry), _ = net.apply(params, {}, (TOKENS[:, :4], None))
        return net.apply(params, {}, (TOKENS[:, 4:], grow(carry, TIME)))[0][0]

    together = jax.jit(jax.vmap(run))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *several))
    for place, params in enumerate(several):
        close(together[place], whole(net, params)[:, 4:])


def test_mixed_precision_keeps_the_cache_in_it():
    net = jn.cast(NETS["rotary"](), jn.Policy(output=jnp.bfloat16))
    params, _ = variables(net, TOKENS, scale=0.5)
    (_, carry), _ = net.apply(params, {}, (TOKENS[:, :4], None))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(carry)} == {"int32", "bfloat16"}
    y = net.apply(params, {}, (TOKENS[:, 4:], carry))[0][0]
    wanted = net.apply(params, {}, TOKENS)[0][:, 4:].astype(jnp.float32)
    np.testing.assert_allclose(y.astype(jnp.float32), wanted, atol=0.05 * float(jnp.abs(wanted).max()))


def decoder(scan):
    block = jn.decoder_block(FEATURES, 2)
    return jn.cached(jn.repeat(block, 2) if scan else jn.serial(block, block), memory=True)


@pytest.mark.parametrize("scan", [False, True])
def test_a_decoder_reads_its_memory_once(scan):
    net, memory = decoder(scan), jn.Padded(floats(3, 5, FEATURES), np.array([5, 2, 3], np.int32))
    x = floats(3, TIME, FEATURES, seed=1)
    params, _ = variables(net, (x, memory), scale=0.5)
    assert net.inner is not None
    whole, _ = net.inner.apply(params, {}, (x, memory))
    (first, carry), _ = net.apply(params, {}, (x[:, :4], memory))
    (second, again), _ = net.apply(params, {}, (x[:, 4:], carry))
    close(jnp.concatenate([first[0], second[0]], 1), whole[0])
    kept = [carry.caches, again.caches] if scan else [carry.caches["0"], again.caches["0"]]
    names = ["cross", "mix", "memory"]
    one, other = (jax.tree.leaves(each[names[0]][names[1]][names[2]]) for each in kept)
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
    # In a compiled step, the memory is not projected anew: none of the products reads its 5 steps of features.
    step = jax.jit(lambda x, carry: net.apply(params, {}, (x, carry))[0])
    text = str(step.lower(x[:, :1], grow(carry, 5)).compile().as_text())
    assert "f32[15,8]" not in text
    assert "f32[3,5,8]{2,1,0} dot" not in text


def test_rows_of_a_carry():
    net = NETS["repeat"]()
    params, _ = variables(net, TOKENS, scale=0.5)
    (_, carry), _ = net.apply(params, {}, (jn.Padded(TOKENS[:, :4], np.array([4, 1, 2], np.int32)), None))
    rows = jnp.array([2, 0, 2, 1])
    y = net.apply(params, {}, (TOKENS[rows, 4:5], take_rows(carry, rows)))[0][0]
    close(y, net.apply(params, {}, (TOKENS[:, 4:5], carry))[0][0][rows])


def test_a_carry_of_a_recurrent_network_is_left_as_it_is():
    carry = {"hidden": jnp.ones((2, 3))}
    assert grow(carry, 5)["hidden"] is carry["hidden"]


MISTAKES = {
    r"layers/attention/mix: expects causal attention": lambda: model(jn.encoder_block(8, 2)),
    "layers: .*reads other steps, and can't continue": lambda: model(jn.recurrent(jn.lstm_cell(8))),
    "1: group_norm.*reads other steps": lambda: jn.cached(jn.serial(block(), jn.group_norm(2))),
    "1: depthwise_conv.*reads other steps": lambda: jn.cached(jn.serial(block(), jn.depthwise_conv(3))),
    "1: weight_norm.*reads other steps": lambda: jn.cached(jn.serial(block(), jn.weight_norm(jn.conv(8, 3)))),
    "expects an integer ≥ 0 for steps, got int -1": lambda: grow({}, -1),
    "expects a known number of steps, got a traced one": lambda: jax.jit(lambda n: grow({}, n))(1),
    "expects a network with causal attention or positions, got none": lambda: jn.cached(jn.dense(3)),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_what_cannot_continue_is_refused(message):
    with pytest.raises(jn.NetError, match=message):
        MISTAKES[message]()


def test_wrong_carries_are_told():
    net, other = NETS["rotary"](), NETS["learned"]()
    params, _ = variables(net, TOKENS)
    (_, carry), _ = net.apply(params, {}, (TOKENS[:, :4], None))
    with pytest.raises(
        jn.NetError, match=r"layers/0/attention/mix: expects a carry for a batch of 2 .* start with None"
    ):
        net.apply(params, {}, (TOKENS[:2, :1], carry))
    with pytest.raises(jn.NetError, match="expects its own carry, or None at the start"):
        other.apply(variables(other, TOKENS)[0], {}, (TOKENS[:, :1], carry))
    with pytest.raises(jn.NetError, match=r"expects sequences \(batch, time, ...\), got \(9,\); add a batch axis"):
        net.apply(params, {}, (TOKENS[0], None))
    with pytest.raises(jn.NetError, match=r"expects \(x, carry\), got a tuple of 3"):
        net.apply(params, {}, (TOKENS, carry, carry))
    with pytest.raises(jn.NetError, match=r"has room for 4 steps in its carry, got 5 more; jn.decoding.grow"):
        jax.jit(net.apply)(params, {}, (TOKENS[:, :5], carry))
    params, _ = variables(other, TOKENS)
    (_, carry), _ = other.apply(params, {}, (TOKENS, None))
    with pytest.raises(jn.NetError, match=r"positions: .*expects texts of at most 9 steps, got position 9"):
        other.apply(params, {}, (TOKENS[:, :1], carry))
    with pytest.raises(
        jn.NetError, match=r"positions: .*expects a carry for a batch of 2 .*, got one for a batch of 3; start"
    ):
        other.apply(params, {}, (TOKENS[:2, :1], carry))
    assert isinstance(carry["positions"]["cache"], Cache)


@pytest.mark.parametrize("function", [lambda x: jnp.cumsum(x, 1), lambda x: x - x.mean(1, keepdims=True)])
def test_functions_that_mix_steps_are_refused_with_a_carry(function):
    net = model(block(), mix=function)
    params, _ = variables(net, TOKENS)
    net.apply(params, {}, TOKENS)
    with pytest.raises(jn.NetError, match=r"can't continue from a carry: mix: .*expects a function of single steps"):
        net.apply(params, {}, (TOKENS[:, :2], None))
