from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

import jaxnets as jn
from jaxnets import regularizers
from tests.oracle import floats, witness

PARAMS = {
    "conv": {"kernel": floats(2, 2, 1, 3), "bias": floats(3)},
    "fc": {"kernel": floats(3, 5, seed=1), "bias": floats(5)},
}
REGULARIZERS = {
    "l1": regularizers.l1(0.3),
    "l2": regularizers.l2(0.3),
    "elastic_net": regularizers.elastic_net(0.3, 0.2),
    "group_lasso": regularizers.group_lasso(0.3),
    "group_lasso_inputs": regularizers.group_lasso(0.3, axis=-2),
    "orthogonality": regularizers.orthogonality(0.3),
}


def applied(params: Any, updates: Any) -> Any:
    return optax.apply_updates(params, updates)


def by_torch():
    import torch

    def group_lasso(w, axis):
        groups = w.movedim(axis, 0).reshape(w.shape[axis], -1)
        return groups.shape[1] ** 0.5 * groups.norm(dim=1).sum()

    def orthogonality(w):
        w = w.reshape(-1, w.shape[-1])
        gram = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
        return torch.linalg.matrix_norm(gram - torch.eye(len(gram))) ** 2

    formulas = {
        "l1": lambda w: 0.3 * torch.linalg.vector_norm(w, 1),
        "l2": lambda w: 0.3 * torch.linalg.vector_norm(w) ** 2,
        "elastic_net": lambda w: 0.3 * w.abs().sum() + 0.2 * (w * w).sum(),
        "group_lasso": lambda w: 0.3 * group_lasso(w, -1),
        "group_lasso_inputs": lambda w: 0.3 * group_lasso(w, -2),
        "orthogonality": lambda w: 0.3 * orthogonality(w),
    }
    given = {}
    for name, function in formulas.items():
        kernels = [torch.tensor(PARAMS[layer]["kernel"], requires_grad=True) for layer in PARAMS]
        value = torch.stack([function(w) for w in kernels]).sum()
        given[f"{name}.value"] = value.detach().numpy()
        for layer, gradient in zip(PARAMS, torch.autograd.grad(value, kernels), strict=True):
            given[f"{name}.{layer}"] = gradient.numpy()
    return given


@pytest.mark.parametrize("name", REGULARIZERS)
def test_values_and_gradients_match_torch(name: str):
    expected = witness("regularizers", by_torch)
    value, gradient = jax.jit(jax.value_and_grad(REGULARIZERS[name]))(jax.tree.map(jnp.asarray, PARAMS))
    np.testing.assert_allclose(value, expected[f"{name}.value"], rtol=1e-5)
    for layer in PARAMS:
        np.testing.assert_allclose(gradient[layer]["kernel"], expected[f"{name}.{layer}"], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(gradient[layer]["bias"], 0)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_gradients_at_zero_weights_are_zero(name: str):
    gradient = jax.jit(jax.grad(REGULARIZERS[name]))(jax.tree.map(jnp.zeros_like, PARAMS))
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_array_equal(leaf, 0)


@pytest.mark.parametrize("name", REGULARIZERS)
@pytest.mark.slow_cases("l2", "elastic_net", "group_lasso_inputs")
def test_precision_is_float32_or_wider(name: str):
    regularizer = jax.jit(REGULARIZERS[name])
    exact = regularizer(PARAMS)
    assert exact.dtype == jnp.float32
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    assert jax.eval_shape(regularizer, half).dtype == jnp.float32
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(np.float64), PARAMS)
        assert regularizer(wide).dtype == jnp.float64
        np.testing.assert_allclose(exact, regularizer(wide), rtol=1e-5)
        np.testing.assert_allclose(regularizer({**wide, "fc": PARAMS["fc"]}), exact, rtol=1e-5)  # of two dtypes
        check_grads(regularizer, (wide,), order=1, rtol=1e-6, eps=1e-6)


def test_strengths_may_be_traced():
    strengths = jnp.array([0.0, 0.5, 2.0])

    @jax.jit
    @jax.vmap
    def all_of(s):
        made = [
            regularizers.l1(s),
            regularizers.l2(s),
            regularizers.elastic_net(s, s),
            regularizers.group_lasso(s),
            regularizers.orthogonality(s),
        ]
        assert repr(made[1]) == "l2(traced, on='**/kernel')"
        logits = jnp.asarray(floats(4, 3))
        of_outputs = (regularizers.activity_l1(s), regularizers.activity_l2(s), regularizers.confidence(s))
        return [term(PARAMS) for term in made] + [term(logits).sum() for term in of_outputs]

    for values in all_of(strengths):
        np.testing.assert_allclose(values, values[1] * strengths / 0.5, rtol=1e-6)
        assert values[1] != 0


