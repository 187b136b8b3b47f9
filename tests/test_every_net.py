"""What every network keeps, over one table of networks."""

import re
from functools import partial

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
    models_text,
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
    *models_text.CASES,
]
KEY = jax.random.key(7)

KEY = jax.random.key(7)


def quick(*names: str) -> pytest.MarkDecorator:
    """Mark all networks but these slow, for a test that takes long to compile."""
    assert set(names) <= {case.name for case in CASES}
    return pytest.mark.slow_cases(*(case.name for case in CASES if case.name not in names))


# Networks of whose kind there is another.
TAKEN_FOR = (
    "combinators/heads",
    "combinators/repeat_leaf",
    "combinators/residual_leaf",
    "combinators/residual_shortcut",
    "combinators/upto",
    "layers/conv_1d",
    "layers/conv_1x1",
    "layers/conv_3d",
    "layers/conv_transpose_grouped",
    "layers/dense_no_bias",
    "layers/depthwise_conv",
    "layers/dropout_shared",
    "layers/learned_positions",
    "layers/maxout_no_bias",
    "layers/rms_norm_axes",
    "layers/sinusoidal_positions",
    "models/cnn",
    "models/contrastive_divergence",
    "models/denoising_autoencoder",
    "models/encoder_decoder",
    "models/fcn_tiny",
    "models/gru",
    "models/landmarks_tiny",
    "models/language_model",
    "models/lenet5",
    "models/lenet5_parts",
    "models/lenet5_smooth",
    "models/mlp",
    "models/vae",
    "recurrent/bidirectional",
    "recurrent/bidirectional_carry",
    "recurrent/bidirectional_last",
    "recurrent/bidirectional_stacked",
    "recurrent/carry_out",
    "recurrent/carry_through",
    "recurrent/cast",
    "recurrent/dropout",
    "recurrent/dropout_padded",
    "recurrent/ensemble",
    "recurrent/gru",
    "recurrent/gru_no_bias",
    "recurrent/gru_reset_before",
    "recurrent/last",
    "recurrent/last_reverse",
    "recurrent/lstm",
    "recurrent/lstm_no_bias",
    "recurrent/repeat",
    "recurrent/reverse",
    "recurrent/rnn",
    "recurrent/rnn_relu",
    "recurrent/stacked",
)
one_of_a_kind = pytest.mark.slow_cases(*TAKEN_FOR)


class Subject:
    """A network of the table with what its checks share: the shapes of its parameters, and one compiled program."""

    def __init__(self, case: Case) -> None:
        self.case, self.net, self.x = case, case.make(), case.x
        self.init_program, self.made = jax.make_jaxpr(self.net.init, return_shape=True)(KEY, case.x)
        self.tolerance = 2e-2 if "cast" in case.name else 1e-6
        self.compiled = jax.jit(self.everything)

    def apply(self, params, state, x, key, train=False):
        return self.net.apply(params, state, x, key=key, train=train)

    def half(self, x):
        """Return the input with bfloat16 in place of float32."""
        return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf, x)

    def trial(self, seed, x):
        """Return new parameters and state, and what training makes of them."""
        key = jax.random.key(seed)
        made = self.net.init(key, x)
        return made, self.apply(*made, x, key, train=True)

    def everything(self, seed, key_seed, x):
        made, key = self.net.init(jax.random.key(seed), x), jax.random.key(key_seed)
        return {
            "made": made,
            "evaluated": self.apply(*made, x, key),
            "trained": self.apply(*made, x, key, train=True),
            "half": self.apply(*made, self.half(x), key) if self.case.half else None,
        }

    def values(self, seed=7, key_seed=7, x=None):
        """Return whatever tests compare, from one program: parameters and state, and outputs and state after."""
        return self.compiled(np.int32(seed), np.int32(key_seed), self.x if x is None else x)


# Tests that share a module's parametrized fixture run network by network, so that two workers don't compile the same.
@pytest.fixture(params=CASES, ids=str, scope="module")
def subject(request: pytest.FixtureRequest) -> Subject:
    return Subject(request.param)


def assert_close(left, right, tolerance=1e-6):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.max(np.abs(b), initial=1.0))


def test_names_are_unique():
    names = {case.name for case in CASES}
    assert len(names) == len(CASES)
    assert names.issuperset(TAKEN_FOR)


