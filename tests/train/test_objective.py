from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn
from jaxnets import losses, regularizers
from jaxnets.train.objective import Objective
from tests.oracle import floats, integers

PARAMS = {"fc": {"kernel": floats(3, 2), "bias": floats(2)}}
OUTPUTS, LABELS = floats(5, 2), integers(5, high=2)


def test_the_whole_is_the_sum_of_its_parts_by_name():
    whole = jn.objective(
        partial(losses.cross_entropy, label_smoothing=0.1),
        regularizers.l2(0.1),
        regularizers.confidence(0.2),
        regularizers.l2(0.3, on="**/bias"),
    )
    order: list[str] = []

    @jax.jit
    def noted(*given):
        total, parts = whole(*given)
        order.extend(parts)  # which a compiled function would sort
        return total, parts

    total, parts = noted(PARAMS, OUTPUTS, LABELS)
    kernel, bias = PARAMS["fc"]["kernel"], PARAMS["fc"]["bias"]
    log_p = OUTPUTS - np.log(np.exp(OUTPUTS).sum(1, keepdims=True))
    targets = 0.9 * np.eye(2)[LABELS] + 0.1 / 2
    expected = {
        "cross_entropy": -(targets * log_p).sum(1).mean(),
        "l2": 0.1 * (kernel**2).sum(),
        "confidence": 0.2 * (np.exp(log_p) * log_p).sum(axis=1).mean(),
        "l2_2": 0.3 * (bias**2).sum(),
    }
    assert order == list(expected)
    for name, part in parts.items():
        assert part.shape == ()
        np.testing.assert_allclose(part, expected[name], rtol=1e-6)
    np.testing.assert_allclose(total, sum(expected.values()), rtol=1e-6)


def test_two_of_the_same_terms_are_equal():
    weak, loss = jn.regularizers.l2(0.1), partial(jn.losses.multiclass_hinge, margin=2.0)
    assert jn.objective(loss, weak) == jn.objective(partial(jn.losses.multiclass_hinge, margin=2.0), weak)
    assert hash(jn.objective(loss, weak)) == hash(jn.objective(loss, weak))
    others = jn.objective(loss), jn.objective(jn.losses.multiclass_hinge, weak), jn.objective(loss, weak, weak)
    assert jn.objective(loss, weak) not in others


def test_it_prints_as_it_was_written():
    whole = jn.objective(partial(losses.cross_entropy, label_smoothing=0.1), regularizers.l2(0.1))
    assert isinstance(whole, Objective)
    assert repr(whole) == "objective(cross_entropy(label_smoothing=0.1), l2(0.1, on='**/kernel'))"


@pytest.mark.parametrize("loss", [losses.energy_gap, losses.gaussian_kl])
@pytest.mark.slow_cases("gaussian_kl")
def test_a_loss_that_needs_no_targets_trains_alone(loss):
    def apply(params, state, x, *, key=None, train=False):
        y = x * params["scale"]
        return {"energy_gap": y.sum(-1), "mean": y, "log_variance": y}, state

    net = jn.Net(lambda key, x: ({"scale": jnp.ones(())}, {}), apply)
    x, run = floats(8, 2), {"epochs": 2, "batch_size": 4, "key": jax.random.key(0)}
    alone, whole = (jn.fit(net, each, optax.sgd(0.1), (x, x), **run) for each in (loss, jn.objective(loss)))
    assert alone[0].params["scale"] == whole[0].params["scale"] != 1
    np.testing.assert_array_equal(alone[1]["loss"], whole[1]["loss"])


def loss(outputs, targets):
    return losses.squared_error(outputs, targets)


def test_names_are_distinct_and_leave_loss_for_the_whole():
    first = regularizers.Regularizer(lambda params: jnp.zeros(()), "l2_2")
    names = jn.objective(losses.huber, regularizers.l2(0.1), first, regularizers.l2(0.2)).names
    assert names == ("huber", "l2", "l2_2", "l2_3")
    assert jn.objective(loss).names == ("data",)
    assert jn.objective(lambda outputs, targets: outputs - targets).names == ("data",)
    assert jn.objective(losses.sequence(partial(losses.huber, delta=2.0))).names == ("huber",)
    assert jn.objective(losses.huber, regularizers.Regularizer(jnp.mean, "loss")).names == ("huber", "loss_2")


def test_a_plain_callable_is_a_regularizer_of_params():
    def bias_size(params):
        return jnp.square(params["fc"]["bias"]).sum()

    total, parts = jax.jit(jn.objective(losses.cross_entropy, bias_size))(PARAMS, OUTPUTS, LABELS)
    np.testing.assert_allclose(parts["bias_size"], (PARAMS["fc"]["bias"] ** 2).sum(), rtol=1e-6)
    np.testing.assert_allclose(total, np.asarray(parts["bias_size"]) + np.asarray(parts["cross_entropy"]), rtol=1e-6)


