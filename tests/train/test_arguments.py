"""What training takes as it is meant: bare losses, lists, tables and tensors of other libraries."""

import warnings
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
import pandas
import pytest

import jaxnets as jn
from experiments.__main__ import main
from jaxnets.core.paths import paths
from jaxnets.train.step import split_frozen
from tests.oracle import floats, integers, variables

pytestmark = pytest.mark.promotes
KEY = jax.random.key(0)
X, Y = floats(8, 4), integers(8, high=3)
NET = jn.serial(body=jn.dense(5), relu=jax.nn.relu, head=jn.dense(3))
OBJECTIVE = jn.objective(jn.losses.cross_entropy)


def program(data: Any = (X, Y), **changed: Any) -> jn.train.Program:
    given: dict[str, Any] = {"net": NET, "objective": OBJECTIVE, "optimizer": optax.adam(0.1)} | changed
    return jn.train.program(data=data, epochs=2, batch_size=4, **given)


def test_a_bare_loss_and_a_list_of_metrics_are_what_they_stand_for():
    made = program(objective=jn.losses.cross_entropy, metrics=[jn.metrics.accuracy, jn.metrics.f1(3)])
    assert repr(made.recipe.objective) == repr(OBJECTIVE)
    assert list(made.recipe.metrics) == ["accuracy", "f1"]
    own = program(objective=lambda outputs, targets: ((outputs - jax.nn.one_hot(targets, 3)) ** 2).mean(-1))
    assert repr(own.recipe.objective) == "objective(lambda)"
    whole = lambda params, outputs, targets, weights: (0.0, {})  # noqa: E731
    assert program(objective=whole).recipe.objective is whole
    params, state = variables(NET, X)
    given = jn.evaluate(NET, (params, state), [X, Y], jn.metrics.accuracy, jn.losses.cross_entropy)
    outputs = np.asarray(jax.jit(NET.apply)(params, state, X)[0], np.float64)
    log_sum = np.log(np.exp(outputs).sum(1))
    np.testing.assert_allclose(given["cross_entropy"], (log_sum - outputs[np.arange(8), Y]).mean(), rtol=1e-5)
    np.testing.assert_allclose(given["accuracy"], (outputs.argmax(1) == Y).mean(), rtol=1e-6)


def equal(made: jn.train.Program) -> bool:
    """Tell whether a program has the data that arrays give it."""
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(made.train, program().train, strict=True))


def test_lists_tables_and_series_are_arrays():
    for data in ((X.tolist(), Y.tolist()), (pandas.DataFrame(X), pandas.Series(Y)), (list(X), Y)):
        assert equal(program(data))
    params, state = variables(NET, X)
    want = jn.predict(NET, (params, state), X)
    for x in (X.tolist(), pandas.DataFrame(X), list(X)):
        np.testing.assert_array_equal(jn.predict(NET, (params, state), x), want)


def test_tensors_of_pytorch_are_arrays():
    torch = pytest.importorskip("torch")
    assert equal(program((torch.tensor(X, requires_grad=True), torch.tensor(np.asarray(Y)))))


def test_a_program_can_be_jitted_and_prints_no_arrays():
    made = jn.train.program(jn.dense(3), OBJECTIVE, optax.sgd(0.1), (X, Y), epochs=1, batch_size=None)
    params = jax.jit(made.start)(KEY).params
    outputs = X.astype(np.float64) @ np.asarray(params["kernel"], np.float64)  # the bias begins at 0
    want = (np.log(np.exp(outputs).sum(1)) - outputs[np.arange(8), Y]).mean()
    np.testing.assert_allclose(jax.jit(made)(KEY)[1]["loss"], [want], rtol=1e-5)
    assert repr(program(metrics=[jn.metrics.accuracy], validation=(X, Y))) == (
        "Program(net serial, objective objective(cross_entropy), 8 examples, 2 epochs, batch_size 4, metrics accuracy, "
        "validation)"
    )


