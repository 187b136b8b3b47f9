"""Fine-tuning: what is taken over, what is begun anew, and what is said of the rest."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from tests.oracle import floats, integers, variables

X, Y = floats(8, 4), integers(8, high=3)
KEY = jax.random.key(0)


def net(classes: int) -> jn.Net:
    body = jn.serial(fc=jn.dense(5), norm=jn.batch_norm())
    return jn.serial(body=body, head=jn.dense(classes))


@pytest.fixture(scope="module")
def old() -> tuple[Any, Any]:
    return variables(net(2), X, seed=9)


def test_what_a_pattern_matches_is_taken_and_all_is_accounted_for(old):
    new, _ = variables(net(3), X)
    found = jn.train.transfer(new, old[0], on=("**", "!head/**"))
    assert found[1:] == jn.train.transfer(new, old[0], "body/**")[1:]
    assert set(found.taken) == {f"body/{name}" for name in ("fc/bias", "fc/kernel", "norm/bias", "norm/scale")}
    assert set(found.left) == set(found.unused) == {"head/bias", "head/kernel"}
    for path, leaf in jn.paths.paths(found.params).items():
        source = old[0] if path in found.taken else new
        np.testing.assert_array_equal(leaf, jn.paths.paths(source)[path])


def test_values_take_on_the_dtype_of_the_parameters():
    new = {"kernel": jnp.zeros(3, jnp.bfloat16)}
    found = jn.train.transfer(new, {"kernel": np.array([1.0, 2.0, 1 / 3])}).params["kernel"]
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, jnp.array([1.0, 2.0, 1 / 3], jnp.bfloat16))


def test_differences_are_all_named(old):
    new, _ = variables(net(3), X)
    with pytest.raises(
        jn.NetError, match=r"^transfer finds that source and parameters differ:(\n.*)+exclude these, on="
    ) as error:
        jn.train.transfer(new, old[0])
    assert "head/kernel is (5, 2) in the source, (5, 3) here" in str(error.value)
    assert "head/bias is (2,) in the source, (3,) here" in str(error.value)
    with pytest.raises(jn.NetError, match="head/kernel is not in the source"):
        jn.train.transfer(new, {"body": old[0]["body"]}, "**/kernel")
    with pytest.raises(jn.NetError, match="matches no parameter"):
        jn.train.transfer(new, old[0], "features/**")
    with pytest.raises(jn.NetError, match="matches no parameter"):
        jn.train.transfer(new, old[0], on=("**", "!features/**"))


def test_a_pretrained_network_begins_there_alone_and_inside_others(old):
    tuned = jn.train.pretrained(net(3), *old, on=("**", "!head/**"))
    stateless = jn.train.pretrained(net(3), old[0], on=("**", "!head/**"))
    makers = {"net": net(3), "tuned": tuned, "stateless": stateless, "outer": jn.serial(whole=tuned)}

    @jax.jit
    def begin(key):
        made = {name: each.init(key, X) for name, each in makers.items()}
        return made, jax.vmap(lambda key: tuned.init(key, X))(jax.random.split(key, 2))

    made, (several, _) = begin(KEY)
    (fresh, own), (params, state) = made["net"], made["tuned"]
    np.testing.assert_array_equal(params["body"]["fc"]["kernel"], old[0]["body"]["fc"]["kernel"])
    np.testing.assert_array_equal(params["head"]["kernel"], fresh["head"]["kernel"])
    np.testing.assert_array_equal(state["body"]["norm"]["mean"], old[1]["body"]["norm"]["mean"])
    assert jax.tree.structure(state) == jax.tree.structure(own)
    without = made["stateless"][1]
    np.testing.assert_array_equal(without["body"]["norm"]["mean"], own["body"]["norm"]["mean"])
    inside = made["outer"][0]["whole"]
    np.testing.assert_array_equal(inside["body"]["fc"]["kernel"], old[0]["body"]["fc"]["kernel"])
    assert several["body"]["fc"]["kernel"].shape == (2, 4, 5)
    np.testing.assert_array_equal(several["body"]["fc"]["kernel"][1], old[0]["body"]["fc"]["kernel"])


@pytest.mark.promotes
def test_a_frozen_body_stays_to_the_bit_and_the_head_learns(old):
    tuned = jn.train.pretrained(net(3), *old, on=("**", "!head/**"))
    objective = jn.objective(jn.losses.cross_entropy)
    one = jn.train.program(tuned, objective, optax.sgd(0.1), (X, Y), epochs=3, batch_size=8, freeze="body/**")
    run, history = jn.train.run(one, key=KEY)
    for path, leaf in jn.paths.paths({"params": run.params["body"], "state": run.state["body"]}).items():
        source = {"params": old[0]["body"], "state": old[1]["body"]}
        np.testing.assert_array_equal(leaf, jn.paths.paths(source)[path])
    assert history["loss"][-1] < history["loss"][0]