@quick("combinators/serial", "layers/batch_norm_padded")
def test_jit_equals_eager(subject: Subject):
    jitted, x = subject.values(), jax.tree.map(jnp.asarray, subject.x)
    params, state = made = subject.net.init(KEY, x)
    assert_close(jitted["made"], made)
    for train in (False, True):
        assert_close(
            jitted["trained" if train else "evaluated"], subject.apply(params, state, x, KEY, train), subject.tolerance
        )


@one_of_a_kind
def test_init_is_a_function_of_shapes(subject: Subject):
    """Of an array it does what it does of the array's shape and dtype, step by step."""
    x = spec(subject.x)
    program, made = jax.make_jaxpr(lambda key, _: subject.net.init(key, x), return_shape=True)(KEY, subject.x)
    assert str(program) == str(subject.init_program)
    assert made == subject.made


@pytest.mark.slow
def test_a_program_is_exported_for_any_batch(subject: Subject):
    (batch,) = jax.export.symbolic_shape("batch")
    x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype), spec(subject.x))
    exported = jax.export.export(jax.jit(subject.net.apply))(*subject.made, x)
    (first, *_) = jax.tree.leaves(exported.out_avals)
    assert first.shape[0] == batch


def test_parameters_are_float32(subject: Subject):
    for leaf in jax.tree.leaves(subject.made[0]):
        assert leaf.dtype == jnp.float32


def test_state_keeps_its_spec(subject: Subject):
    params, state = subject.made
    for train in (False, True):
        _, after = jax.eval_shape(
            lambda p, s, x, key, train=train: subject.apply(p, s, x, key, train), params, state, subject.x, KEY
        )
        assert spec(after) == spec(state)


@quick(
    "combinators/repeat",
    "layers/batch_norm_padded",
    "layers/conv_grouped",
    "layers/dropout_padded",
    "layers/embed_padded",
    "models/rbm",
)
def test_vmapped_trials_equal_a_loop(subject: Subject):
    seeds = np.arange(3, dtype=np.int32)
    together = jax.jit(jax.vmap(subject.trial, in_axes=(0, None)))(seeds, subject.x)
    for k in range(3):
        made, applied = jax.tree.map(lambda leaf, k=k: np.asarray(leaf)[k], together)
        alone = subject.values(k, k)
        assert_close(made, alone["made"], 1e-5)
        assert_close(applied, alone["trained"], max(1e-5, subject.tolerance))


@one_of_a_kind
def test_evaluation_ignores_keys_and_follows_batch_order(subject: Subject):
    x = subject.x
    y, _ = subject.values()["evaluated"]
    assert_close(subject.values(key_seed=1)["evaluated"][0], y, 0.0)
    assert jax.eval_shape(subject.net.apply, *subject.made, x)[0] == spec(y)  # no key is needed
    order = np.array([2, 0, 1, *range(3, len(jax.tree.leaves(x)[0]))])
    turned, _ = subject.values(x=jax.tree.map(lambda leaf: leaf[order], x))["evaluated"]
    assert_close(turned, jax.tree.map(lambda leaf: np.asarray(leaf)[order], y), 1e-5)


@one_of_a_kind
def test_training_is_a_function_of_the_key(subject: Subject):
    first, again, other = (subject.values(key_seed=seed)["trained"][0] for seed in (1, 1, 2))
    assert_close(again, first, 0.0)
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs) != subject.case.random


def test_training_that_draws_needs_a_key(subject: Subject):
    params, state = subject.made
    outer = jn.serial(before=lambda x: x, inner=subject.net)
    inside = {"inner": params} if params else {}, {"inner": state} if state else {}

    def without_key(params, state, x):
        return outer.apply(params, state, x, train=True)

    if subject.case.random:
        with pytest.raises(jn.NetError, match=r"inner.*needs a key"):
            jax.eval_shape(without_key, *inside, subject.x)
    else:
        jax.eval_shape(without_key, *inside, subject.x)


