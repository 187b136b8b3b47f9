"""What every network keeps, over one table of networks."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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

# Networks that take long to compile, and that others stand for.
heavy = pytest.mark.slow_cases(
    "combinators/repeat_leaf",
    "models/contrastive_divergence",
    "models/fcn_tiny",
    "models/gru",
    "models/landmarks_tiny",
    "models/language_model",
    "models/lenet5",
    "models/lenet5_parts",
    "models/lenet5_smooth",
    "models/mlp",
    "recurrent/bidirectional",
    "recurrent/bidirectional_carry",
    "recurrent/bidirectional_last",
    "recurrent/bidirectional_stacked",
    "recurrent/carry_through",
    "recurrent/cast",
    "recurrent/dropout",
    "recurrent/dropout_padded",
    "recurrent/ensemble",
    "recurrent/repeat",
    "recurrent/rnn",
    "recurrent/rnn_relu",
    "recurrent/stacked",
)


class Subject:
    """A network of the table with what its checks share: it is initialized once, and each function compiled once."""

    def __init__(self, case: Case) -> None:
        self.case, self.net, self.x = case, case.make(), jax.tree.map(jnp.asarray, case.x)
        net = self.net
        self.params, self.state = net.init(KEY, self.x)
        self.evaluate = jax.jit(lambda params, state, x, key: net.apply(params, state, x, key=key))
        self.train = jax.jit(lambda params, state, x, key: net.apply(params, state, x, key=key, train=True))
        self.tolerance = 2e-2 if "cast" in case.name else 1e-6

    def functions(self):
        """Return both modes by the value of `train`."""
        return {False: self.evaluate, True: self.train}

    def half(self):
        """Return the input with bfloat16 in place of float32."""
        return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf, self.x)


# Tests that share a module's parametrized fixture run network by network, so that two workers don't compile the same.
@pytest.fixture(params=CASES, ids=str, scope="module")
def subject(request: pytest.FixtureRequest) -> Subject:
    return Subject(request.param)


def assert_close(left, right, tolerance=1e-6):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        scale = float(np.max(np.abs(np.asarray(b, np.float64)), initial=1.0))
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=0, atol=tolerance * scale)


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


@heavy
def test_jit_equals_eager(subject: Subject):
    for train, jitted in subject.functions().items():
        eager = subject.net.apply(subject.params, subject.state, subject.x, key=KEY, train=train)
        assert_close(jitted(subject.params, subject.state, subject.x, KEY), eager, subject.tolerance)


@heavy
def test_init_is_a_function_of_shapes(subject: Subject):
    assert spec((subject.params, subject.state)) == jax.eval_shape(subject.net.init, KEY, subject.x)
    assert_close(subject.net.init(KEY, spec(subject.x)), (subject.params, subject.state), 0.0)
    for leaf in jax.tree.leaves(subject.params):
        assert leaf.dtype == jnp.float32


def test_state_keeps_its_spec(subject: Subject):
    for function in subject.functions().values():
        _, after = jax.eval_shape(function, subject.params, subject.state, subject.x, KEY)
        assert spec(after) == spec(subject.state)


@heavy
def test_vmapped_trials_equal_a_loop(subject: Subject):
    keys = jax.random.split(KEY, 3)
    made = jax.vmap(subject.net.init, in_axes=(0, None))(keys, subject.x)
    applied = jax.jit(jax.vmap(subject.train, in_axes=(0, 0, None, 0)))(*made, subject.x, keys)
    for k in range(3):
        own, after = jax.tree.map(lambda leaf, k=k: leaf[k], (made, applied))
        assert_close(own, subject.net.init(keys[k], subject.x), 1e-5)
        assert_close(after, subject.train(*own, subject.x, keys[k]), max(1e-5, subject.tolerance))


@heavy
def test_evaluation_ignores_keys_and_follows_batch_order(subject: Subject):
    params, state, x = subject.params, subject.state, subject.x
    y, _ = subject.evaluate(params, state, x, KEY)
    assert_close(subject.evaluate(params, state, x, jax.random.key(1))[0], y, 0.0)
    assert jax.eval_shape(subject.net.apply, params, state, x)[0] == spec(y)  # no key is needed
    order = np.array([2, 0, 1, *range(3, len(jax.tree.leaves(x)[0]))])
    turned, _ = subject.evaluate(params, state, jax.tree.map(lambda leaf: leaf[order], x), KEY)
    assert_close(turned, jax.tree.map(lambda leaf: leaf[order], y), 1e-5)


def test_training_is_a_function_of_the_key(subject: Subject):
    net, params, state, x = subject.net, subject.params, subject.state, subject.x
    first, again, other = (subject.train(params, state, x, jax.random.key(k))[0] for k in (1, 1, 2))
    assert_close(again, first, 0.0)
    same = all(bool((a == b).all()) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True))
    assert same != subject.case.random
    outer = jn.serial(before=lambda x: x, inner=net)
    inside = {"inner": params} if params else {}, {"inner": state} if state else {}

    def without_key(x):
        return outer.apply(*inside, x, train=True)

    if subject.case.random:
        with pytest.raises(jn.NetError, match=r"inner.*needs a key"):
            jax.eval_shape(without_key, x)
    else:
        jax.eval_shape(without_key, x)


def test_precision_follows_the_input(subject: Subject):
    params, state, x = subject.params, subject.state, subject.x
    y32, _ = subject.evaluate(params, state, x, KEY)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(y32) if leaf.dtype.kind == "f"}
    assert dtypes <= {jnp.dtype(jnp.float32)} or "cast" in subject.case.name
    if not subject.case.half:
        return
    half = subject.half()
    for function in subject.functions().values():
        y, after = jax.eval_shape(function, params, state, half, KEY)
        assert {leaf.dtype for leaf in jax.tree.leaves(y) if leaf.dtype != jnp.int32} == {jnp.dtype(jnp.bfloat16)}
        assert spec(after) == spec(state)
    y16, _ = subject.evaluate(params, state, half, KEY)
    for a, b in zip(jax.tree.leaves(y16), jax.tree.leaves(y32), strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=0, atol=0.03 * max(1.0, float(np.max(np.abs(b), initial=1.0))))


def test_random_numbers_have_32_bits_for_half_precision_too(subject: Subject):
    """JAX draws bfloat16 from 8 bits: a probability of 0.0009 becomes one of 0.0078."""
    if subject.case.random:
        program = jax.make_jaxpr(subject.train)(subject.params, subject.state, subject.half(), KEY)
        assert set(re.findall(r"bit_width=(\d+)", str(program))) == {"32"}


def test_parameter_tree_is_golden(subject: Subject):
    rows = [
        f"{kind} {path} {leaf.shape} {leaf.dtype}"
        for kind, tree in (("params", subject.params), ("state", subject.state))
        for path, leaf in jn.paths.paths(tree).items()
    ]
    golden(subject.case.name, "\n".join([repr(subject.net), *rows]) + "\n")


@heavy
def test_gradients_agree_with_finite_differences(subject: Subject):
    """In float64, along one random direction: forward mode against a central difference, reverse against forward."""
    case = subject.case
    if not case.differentiable:
        return
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        leaves, structure = jax.tree.flatten(case.x)
        inputs = [leaf.astype(np.float64) for leaf in leaves if leaf.dtype == np.float32]

        def put(floating):
            rest = iter(floating)
            return jax.tree.unflatten(structure, [next(rest) if leaf.dtype == np.float32 else leaf for leaf in leaves])

        net = case.make()
        params, state = net.init(KEY, put(inputs))

        def outputs(at, train):
            y, _ = net.apply(at[0], state, put(at[1]), key=KEY, train=train)
            return [leaf for leaf in jax.tree.leaves(y) if leaf.dtype == np.float64]

        modes = {str(jax.make_jaxpr(lambda at, train=train: outputs(at, train))((params, inputs))): train
                 for train in (False, True)}  # fmt: skip  # most networks do the same in both
        for train in modes.values():
            run = jax.jit(lambda at, train=train: outputs(at, train))
            at = jax.tree.map(np.asarray, (params, inputs))
            along = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(leaf.dtype), at)
            back = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), jax.eval_shape(run, at))

            @jax.jit
            def both(at, along, back, run=run):
                forward, pull = jax.jvp(run, (at,), (along,))[1], jax.vjp(run, at)[1]
                return forward, pull(back)[0]

            forward, backward = both(at, along, back)
            ahead, behind = (run(jax.tree.map(lambda a, d, e=e: a + e * d, at, along)) for e in (1e-5, -1e-5))
            for derivative, a, b in zip(forward, ahead, behind, strict=True):
                difference = (np.asarray(a) - np.asarray(b)) / 2e-5
                np.testing.assert_allclose(
                    derivative, difference, rtol=1e-5, atol=1e-6 * max(1, abs(difference).max(initial=0))
                )
            left, right = (
                sum(
                    float(np.sum(np.asarray(a) * np.asarray(b)))
                    for a, b in zip(*map(jax.tree.leaves, pair), strict=True)
                )
                for pair in ((backward, along), (back, forward))
            )
            np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9)


def test_no_tracer_leaks(subject: Subject):
    net = subject.net
    with jax.checking_leaks():
        jax.eval_shape(
            lambda p, s, x: net.apply(p, s, x, key=KEY, train=True), subject.params, subject.state, subject.x
        )
        jax.eval_shape(net.init, KEY, subject.x)
