"""Mistakes and what the library says to them: where, what was expected, what came, the likely hint."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas
import pytest
from flax import nnx

import jaxnets as jn
from tests.oracle import floats, integers, variables

KEY = jax.random.key(0)
IMAGE = jnp.asarray(floats(2, 8, 8, 3))
FLAT = jnp.asarray(floats(2, 6))
STEPS = jnp.asarray(floats(2, 5, 4))
ZERO: Any = 0
ZEROS = np.zeros((2, 1))
HALF: Any = 1.5
QUOTED: Any = "0.5"
TEXT: Any = "yes"
NET: Any = jn.serial(fc=jn.dense(3))
LOGITS = jnp.asarray(floats(4, 3))


def untyped(value: Any) -> Any:
    """Return a value of no type that a checker knows."""
    return value


def placed(layer: Any) -> jn.Net:
    """Put a layer two levels deep, so that its path is `stage/block`."""
    return jn.serial(stage=jn.serial(block=layer))


def init(layer: Callable[[], Any], x: Any) -> Callable[[], Any]:
    return lambda: placed(layer()).init(KEY, x)


def apply(layer: Callable[[], Any], made_for: Any, x: Any, **options: Any) -> Callable[[], Any]:
    def run() -> Any:
        net = placed(layer())
        params, state = variables(net, made_for)
        return net.apply(params, state, x, **options)

    return run


def given(layer: Callable[[], Any], change: Callable[[dict], dict], x: Any) -> Callable[[], Any]:
    """Apply a layer with its parameters changed."""

    def run() -> Any:
        net = placed(layer())
        params, state = variables(net, x)
        return net.apply({"stage": {"block": change(params["stage"]["block"])}}, state, x)

    return run


def train(data: Any = None, **options: Any) -> Callable[[], Any]:
    """Return what makes a program with something changed; an optimizer may come as a lambda that makes it."""
    given: dict[str, Any] = {
        "net": jn.dense(3),
        "objective": jn.objective(jn.losses.cross_entropy),
        "optimizer": optax.sgd(0.1),
        "data": (floats(8, 6), integers(8, high=3)) if data is None else data,
        "epochs": 1,
        "batch_size": 4,
    } | options

    def make() -> jn.train.Program:
        late = getattr(given["optimizer"], "__name__", "") == "<lambda>"
        return jn.train.program(**given | ({"optimizer": given["optimizer"]()} if late else {}))

    return make


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
        ["stage/block: group_norm(2)", "divisible by groups", "got 3 channels"],
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
        ["stage/block: conv(4, 9) expects", "height 8 for kernel_size 9", "padding="],
    ),
    "pool larger than the input": (
        init(lambda: jn.max_pool(9), IMAGE),
        ["stage/block: max_pool(9) expects", "height 8 for kernel_size 9"],
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
        ["stage/block: concatenate expects outputs of the same shape", "a (2, 6, 6, 2)", "b (2, 8, 8, 2)"],
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
    # --- losses, regularizers, patterns, metrics
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
    # --- numbers in quotes
    "rate in quotes": (lambda: jn.dropout(QUOTED), ["dropout('0.5') expects a real number for rate, got str '0.5'"]),
    "strength in quotes": (
        lambda: jn.regularizers.l2(QUOTED),
        ["l2 expects a real number for strength, got str", "quotes"],
    ),
    "decay in quotes": (
        lambda: jn.batch_norm(decay=QUOTED),
        ["batch_norm(decay='0.5') expects a real number for decay"],
    ),
    "bias in quotes": (lambda: jn.lstm_cell(3, forget_bias=QUOTED), ["lstm_cell(", "real number for forget_bias"]),
    "pepper in quotes": (lambda: jn.salt_and_pepper(0.5, low=QUOTED), ["salt_and_pepper(", "real number for low"]),
    "threshold in quotes": (
        lambda: jn.activations.soft_shrink(FLAT, QUOTED),
        ["a real number for threshold, got str '0.5'"],
    ),
    "delta in quotes": (
        lambda: jn.losses.huber(FLAT, FLAT, delta=QUOTED),
        ["huber expects a real number for delta, got str"],
    ),
    "patience in quotes": (
        lambda: jn.train.early_stopping("loss", patience=QUOTED),
        ["early_stopping expects an integer for patience"],
    ),
    "improvement in quotes": (
        lambda: jn.train.early_stopping("loss", patience=1, min_delta=QUOTED),
        ["early_stopping expects a real number for min_delta"],
    ),
    "epochs in quotes": (train(epochs="5"), ["program expects an integer for epochs, got str '5'"]),
    "average in quotes": (train(ema_decay=QUOTED), ["program expects a real number for ema_decay, got str"]),
    "learning rate in quotes": (
        train(optimizer=lambda: optax.adam(QUOTED)),
        ["program expects an optimizer whose settings are numbers, got text for"],
    ),
    "momentum in quotes": (
        train(optimizer=lambda: optax.adam(0.1, b1=QUOTED)),
        ["program expects an optimizer whose settings are numbers, got text for b1, '0.5'"],
    ),
    # --- how networks are run
    "a network called": (
        lambda: NET(FLAT),
        ["serial can't be called, as it holds no parameters", "net.apply(params, state, x"],
    ),
    "no state given": (
        lambda: NET.apply({}, FLAT),
        ["serial is called as y, state = net.apply(", "missing a required argument: 'x'"],
    ),
    "no key given": (lambda: NET.init(FLAT), ["serial is called as params, state = net.init(key, x)", "missing"]),
    "key by place": (
        lambda: NET.apply(*NET.init(KEY, FLAT), FLAT, KEY),
        ["net.apply(", "too many positional arguments"],
    ),
    "Flax's rngs": (lambda: NET.apply(*NET.init(KEY, FLAT), FLAT, rngs={}), ["net.apply(", "keyword argument 'rngs'"]),
    "input before the key": (
        lambda: NET.init(FLAT, KEY),
        ["expects a key such as jax.random.key(0), got ArrayImpl (2, 6)"],
    ),
    "several keys": (lambda: NET.init(jax.random.split(KEY, 3), FLAT), ["expects one key, got (3,) of them; jax.vmap"]),
    "a number for apply's key": (
        lambda: NET.apply(*NET.init(KEY, FLAT), FLAT, key=ZERO, train=True),
        ["serial expects a key such as jax.random.key(0), got int 0"],
    ),
    "a shape for the input": (
        lambda: NET.init(KEY, (1, 6)),
        ["expects an array, got tuple (1, 6)", "jax.ShapeDtypeStruct(shape"],
    ),
    "a list for the input": (
        lambda: NET.init(KEY, [[1.0]]),
        ["serial expects an array, got list [[1.0]]; np.asarray(x)"],
    ),
    "a table for the input": (lambda: NET.init(KEY, pandas.DataFrame([[1.0]])), ["got DataFrame (1, 1)", "np.asarray"]),
    "train that is no bool": (
        lambda: NET.apply(*NET.init(KEY, FLAT), FLAT, train=TEXT),
        ["serial expects train as True or False, got str 'yes'"],
    ),
    "train that is traced": (
        lambda: jax.jit(lambda t: NET.apply(*NET.init(KEY, FLAT), FLAT, train=t))(True),
        ["serial expects train as True or False", "static_argnames='train'"],
    ),
    "a run for the parameters": (
        lambda: NET.apply(jn.train.start(NET, optax.sgd(0.1), FLAT, key=KEY), {}, FLAT),
        ["serial expects parameters as a dict, got TrainState; a train state has state.params"],
    ),
    "parameters and state swapped": (
        lambda: NET.apply({}, NET.init(KEY, FLAT)[0], FLAT),
        ["another net", "parameters and state are swapped"],
    ),
    "Flax's variables": (
        lambda: NET.apply({"params": NET.init(KEY, FLAT)[0]}, {}, FLAT),
        ["another net", "variables['params']"],
    ),
    "a network's parameters": (lambda: NET.params, ["a Net has no 'params'", "params, state = net.init(key, x)"]),
    "a network that is fitted": (
        lambda: NET.fit(FLAT),
        ["a Net has no 'fit'", "jn.fit(net, loss, optimizer, data, epochs=10, key=key)"],
    ),
    "Keras's layer": (lambda: jn.Dense(3), ["has no attribute 'Dense'; jn.dense"]),
    "PyTorch's layer": (lambda: jn.Conv2d(3, 3), ["has no attribute 'Conv2d'; jn.conv"]),
    "an activation": (lambda: jn.relu, ["has no attribute 'relu'; jax.nn.relu"]),
    "a function of another room": (
        lambda: jn.cross_entropy,
        ["has no attribute 'cross_entropy'; jn.losses.cross_entropy"],
    ),
    # --- other libraries
    "a Linen module": (
        lambda: placed(linen.Dense(3)),
        ["child 'block'", "got Dense, a Flax Linen module", "jn.interop.from_flax"],
    ),
    "a Linen class": (lambda: placed(linen.Dense), ["child 'block'", "got Dense, a Flax Linen module"]),
    "an NNX module": (
        lambda: placed(nnx.Linear(6, 3, rngs=nnx.Rngs(0))),
        ["child 'block'", "a Flax NNX module", "from_flax"],
    ),
    "a NumPy function": (lambda: placed(np.tanh), ["child 'block'", "got NumPy's tanh; take jax.numpy.tanh"]),
    "a string for a layer": (lambda: placed("relu"), ["child 'block'", "got str 'relu'", "jax.nn"]),
    "two functions for a network": (lambda: jn.as_net((len, len)), ["expected a Net or a callable", "got tuple"]),
    "a dtype that does not float": (
        lambda: jn.cast(NET, jnp.int8),
        ["Policy expects a floating dtype for compute", "int8"],
    ),
    "a dtype that is none": (
        lambda: jn.cast(NET, "bf16"),
        ["Policy expects a floating dtype for compute", "str 'bf16'"],
    ),
    "one width": (
        lambda: jn.models.mlp(ZERO + 8),
        ["mlp expects a sequence of integers for widths, got int 8; write [8]"],
    ),
    # --- training
    "an optimizer not called": (train(optimizer=optax.adam), ["got the function adam; call it, optax.adam(1e-3)"]),
    "an optimizer's name": (
        train(optimizer="adam"),
        ["program expects an Optax optimizer, got str 'adam'; optax.adam(1e-3)"],
    ),
    "a rate for the optimizer": (train(optimizer=0.1), ["program expects an Optax optimizer, got float 0.1"]),
    "a schedule for the optimizer": (
        train(optimizer=lambda: optax.cosine_decay_schedule(0.1, 10)),
        ["program expects an Optax optimizer, got the function schedule", "optax.adam(schedule)"],
    ),
    "optimizer before objective": (
        train(objective=optax.sgd(0.1), optimizer=jn.losses.huber),
        ["expects an objective", "program(net, objective, optimizer, data)"],
    ),
    "a regularizer for the objective": (
        train(objective=jn.regularizers.l2(0.1)),
        ["got Regularizer l2(0.1", "jn.objective(loss"],
    ),
    "a metric for the objective": (train(objective=jn.metrics.accuracy), ["got Metric accuracy; metrics are reported"]),
    "a loss's name": (train(objective="cross_entropy"), ["got str 'cross_entropy'", "jn.losses.cross_entropy"]),
    "a mean for a loss": (
        lambda: train(objective=lambda o, t: (o.sum(1) - t).mean())()(KEY),
        ["objective expects data to return one value per example, (4,), got ()"],
    ),
    "parameters for the network": (train(net={"kernel": FLAT}), ["program expected a Net or a callable", "got dict"]),
    "a constructor for the network": (train(net=jn.models.mlp), ["got the function mlp; call it, jn.models.mlp(...)"]),
    "a metric's name": (train(metrics=["accuracy"]), ["got str 'accuracy'; jn.metrics.accuracy"]),
    "a metric not called": (
        train(metrics={"f1": jn.metrics.f1}),
        ["got the function f1 for 'f1'; call it, jn.metrics.f1(...)"],
    ),
    "a metric twice": (
        train(metrics=[jn.metrics.accuracy] * 2),
        ["metrics of different names, got accuracy, accuracy"],
    ),
    "augmentation not called": (
        train(augment=jn.data.shift),
        ["for augment a function (key, example) -> example", "call it"],
    ),
    "augmentation without a key": (
        train(augment=lambda x: x),
        ["expects for augment a function (key, example) -> example"],
    ),
    "mixing by a number": (
        train(batch_augment=0.2),
        ["expects for batch_augment a function (key, x, y, weights)", "float 0.2"],
    ),
    "shuffling as a bool": (
        train(sampler=True),
        ["expects for sampler a function (key, data) -> indices", "bool True"],
    ),
    "an order that is too short": (
        lambda: train(sampler=lambda key, data: jnp.arange(3))()(KEY),
        ["program expects sampler to return indices (8,), got (3,)"],
    ),
    "norms not called": (
        lambda: jn.train.Options(monitor=untyped(jn.train.norms)),
        ["Options expects for monitor a function", "call it, norms(...)"],
    ),
    "patience for stopping": (train(stopping=5), ["stopping=jn.train.early_stopping(", "got int 5"]),
    "guard that is no bool": (
        lambda: jn.train.Options(halt_on_nonfinite=untyped(TEXT)),
        ["Options expects halt_on_nonfinite=True or False, got str 'yes'"],
    ),
    "freezing everything by a bool": (
        train(freeze=True),
        ["program expects patterns of paths for freeze", "bool True"],
    ),
    "the former exception to a pattern": (train(but="head/**"), ["program has no argument but"]),
    "a share for validation": (
        train(validation=0.2),
        ["expects validation as (inputs, targets)", "with jn.data.split"],
    ),
    # --- data
    "string labels": (
        train((FLAT, ["red", "white"])),
        ["the targets of data, got text such as 'red'", "jn.data.labels(y).encode(y)"],
    ),
    "labels of pandas": (
        train((FLAT, pandas.Series(["red", "white"], dtype="category"))),
        ["got text such as 'red'", "jn.data.labels(y).encode(y)"],
    ),
    "a table with text": (
        train((pandas.DataFrame({"a": [1, 2], "color": ["red", "white"]}), [0, 1])),
        ["numbers in the inputs of data, got a table with other values in color", "jn.data.table(table, target=...)"],
    ),
    "a table alone": (
        train(pandas.DataFrame({"x": [1.0]})),
        ["got DataFrame (1, 1)", "jn.data.table(data, target=...)"],
    ),
    "a dataset of Hugging Face": (
        train(type("Dataset", (), {"column_names": ["x", "y"]})()),
        ["got Dataset; jn.data.columns(data, inputs, targets)", "jn.data.collect"],
    ),
    "sequences alone": (train(jn.data.pad([[1], [2, 3]])), ["got Padded", "targets are missing"]),
    "ragged lists": (
        train(([[1.0], [1.0, 2.0]], [0, 1])),
        ["an array in the inputs of data, got sequences of 1, 2 values", "jn.data.pad(sequences)"],
    ),
    "ragged arrays": (
        train(([np.ones(1), np.ones(2)], [0, 1])),
        ["got sequences of 1, 2 values", "jn.data.pad(sequences)"],
    ),
    "dates": (
        train((np.array(["2020-01-01"], "datetime64[D]"), [0])),
        ["numbers in the inputs of data, got datetime64[D]"],
    ),
    "nothing for inputs": (train((None, [0, 1])), ["program expects arrays in the inputs of data, got None"]),
    "a path": (train("train.csv"), ["got str 'train.csv'; jn.data.table(path, target=...)"]),
    "paths for inputs": (train((Path("x.npy"), [0])), ["expects numbers in the inputs of data", "np.load"]),
    "a dict of data": (train({"x": FLAT}), ["data as (inputs, targets)", "got dict; take its parts, (data['x'], ...)"]),
    "a list of pairs": (train([(FLAT[0], 0)] * 9), ["got list; for a list of pairs, tuple(np.stack(part)"]),
    "a generator": (train(each for each in "ab"), ["got generator", "collect its items"]),
    "inputs alone": (train(FLAT), ["expects data as (inputs, targets)", "targets are missing"]),
    "inputs in a tuple": (train((FLAT,)), ["got a tuple of 1", "for an autoencoder", "(x, x)"]),
    "a file for predict": (
        lambda: jn.predict(NET, ({}, {}), "x.npy"),
        ["predict expects numbers in x, got str 'x.npy'"],
    ),
    "inputs alone for evaluate": (
        lambda: jn.evaluate(NET, ({}, {}), FLAT, None),  # type: ignore[arg-type]
        ["evaluate expects data as (inputs, targets)", "targets are missing"],
    ),
    # --- fit and sweep
    "a network for run": (
        lambda: jn.train.run(NET, key=KEY),
        ["run expects a program and a key, got Net", "jn.train.program("],
    ),
    "a seed for run": (
        lambda: jn.train.run(train()(), key=ZERO),
        ["run expects a key such as jax.random.key(0), got int 0"],
    ),
    "a seed for a program": (lambda: train()()(ZERO), ["expects a key such as jax.random.key(0), got int 0"]),
    "a function for a callback": (
        lambda: jn.train.run(train()(), key=KEY, callbacks=untyped([print])),
        ["run expects a list of callbacks", "got the function print; jn.train.Callback(on_epoch_end=function)"],
    ),
    "a callback not called": (
        lambda: jn.train.run(train()(), key=KEY, callbacks=untyped([jn.train.progress])),
        ["got the function progress; call it, jn.train.progress(...)"],
    ),
    "a callback without brackets": (
        lambda: jn.train.run(train()(), key=KEY, callbacks=untyped(jn.train.progress())),
        ["got Callback; put it in brackets"],
    ),
    "a callback of another form": (
        lambda: jn.train.Callback(on_epoch_end=untyped(lambda run: None)),
        ["Callback expects for on_epoch_end a function (number, state, row) -> bool or None"],
    ),
    "a program for a sweep": (
        lambda: jn.sweeps.sweep(untyped(train()())),
        ["sweep expects a trial function", "got a program"],
    ),
    "a trial function without hp": (
        lambda: jn.sweeps.sweep(untyped(lambda: None)),
        ["sweep expects for trial_fn a function (hp) -> program"],
    ),
    "what fit returns for diagnose": (
        lambda: jn.train.diagnose(untyped((0, {}))),
        ["diagnose expects a history, got a tuple"],
    ),
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
    "labels 1 and 2 for a binary loss in training": (
        train((FLAT, ZEROS + 2), net=jn.dense(1), objective=jn.losses.binary_cross_entropy, batch_size=2),
        ["binary_cross_entropy, of the targets of data, expects targets from 0 to 1, got 2"],
    ),
    "labels 0 and 1 for a hinge in validation": (
        train((FLAT, ZEROS + 1), net=jn.dense(1), objective=jn.losses.hinge, batch_size=2, validation=(FLAT, ZEROS)),
        ["hinge, of the targets of validation, expects targets -1 or 1, got 0; convert 0 and 1"],
    ),
    "soft targets that add up to 2": (
        train((FLAT, np.ones((2, 3), int)), batch_size=2),
        ["cross_entropy, of the targets of data, expects probabilities that sum to 1, got a sum of 3"],
    ),
    "labels 1 and 2 for binary accuracy": (
        lambda: jn.metrics.binary_accuracy(jnp.ones(2), jnp.array([1, 2])),
        ["binary_accuracy expects targets 0 and 1, or -1 and 1, got 2; convert 1 and 2"],
    ),
    "labels 1 and 2 for binary accuracy in training": (
        train(
            (FLAT, ZEROS + 2),
            net=jn.dense(1),
            objective=jn.losses.huber,
            metrics=[jn.metrics.binary_accuracy],
            batch_size=2,
        ),
        ["binary_accuracy, of the targets of data, expects targets 0 and 1"],
    ),
    "a plateau of an accuracy": (
        train(
            options=jn.train.Options(plateau=("accuracy", optax.contrib.reduce_on_plateau())),
            metrics=jn.metrics.accuracy,
        ),
        ["program expects plateau to follow a loss or an error, got 'accuracy'"],
    ),
    "a callback that returns the run": (
        lambda: jn.train.run(
            train()(), key=KEY, callbacks=[jn.train.Callback(on_epoch_end=lambda number, run, row: run)]
        ),
        ["Callback expects on_epoch_end to return True, False or None, got TrainState"],
    ),
    "an order of places that are none": (
        train(sampler=lambda key, data: jnp.arange(8) + 5),
        ["program expects sampler to return indices below 8, got 12"],
    ),
    "an order by a mask": (
        train(sampler=lambda key, data: jnp.ones(8, bool)),
        ["program expects sampler to return integers, got bool"],
    ),
    "a loss that counts": (
        lambda: jn.objective(lambda o, y: o.argmax(-1) != y)({}, LOGITS, jnp.zeros(4, int)),
        ["objective expects data to return real numbers, got bool", "jn.metrics.mean(function)"],
    ),
    "two losses": (
        lambda: jn.objective(jn.losses.cross_entropy, untyped(jn.losses.huber)),
        ["objective takes one loss, got another, huber; add them up"],
    ),
    "a list for an objective": (
        lambda: jn.objective(untyped([jn.losses.huber])),
        ["objective expects a loss and regularizers, got list", "unpack it with *"],
    ),
    "PyTorch's loss": (
        lambda: jn.objective(untyped(type("Loss", (), {"__module__": "torch.nn", "__call__": len})())),
        ["objective expects functions of JAX arrays, got Loss of torch"],
    ),
    "a file for transfer": (
        lambda: jn.train.transfer({"kernel": FLAT}, untyped("net.safetensors")),
        ["transfer expects parameters in nested dicts, got str 'net.safetensors'; params, state, "],
    ),
    "a module for Flax's variables": (
        lambda: jn.interop.from_flax(NET, untyped(linen.Dense(3)), FLAT),
        ["from_flax expects arrays in nested dicts, got Dense; pass module.init(key, x)"],
    ),
    "an NNX module for Flax's variables": (
        lambda: jn.interop.from_flax(NET, untyped(nnx.Linear(6, 3, rngs=nnx.Rngs(0))), FLAT),
        ["got Linear; pass nnx.to_pure_dict(nnx.state(module))"],
    ),
    "an initializer's name": (
        lambda: jn.dense(3, kernel_init=untyped("glorot_uniform")),
        ["dense(3) expects for kernel_init a function (key, shape, dtype)", "jax.nn.initializers.glorot_uniform()"],
    ),
    "an initializer not called": (
        lambda: jn.lstm_cell(3, recurrent_init=untyped(jax.nn.initializers.orthogonal)),
        ["lstm_cell(3) expects for recurrent_init", "call it, jax.nn.initializers.orthogonal()"],
    ),
    "a number for an initializer": (
        lambda: jn.conv(3, 3, bias_init=untyped(0.1)),
        ["conv(3, 3) expects for bias_init", "got float 0.1; jax.nn.initializers.constant(0.1)"],
    ),
    "NumPy's zeros for an initializer": (
        lambda: jn.layer_norm(scale_init=untyped(jnp.zeros)),
        ["layer_norm() expects for scale_init a function (key, shape, dtype)", "got the function zeros"],
    ),
    "a cell for a layer": (
        lambda: placed(jn.lstm_cell(4)),
        ["child 'block'", "got Cell lstm_cell(4); jn.recurrent(lstm_cell(4)) runs it over time"],
    ),
    "branches that nothing merges": (
        lambda: jn.branches(untyped(jn.dense(3)), jn.dense(3)),
        ["branches expects first a function that merges the outputs, got Net dense(3); jn.branches(jn.concatenate"],
    ),
    "masked values": (
        train((np.ma.masked_greater(np.arange(6.0).reshape(2, 3), 4), np.array([0, 1]))),
        ["the inputs of data, got MaskedArray (2, 3) float64 with 1 masked values; fill them by .filled(value)"],
    ),
    "Keras's name of a value": (
        lambda: jn.train.run(train()(), key=KEY, callbacks=[jn.train.early_stopping("val_loss", patience=2)]),
        ["for 'val_loss': nothing declares", "the program reports no value of this name, write validation/loss"],
    ),
    "a label to ignore of an example": (
        lambda: jn.losses.ignoring(jn.losses.cross_entropy, -1)(LOGITS, jnp.zeros(4, int)),
        ["ignoring(cross_entropy, -1) expects outputs (batch, positions", "weight 0, data=(x, y, y != label)"],
    ),
    "the label to ignore first": (
        lambda: jn.losses.ignoring(untyped(-1), untyped(jn.losses.huber)),
        ["ignoring expects a loss first, then a label, got int -1"],
    ),
    "a program for a network": (
        lambda: jn.evaluate(untyped(train()()), ({}, {}), (FLAT, FLAT), []),
        ["evaluate expects a Net, got Program; take its network, program.recipe.net"],
    ),
    "Keras's validation_data": (
        train(validation_data=None),
        ["program has no argument validation_data: write validation="],
    ),
    "Keras's shuffle": (train(shuffle=True), ["program has no argument shuffle: leave it out"]),
    "epochs for run": (
        lambda: untyped(jn.train.run)(train()(), key=KEY, epochs=3),
        ["run has no argument epochs: give it to jn.train.program"],
    ),
    "Keras's monitor": (
        lambda: untyped(jn.train.early_stopping)(monitor="loss", patience=3),
        ["early_stopping has no argument monitor: write metric='loss'"],
    ),
    "PyTorch's reduction": (
        lambda: untyped(jn.losses.huber)(LOGITS, LOGITS, reduction="mean"),
        ["huber has no argument reduction: leave it out: a loss returns one value for each example"],
    ),
    "class weights for an objective": (
        lambda: untyped(jn.objective)(jn.losses.huber, class_weight={}),
        ["objective has no argument class_weight: weigh examples"],
    ),
    "one share for a split": (
        lambda: jn.data.split_indices([0, 1], untyped(0.8)),
        ["split_indices expects a fraction for each part"],
    ),
    "a grid without its name": (
        lambda: untyped(jn.sweeps.sweep)(lambda hp: train()(), {"lr": [0.1]}),
        ["sweep takes 1 unnamed argument, got 2", "(trial_fn, *, seeds, grid,"],
    ),
    "a list for a grid": (
        lambda: jn.sweeps.sweep(lambda hp: train()(), grid=untyped([{"lr": 0.1}])),
        ["sweep expects grid as a dict of lists", "trials= takes a list of dicts"],
    ),
    "a word for a depth": (
        lambda: jn.summary(NET, FLAT, depth=untyped("all")),
        ["summary expects depth as an integer ≥ 0, got 'all'"],
    ),
    "an array for a log's label": (
        lambda: jn.train.jsonl("log.jsonl", seeds=np.ones(3)),
        ["jsonl expects numbers or text for labels, got ndarray (3,) float64 for seeds"],
    ),
    "a generator for a stream": (
        lambda: jn.data.stream(untyped(each for each in "ab"), 2),
        ["stream expects a source with a length and examples by number, got generator; use list(source)"],
    ),
    "a size for a stream's shuffle": (
        lambda: jn.data.stream((FLAT, FLAT), 2, shuffle=untyped(1000)),
        ["stream expects shuffle=True or False, got int 1000"],
    ),
    "a run to save": (
        lambda: jn.save("net.safetensors", (jn.train.run(train()(), key=KEY)[0], {})),
        ["save expects parameters in nested dicts, got TrainState; pass the train state itself"],
    ),
    "parameters before the path": (
        lambda: jn.save(untyped({}), (untyped("net.safetensors"), {})),
        ["save expects a path first, then a train state or a pair (params, state), got dict"],
    ),
    "a tensor for from_torch's input": (
        lambda: jn.interop.from_torch(NET, {}, type("Tensor", (), {"shape": (1,), "__array__": len})()),
        ["x expects an array, got Tensor (1,)", "np.asarray(x) makes one"],
    ),
    "data that is no pair": (train(np.ones((8, 6))), ["program expects data as (inputs, targets)", "ndarray"]),
    "outputs of every step for one target": (
        lambda: jn.train.run(
            train(
                (jn.data.pad([[1, 2], [3, 4, 5], [1]] * 4), np.array([0, 1, 1] * 4)),
                net=jn.serial(jn.embed(9, 4), jn.recurrent(jn.gru_cell(4)), jn.dense(2)),
            )(),
            key=KEY,
        ),
        [
            "cross_entropy expects an output for each example, got Padded (4, 3, 2) for targets (4,)",
            "each step",
            "last step",
        ],
    ),
    "raw texts as inputs": (
        train((["hello", "you"], [0, 1])),
        ["got text such as 'hello'; tokenize it, jn.data.Text(jn.data.characters(...), length)"],
    ),
    "raw texts to predict": (
        lambda: jn.predict(NET, NET.init(KEY, FLAT), ["hello", "you"]),
        ["predict expects numbers in x, got text such as 'hello'; tokenize it"],
    ),
    "a folder to split": (
        lambda: jn.data.split(untyped(type("Folder", (), {"labels": [0, 1], "take": len})()), (0.5, 0.5)),
        ["jn.data.split_indices(folder.labels, fractions), then folder[indices]"],
    ),
    "a sequence of examples": (
        train(type("Folder", (), {"__len__": lambda _: 2, "__getitem__": lambda _, i: (i, i)})()),
        ["jn.data.stream(data, batch_size) or jn.data.collect(data) reads it"],
    ),
    "names of classes": (
        train((FLAT, ["cat", "dog"])),
        ["got text such as 'cat'; number the classes, jn.data.labels(y)"],
    ),
    "an augment that changes the shape": (
        train(
            (IMAGE, np.zeros(2, int)),
            net=jn.serial(jn.flatten, jn.dense(3)),
            batch_size=2,
            augment=jn.data.random_resized_crop(6),
        ),
        [
            "program expects the shape of an example from augment, got (6, 6, 3) for (8, 8, 3)",
            "jn.global_avg_pool",
            "dense",
        ],
    ),
    "wrong targets in training": (
        lambda: jn.train.run(train((floats(8, 6), floats(8, 5)))(), key=KEY),
        ["cross_entropy expects", "(4, 3)", "(4, 5)"],
    ),
}


@pytest.mark.promotes
@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_explained(name: str):
    do, words = MISTAKES[name]
    with pytest.raises((jn.NetError, TypeError, AttributeError)) as caught:
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