orthogonality = jax.jit(regularizers.orthogonality(1.0))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 5))
def test_orthogonality_is_zero_for_orthonormal_columns_or_rows(rows, columns, seed):
    square = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))[0]
    kernel = square[:rows, :] if rows < columns else square[:, :columns]
    assert float(orthogonality({"kernel": kernel.astype(np.float32)})) < 1e-10


def test_a_wide_kernels_smaller_product_has_the_same_gradient():
    w = floats(3, 5)

    def by_columns(w):
        return jnp.square(w.T @ w - jnp.eye(5)).sum()

    @jax.jit
    def both(w):
        return jax.value_and_grad(orthogonality)({"kernel": w}), jax.value_and_grad(by_columns)(w)

    (ours, gradient), (theirs, wanted) = both(w)
    np.testing.assert_allclose(ours + 2, theirs, rtol=1e-5)
    np.testing.assert_allclose(gradient["kernel"], wanted, rtol=1e-4, atol=1e-5)


def test_stacked_kernels_are_grouped_by_several_axes():
    stacked, one = floats(3, 4, 2), jax.jit(regularizers.group_lasso(1.0))
    alone = sum(float(one({"kernel": w})) for w in stacked)
    together = jax.jit(regularizers.group_lasso(1.0, axis=(0, -1)))({"kernel": stacked})
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_l2_under_gradient_descent_is_a_decoupled_decay_of_twice_the_strength():
    params = jax.tree.map(jnp.asarray, PARAMS)
    sgd = optax.sgd(0.1)
    gradients = jax.jit(jax.grad(regularizers.l2(0.3, on="**")))(params)
    coupled = jax.jit(lambda g, params: applied(params, sgd.update(g, sgd.init(params))[0]))(gradients, params)
    decoupled = jax.tree.map(lambda w: w * np.float32(1 - 0.1 * 2 * 0.3), PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), coupled, decoupled)


OUTPUTS = floats(4, 3, 5)


def test_regularizers_of_outputs_return_one_value_per_example():
    flat = OUTPUTS.reshape(4, -1)
    made = regularizers.activity_l1(2.0), regularizers.activity_l2(2.0), regularizers.confidence(2.0)
    l1, l2, confidence = jax.jit(lambda outputs: [each(outputs) for each in made])(OUTPUTS)
    np.testing.assert_allclose(l1, 2 * np.abs(flat).sum(1), rtol=1e-6)
    np.testing.assert_allclose(l2, 2 * (flat**2).sum(1), rtol=1e-6)
    p = np.exp(OUTPUTS) / np.exp(OUTPUTS).sum(-1, keepdims=True)
    np.testing.assert_allclose(confidence, 2 * (p * np.log(p)).sum(-1).mean(1), rtol=1e-5)


@pytest.mark.parametrize("make", [regularizers.activity_l1, regularizers.activity_l2, regularizers.confidence])
def test_padding_of_outputs_never_matters(make):
    lengths = np.array([3, 1, 0, 2])
    values = np.array(OUTPUTS)
    for row, length in enumerate(lengths):
        values[row, length:] = np.nan

    @jax.jit
    def run(values, lengths_given, outputs):
        given, pull = jax.vjp(lambda v: make(1.0)(jn.Padded(v, lengths_given)), values)
        alone = [make(1.0)(outputs[row : row + 1, :n])[0] if n else 0.0 for row, n in enumerate(lengths)]
        return given, pull(jnp.ones(4))[0], alone

    given, gradient, alone = jax.device_get(run(values, lengths, OUTPUTS))
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(given[row], alone[row], rtol=1e-5, atol=1e-6)
        assert np.isfinite(gradient[row]).all()
        np.testing.assert_array_equal(gradient[row, length:], 0)


def test_confidence_is_finite_at_extreme_logits():
    @jax.jit
    def run(logits):
        values, pull = jax.vjp(regularizers.confidence(1.0), logits)
        return values, pull(jnp.ones(2))[0]

    values, slope = run(np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], np.float32))
    np.testing.assert_allclose(values, [0.0, -np.log(3)], atol=1e-6)
    assert np.isfinite(slope).all()


@jax.jit
def constrained(limit: Any, updates: Any, params: Any) -> Any:
    """Return what `max_norm` makes of updates, and the parameters after them."""
    constraint = regularizers.max_norm(limit)
    changed: Any = constraint.update(updates, constraint.init(params), params)[0]
    return changed, applied(params, changed)


