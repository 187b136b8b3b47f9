"""Networks as values: equal if they are built alike, pickled as the call that made them."""

import copy
import gc
import inspect
import pickle
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from jaxnets.core.equality import Ingredients
from tests.models.weights import draw
from tests.once import once
from tests.oracle import floats, integers
from tests.test_every_net import CASES

KEY = jax.random.key(0)
OWN = "recurrent/bidirectional_carry"  # merges by a lambda
ARRAYS = "models/lenet5_parts"  # connects by a table
OPTIMIZERS = {
    name: make
    for name, make in vars(optax).items()
    if name not in ("noisy_sgd", "optimistic_adam", "_deprecated_dpsgd")  # draws a key; two that are deprecated
    and inspect.isfunction(make)
    and [*inspect.signature(make).parameters][:1] == ["learning_rate"]
}
VALUES = [case for case in CASES if case.name not in (OWN, ARRAYS)]


@pytest.mark.parametrize("case", VALUES, ids=str)
def test_a_net_built_again_is_equal_and_so_is_its_pickle(case):
    net = case.make()
    again = pickle.loads(pickle.dumps(net))
    assert net == case.make() == again
    assert hash(net) == hash(case.make()) == hash(again)
    assert repr(again) == repr(net)
    assert copy.deepcopy(net) is net
    assert net.constructor is not None


def test_nets_of_the_table_differ_from_each_other():
    nets = {case.name: case.make() for case in CASES}
    same = {frozenset((a, b)) for a in nets for b in nets if a < b and nets[a] == nets[b]}
    alike = {frozenset(a for a in nets if repr(nets[a]) == repr(net)) for net in nets.values()}
    assert all(any(pair <= names for names in alike) for pair in same)  # those of one text, on other inputs
    assert len(set(nets.values())) > 80


def act(x):
    return x * jax.nn.sigmoid(x)


DIFFERENT = {
    "a number": (lambda: jn.dense(3), lambda: jn.dense(4)),
    "an integer for a float": (lambda: jn.dropout(0), lambda: jn.dropout(0.0)),
    "an initializer's scale": (
        lambda: jn.dense(3, kernel_init=jax.nn.initializers.normal(0.1)),
        lambda: jn.dense(3, kernel_init=jax.nn.initializers.normal(0.2)),
    ),
    "an option": (lambda: jn.conv(3, 3), lambda: jn.conv(3, 3, use_bias=False)),
    "the order": (lambda: jn.serial(a=jn.flatten, b=act), lambda: jn.serial(b=act, a=jn.flatten)),
    "names": (lambda: jn.serial(a=jn.dense(2)), lambda: jn.serial(b=jn.dense(2))),
    "depth": (lambda: jn.repeat(jn.dense(2), 2), lambda: jn.repeat(jn.dense(2), 3)),
    "repeat and ensemble": (lambda: jn.repeat(jn.dense(2), 2), lambda: jn.ensemble(jn.dense(2), 2)),
    "an option of a partial": (
        lambda: jn.as_net(partial(jax.nn.leaky_relu, negative_slope=0.1)),
        lambda: jn.as_net(partial(jax.nn.leaky_relu, negative_slope=0.2)),
    ),
    "where it ends": (lambda: deep().upto("a"), lambda: deep().upto("b")),
    "lambdas": (lambda: jn.as_net(lambda x: x), lambda: jn.as_net(lambda x: x)),
    "arrays": (
        lambda: jn.dense(2, kernel_init=partial(constant, np.ones(2))),
        lambda: jn.dense(2, kernel_init=partial(constant, np.ones(2))),
    ),
    "cells": (lambda: jn.lstm_cell(3), lambda: jn.lstm_cell(3, forget_bias=2.0)),
}


def constant(value, key, shape, dtype=jnp.float32, out_sharding=None):
    return jnp.broadcast_to(value, shape).astype(dtype)


def deep():
    return jn.serial(a=jn.dense(3), b=act, c=jn.dense(2))


