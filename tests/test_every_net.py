"""What every network keeps, over one table of networks."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxnets as jn
from jaxnets.core.net import spec
from tests.cases import (
    combinators,
    layers,
    models,
    models_dense,
    models_generative,
    models_recurrent,
    recurrent,
)
from tests.cases.case import Case
from tests.oracle import golden

CASES = [
    *combinators.CASES,
    *layers.CASES,
    *recurrent.CASES,
    *models.CASES,
    *models_dense.CASES,
    *models_generative.CASES,
    *models_recurrent.CASES,
]
KEY = jax.random.key(7)

each_case = pytest.mark.parametrize("case", CASES, ids=str)


def start(case: Case):
    net, x = case.make(), jax.tree.map(jnp.asarray, case.x)
    return net, x, *net.init(KEY, x)


def assert_close(left, right, tolerance=1e-6):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        scale = float(np.max(np.abs(np.asarray(b, np.float64)), initial=1.0))
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=0, atol=tolerance * scale)


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


@each_case
def test_jit_equals_eager(case: Case):
    net, x, params, state = start(case)
    for train in (False, True):
        eager = net.apply(params, state, x, key=KEY, train=train)
        jitted = jax.jit(lambda p, s, x, train=train: net.apply(p, s, x, key=KEY, train=train))(params, state, x)
        assert_close(jitted, eager, 2e-2 if "cast" in case.name else 1e-6)


@each_case
def test_init_is_a_function_of_shapes(case: Case):
    net, x, params, state = start(case)
    assert spec((params, state)) == jax.eval_shape(net.init, KEY, x)
    assert_close(net.init(KEY, spec(x)), (params, state), 0.0)
    for leaf in jax.tree.leaves(params):
        assert leaf.dtype == jnp.float32


@each_case
def test_state_keeps_its_spec(case: Case):
    net, x, params, state = start(case)
    for train in (False, True):
        _, after = net.apply(params, state, x, key=KEY, train=train)
        assert spec(after) == spec(state)


@each_case
def test_vmapped_trials_equal_a_loop(case: Case):
    net, x, _, _ = start(case)

    def member(key):
        params, state = net.init(key, x)
        return params, net.apply(params, state, x, key=key, train=True)

    keys = jax.random.split(KEY, 3)
    together = jax.vmap(member)(keys)
    for k in range(3):
        assert_close(
            jax.tree.map(lambda leaf, k=k: leaf[k], together), member(keys[k]), 2e-2 if "cast" in case.name else 1e-5
        )


@each_case
def test_evaluation_ignores_keys_and_follows_batch_order(case: Case):
    net, x, params, state = start(case)
    y, _ = net.apply(params, state, x)
    assert_close(net.apply(params, state, x, key=KEY)[0], y, 0.0)
    order = np.array([2, 0, 1, *range(3, len(jax.tree.leaves(x)[0]))])
    turned, _ = net.apply(params, state, jax.tree.map(lambda leaf: leaf[order], x))
    assert_close(turned, jax.tree.map(lambda leaf: leaf[order], y), 1e-5)


@each_case
def test_training_is_a_function_of_the_key(case: Case):
    net, x, params, state = start(case)
    first, again, other = (net.apply(params, state, x, key=jax.random.key(k), train=True)[0] for k in (1, 1, 2))
    assert_close(again, first, 0.0)
    same = all(bool((a == b).all()) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True))
    assert same != case.random
    outer = jn.serial(before=lambda x: x, inner=net)
    if case.random:
        with pytest.raises(jn.NetError, match=r"inner.*needs a key"):
            outer.apply({"inner": params} if params else {}, {"inner": state} if state else {}, x, train=True)
    else:
        outer.apply({"inner": params} if params else {}, {"inner": state} if state else {}, x, train=True)


@each_case
def test_precision_follows_the_input(case: Case):
    net, x, params, state = start(case)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(net.apply(params, state, x)[0]) if leaf.dtype.kind == "f"}
    assert dtypes <= {jnp.dtype(jnp.float32)} or "cast" in case.name
    if not case.half:
        return
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf, x)
    for train in (False, True):
        y, after = net.apply(params, state, half, key=KEY, train=train)
        assert {leaf.dtype for leaf in jax.tree.leaves(y) if leaf.dtype != jnp.int32} == {jnp.dtype(jnp.bfloat16)}
        assert spec(after) == spec(state)
    y32, y16 = (jax.tree.leaves(net.apply(params, state, each)[0]) for each in (x, half))
    for a, b in zip(y16, y32, strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=0, atol=0.03 * max(1.0, float(np.max(np.abs(b), initial=1.0))))


@pytest.mark.parametrize("case", [case for case in CASES if case.random], ids=str)
def test_random_numbers_have_32_bits_for_half_precision_too(case: Case):
    """JAX draws bfloat16 from 8 bits: a probability of 0.0009 becomes one of 0.0078."""
    net, x, params, state = start(case)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf, x)
    program = jax.make_jaxpr(lambda key: net.apply(params, state, half, key=key, train=True))(KEY)
    assert set(re.findall(r"bit_width=(\d+)", str(program))) == {"32"}


@each_case
def test_parameter_tree_is_golden(case: Case):
    net, x, *_ = start(case)
    params, state = jax.eval_shape(net.init, KEY, x)
    rows = [
        f"{kind} {path} {leaf.shape} {leaf.dtype}"
        for kind, tree in (("params", params), ("state", state))
        for path, leaf in jn.paths.paths(tree).items()
    ]
    golden(case.name, "\n".join([repr(net), *rows]) + "\n")


@each_case
def test_gradients_agree_with_finite_differences(case: Case):
    if not case.differentiable:
        return
    with jax.enable_x64(True):
        wide = [
            jnp.asarray(leaf, jnp.float64 if leaf.dtype == np.float32 else None) for leaf in jax.tree.leaves(case.x)
        ]
        structure = jax.tree.structure(case.x)
        floating = [leaf for leaf in wide if leaf.dtype == jnp.float64]

        def put(leaves):
            rest = iter(leaves)
            return jax.tree.unflatten(structure, [next(rest) if leaf.dtype == jnp.float64 else leaf for leaf in wide])

        net = case.make()
        params, state = net.init(KEY, put(floating))

        for train in (False, True):

            def outputs(params, floating, train=train):
                y, _ = net.apply(params, state, put(floating), key=KEY, train=train)
                return [leaf for leaf in jax.tree.leaves(y) if leaf.dtype == jnp.float64]

            check_grads(outputs, (params, floating), order=1, modes=("fwd", "rev"), rtol=1e-5, atol=1e-6, eps=1e-5)


@each_case
def test_no_tracer_leaks(case: Case):
    net, x, params, state = start(case)
    with jax.checking_leaks():
        jax.jit(lambda p, s, x: net.apply(p, s, x, key=KEY, train=True))(params, state, x)
        jax.eval_shape(net.init, KEY, x)
