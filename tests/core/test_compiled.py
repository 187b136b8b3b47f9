"""The cache of compiled functions: which calls share one, what the functions hold, and how many there are."""

import gc
import weakref
from collections import deque
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from jaxnets.core import compiled as module
from jaxnets.core.compiled import compiled, computed
from jaxnets.core.equality import Ingredients
from tests.oracle import floats, integers

pytestmark = pytest.mark.promotes
OBJECTIVE = jn.objective(jn.losses.cross_entropy)
DATA = floats(8, 4), integers(8, high=3)
KEY = jax.random.key(0)
traced: deque[float] = deque()  # no list, whose contents are compared


@pytest.fixture(autouse=True)
def nothing_kept():
    """Start with an empty cache."""
    module._cache.clear()
    module._executables.clear()
    traced.clear()


def scaled(factor, x):
    traced.append(factor)
    return factor * x


def applied(function, x):
    return function(x)


def test_equal_arguments_and_shapes_share_one():
    x = jnp.arange(3.0)
    for factor, given in [(2.0, x), (2.0, x + 1), (3.0, x), (2, x), (2.0, x[:2]), (2.0, x)]:
        np.testing.assert_array_equal(computed(scaled, [factor], given), factor * given)
    assert [*traced] == [2.0, 3.0, 2, 2.0]  # an int is no float, and other shapes are compiled again
    assert float(jax.grad(lambda x: computed(scaled, [5.0], x))(1.0)) == 5.0
    np.testing.assert_array_equal(jax.vmap(lambda x: computed(scaled, [7.0], x))(x), 7 * x)
    assert len(module._cache) == 4  # a traced call is compiled by its caller


def test_parts_of_a_key():
    class Table:
        def look(self, x):
            return x

    one, other = Table(), Table()
    options = jn.train.early_stopping("loss", patience=2)
    assert Ingredients(one.look) == Ingredients(one.look) != Ingredients(other.look)
    assert Ingredients({"a": [one, 1]}) == Ingredients({"a": [one, 1]}) != Ingredients({"a": [other, 1]})
    assert Ingredients(options) == Ingredients(jn.train.early_stopping("loss", patience=2)) != Ingredients(None)
    array = np.zeros(2)  # neither hashable nor with one answer to ==: by identity
    assert Ingredients(array) == Ingredients(array) != Ingredients(np.zeros(2))
    power = partial(pow, exp=2)
    assert Ingredients(power) == Ingredients(partial(pow, exp=2)) != Ingredients(partial(pow, exp=3))
    before = Ingredients(one)
    del one
    assert before == before != Ingredients(other)


def test_the_cache_is_bounded_and_drops_the_least_recently_used(monkeypatch):
    monkeypatch.setattr(module, "CAPACITY", 3)
    functions = [partial(lambda k, x: x + k, k) for k in range(module.CAPACITY + 2)]
    for function in functions:
        computed(applied, [function], jnp.ones(1))
        computed(applied, [functions[0]], jnp.ones(1))
    assert len(module._cache) == module.CAPACITY
    cached = [
        function
        for function in functions
        if Ingredients(applied, (function,)).parts[:2] in {k.parts[:2] for k in module._cache}
    ]
    assert cached == [functions[0], *functions[3:]]


def test_a_compiled_function_is_dropped_with_its_static_arguments():
    table = np.arange(3.0)
    gone = weakref.ref(table)

    def look(x, table=table):
        return x + table

    np.testing.assert_array_equal(computed(applied, [look], jnp.ones(3)), [1, 2, 3])
    assert len(module._cache) == 1
    del look, table
    gc.collect()
    assert gone() is None
    assert not module._cache


def test_a_changed_setting_of_jax_traces_again():
    function = compiled(scaled, [2.0], [jnp.ones(1)])
    function(jnp.ones(1))
    with jax.default_matmul_precision("float32"):
        function(jnp.ones(1))
    assert [*traced] == [2.0, 2.0]


def test_functions_that_lower_to_the_same_program_share_an_executable():
    x = jnp.arange(3.0)

    def defined_again(constant, name):
        return compiled(applied, [lambda x: {name: x * constant}], [x], by_program=True)

    first, same, other, renamed = [defined_again(*each) for each in [(2.0, "y"), (2.0, "y"), (3.0, "y"), (2.0, "z")]]
    np.testing.assert_array_equal(first(x)["y"], 2 * x)
    np.testing.assert_array_equal(same(x)["y"], 2 * x)
    assert same.executable(x) is first.executable(x)
    # The same code over another constant, and the same operations with an output of another name.
    np.testing.assert_array_equal(other(x)["y"], 3 * x)
    np.testing.assert_array_equal(renamed(x)["z"], 2 * x)
    with jax.default_matmul_precision("float32"):
        np.testing.assert_array_equal(first(x)["y"], 2 * x)
    elsewhere = jax.device_put(x, jax.devices()[1])
    assert first(elsewhere)["y"].devices() == {jax.devices()[1]}


def test_callbacks_are_no_part_of_a_program():
    def called_back(function):
        return lambda x: jax.pure_callback(function, jax.ShapeDtypeStruct((3,), x.dtype), x)

    x = jnp.arange(3.0)
    for function in (np.cos, np.sin):
        made = compiled(applied, [called_back(function)], [x], by_program=True)(x)
        np.testing.assert_allclose(made, function(np.arange(3.0)), rtol=1e-6)