@pytest.mark.parametrize("what", DIFFERENT)
def test_nets_that_differ_are_unequal(what):
    one, other = (make() for make in DIFFERENT[what])
    assert one != other
    assert one == one
    if what not in ("lambdas", "arrays"):
        assert one == DIFFERENT[what][0]()


def test_user_functions_are_compared_by_identity():
    def made(scale):
        return lambda x: scale * x

    twice = made(2)
    assert jn.as_net(twice) == jn.as_net(twice) != jn.as_net(made(2))
    assert jn.serial(twice, jn.dense(2)) == jn.serial(twice, jn.dense(2))
    init, apply, other = lambda key, x: {}, lambda params, x: x, lambda params, x: x
    assert jn.layer(init, apply) == jn.layer(init, apply) != jn.layer(init, other)


@jn.labeled
def scaled(by, *, bias=0.0):
    return jn.layer(None, lambda params, x: by * x + bias)


def test_a_labeled_constructor_of_ones_own_makes_values():
    net = scaled(2.0, bias=1.0)
    assert repr(net) == "scaled(2.0, bias=1.0)"
    assert net == scaled(2.0, bias=1.0) != scaled(2.0)
    assert pickle.loads(pickle.dumps(jn.serial(net))) == jn.serial(net)
    with pytest.raises(jn.NetError, match=r"scaled has no argument use_bias: "):
        scaled(2.0, use_bias=1.0)  # pyright: ignore[reportCallIssue]


def test_a_changed_net_is_unequal():
    net = jn.dense(3)

    def apply(params, state, x, *, key=None, train=False):
        return 2 * net.apply(params, state, x)[0], state

    changed = replace(net, apply=apply)
    assert changed != net
    assert changed == changed
    assert changed.constructor is None
    assert replace(net, label="other") != jn.dense(4)


def test_a_number_that_is_traced_makes_another_net_each_time():
    nets = []

    def loss(rate):
        nets.append(jn.dropout(rate))
        nets.append(jn.dropout(rate + 0))
        return rate

    jax.jit(loss)(0.5)
    assert nets[0] == nets[0] != nets[1]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_of_other_rates_are_unequal(name):
    one, same, other = (Ingredients(OPTIMIZERS[name](rate)) for rate in (0.1, 0.1, 0.2))
    assert one != other
    assert one == same


def test_ingredients_do_not_keep_objects_alive():
    table = np.ones(3)
    net = jn.dense(2, kernel_init=partial(constant, table))
    key = Ingredients(net)
    del net
    gc.collect()
    assert key == key
    assert key != Ingredients(jn.dense(2, kernel_init=partial(constant, np.ones(3))))


@pytest.mark.promotes
def test_an_equal_program_is_compiled_once():
    x, y = floats(12, 4), integers(12, high=3)

    def fit(width, rate):
        net = jn.models.mlp([width], 3, dropout=0.1)
        objective = jn.objective(jn.losses.cross_entropy, jn.regularizers.l2(1e-4))
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(optax.cosine_decay_schedule(rate, 10)))
        run = {"net": net, "objective": objective, "optimizer": optimizer, "data": (x, y), "validation": (x, y)}
        return jn.train.run(jn.train.program(**run, epochs=2, batch_size=4, metrics=[jn.metrics.accuracy]), key=KEY)

    def count(*given):
        found = []
        jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: found.append(event))
        try:
            result = fit(*given)
        finally:
            jax.monitoring.clear_event_listeners()
        return sum("backend_compile" in event for event in found), result

    _, (_, first) = count(5, 0.1)
    compiled, (_, second) = count(5, 0.1)
    assert compiled == 0
    np.testing.assert_array_equal(first["loss"], second["loss"])
    compiled, (_, third) = count(5, 0.2)
    assert compiled > 0
    assert (first["loss"] != third["loss"]).any()