def test_what_a_function_of_the_library_returned_is_not_called_again():
    assert program(augment=jn.data.noise(0.1)).recipe.augment is not None


def test_all_but_the_head_is_frozen():
    params = {"body": {"bias": 1.0, "kernel": 2.0}, "head": {"bias": 3.0, "kernel": 4.0}}
    made = program(freeze=("**", "!head/**"))
    learned, frozen = split_frozen(params, made.recipe.options.freeze)
    assert (paths(learned), paths(frozen)) == (
        {"head/bias": 3.0, "head/kernel": 4.0},
        {"body/bias": 1.0, "body/kernel": 2.0},
    )
    assert list(paths(split_frozen(params, ("**", "!head/**", "!*/bias"))[1])) == ["body/kernel"]
    with pytest.raises(jn.NetError, match=r"pattern '!tail/\*\*' matches no parameter"):
        program(freeze=("**", "!tail/**")).start(KEY)
    for everything in ("**", ("*/kernel", "**/bias")):
        with pytest.raises(jn.NetError, match=r"program freezes all parameters by .*; exclude .* freeze=\('\*\*'"):
            program(freeze=everything).start(KEY)


def softmax(x: Any) -> Any:
    """Not what it is called."""
    return x


def test_probabilities_for_a_loss_of_logits_are_noticed():
    ends = jn.serial(body=jn.dense(3), softmax=jax.nn.softmax)
    with pytest.warns(UserWarning, match="the network ends in softmax, and cross_entropy takes logits"):
        program(net=ends)
    with pytest.warns(UserWarning, match="the network ends in sigmoid, and binary_cross_entropy takes logits"):
        program(net=jn.serial(NET, jax.nn.sigmoid), objective=jn.losses.binary_cross_entropy)
    smoothed = partial(jn.losses.cross_entropy, label_smoothing=0.1)
    with pytest.warns(UserWarning, match="the network ends in softmax, and cross_entropy takes logits"):
        program(net=jn.serial(NET, partial(jax.nn.softmax, axis=-1)), objective=smoothed)
    odds = np.exp(X[:, :3])
    probabilities = odds / odds.sum(1, keepdims=True)
    for loss in (jn.losses.cross_entropy, jn.losses.softmax_focal):
        with pytest.warns(UserWarning, match="the outputs are probabilities, and this loss takes logits") as seen:
            loss(probabilities, Y)
        assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program(net=jn.serial(NET, softmax))
        of_probabilities = partial(jn.losses.binary_cross_entropy, from_logits=False)
        program(net=jn.serial(NET, jax.nn.sigmoid), objective=of_probabilities)
        program(net=ends, objective=jn.losses.squared_error, data=(X, np.eye(3, dtype=np.float32)[Y]))
        jn.losses.cross_entropy(np.eye(3, dtype=np.float32), np.arange(3))  # zeros and ones may be logits
        jn.losses.cross_entropy(X[:, :3], Y)


def test_a_validation_loss_that_is_not_finite_is_told():
    falls = np.linspace(1, 0.1, 10)
    said = jn.train.diagnose({"loss": falls, "validation/loss": np.full(10, np.nan)}).evidence
    assert any(
        "the validation loss is not finite in 10 of 10 epochs and left out; look for NaN" in each for each in said
    )


def test_cast_takes_a_dtype():
    params, _ = jax.jit(jn.cast(NET, jax.numpy.bfloat16).init)(KEY, X)
    policy = jn.cast(NET, jn.Policy(compute=jax.numpy.bfloat16))
    y = jax.jit(lambda params: [net.apply(params, {}, X)[0] for net in (jn.cast(NET, "bfloat16"), policy)])(params)
    np.testing.assert_array_equal(*y)
    assert params["body"]["kernel"].dtype == np.float32


def test_a_study_runs_small_by_a_flag(capsys):
    for flags in (["--quick", "--size", "tiny"], ["--tiny", "--full"]):
        with pytest.raises(SystemExit):
            main(["run", "linear_stack", *flags])
        assert "not allowed with argument" in capsys.readouterr().err
