"""Flax modules, Linen and NNX, have the counts of the same network in jaxnets, submodule by submodule."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jaxnets as jn
from jaxnets.inspect import count_parameters, flops, memory, multiply_adds
from tests.inspect.test_counts import in_training, shaped


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(8, (3, 3), padding="VALID", name="conv")(x))
        x = nn.BatchNorm(use_running_average=True, name="norm")(x)
        return nn.Dense(5, name="fc")(x.reshape(len(x), -1))


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 8, (3, 3), padding="VALID", rngs=rngs)
        self.norm = nnx.BatchNorm(8, use_running_average=True, rngs=rngs)
        self.fc = nnx.Linear(8 * 36, 5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.norm(nnx.relu(self.conv(x)))
        return self.fc(x.reshape(len(x), -1))


@pytest.mark.promotes
def test_flax_modules_count_like_a_net():
    ours = jn.serial(conv=jn.conv(8, 3), relu=jax.nn.relu, norm=jn.batch_norm(), flatten=jn.flatten, fc=jn.dense(5))
    x = shaped(2, 8, 8, 3)
    module, variables = Linen(), jax.eval_shape(Linen().init, jax.random.key(0), x)
    graph, parts = nnx.split(nnx.eval_shape(lambda: Nnx(nnx.Rngs(0))))
    nnx_module = nnx.merge(graph, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), parts))
    for theirs in (module, nnx_module):
        assert multiply_adds(theirs, x) == multiply_adds(ours, x)
        assert count_parameters(theirs, x) == count_parameters(ours, x)
        assert in_training(theirs, x) == in_training(ours, x)
        assert 0.9 < flops(theirs, x) / flops(ours, x) < 1.1  # the norms are written differently
        assert jn.inspect.connections(theirs, x) == jn.inspect.connections(ours, x)
        assert memory(theirs, x).state == memory(ours, x).state
    assert multiply_adds(module.apply, variables, x) == multiply_adds(nnx_module, x) == multiply_adds(ours, x)
    given = multiply_adds(module, x, params=variables["params"], state={"batch_stats": variables["batch_stats"]})
    assert given == multiply_adds(ours, x)
    inside = jn.serial(jn.conv(3, 1), lambda x: nnx_module(x))  # noqa: PLW0108  # a function that hides its weights
    assert multiply_adds(inside, x) == multiply_adds(ours, x) + 2 * 64 * 9


@pytest.mark.promotes
def test_rows_are_submodules():
    x = shaped(2, 8, 8, 3)
    rows = {"conv": 224, "norm": 16, "fc": 1445}
    for module in (Linen(), nnx.eval_shape(lambda: Nnx(nnx.Rngs(0)))):
        table = jn.summary(module, x)
        assert {row.path: row.parameters for row in table.rows} == rows
        assert table.label == type(module).__name__
        assert [row.output for row in table.rows] == [((2, 6, 6, 8),), ((2, 6, 6, 8),), ((2, 5),)]
        assert [row.multiply_adds for row in table.rows] == [2 * 36 * 27 * 8, 0, 2 * 288 * 5]
        assert [row.receptive_field for row in table.rows] == [(3, 3), (3, 3), (8, 8)]
        assert table.total.parameters == sum(rows.values())


@pytest.mark.promotes
def test_nested_nnx_modules_keep_their_paths():
    class Outer(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.blocks = nnx.List([Nnx(rngs), nnx.Sequential(nnx.Linear(5, 4, rngs=rngs), nnx.relu)])

        def __call__(self, x: jax.Array) -> jax.Array:
            for block in self.blocks:
                x = block(x)
            return x

    table = jn.summary(nnx.eval_shape(lambda: Outer(nnx.Rngs(0))), shaped(1, 8, 8, 3))
    costs = {row.path: row.multiply_adds for row in table.rows if row.multiply_adds}
    assert costs["blocks/0/conv"] == 36 * 27 * 8
    assert costs["blocks/1/layers/0"] == costs["blocks/1"] == 20
