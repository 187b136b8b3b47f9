"""Shared parameters: values and gradients of the network written out, and what does not fit."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.combinators.tied import untied
from tests.oracle import floats, integers, variables

TOKENS, WEIGH = integers(2, 3, high=7), floats(2, 3, 7)
INNER = jn.serial(embedding=jn.embed(7, 4), body=jn.dense(4), out=jn.dense(7))
TIES = {"out/kernel": "embedding/embedding"}
NET = jn.tied(INNER, TIES)


def test_gradients_add_up():
    params, _ = variables(NET, TOKENS)
    assert sorted(jn.paths.paths(params)) == ["body/bias", "body/kernel", "embedding/embedding", "out/bias"]
    full = {**params, "out": {**params["out"], "kernel": params["embedding"]["embedding"].T}}

    def loss(net):
        return lambda params: (net.apply(params, {}, TOKENS)[0] * WEIGH).sum()

    value, found = jax.value_and_grad(loss(NET))(params)
    wanted, apart = jax.value_and_grad(loss(INNER))(full)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    both = apart["embedding"]["embedding"] + apart["out"]["kernel"].T
    np.testing.assert_allclose(found["embedding"]["embedding"], both, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["body"]["kernel"], apart["body"]["kernel"], rtol=1e-5, atol=1e-6)


def test_equal_parameters_are_tied_as_they_are():
    net = jn.tied(jn.serial(a=jn.dense(4), b=jn.dense(4)), {"b/kernel": "a/kernel", "b/bias": "a/bias"})
    x = floats(3, 4)
    params, _ = net.init(jax.random.key(0), x)
    assert list(params) == ["a"]
    twice = jn.serial(jn.dense(4), jn.dense(4)).apply({"0": params["a"], "1": params["a"]}, {}, x)[0]
    np.testing.assert_array_equal(net.apply(params, {}, x)[0], twice)


def test_a_square_table_is_transposed():
    net = jn.tied(jn.serial(e=jn.embed(4, 4), out=jn.dense(4, use_bias=False)), {"out/kernel": "e/embedding"})
    params, tokens = {"e": {"embedding": floats(4, 4)}}, np.arange(4)[None]
    np.testing.assert_allclose(
        net.apply(params, {}, tokens)[0][0], params["e"]["embedding"] @ params["e"]["embedding"].T, rtol=1e-5
    )


def test_it_is_a_value_with_all_that_networks_have():
    assert jn.tied(INNER, dict(TIES)) == NET
    assert jn.tied(INNER, {}) != NET
    assert pickle.loads(pickle.dumps(NET)) == NET
    inner, full = untied(NET, variables(NET, TOKENS)[0])
    assert inner == INNER
    assert full["out"]["kernel"].shape == (4, 7)
    cut = NET.upto("body").apply(variables(NET, TOKENS)[0], {}, TOKENS)[0]
    assert cut.shape == (2, 3, 4)
    assert jn.inspect.count_parameters(NET, TOKENS) == 7 * 4 + 4 * 4 + 4 + 7


def test_what_does_not_fit_is_told():
    spec = jax.ShapeDtypeStruct(TOKENS.shape, jnp.int32)
    key = jax.random.key(0)
    with pytest.raises(jn.NetError, match="finds no parameter 'head/kernel': no 'head' among embedding, body, out"):
        jn.tied(INNER, {"head/kernel": "embedding/embedding"}).init(key, spec)
    with pytest.raises(
        jn.NetError, match=r"expects body/kernel \(4, 4\) to fit embedding/embedding, which gives \(4, 7"
    ):
        jn.tied(INNER, {"body/kernel": "embedding/embedding"}).init(key, spec)
    params, _ = variables(INNER, TOKENS)
    with pytest.raises(jn.NetError, match="unexpected parameters out/kernel"):
        NET.apply(params, {}, TOKENS)
    with pytest.raises(jn.NetError, match="missing parameters embedding/embedding"):
        NET.apply({name: params[name] for name in ("body", "out")}, {}, TOKENS)


def test_ties_that_cannot_be_are_told():
    spec = jax.ShapeDtypeStruct(TOKENS.shape, jnp.int32)
    for ties in ({"out/bias": "body/bias", "body/bias": "out/bias"}, {"body/bias": "body/bias"}):
        with pytest.raises(jn.NetError, match="expects paths of parameters that stay, got 'body/bias', which is"):
            jn.tied(INNER, ties)
    with pytest.raises(jn.NetError, match=r"expects a dict from paths to paths, .* got list"):
        jn.tied(INNER, [("out/kernel", "embedding/embedding")])  # type: ignore[arg-type]
    with pytest.raises(jn.NetError, match="expects the path of a parameter, got 'body', which holds"):
        jn.tied(INNER, {"body": "embedding/embedding"}).init(jax.random.key(0), spec)


def test_a_later_change_of_the_dict_changes_nothing():
    ties = dict(TIES)
    net = jn.tied(INNER, ties)
    ties.clear()
    assert net == NET
    assert list(net.init(jax.random.key(0), TOKENS)[0]["out"]) == ["bias"]
