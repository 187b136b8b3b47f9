"""Networks in files: written as calls, and built again from a fixed table alone."""

import inspect
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.interop.nets import read, table, write
from tests.models.weights import draw
from tests.oracle import floats
from tests.test_every_net import CASES

UNWRITABLE = {  # a lambda that merges, and a table of connections
    "recurrent/bidirectional_carry": "no module has the function .*<lambda> under its name",
    "models/lenet5_parts": "can't write the function jaxnets.models.lenet.connected_conv into a file; ",
}
WRITABLE = [case for case in CASES if case.name not in UNWRITABLE]


@pytest.mark.parametrize("case", WRITABLE, ids=str)
def test_a_net_comes_back_equal(case):
    net = case.make()
    again = read(json.loads(json.dumps(write(net))))
    assert again == net
    assert repr(again) == repr(net)


@pytest.mark.parametrize("name", UNWRITABLE)
def test_errors_name_what_is_not_in_the_table(name):
    (case,) = [case for case in CASES if case.name == name]
    with pytest.raises(jn.NetError, match=UNWRITABLE[name]):
        write(case.make())


def test_every_public_constructor_is_in_the_table():
    listed = {id(value) for value in table().values()}
    for module in (jn, jn.combinators, jn.layers, jn.models):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value) and inspect.signature(value).return_annotation in (jn.Net, jn.Cell):
                assert id(value) in listed, name
    for name in ("scaled_tanh", "hard_tanh", "soft_shrink", "threshold"):
        assert table()[f"jn.activations.{name}"] is getattr(jn.activations, name)
    assert "jn.initializers.bilinear_kernel" in table()


def test_models_are_in_the_table_and_other_functions_are_not():
    models = {f"jn.models.{name}" for name in jn.models.__all__ if f"jn.models.{name}" in table()}
    assert len(models) > 45
    assert not {"jn.decoding.sample", "jn.decoding.beam_search", "jn.models.free_energy", "jn.save"} & set(table())
    for name in ("resnet152", "vgg11", "unet", "vae", "dbm", "language_model"):
        assert f"jn.models.{name}" in models


NETS = {
    "initializers": lambda: jn.dense(
        3,
        kernel_init=jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        bias_init=jax.nn.initializers.constant(0.1),
    ),
    "dtypes": lambda: jn.cast(jn.dense(3), jn.Policy(jnp.float32, jnp.bfloat16, jnp.float16)),
    "a partial": lambda: jn.serial(jn.dense(3), partial(jax.nn.leaky_relu, negative_slope=0.3)),
    "an end in the middle": lambda: jn.models.resnet18(10).upto("layer1/0/conv1"),
    "wrapped": lambda: jn.remat(jn.repeat(jn.serial(jn.dense(4), jnp.tanh), 3)),
    "activations of ours": lambda: jn.serial(
        a=jn.activations.scaled_tanh, b=partial(jn.activations.hard_tanh, low=0.0)
    ),
    "a graph": lambda: jn.graph(a=jn.dense(2), b=(jn.dense(3), "input"), c=(jn.concatenate, "a", "b")),
}


@pytest.mark.parametrize("name", NETS)
def test_a_file_gives_the_net_back(name, tmp_path):
    net = NETS[name]()
    jn.save(tmp_path / "net.safetensors", ({"w": jnp.ones(2)}, {}), net=net)
    saved = jn.load(tmp_path / "net.safetensors")
    assert saved.net == net
    assert repr(saved.net) == repr(net)


def test_numpy_scalars_come_back_as_python_scalars():
    net = jn.serial(jn.dense(np.int64(3)), jn.dropout(np.float32(0.25)))  # pyright: ignore[reportArgumentType]
    assert read(json.loads(json.dumps(write(net)))) == jn.serial(jn.dense(3), jn.dropout(0.25))


def test_a_net_from_a_file_computes_the_same(tmp_path):
    net, x = jn.serial(conv=jn.conv(3, 3), bn=jn.batch_norm(), flatten=jn.flatten, out=jn.dense(2)), floats(3, 5, 5, 2)
    params, state = draw(net, x)
    jn.save(tmp_path / "net", (params, state), metadata={"epochs": 3}, net=net)
    params, state, metadata, again = jn.load(tmp_path / "net")
    assert again is not None
    assert metadata == {"epochs": 3}
    outputs = jax.jit(lambda trees, x: [each.apply(trees[0], trees[1], x)[0] for each in (again, net)])(
        (params, state), x
    )
    np.testing.assert_array_equal(*outputs)
    jn.save(tmp_path / "bare", (params, {}))
    assert jn.load(tmp_path / "bare").net is None


REFUSED = {
    "a custom function": (lambda: jn.serial(jn.dense(2), body=jn.serial(a=lambda x: x)), "^body/a: save"),
    "a function of NumPy": (lambda: jn.serial(a=jnp.linalg.norm), r"^a: .*can't write the function jax\.numpy"),
    "an array": (
        lambda: jn.models.lenet5_1998(2, codes=np.ones((2, 84), np.float32)),
        r"^codes: .*can't write ndarray .*; to save params and state, leave net= out",
    ),
    "functions of a layer": (
        lambda: jn.serial(a=jn.Net(lambda key, x: ({}, {}), lambda params, state, x, **_: (x, state), "own")),
        r"^a: own can't be pickled or saved, since nothing says what made it",
    ),
}


def test_the_hint_of_a_custom_layer_works(tmp_path):
    net, x = REFUSED["functions of a layer"][0](), jnp.ones((2, 3))
    trees = net.init(jax.random.key(0), x)
    with pytest.raises(
        jn.NetError, match="to save params and state, leave net= out, and make the network in code again"
    ):
        jn.save(tmp_path / "net", trees, net=net)
    jn.save(tmp_path / "net", trees)
    np.testing.assert_array_equal(jn.predict(net, jn.load(tmp_path / "net"), x), jn.predict(net, trees, x))


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_saved_leaves_no_file(what, tmp_path):
    make, words = REFUSED[what]
    with pytest.raises(jn.NetError, match=words):
        jn.save(tmp_path / "net", ({"w": jnp.ones(2)}, {}), net=make())
    assert not list(tmp_path.iterdir())


CALL = {"call": "jn.dense", "args": [3], "kwargs": {}}
FORGED = {
    "another function": {"call": "json.dumps", "args": ["x"], "kwargs": {}},
    "a function of ours that makes no net": {"call": "jn.load", "args": ["x"], "kwargs": {}},
    "an attribute": {"name": "jn.dense.__globals__"},
    "more than a call": CALL | {"more": 1},
    "no call": [1, 2],
    "a number": 3,
    "a name alone": {"name": "jax.nn.relu"},
    "wrong arguments": CALL | {"kwargs": {"color": 1}},
    "wrong values": CALL | {"args": ["many"]},
    "a dtype that is none": {"call": "jn.cast", "args": [CALL, {"dtype": "save"}], "kwargs": {}},
    "a number that is none": {"call": "jn.dropout", "args": [{"float": "1"}], "kwargs": {}},
}


@pytest.mark.parametrize("what", FORGED)
def test_anything_else_is_refused(what):
    with pytest.raises(jn.NetError):
        read(FORGED[what])
