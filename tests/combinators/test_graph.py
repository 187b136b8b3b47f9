"""Graphs equal their parts applied by hand; heads beside a chain run in training alone, each layer once."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from tests.oracle import floats, integers, variables

KEY = jax.random.key(3)
X = jnp.asarray(floats(4, 6))


def counted(calls: list[str], name: str, features: int) -> jn.Net:
    """A dense layer that notes each time it is traced."""
    inner = jn.dense(features)

    def apply(params: Any, state: Any, x: Any, *, key: Any = None, train: bool = False) -> Any:
        calls.append(name)
        return inner.apply(params, state, x, key=key, train=train)

    return jn.Net(inner.init, apply, name)


def diamond(calls: list[str] | None = None) -> jn.Net:
    make = partial(counted, [] if calls is None else calls)
    return jn.graph(
        stem=make("stem", 5),
        left=make("left", 3),
        right=(make("right", 3), "stem"),
        both=(sum, "left", "right"),
        join=(jn.concatenate, "both", "stem", "input"),
        out=make("out", 2),
    )


def test_a_graph_equals_its_parts_by_hand_in_the_order_named():
    net = diamond()
    params, state = variables(net, X, scale=0.3)

    def dense(name: str, x: Any) -> Any:
        return x @ params[name]["kernel"] + params[name]["bias"][None]

    stem = dense("stem", np.asarray(X))
    both = dense("left", stem) + dense("right", stem)
    by_hand = dense("out", np.concatenate([both, stem, X], axis=-1))
    np.testing.assert_allclose(jax.jit(net.apply)(params, state, X)[0], by_hand, atol=1e-6)
    assert sorted(params) == ["left", "out", "right", "stem"]
    serial = jn.serial(a=jn.dense(3), tanh=jnp.tanh, b=jn.dense(2))
    same = jn.graph(**serial.children)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), same.init(KEY, X)[0], serial.init(KEY, X)[0]))


def test_each_node_runs_once_and_a_cut_runs_what_it_needs():
    calls: list[str] = []
    net = diamond(calls)
    params, state = net.init(KEY, X)
    calls.clear()
    net.apply(params, state, X)
    assert calls == ["stem", "left", "right", "out"]
    calls.clear()
    y, _ = net.upto("right").apply(params, state, X)
    assert calls == ["stem", "right"]
    assert y.shape == (4, 3)


def test_a_graph_is_cut_inside_a_node():
    inner = jn.serial(fc=jn.dense(3), tanh=jnp.tanh)
    net = jn.graph(a=inner, b=(inner, "input"), join=(jn.concatenate, "a", "b"))
    params, state = net.init(KEY, X)
    y, _ = net.upto("b/fc").apply(params, state, X)
    np.testing.assert_array_equal(y, jn.dense(3).apply(params["b"]["fc"], {}, X)[0])


def test_an_empty_graph_is_the_identity():
    assert jn.graph().apply({}, {}, X)[0] is X


def heads(calls: list[str] | None = None) -> jn.Net:
    make = partial(counted, [] if calls is None else calls)
    body = jn.serial(a=make("a", 5), norm=jn.batch_norm(), b=make("b", 4), out=make("out", 3))
    side = jn.serial(norm=jn.batch_norm(), fc=make("side", 3))
    return jn.auxiliary_heads(body, late=(side, "b"), early=(make("early", 3), "a"))


def test_heads_run_in_training_alone_and_each_layer_once():
    calls: list[str] = []
    net = heads(calls)
    params, state = net.init(KEY, X)
    calls.clear()
    y, after = net.apply(params, state, X)
    assert calls == ["a", "b", "out"]
    assert y.shape == (4, 3)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), after, state))
    calls.clear()
    outputs, after = net.apply(params, state, X, train=True)
    assert calls == ["a", "early", "b", "side", "out"]
    assert list(outputs) == ["logits", "late", "early"]
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert not (after["late"]["norm"]["mean"] == state["late"]["norm"]["mean"]).all()
    assert not (after["norm"]["mean"] == state["norm"]["mean"]).all()


def test_outputs_and_cuts_in_training_are_those_of_body_and_heads():
    net = heads()
    params, state = net.init(KEY, X)
    outputs, _ = net.apply(params, state, X, train=True)
    a, _ = net["a"].apply(params["a"], {}, X)
    np.testing.assert_array_equal(outputs["early"], net["early"].apply(params["early"], {}, a)[0])
    for head in ("late", "early"):
        y, after = net.upto(head).apply(params, state, X, train=True)
        np.testing.assert_array_equal(y, outputs[head])
        assert jax.tree.structure(after) == jax.tree.structure(state)
    b, _ = net.upto("b").apply(params, state, X, train=True)
    fed, _ = net["out"].apply(params["out"], {}, b)
    np.testing.assert_array_equal(fed, outputs["logits"])
    normed, _ = net.upto("late/norm").apply(params, state, X, train=True)
    np.testing.assert_array_equal(net["late/fc"].apply(params["late"]["fc"], {}, normed)[0], outputs["late"])


DENSE = jn.dense(2)
MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "reads a later node": (
        lambda: jn.graph(a=(DENSE, "b"), b=DENSE),
        "graph has no 'b' before 'a', which reads it; there are: input",
    ),
    "idle node": (
        lambda: jn.graph(a=DENSE, b=(DENSE, "input")),
        "graph has nodes that nothing reads: a; read them by name",
    ),
    "named input": (lambda: jn.graph(input=DENSE), "graph reserves the name 'input' for its own input"),
    "tuple without names": (lambda: jn.graph(a=(DENSE,)), "graph expects .* with what 'a' reads, got no name"),
    "slash": (lambda: jn.graph(**{"a/b": DENSE}), "graph expects names without '/'"),
    "body no serial": (
        lambda: jn.auxiliary_heads(DENSE, a=(DENSE, "0")),
        "auxiliary_heads expects a serial .* got dense",
    ),
    "no heads": (lambda: jn.auxiliary_heads(jn.serial(DENSE)), "auxiliary_heads expects at least one head"),
    "head on nothing": (
        lambda: jn.auxiliary_heads(jn.serial(DENSE), a=(DENSE, "1")),
        r"a child of the body, 0; got \('1',\)",
    ),
    "head without place": (lambda: jn.auxiliary_heads(jn.serial(DENSE), a=DENSE), "a child of the body, 0; got Net"),  # type: ignore[arg-type]
    "head named as a layer": (
        lambda: jn.auxiliary_heads(jn.serial(a=DENSE), a=(DENSE, "a")),
        "auxiliary_heads has the name 'a' for a head and for a layer of the body",
    ),
    "head named logits": (
        lambda: jn.auxiliary_heads(jn.serial(a=DENSE), logits=(DENSE, "a")),
        "has the name 'logits' for a head and for the main output",
    ),
    "no weights": (
        lambda: jn.losses.auxiliary_loss(jn.losses.hinge),
        "auxiliary_loss.hinge. expects a weight for each head",
    ),
    "negative weight": (
        lambda: jn.losses.auxiliary_loss(jn.losses.hinge, aux=-1.0),
        "auxiliary_loss.hinge. expects the weight of aux ≥ 0, got -1",
    ),
    "another head": (
        lambda: jn.losses.auxiliary_loss(jn.losses.hinge, aux=0.3)({"logits": X, "aux1": X}, X),
        "auxiliary_loss.hinge. expects the outputs logits, aux, got logits, aux1; give each head its weight",
    ),
    "a loss of one output": (
        lambda: jn.losses.cross_entropy({"logits": X, "aux1": X}, jnp.zeros(4, int)),
        "cross_entropy expects an array, got dict; for auxiliary heads wrap the loss, jn.losses.auxiliary_loss",
    ),
    "labels without places": (
        lambda: jn.losses.ignoring(jn.losses.cross_entropy, 255)(X, jnp.zeros(4, int)),
        r"ignoring.cross_entropy, 255. expects outputs \(batch, positions, ..., classes\)",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_raise(name: str):
    wrong, message = MISTAKES[name]
    with pytest.raises(jn.NetError, match=message):
        wrong()


def test_auxiliary_loss_is_the_weighted_sum_with_traced_weights():
    outputs = {name: jnp.asarray(floats(4, 3, seed=seed)) for seed, name in enumerate(("logits", "aux1", "aux2"))}
    labels = jnp.asarray(integers(4, high=3))
    each = {name: jn.losses.cross_entropy(y, labels) for name, y in outputs.items()}

    def total(weight: Any, outputs: Any) -> jax.Array:
        return jn.losses.auxiliary_loss(jn.losses.cross_entropy, aux1=weight, aux2=0.25)(outputs, labels)

    by_hand = each["logits"] + 0.5 * each["aux1"] + 0.25 * each["aux2"]
    np.testing.assert_allclose(jax.jit(total)(0.5, outputs), by_hand, rtol=1e-6)
    np.testing.assert_array_equal(total(0.5, outputs["logits"]), each["logits"])
    slopes = jax.grad(lambda w: total(w, outputs).sum())(0.5)
    np.testing.assert_allclose(slopes, each["aux1"].sum(), rtol=1e-6)


@pytest.mark.promotes
@pytest.mark.slow
def test_a_net_with_heads_trains_and_metrics_read_its_logits():
    """Through `program` and `fit`; the first step is gradient descent on the weighted sum."""
    x, y = floats(12, 6), integers(12, high=3)
    body = jn.serial(a=jn.dense(5), tanh=jnp.tanh, out=jn.dense(3))
    net = jn.auxiliary_heads(body, aux=(jn.dense(3), "a"))
    cross = jn.losses.cross_entropy
    objective = jn.objective(jn.losses.auxiliary_loss(cross, aux=0.3))
    metrics = {
        "accuracy": jn.metrics.accuracy,
        "top_2": jn.metrics.top_k(2),
        "f1": jn.metrics.f1(3),
        "perplexity": jn.metrics.perplexity,
    }
    options: dict[str, Any] = {"batch_size": None, "metrics": metrics, "validation": (x, y)}
    program = jn.train.program(net, objective, optax.sgd(0.5), (x, y), epochs=2, **options)
    start = program.start(KEY)
    run, row = jax.jit(lambda program, run: program.run_epoch(run))(program, start)

    def loss(params: Any) -> jax.Array:
        hidden = x @ params["a"]["kernel"] + params["a"]["bias"]
        aux = hidden @ params["aux"]["kernel"] + params["aux"]["bias"]
        logits = jnp.tanh(hidden) @ params["out"]["kernel"] + params["out"]["bias"]
        return (cross(logits, y) + 0.3 * cross(aux, y)).mean()

    value, slopes = jax.value_and_grad(loss)(start.params)
    np.testing.assert_allclose(row["loss"], value, rtol=1e-5)
    for stepped, before, slope in zip(*map(jax.tree.leaves, (run.params, start.params, slopes)), strict=True):
        np.testing.assert_allclose(stepped, before - 0.5 * slope, atol=1e-6)
    logits, _ = net.apply(start.params, {}, jnp.asarray(x))
    for name, metric in metrics.items():
        np.testing.assert_allclose(row[name], metric(logits, y), rtol=1e-5)
    after, _ = net.apply(run.params, {}, jnp.asarray(x))
    np.testing.assert_allclose(row["validation/cross_entropy"], cross(after, jnp.asarray(y)).mean(), rtol=1e-5)
    finished, history = jn.train.run(program, key=KEY)
    np.testing.assert_allclose(history["loss"][0], value, rtol=1e-5)
    assert int(finished.step) == 2