WHOLE = jn.objective(losses.cross_entropy, regularizers.l2(0.1), regularizers.activity_l2(0.2))


@jax.jit
def value_and_gradients(params, outputs, labels, weights):
    def total(params, outputs):
        return WHOLE(params, outputs, labels, weights)

    return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(params, outputs)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=5, max_size=5))
def test_rows_of_weight_zero_are_as_if_left_out(weights):
    """In value and gradient, with NaN in their outputs and labels far out of range."""
    kept = np.array(weights) > 0
    spoiled = np.where(kept[:, None], OUTPUTS, np.float32(np.nan)), np.where(kept, LABELS, 99)
    (value, parts), gradients = jax.device_get(value_and_gradients(PARAMS, *spoiled, np.float32(weights)))
    share = np.array(weights) / max(sum(weights), 1e-9)
    o, one_hot, w = (
        np.asarray(x, np.float64) for x in (OUTPUTS, np.eye(2)[np.asarray(LABELS)], PARAMS["fc"]["kernel"])
    )
    p = np.exp(o) / np.exp(o).sum(axis=1, keepdims=True)
    expected = {
        "cross_entropy": -(share * np.log((p * one_hot).sum(axis=1))).sum(),
        "l2": 0.1 * (w**2).sum(),
        "activity_l2": 0.2 * (share * (o**2).sum(axis=1)).sum(),
    }
    for name, part in parts.items():
        np.testing.assert_allclose(part, expected[name], rtol=1e-5)
    np.testing.assert_allclose(value, sum(expected.values()), rtol=1e-5)
    np.testing.assert_allclose(gradients[1], share[:, None] * (p - one_hot + 0.4 * o), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(gradients[1][~kept], 0)
    np.testing.assert_allclose(gradients[0]["fc"]["kernel"], 0.2 * w, rtol=1e-6)


averaged = jax.jit(jn.objective(losses.squared_error))


@given(st.integers(1, 6), st.integers(1, 4))
def test_padded_batches_give_the_exact_mean(examples, batch):
    outputs, targets = floats(examples, 2), floats(examples, 2, seed=1)
    total, whole = 0.0, ((outputs - targets) ** 2).mean()
    for start in range(0, examples, batch):
        rows = np.arange(start, start + batch)
        there = (rows < examples).astype(np.float32)
        value, _ = averaged({}, outputs[rows % examples], targets[rows % examples], there)
        total += float(value) * float(there.sum())
    np.testing.assert_allclose(total / examples, whole, rtol=1e-5)


@pytest.mark.parametrize("weights", [[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
def test_weights_mask_whole_sequences(weights):
    """With Padded outputs and targets, whose lengths in masked rows differ."""
    whole = jn.objective(losses.sequence(losses.cross_entropy), regularizers.confidence(0.5))
    values, labels, kept = floats(3, 4, 2), integers(3, 4, high=2), np.array(weights) > 0
    outputs = jn.Padded(np.where(kept[:, None, None], values, np.float32(np.nan)), np.array([2, 4, 3]))
    value, parts = jax.jit(whole)({}, outputs, jn.Padded(labels, np.array([2, 1, 3])), np.float32(weights))
    assert np.isfinite(value)
    log_p = values - np.log(np.exp(values).sum(-1, keepdims=True))
    entropy = -np.take_along_axis(log_p, labels[..., None], -1)[..., 0]
    each = [entropy[row, :n].mean() for row, n in ((0, 2), (2, 3))]
    expected = (each[0] + 2 * each[1]) / 3 if kept.any() else 0.0
    np.testing.assert_allclose(parts["cross_entropy"], expected, rtol=1e-5)


def test_targets_of_other_losses_stay_valid_in_masked_rows():
    """A hinge takes no target 0, and a soft label has to add up to 1, where values are known."""
    weights = np.array([0, 1], np.float32)

    @jax.jit
    def values():  # what is known while it is traced is checked
        hinge, _ = jn.objective(losses.hinge)({}, np.array([np.nan, 0.5], np.float32), np.array([0, 1]), weights)
        soft = np.array([[0, 0], [0.5, 0.5]], np.float32)
        return hinge, jn.objective(losses.cross_entropy)({}, np.zeros((2, 2), np.float32), soft, weights)[0]

    hinge, entropy = values()
    assert hinge == 0.5
    np.testing.assert_allclose(entropy, np.log(2), rtol=1e-6)


def test_outputs_may_be_a_tree():
    def both(outputs, targets):
        return losses.squared_error(outputs["a"], targets["a"]) + losses.cross_entropy(outputs["b"], targets["b"])

    a, b = floats(5), OUTPUTS
    targets, weights = {"a": np.zeros(5, np.float32), "b": LABELS}, np.array([1, 0, 1, 0, 0], np.float32)
    outputs = {"a": np.where(np.arange(5) == 1, np.float32(np.nan), a), "b": b}
    value, parts = jax.jit(jn.objective(both))({}, outputs, targets, weights)
    entropy = np.log(np.exp(b).sum(1)) - b[np.arange(5), LABELS]
    expected = sum(a[k] ** 2 + entropy[k] for k in (0, 2)) / 2
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert list(parts) == ["both"]


def test_strengths_and_options_may_be_traced():
    def total(strength, smoothing):
        whole = jn.objective(partial(losses.cross_entropy, label_smoothing=smoothing), regularizers.l2(strength))
        return whole(PARAMS, OUTPUTS, LABELS, np.array([1, 1, 0, 1, 1], np.float32))[0]

    strengths, smoothings, slope = (
        np.array([0.0, 0.3], np.float32),
        np.array([0.2, 0.0], np.float32),
        jax.grad(total, argnums=(0, 1)),
    )
    together = jax.jit(jax.vmap(lambda *given: (total(*given), *slope(*given))))(strengths, smoothings)
    for k in range(2):
        values, known = [np.asarray(each)[k] for each in together], (float(strengths[k]), float(smoothings[k]))
        alone = jax.jit(lambda known=known: (total(*known), *slope(*known)))()
        np.testing.assert_allclose(values, alone, rtol=1e-5)


def test_precision():
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    value, parts = jax.eval_shape(WHOLE, half, OUTPUTS.astype(jnp.bfloat16), LABELS, np.ones(5, jnp.bfloat16))
    assert {value.dtype, *(part.dtype for part in parts.values())} == {jnp.dtype(jnp.float32)}
    with jax.enable_x64(True):
        value, _ = jax.eval_shape(WHOLE, PARAMS, OUTPUTS.astype(np.float64), LABELS, np.ones(5, np.float32))
        assert value.dtype == jnp.float64


ALL = (PARAMS, OUTPUTS, LABELS)
MISTAKES = {
    "loss already averaged": (
        lambda: jn.objective(lambda o, t: losses.cross_entropy(o, t).mean())(*ALL),
        r"objective expects data to return one value per example, \(5,\), got \(\)",
    ),
    "loss by element": (
        lambda: jn.objective(lambda o, t: o)(*ALL),
        r"one value per example, \(5,\), got \(5, 2\); average over the other axes",
    ),
    "regularizer no scalar": (
        lambda: jn.objective(losses.cross_entropy, lambda params: params["fc"]["bias"])(*ALL),
        r"expects lambda to return a scalar, got \(2,\)",
    ),
    "regularizer of outputs averaged": (
        lambda: jn.objective(losses.cross_entropy, regularizers.Regularizer(jnp.mean, "mean", "outputs"))(*ALL),
        r"expects mean to return one value per example, \(5,\), got \(\)",
    ),
    "weights of steps": (lambda: WHOLE(*ALL, jnp.ones((5, 2))), r"expects weights \(5,\), got \(5, 2\)"),
    "weights of another batch": (
        lambda: WHOLE(*ALL, jnp.ones(4)),
        r"expects outputs with the batch axis.*\(4,\), got \(5, 2\)",
    ),
    "scalar weights": (lambda: WHOLE(*ALL, 1.0), r"expects weights \(5,\), got \(\)"),
    "negative weights": (lambda: WHOLE(*ALL, jnp.array([1, 1, -1, 1, 1.0])), "expects weights ≥ 0, got -1"),
    "no loss": (lambda: jn.objective(None), "expects a loss and regularizers, got None"),  # type: ignore[arg-type]
    "a number": (lambda: jn.objective(losses.huber, 0.1), "expects a loss and regularizers, got float 0.1"),  # type: ignore[arg-type]
    "a regularizer first": (
        lambda: jn.objective(regularizers.l2(0.1)),  # type: ignore[arg-type]
        r"expects the loss first, got the regularizer l2\(0.1",
    ),
    "a pattern without match": (
        lambda: jn.objective(losses.cross_entropy, regularizers.l1(0.1, on="conv*/**"))(*ALL),
        r"l1\(0.1, on='conv\*/\*\*'\) matches no parameter; the paths are: fc/bias, fc/kernel",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_explained(name: str):
    make, message = MISTAKES[name]
    with pytest.raises(jn.NetError, match=message):
        make()