def test_precision_follows_the_input(subject: Subject):
    params, state = subject.made
    for train in (False, True):

        def apply(x, train=train):
            return jax.eval_shape(lambda p, s, x, key: subject.apply(p, s, x, key, train), params, state, x, KEY)

        dtypes = {leaf.dtype for leaf in jax.tree.leaves(apply(subject.x)[0]) if leaf.dtype.kind == "f"}
        assert dtypes <= {jnp.dtype(jnp.float32)} or "cast" in subject.case.name
        if subject.case.half:
            y, after = apply(subject.half(subject.x))
            assert {leaf.dtype for leaf in jax.tree.leaves(y) if leaf.dtype != jnp.int32} == {jnp.dtype(jnp.bfloat16)}
            assert spec(after) == spec(state)


@one_of_a_kind
def test_half_precision_is_near(subject: Subject):
    if subject.case.half:
        values = subject.values()
        assert_close(values["half"][0], values["evaluated"][0], 0.03)


def test_random_numbers_have_32_bits_for_half_precision_too(subject: Subject):
    """JAX draws bfloat16 from 8 bits: a probability of 0.0009 becomes one of 0.0078."""
    if subject.case.random:
        program = jax.make_jaxpr(lambda *a: subject.apply(*a, train=True))(*subject.made, subject.half(subject.x), KEY)
        assert set(re.findall(r"bit_width=(\d+)", str(program))) == {"32"}


def test_parameter_tree_is_golden(subject: Subject):
    rows = [
        f"{kind} {path} {leaf.shape} {leaf.dtype}"
        for kind, tree in zip(("params", "state"), subject.made, strict=True)
        for path, leaf in jn.paths.paths(tree).items()
    ]
    golden(subject.case.name, "\n".join([repr(subject.net), *rows]) + "\n")


def moved(at, along, step):
    return jax.tree.map(lambda a, d: a + step * d, at, along)


@quick(  # of layers PyTorch gives gradients too: tests/layers
    "combinators/branches",
    "combinators/ensemble",
    "combinators/remat",
    "combinators/repeat",
    "layers/batch_norm_padded",
    "layers/conv_padded",
    "layers/dropout_padded",
    "layers/layer_norm_padded",
    "layers/maxout",
    "layers/prelu_per_channel",
    "layers/scaled_tanh",
    "layers/tanh_shrink",
    "models/rbm",
    "recurrent/carry_in",
)
def test_gradients_agree_with_finite_differences(subject: Subject):
    """In float64, along one random direction: forward mode against a central difference, reverse against forward."""
    case = subject.case
    if not case.differentiable:
        return
    # Outside the context below, in which the shared program would be compiled again.
    drawn = subject.values()["made"]
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        leaves, structure = jax.tree.flatten(case.x)
        inputs = [leaf.astype(np.float64) for leaf in leaves if leaf.dtype == np.float32]

        def put(floating):
            rest = iter(floating)
            return jax.tree.unflatten(structure, [next(rest) if leaf.dtype == np.float32 else leaf for leaf in leaves])

        net = case.make()

        def outputs(params, state, inputs, train):
            y, _ = net.apply(params, state, put(inputs), key=KEY, train=train)
            return [leaf for leaf in jax.tree.leaves(y) if leaf.dtype == np.float64]

        def wide(leaf, like):
            return np.asarray(leaf).astype(like.dtype)

        made = jax.tree.map(wide, drawn, jax.eval_shape(net.init, KEY, put(inputs)))
        programs = [str(jax.make_jaxpr(partial(outputs, train=train))(*made, inputs)) for train in (False, True)]
        at, state = (made[0], inputs), made[1]
        for train in (False, True)[: len(set(programs))]:  # most networks do the same in both
            along = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(leaf.dtype), at)
            ys = jax.eval_shape(lambda at, train=train: outputs(at[0], state, at[1], train), at)
            back = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), ys)

            @jax.jit
            def derivatives(at, state, along, back, train=train):
                def run(at):
                    return outputs(at[0], state, at[1], train)

                forward, pull = jax.jvp(run, (at,), (along,))[1], jax.vjp(run, at)[1]
                return forward, pull(back)[0], run(moved(at, along, 1e-5)), run(moved(at, along, -1e-5))

            forward, backward, ahead, behind = derivatives(at, state, along, back)
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
    with jax.checking_leaks():
        jax.eval_shape(subject.net.init, KEY, subject.x)
        jax.eval_shape(lambda *a: subject.apply(*a, train=True), *subject.made, subject.x, KEY)