def test_unpicklable_functions_raise_with_their_place():
    inner = jn.serial(fc=jn.dense(3), act=lambda x: x)
    with pytest.raises(jn.NetError, match=r"^body/act: can't be pickled or saved: .*<lambda> under its name; "):
        pickle.dumps(jn.serial(body=inner))
    with pytest.raises(jn.NetError, match="can't be pickled or saved, since nothing says what made it"):
        pickle.dumps(jn.Net(jn.dense(3).init, jn.dense(3).apply))
    (own,) = [case for case in CASES if case.name == OWN]
    with pytest.raises(jn.NetError, match="can't be pickled or saved: no module has the function"):
        pickle.dumps(own.make())


def test_arrays_are_pickled():
    (case,) = [case for case in CASES if case.name == ARRAYS]
    net = case.make()
    again = pickle.loads(pickle.dumps(net))
    one, other = once(
        lambda trees, x: [each.apply(trees[0], trees[1], x)[0] for each in (net, again)], draw(net, case.x), case.x
    )
    np.testing.assert_array_equal(one, other)


def test_a_pickled_net_computes_the_same():
    net = jn.serial(
        jn.conv(3, 3, kernel_init=jax.nn.initializers.variance_scaling(0.5, "fan_out", "normal")),
        jn.batch_norm(),
        jn.cast(jn.serial(partial(jax.nn.leaky_relu, negative_slope=0.2), jn.max_pool(2)), jnp.bfloat16),
        act,
        jnp.tanh,
        jn.flatten,
        jn.dense(2),
    )
    x = floats(2, 6, 6, 3)
    again = pickle.loads(pickle.dumps(net))

    def outputs(key, x):
        return [(trees := each.init(key, x), each.apply(trees[0], trees[1], x)[0]) for each in (net, again)]

    for a, b in zip(*map(jax.tree.leaves, once(outputs, KEY, x)), strict=True):
        np.testing.assert_array_equal(a, b)


def doubled(x):
    return scale * x


scale = 2.0


class Scaled:
    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return self.by * x


def test_variables_that_a_function_reads_are_compared():
    """A net built again after a variable has changed must not reuse what was compiled before."""
    global scale  # noqa: PLW0603  # what is tested
    x = floats(2, 3)

    def outputs(function):
        net = jn.serial(function)  # built again, as in a cell of a notebook that runs again
        return net, jn.predict(net, net.init(KEY, x), x)

    factor, table, object_, numbers = 2.0, np.full((2, 3), 2.0, np.float32), Scaled(2.0), [2.0]

    def closed(x):
        return factor * x

    def looked_up(x):
        return jnp.asarray(table) * x

    def first(x):
        return numbers[0] * x

    def nested(x):
        return jax.vmap(lambda row: doubled(row) + 0)(x)

    def by_default(x, table=table):
        return jnp.asarray(table) * x

    functions = doubled, nested, closed, looked_up, by_default, object_, object_.__call__, first
    before = [outputs(function) for function in functions]
    again = [outputs(function) for function in functions]
    scale = factor = object_.by = numbers[0] = 3.0
    table[:] = 3.0
    after = [outputs(function) for function in functions]
    scale = 2.0
    for (old, y), (same, same_y), (new, other) in zip(before, again, after, strict=True):
        assert old == same != new
        np.testing.assert_array_equal(y, 2 * x)
        np.testing.assert_array_equal(same_y, 2 * x)
        np.testing.assert_array_equal(other, 3 * x)


def test_later_changes_of_an_argument_do_not_matter():
    widths, codes = [8], np.sign(floats(7, 84))
    net, other = jn.models.mlp(widths, 3), jn.models.lenet5_1998(7, codes=codes)
    widths.append(4)
    codes *= -1
    assert net == jn.models.mlp([8], 3) != jn.models.mlp(widths, 3)
    assert repr(pickle.loads(pickle.dumps(net))) == repr(net)
    assert other != jn.models.lenet5_1998(7, codes=codes)
    np.testing.assert_array_equal(other.arguments["codes"], -codes)
