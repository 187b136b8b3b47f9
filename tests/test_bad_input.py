"""Mistakes and what the library says to them: where, what was expected, what came, the likely mend."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from tests.oracle import floats, integers

KEY = jax.random.key(0)
IMAGE = jnp.asarray(floats(2, 8, 8, 3))
FLAT = jnp.asarray(floats(2, 6))
STEPS = jnp.asarray(floats(2, 5, 4))
ZERO: Any = 0
HALF: Any = 1.5
LOGITS = jnp.asarray(floats(4, 3))


def placed(layer: Any) -> jn.Net:
    """Put a layer two levels deep, so that its path is `stage/block`."""
    return jn.serial(stage=jn.serial(block=layer))


def init(layer: Callable[[], Any], x: Any) -> Callable[[], Any]:
    return lambda: placed(layer()).init(KEY, x)


def apply(layer: Callable[[], Any], made_for: Any, x: Any, **options: Any) -> Callable[[], Any]:
    def run() -> Any:
        net = placed(layer())
        return net.apply(*net.init(KEY, made_for), x, **options)

    return run


def given(layer: Callable[[], Any], change: Callable[[dict], dict], x: Any) -> Callable[[], Any]:
    """Apply a layer with its parameters changed."""

    def run() -> Any:
        net = placed(layer())
        params, state = net.init(KEY, x)
        return net.apply({"stage": {"block": change(params["stage"]["block"])}}, state, x)

    return run


def train(data: Any = None, **options: Any) -> Callable[[], Any]:
    objective = jn.objective(jn.losses.cross_entropy)
    data = (floats(8, 6), integers(8, high=3)) if data is None else data
    given: dict[str, Any] = {"epochs": 1, "batch_size": 4} | options
    return lambda: jn.train.program(jn.dense(3), objective, optax.sgd(0.1), data, **given)


def fresh(tree: dict, path: str, value: Any) -> dict:
    return tree | {path: value}


# name: (what is done, the words that the message must hold, in order)
MISTAKES: dict[str, tuple[Callable[[], Any], list[str]]] = {
    # --- wrong rank
    "conv on flat input": (
        init(lambda: jn.conv(64, 3), FLAT),
        ["stage/block: conv(64, 3) expects (batch, ", "got (2, 6)"],
    ),
    "dense without batch": (
        init(lambda: jn.dense(3), jnp.ones(6)),
        ["stage/block: dense(3) expects (batch", "(6,)", "x[None]"],
    ),
    "dense without features": (
        init(lambda: jn.dense(3), jnp.ones((2, 0))),
        ["stage/block: dense(3) expects at least one feature, got (2, 0)"],
    ),
    "conv without channels": (
        init(lambda: jn.conv(6, 3), jnp.ones((2, 8, 8, 0))),
        ["stage/block: conv(6, 3) expects at least one feature, got (2, 8, 8, 0)"],
    ),
    "pool on flat input": (
        init(lambda: jn.max_pool(2), FLAT),
        ["stage/block: max_pool(2) expects (batch, ", "got (2, 6)"],
    ),
    "recurrent on flat input": (
        init(lambda: jn.recurrent(jn.lstm_cell(4)), FLAT),
        ["stage/block: recurrent(", "expects (batch, time, features)", "(2, 6)"],
    ),
    "flatten a scalar": (
        lambda: placed(jn.flatten).apply({}, {}, jnp.ones(())),
        ["stage/block: flatten expects (batch"],
    ),
    # --- parameters and input of different width
    "dense given other features": (
        apply(lambda: jn.dense(3), FLAT, jnp.ones((2, 7))),
        ["stage/block: dense(3) has kernel (6, 3)", "input (2, 7) needs kernel (7, 3)"],
    ),
    "conv given other channels": (
        apply(lambda: jn.conv(4, 3), IMAGE, IMAGE[..., :1]),
        ["stage/block: conv(4, 3)", "(3, 3, 3, 4)", "(2, 8, 8, 1)", "(3, 3, 1, 4)"],
    ),
    "batch norm given other channels": (
        apply(jn.batch_norm, IMAGE, IMAGE[..., :1]),
        ["stage/block: batch_norm() has", "(3,)", "(1,)"],
    ),
    "lstm given other features": (
        apply(lambda: jn.recurrent(jn.lstm_cell(4)), STEPS, STEPS[..., :3]),
        ["stage/block: recurrent(", "kernel (4, 16)", "(3, 16)"],
    ),
    "groups that don't divide": (
        init(lambda: jn.conv(4, 3, groups=2), IMAGE),
        ["stage/block: conv(4, 3, groups=2)", "3", "2"],
    ),
    "group norm that doesn't divide": (
        init(lambda: jn.group_norm(2), IMAGE),
        ["stage/block: group_norm(2)", "2 equal groups", "got 3 channels"],
    ),
    # --- dtype
    "integers to dense": (
        init(lambda: jn.dense(3), jnp.ones((2, 6), int)),
        ["stage/block: dense(3) expects floating", "int32", "jn.embed"],
    ),
    "integers to conv": (
        init(lambda: jn.conv(4, 3), jnp.ones((2, 8, 8, 3), jnp.uint8)),
        ["stage/block: conv(4, 3) expects floating", "uint8", "/ 255"],
    ),
    "floats to embed": (init(lambda: jn.embed(10, 4), FLAT), ["stage/block: embed(10, 4) expects integer", "float32"]),
    "index beyond the vocabulary": (
        apply(lambda: jn.embed(10, 4), jnp.array([[1]]), jnp.array([[10]])),
        ["stage/block: embed(10, 4)", "10"],
    ),
    # --- sizes
    "kernel larger than the input": (
        init(lambda: jn.conv(4, 9), IMAGE),
        ["stage/block: conv(4, 9) expects", "height 8 for a window of 9", "padding="],
    ),
    "pool larger than the input": (
        init(lambda: jn.max_pool(9), IMAGE),
        ["stage/block: max_pool(9) expects", "height 8 for a window of 9"],
    ),
    "one value a channel in batch norm": (
        apply(jn.batch_norm, FLAT, FLAT[:1], train=True),
        ["stage/block: batch_norm() ", "layer_norm"],
    ),
    # --- keys
    "no key for dropout": (
        apply(lambda: jn.dropout(0.5), FLAT, FLAT, train=True),
        ["stage/block: dropout(0.5)", "needs a key", "key=key"],
    ),
    "no key between recurrent layers": (
        apply(lambda: jn.recurrent(jn.gru_cell(4), jn.gru_cell(4), dropout=0.5), STEPS, STEPS, train=True),
        ["stage/block: recurrent(", "needs a key"],
    ),
    "a number for a key": (
        lambda: placed(jn.dense(3)).init(ZERO, FLAT),
        ["expects a key such as jax.random.key(0)", "int 0"],
    ),
    # --- numbers out of range, at construction
    "dropout in per cent": (lambda: jn.dropout(20), ["dropout(20) expects", "[0, 1)", "got 20", "0.2"]),
    "negative rate": (lambda: jn.dropout(-0.1), ["dropout(-0.1) expects", "[0, 1)"]),
    "decay above one": (lambda: jn.batch_norm(decay=1.1), ["batch_norm(decay=1.1) expects", "[0, 1]"]),
    "width of zero": (lambda: jn.dense(0), ["dense(0) expects features ≥ 1"]),
    "width that is no integer": (lambda: jn.dense(HALF), ["dense(1.5) expects an integer for features"]),
    "stride of zero": (lambda: jn.conv(4, 3, stride=0), ["conv(4, 3, stride=0)", "stride"]),
    "unknown padding": (lambda: jn.conv(4, 3, padding="HALF"), ["conv(4, 3, padding='HALF')", "SAME", "VALID"]),
    "no copies": (lambda: jn.repeat(jn.dense(3), 0), ["repeat(dense(3), 0) expects the number of copies ≥ 1"]),
    "negative strength": (lambda: jn.regularizers.l2(-1.0), ["l2", "≥ 0", "-1"]),
    # --- names
    "a name twice": (lambda: jn.serial(jn.dense(3), **{"0": jn.dense(3)}), ["serial has the name '0' twice"]),
    "a name with a slash": (lambda: jn.serial(**{"a/b": jn.dense(3)}), ["serial expects names without '/'", "'a/b'"]),
    "the shortcut's name": (
        lambda: jn.residual(jn.serial(downsample=jn.dense(3))),
        ["residual needs the name 'downsample'"],
    ),
    "no such child": (lambda: placed(jn.dense(3))["stage/head"], ["serial has no child 'head'", "its children: block"]),
    "cut after no such child": (lambda: placed(jn.dense(3)).upto("head"), ["serial has no child 'head'", "stage"]),
    # --- things that are no layers
    "a constructor not called": (lambda: placed(jn.dense), ["child 'block'", "constructor dense", "dense(...)"]),
    "a list of layers": (lambda: placed([jn.dense(3)]), ["child 'block'", "got list", "unpack"]),
    # --- shapes that don't meet
    "residual of another shape": (
        init(lambda: jn.residual(jn.dense(3)), FLAT),
        ["stage/block: residual adds (2, 3) float32", "(2, 6) float32", "shortcut="],
    ),
    "branches of other shapes": (
        init(lambda: jn.branches(jn.concatenate, a=jn.conv(2, 3), b=jn.conv(2, 1)), IMAGE),
        ["stage/block: concatenate joins", "a (2, 6, 6, 2)", "b (2, 8, 8, 2)"],
    ),
    "repeat that changes the shape": (
        init(lambda: jn.repeat(jn.dense(3), 2), FLAT),
        ["stage/block: repeat(dense(3), 2) needs an output like its input", "(2, 6)", "(2, 3)"],
    ),
    "trees that don't stack": (
        lambda: jn.stack({"0": {"bias": jnp.ones(2)}, "1": {"bias": jnp.ones(3)}}),
        ["stack expects equal trees", "'1' differs from '0'"],
    ),
    # --- parameters of another net
    "a parameter missing": (
        given(lambda: jn.dense(3), lambda p: {"kernel": p["kernel"]}, FLAT),
        ["another net", "missing parameters stage/block/bias"],
    ),
    "a parameter too many": (
        given(lambda: jn.dense(3), lambda p: fresh(p, "scale", jnp.ones(3)), FLAT),
        ["another net", "unexpected parameters stage/block/scale"],
    ),
    "a layer too many": (
        lambda: placed(jn.dense(3)).apply(
            {"stage": {"block": jn.dense(3).init(KEY, FLAT)[0], "head": {"bias": jnp.ones(2)}}}, {}, FLAT
        ),
        ["another net", "unexpected parameters stage/head/bias"],
    ),
    "no parameters": (
        lambda: placed(jn.dense(3)).apply({}, {}, FLAT),
        ["missing parameters stage/block/bias, stage/block/kernel"],
    ),
    "no state": (
        lambda: placed(jn.batch_norm()).apply(placed(jn.batch_norm()).init(KEY, IMAGE)[0], {}, IMAGE),
        ["stage/block: batch_norm() needs the state mean, var", "init returned"],
    ),
    "state for parameters": (
        lambda: placed(jn.dense(3)).apply(placed(jn.dense(3)).init(KEY, FLAT), {}, FLAT),
        ["serial expects parameters as a dict, got tuple"],
    ),
    "a layer that reads a parameter of another name": (
        init(lambda: jn.layer(lambda key, x: {"weight": jnp.ones(())}, lambda params, x: x * params["scale"]), FLAT),
        ["stage/block: ", "finds no parameter 'scale'", "weight"],
    ),
    # --- sequences
    "padded input to conv": (
        init(lambda: jn.conv(4, 3), jn.Padded(STEPS, jnp.array([5, 3]))),
        ["stage/block: conv(4, 3)", "time"],
    ),
    "lengths of another batch": (
        lambda: jn.Padded(STEPS, jnp.array([5, 3, 1])),
        ["Padded expects values (batch, time, ...) and integer lengths (batch,), got values (2, 5, 4)", "(3,) int32"],
    ),
    # --- losses, penalties, patterns, metrics
    "column against vector": (
        lambda: jn.losses.squared_error(jnp.ones((4, 1)), jnp.ones(4)),
        ["squared_error expects", "(4, 1)", "(4,)"],
    ),
    "label out of range": (
        lambda: jn.losses.cross_entropy(LOGITS, jnp.array([0, 1, 2, 3])),
        ["cross_entropy expects", "3"],
    ),
    "labels of another length": (
        lambda: jn.losses.cross_entropy(LOGITS, jnp.array([0, 1])),
        ["cross_entropy expects", "(4, 3)", "(2,)"],
    ),
    "labels that are floats": (
        lambda: jn.losses.cross_entropy(LOGITS, jnp.ones(4)),
        ["cross_entropy expects", "float32"],
    ),
    "hinge with labels 0 and 1": (
        lambda: jn.losses.hinge(jnp.ones(2), jnp.array([0.0, 1.0])),
        ["hinge expects", "-1", "1"],
    ),
    "pattern that matches nothing": (
        lambda: jn.regularizers.l2(0.1, on="**/kernels")(placed(jn.dense(3)).init(KEY, FLAT)[0]),
        ["**/kernels", "matches no parameter", "stage/block/kernel"],
    ),
    # --- training
    "no data": (train((floats(0, 6), integers(0, high=3))), ["program expects at least one example"]),
    "more inputs than targets": (
        train((floats(8, 6), integers(7, high=3))),
        ["program expects as many", "(8, 6)", "(7,)"],
    ),
    "batch larger than the data": (train(batch_size=9), ["program expects a batch", "9", "8", "None"]),
    "no epochs": (train(epochs=0), ["program expects epochs ≥ 1"]),
    "a loss for a metric": (
        train(metrics={"a": jn.losses.huber}),
        ["program expects metrics", "'a'", "jn.metrics.mean"],
    ),
    "data that is no pair": (train(np.ones((8, 6))), ["program expects data as (inputs, targets)", "ndarray"]),
    "wrong targets in training": (
        lambda: jn.train.fit(train((floats(8, 6), floats(8, 5)))(), KEY),
        ["cross_entropy expects", "(4, 3)", "(4, 5)"],
    ),
}


@pytest.mark.promotes
@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_explained(name: str):
    do, words = MISTAKES[name]
    with pytest.raises((jn.NetError, TypeError)) as caught:
        do()
    message = str(caught.value)
    assert re.search(".*".join(map(re.escape, words)), message, re.DOTALL), message


def test_foreign_errors_carry_the_path_in_a_note():
    net = placed(lambda x: x @ x)
    with pytest.raises(TypeError) as caught:
        net.init(KEY, FLAT)
    assert "in layer stage/block" in caught.value.__notes__


def test_errors_pass_through_transformations():
    net = placed(jn.dense(3))
    params, state = net.init(KEY, FLAT)
    with pytest.raises(jn.NetError, match=r"stage/block: dense\(3\) has kernel"):
        jax.jit(jax.grad(lambda p: net.apply(p, state, jnp.ones((2, 7)))[0].sum()))(params)
    deep = jn.repeat(jn.serial(body=jn.dropout(0.5)), 2)
    with pytest.raises(jn.NetError, match=r"body: dropout\(0.5\) is random"):
        deep.apply({}, {}, FLAT, train=True)