@given(st.integers(1, 4), st.integers(1, 4), st.floats(0.25, 4.0), st.integers(0, 5))
def test_max_norm_holds_after_the_step(rows, columns, limit, seed):
    rng = np.random.default_rng(seed)
    kernel, step = (rng.normal(size=(rows, columns)).astype(np.float32) for _ in range(2))
    params = {"kernel": kernel, "bias": np.full(columns, 9, np.float32)}
    updates = {"kernel": step, "bias": np.ones(columns, np.float32)}
    changed, params = jax.device_get(constrained(limit, updates, params))
    after = params["kernel"]
    wanted = kernel + step
    for column in range(columns):
        norm = np.linalg.norm(wanted[:, column])
        np.testing.assert_allclose(after[:, column], wanted[:, column] * min(1.0, limit / norm), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(changed["bias"], 1)


def test_max_norm_ends_a_chain_under_jit_with_traced_limits():
    params = {"fc": {"kernel": jnp.asarray(10 * floats(3, 5))}}
    gradients = {"fc": {"kernel": jnp.asarray(floats(3, 5, seed=1))}}

    @jax.jit
    @jax.vmap
    def norms(limit):
        optimizer = optax.chain(optax.sgd(0.1, momentum=0.9), regularizers.max_norm(limit))
        updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        return jnp.linalg.norm(applied(params, updates)["fc"]["kernel"], axis=0)

    after = norms(jnp.array([0.5, 2.0, 1e6]))
    np.testing.assert_allclose(after[:2], np.array([[0.5] * 5, [2.0] * 5]), rtol=1e-5)
    assert (after[2] > 2.5).all()


def test_max_norm_of_zero_weights_is_finite():
    zeros = {"kernel": jnp.zeros((2, 2))}
    updates: Any = regularizers.max_norm(1.0).update(zeros, optax.EmptyState(), zeros)[0]
    np.testing.assert_array_equal(updates["kernel"], 0)


def test_max_norm_keeps_half_precision():
    params = {"kernel": jnp.full((4, 2), 3, jnp.bfloat16)}
    updates: Any = regularizers.max_norm(1.0).update(params, optax.EmptyState(), params)[0]
    assert updates["kernel"].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(applied(params, updates)["kernel"], np.float32), 0.5, rtol=0.02)


EMPTY = optax.EmptyState()
MISTAKES = {
    "negative strength": (lambda: regularizers.l2(-1e-4), "l2 expects strength ≥ 0, got -0.0001"),
    "negative l1": (lambda: regularizers.elastic_net(-1, 0), "elastic_net expects l1 ≥ 0, got -1"),
    "negative confidence": (lambda: regularizers.confidence(-1), "confidence expects strength ≥ 0"),
    "strength no number": (lambda: regularizers.l1(None), "l1 expects a real number for strength, got None"),
    "nothing matches": (
        lambda: regularizers.l2(0.1, on="**/weight")(PARAMS),
        r"l2\(0.1, on='\*\*/weight'\) matches no parameter; the paths are: conv/bias, conv/kernel",
    ),
    "no axis": (
        lambda: regularizers.group_lasso(0.1, on="**/bias", axis=-2)(PARAMS),
        r"parameters with axis -2, which enumerates the groups, got \(3,\)",
    ),
    "vectors": (
        lambda: regularizers.orthogonality(0.1, on="**")(PARAMS),
        r"expects kernels \(..., in, out\), got \(3,\)",
    ),
    "no classes": (lambda: regularizers.confidence(0.1)(jnp.ones(3)), r"confidence\(0.1\) expects logits .*got \(3,\)"),
    "integer outputs": (lambda: regularizers.activity_l1(0.1)(jnp.ones(3, int)), "expects floating outputs, got int32"),
    "limit 0": (lambda: regularizers.max_norm(0), "max_norm expects limit > 0, got 0"),
    "no params": (lambda: regularizers.max_norm(1.0).update(PARAMS, EMPTY), r"max_norm\(1, .*needs the parameters"),
    "no such path": (
        lambda: regularizers.max_norm(1.0, on="w").init(PARAMS),
        r"max_norm\(1, on='w'\) matches no param",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_explained(name: str):
    make, message = MISTAKES[name]
    with pytest.raises(jn.NetError, match=message):
        make()


def test_a_regularizer_prints_as_it_was_written():
    assert repr(regularizers.l2(1e-4, on=("fc/*", "**/kernel"))) == "l2(0.0001, on=('fc/*', '**/kernel'))"
    assert repr(regularizers.elastic_net(0.1, 2)) == "elastic_net(l1=0.1, l2=2, on='**/kernel')"
    assert repr(regularizers.confidence(0.1)) == "confidence(0.1)"