def test_executables_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "CAPACITY", 3)
    for factor in range(module.CAPACITY + 3):
        compiled(scaled, [float(factor)], [jnp.ones(1)], by_program=True)(jnp.ones(1))
    assert len(module._executables) == module.CAPACITY


def test_near_the_limit_of_mappings_there_is_a_warning(monkeypatch):
    monkeypatch.setattr(module, "FULL", 0.0)
    with pytest.warns(UserWarning, match=r"over 0% of the \d+ memory mappings that Linux allows"):
        computed(scaled, [2.0], jnp.ones(1))


def program(net=None, rate=0.1, **given):
    optimizer = optax.sgd(rate)
    return jn.train.program(net or jn.dense(3), OBJECTIVE, optimizer, DATA, epochs=1, batch_size=4, **given)


class Source:
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return DATA[0][index], DATA[1][index]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.slow_cases("True")
def test_a_dropped_program_frees_its_source_and_tables(streamed):
    source, table = Source(), np.ones(4, np.float32)
    gone = [weakref.ref(each) for each in (source, table)]

    def augment(key, x, table=table):
        return x + table

    data = jn.data.stream(source, 4, epochs=None) if streamed else DATA
    one = jn.train.program(jn.dense(3), OBJECTIVE, optax.sgd(0.1), data, epochs=1, batch_size=4, augment=augment)
    jn.train.run(one, key=KEY)
    del one, data, source, table, augment
    gc.collect()
    assert [each() is None for each in gone] == [True, True]


def test_programs_of_the_same_parts_compile_once():
    net, optimizer = jn.dense(3), optax.adam(0.1)

    def same(epochs):
        return jn.train.program(net, OBJECTIVE, optimizer, DATA, epochs=epochs, batch_size=4)

    expected = jn.train.run(same(2), key=KEY)[1]["loss"]
    cached = set(module._cache)
    history = jn.train.run(same(3), key=KEY)[1]["loss"]  # no other function, and no new trace of those
    assert set(module._cache) == cached
    np.testing.assert_array_equal(history[:2], expected)
    assert same(2).recipe == same(3).recipe != program(net).recipe
    bare = [jn.train.program(net, jn.losses.cross_entropy, optimizer, DATA, epochs=2, batch_size=4) for _ in range(2)]
    assert bare[0].recipe == bare[1].recipe
    with jax.no_tracing():
        jn.train.run(same(2), key=KEY)


def test_evaluation_compiles_once_for_a_network_and_shapes():
    net = jn.serial(out=jn.dense(3))
    params, state = net.init(KEY, DATA[0])
    metrics = {"accuracy": jn.metrics.accuracy}
    arguments = net, (params, state), DATA, metrics, OBJECTIVE
    first, outputs = jn.train.evaluate(*arguments), jn.predict(net, (params, state), DATA[0])
    x, kernel, bias = DATA[0], params["out"]["kernel"], params["out"]["bias"]
    np.testing.assert_allclose(outputs, x @ kernel + bias, rtol=1e-6)
    np.testing.assert_allclose(first["accuracy"], (np.asarray(outputs).argmax(1) == DATA[1]).mean())
    with jax.no_tracing():
        again = jn.train.evaluate(*arguments)
        np.testing.assert_array_equal(jn.predict(net, (params, state), DATA[0]), outputs)
    assert again == first


def mappings() -> int:
    return Path("/proc/self/maps").read_bytes().count(b"\n")


def one_sweep(number):
    def study(hp):
        return jn.train.program(jn.dense(3), OBJECTIVE, optax.sgd(hp["lr"]), DATA, epochs=1, batch_size=4)

    jn.sweeps.sweep(study, grid={"lr": [0.1, 0.2]}, strategy="vmap")


@pytest.mark.slow
def test_a_sweep_whose_trial_function_is_defined_again_compiles_nothing():
    compilations = list[str]()

    def listen(event, *_, **__):
        if "backend_compile" in event:
            compilations.append(event)

    one_sweep(1)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        one_sweep(2)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not compilations


NETS = [jn.repeat(jn.dense(4), 1, unroll=number) for number in (1, 2, 3)]
PARAMS, STATE = NETS[0].init(KEY, DATA[0])
# What is done, how often until all that is shared has been compiled, and how often then.
OFTEN = {
    "fits": (lambda number: jn.train.run(program(rate=0.1 + number), key=KEY), 2, 2),
    "sweeps": (one_sweep, 1, 2),
    "evaluations": (
        lambda number: jn.evaluate(NETS[number % 3], (PARAMS, STATE), DATA, {"loss": jn.metrics.accuracy}), 3, 6,
    ),
}  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="Linux lists a process's memory mappings")
@pytest.mark.parametrize("what", OFTEN)
@pytest.mark.slow
def test_new_programs_sweeps_and_evaluations_leave_no_mappings(what, monkeypatch):
    """A fit left 340 once, a sweep 430, an evaluation 43; `tests/train/long_lived.py` does hundreds of each."""
    monkeypatch.setattr(module, "CAPACITY", 4)
    do, few, many = OFTEN[what]
    for number in range(few):
        do(number)
    gc.collect()
    before = mappings()
    for number in range(few, few + many):
        do(number)
    gc.collect()
    assert mappings() - before < 10


def unread(x, rows):
    return 2 * x


def test_an_argument_that_is_not_read_still_has_its_shape():
    """The text of a program does not show it, and an executable takes no other."""
    for n in (3, 5):
        x, rows = jnp.ones(2), jnp.ones((n, 4))
        np.testing.assert_array_equal(compiled(unread, [], [x, rows], by_program=True)(x, rows), 2 * x)
