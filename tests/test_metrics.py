from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as by_sklearn

import jaxnets as jn
from jaxnets import losses, metrics
from tests.oracle import floats, integers

N = 40
LOGITS, LABELS = floats(N, 3), integers(N, high=3)
PREDICTED = LOGITS.argmax(axis=1)
NUMBERS, TARGETS = floats(N, 2), floats(N, 2, seed=1)
WEIGHTS = np.array([0.0, 1.0, 0.5, 2.0] * 10, np.float32)

CASES = {
    "accuracy": (metrics.accuracy, LOGITS, LABELS),
    "top_k": (metrics.top_k(2), LOGITS, LABELS),
    "binary_accuracy": (metrics.binary_accuracy, LOGITS[:, 0], LABELS == 1),
    "confusion_matrix": (metrics.confusion_matrix(3), LOGITS, LABELS),
    "precision": (metrics.precision(3), LOGITS, LABELS),
    "recall": (metrics.recall(3, average="weighted"), LOGITS, LABELS),
    "f1": (metrics.f1(3, average=None), LOGITS, LABELS),
    "intersection_over_union": (metrics.intersection_over_union(3), LOGITS, LABELS),
    "r2": (metrics.r2, NUMBERS, TARGETS),
    "perplexity": (metrics.perplexity, LOGITS, LABELS),
    "bits_per_character": (metrics.bits_per_character, LOGITS, LABELS),
    "mean": (metrics.mean(losses.huber), NUMBERS, TARGETS),
    "mean_squared_error": (metrics.mean_squared_error, NUMBERS, TARGETS),
    "mean_absolute_error": (metrics.mean_absolute_error, NUMBERS, TARGETS),
}
each_case = pytest.mark.parametrize("name", CASES)
KINDS = ("accuracy", "f1", "perplexity", "r2")  # what they sum, and how, differs
of_each_kind = pytest.mark.slow_cases(*(name for name in CASES if name not in KINDS))
# Shared by the tests, which then compile each for few shapes.
compiled = {name: (jax.jit(m.measure), jax.jit(m.merge), jax.jit(m.value)) for name, (m, *_) in CASES.items()}


def whole(name: str, outputs, targets, weights=None):
    """Return the value of a metric of one batch."""
    measure, _, value = compiled[name]
    return value(measure(outputs, targets, weights))


def sklearn_says(name, weights):
    w = {"sample_weight": weights}
    classes = {"labels": [0, 1, 2], "zero_division": 0.0, **w}
    p = np.exp(LOGITS.astype(np.float64)) / np.exp(LOGITS.astype(np.float64)).sum(axis=1, keepdims=True)
    e = NUMBERS.astype(np.float64) - TARGETS
    huber = np.where(np.abs(e) <= 1, e * e / 2, np.abs(e) - 0.5).mean(axis=1)
    return {
        "accuracy": lambda: by_sklearn.accuracy_score(LABELS, PREDICTED, **w),
        "top_k": lambda: by_sklearn.top_k_accuracy_score(LABELS, LOGITS, k=2, **w),
        "binary_accuracy": lambda: by_sklearn.accuracy_score(LABELS == 1, LOGITS[:, 0] > 0, **w),
        "confusion_matrix": lambda: by_sklearn.confusion_matrix(LABELS, PREDICTED, **w),
        "precision": lambda: by_sklearn.precision_score(LABELS, PREDICTED, average="macro", **classes),
        "recall": lambda: by_sklearn.recall_score(LABELS, PREDICTED, average="weighted", **classes),
        "f1": lambda: by_sklearn.f1_score(LABELS, PREDICTED, average=None, **classes),  # type: ignore[arg-type]  # None is documented
        "intersection_over_union": lambda: by_sklearn.jaccard_score(LABELS, PREDICTED, average="macro", **classes),
        "r2": lambda: by_sklearn.r2_score(TARGETS, NUMBERS, **w),
        "perplexity": lambda: np.exp(by_sklearn.log_loss(LABELS, p, **w)),
        "bits_per_character": lambda: by_sklearn.log_loss(LABELS, p, **w) / np.log(2),
        "mean": lambda: np.average(huber, weights=weights),
        "mean_squared_error": lambda: by_sklearn.mean_squared_error(TARGETS, NUMBERS, **w),
        "mean_absolute_error": lambda: by_sklearn.mean_absolute_error(TARGETS, NUMBERS, **w),
    }[name]()


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
@each_case
@pytest.mark.slow_cases(*(f"{name}-alike" for name in CASES if name not in KINDS))
def test_values_match_scikit_learn(name, weights):
    _, outputs, targets = CASES[name]
    value = whole(name, outputs, targets, weights)
    np.testing.assert_allclose(value, sklearn_says(name, weights), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted", None])
@pytest.mark.slow_cases("micro", "weighted")
def test_classes_never_predicted_or_never_true_count_as_scikit_learn_counts_them(average):
    scores, labels = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 3]], np.array([0, 1, 1, 2, 0])
    pairs = (
        (metrics.precision, by_sklearn.precision_score),
        (metrics.recall, by_sklearn.recall_score),
        (metrics.f1, by_sklearn.f1_score),
        (metrics.intersection_over_union, by_sklearn.jaccard_score),
    )
    found = jax.jit(lambda *data: [ours(4, average=average)(*data) for ours, _ in pairs])(scores, labels)
    options: Any = {"average": average, "labels": range(4), "zero_division": 0.0}
    for value, (_, theirs) in zip(found, pairs, strict=True):
        np.testing.assert_allclose(value, theirs(labels, scores.argmax(1), **options), rtol=1e-6)


@given(st.sampled_from(list(CASES)), st.permutations(range(N)), st.integers(1, 12), st.booleans())
@pytest.mark.slow
def test_the_value_does_not_depend_on_the_batches(name, order, batch, weighted):
    """Rows in any order, in batches of any size, the last one filled up with rows of weight 0 full of NaN."""
    metric, outputs, targets = CASES[name]
    measure, merge, value = compiled[name]
    weights, order = WEIGHTS if weighted else np.ones(N, np.float32), np.array(order)
    whole = metric.measure(outputs, targets, jnp.asarray(weights))
    sums = jax.tree.map(jnp.zeros_like, whole)
    for start in range(0, N, batch):
        rows = np.arange(start, start + batch)
        real = rows < N
        o = outputs[order[rows % N]].copy()
        o[~real] = np.nan
        sums = merge(sums, measure(o, targets[order[rows % N]], weights[order[rows % N]] * real))
    np.testing.assert_allclose(value(sums), metric.value(whole), rtol=3e-6, atol=1e-6)


@each_case
@of_each_kind
def test_no_data_is_the_neutral_element(name):
    _, outputs, targets = CASES[name]
    measure, merge, value = compiled[name]
    sums = measure(outputs, targets)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), sums)
    nothing = measure(np.full_like(outputs, np.nan), targets, 0 * WEIGHTS)
    assert jax.tree.structure(nothing) == jax.tree.structure(sums)
    for merged in (merge(nothing, sums), merge(sums, nothing), merge(zeros, sums)):
        jax.tree.map(np.testing.assert_array_equal, value(merged), value(sums))


@each_case
@of_each_kind
def test_sums_pass_through_scan_and_vmap(name):
    metric, outputs, targets = CASES[name]

    def by_scan(outputs, targets):
        first = jax.eval_shape(metric.measure, outputs[0], targets[0])
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), first)

        def body(sums, batch):
            return metric.merge(sums, metric.measure(*batch)), None

        return metric.value(jax.lax.scan(body, empty, (outputs, targets))[0])

    batches = [x.reshape(2, 4, 5, *x.shape[1:]) for x in (outputs, targets)]
    members = jax.jit(jax.vmap(by_scan))(*batches)
    for k in range(2):
        alone = whole(name, outputs[20 * k : 20 * k + 20], targets[20 * k : 20 * k + 20])
        np.testing.assert_allclose(members[k], alone, rtol=3e-6, atol=1e-6)


@each_case
@of_each_kind
def test_sums_are_exact_up_to_a_trillion(name):
    """40 · 2³⁵ items of the same kind, and one more, which float32 would not notice."""
    metric, outputs, targets = CASES[name]
    measure, merge, value = compiled[name]
    sums = measure(outputs, targets)
    many = jax.jit(lambda sums: jax.lax.fori_loop(0, 35, lambda _, sums: metric.merge(sums, sums), sums))(sums)
    np.testing.assert_allclose(value(many), np.asarray(value(sums)) * scale_of(name, 2.0**35), rtol=1e-6)
    # The first example alone.
    more = merge(many, measure(outputs, targets, (np.arange(N) == 0).astype(np.float32)))
    counted = more["weight"] if isinstance(more, dict) else more
    assert (np.asarray(counted.high, np.float64) + np.asarray(counted.low)).sum() == N * 2**35 + 1


def scale_of(name: str, times: float) -> float:
    return times if name == "confusion_matrix" else 1.0


@pytest.mark.slow
def test_more_pixels_than_float32_can_count():
    """48 images of 640 × 640, of which 42 are predicted right everywhere: 42 / 48, and 0 for the class that is not."""
    net = jn.serial(lambda x: jnp.broadcast_to(x[:, None, None], (len(x), 640, 640, 2)))
    x = np.where(np.arange(48)[:, None] < 42, [1.0, 0.0], [0.0, 1.0]).astype(np.float32)
    y, iou = np.zeros((48, 640, 640), np.int8), metrics.intersection_over_union(2, average=None)
    found = jax.jit(lambda data: jn.evaluate(net, ({}, {}), data, {"iou": iou}))((x, y))
    assert found["iou"].tolist() == [0.875, 0.0]


def test_sums_of_a_custom_metric_are_exact():
    def measure(outputs, targets, weights=None):
        return {"right": (outputs > targets).sum(), "items": jnp.float32(outputs.size)}

    share = metrics.Metric(measure, lambda sums: sums["right"] / sums["items"], "share")
    start = share.measure(jnp.zeros(3), jnp.array([-1.0, -1.0, 1.0]))
    sums = jax.jit(lambda sums: jax.lax.fori_loop(0, 35, lambda _, sums: share.merge(sums, sums), sums))(start)
    assert share.value(sums) == pytest.approx(2 / 3)
    assert float(sums["right"].high) == 2 * 2**35


def test_r2_of_many_batches():
    """2²⁶ batches and one more, far away: as float64 has it."""
    targets, outputs = (np.array(row, np.float32) for row in ([1.0, 2.0, 4.0, 5.0], [1.5, 2.0, 4.0, 5.5]))
    measure, merge, value = compiled["r2"]
    sums = jax.jit(lambda s: jax.lax.fori_loop(0, 26, lambda _, s: metrics.r2.merge(s, s), s))(
        measure(targets[:, None], outputs[:, None])
    )
    sums = merge(sums, measure(np.full((4, 1), 9e3, np.float32), np.full((4, 1), 8e3, np.float32)))
    times = np.array([2.0**26] * 4 + [1.0] * 4)
    t, o = np.append(outputs, [8e3] * 4).astype(np.float64), np.append(targets, [9e3] * 4).astype(np.float64)
    assert float(value(sums)) == pytest.approx(by_sklearn.r2_score(t, o, sample_weight=times), abs=1e-6)


def test_which_is_better_is_declared():
    rising = {"accuracy", "top_k", "binary_accuracy", "precision", "recall", "f1", "intersection_over_union", "r2"}
    for name, (metric, *_) in CASES.items():
        assert metric.higher_is_better is (None if name == "confusion_matrix" else name in rising)
        if name not in ("r2", "mean", "mean_squared_error", "mean_absolute_error", "binary_accuracy"):
            assert metrics.ignoring(metric, 255).higher_is_better is metric.higher_is_better
    assert metrics.mean(losses.huber, higher_is_better=True).higher_is_better


@each_case
def test_traced_negative_weights_have_no_value(name):
    """Known ones are refused; what is found at run time is NaN rather than wrong."""
    metric, outputs, targets = CASES[name]
    weights = np.where(np.arange(N) == 1, -1.0, 1.0).astype(np.float32)
    assert np.isnan(whole(name, outputs, targets, weights)).all()
    with pytest.raises(jn.NetError, match="expects weights ≥ 0, got -1"):
        metric(outputs, targets, weights)


@pytest.mark.slow
def test_r2_does_not_cancel():
    """Around a mean of 1e4, in float32, merged from many parts; E[t²] - E[t]² would give noise."""
    rng = np.random.default_rng(0)
    targets = (1e4 + rng.normal(size=3000)).astype(np.float32)
    outputs = (targets + 0.1 * rng.normal(size=3000)).astype(np.float32)
    expected = by_sklearn.r2_score(targets.astype(np.float64), outputs.astype(np.float64))
    measure, merge, value = compiled["r2"]
    sums = measure(outputs[:30], targets[:30])
    for k in range(30, 3000, 30):
        sums = merge(sums, measure(outputs[k : k + 30], targets[k : k + 30]))
    assert abs(float(whole("r2", outputs, targets)) - expected) < 1e-6
    assert abs(float(value(sums)) - expected) < 1e-6


def test_r2_of_targets_that_do_not_vary_is_scikit_learns():
    flat = np.full(4, 2.5, np.float32)
    for outputs in (flat, flat + 1):
        assert float(whole("r2", outputs, flat)) == by_sklearn.r2_score(flat, outputs)


def test_nan_is_a_wrong_answer_and_no_prediction():
    """Of class 0 twice, where argmax would say class 0."""
    scores = np.array([[np.nan, 0.0], [0.0, np.nan], [1.0, 0.0], [0.0, 1.0]])
    labels = np.array([0, 0, 0, 1])

    @jax.jit
    def program(scores, labels):
        return {
            "accuracy": metrics.accuracy(scores, labels),
            "top_k": metrics.top_k(2)(scores, labels),
            "confusion_matrix": metrics.confusion_matrix(2)(scores, labels),
            "recall": metrics.recall(2, average=None)(scores, labels),
            "precision": metrics.precision(2, average=None)(scores, labels),
            "binary_accuracy": metrics.binary_accuracy(jnp.array([jnp.nan, -1.0]), jnp.array([0, 0])),
            "mean_squared_error": metrics.mean_squared_error(jnp.array([jnp.nan, 1.0]), jnp.ones(2)),
        }

    found = jax.tree.map(np.asarray, program(scores, labels))
    assert found["accuracy"] == found["top_k"] == found["binary_accuracy"] == 0.5
    np.testing.assert_array_equal(found["confusion_matrix"], [[1, 0], [0, 1]])
    np.testing.assert_allclose(found["recall"], [1 / 3, 1], rtol=1e-6)
    np.testing.assert_allclose(found["precision"], [1, 1])
    assert np.isnan(found["mean_squared_error"])


def test_infinite_scores_are_scores():
    scores = np.array([[-np.inf, 0.0], [np.inf, 0.0], [-np.inf, -np.inf]], np.float32)
    assert float(whole("accuracy", scores, np.array([1, 0, 0]))) == 1.0


best = {k: jax.jit(metrics.top_k(k)) for k in (1, 2, 3)}


@given(st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=5, max_size=5), st.integers(1, 3))
def test_ties_go_to_the_first_class(scores, k):
    scores, labels = np.array(scores, np.float32), np.arange(len(scores)) % 3
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    expected = np.mean([label in chosen for label, chosen in zip(labels, order, strict=True)])
    np.testing.assert_allclose(best[k](scores, labels), expected, rtol=1e-6)
    if k == 1:
        np.testing.assert_allclose(whole("accuracy", scores, labels), expected, rtol=1e-6)


def test_one_hot_labels_are_labels():
    one_hot = np.eye(3, dtype=np.float32)[LABELS]
    for name in ("accuracy", "top_k", "confusion_matrix", "f1", "perplexity"):
        np.testing.assert_array_equal(whole(name, LOGITS, one_hot), whole(name, LOGITS, LABELS))


@pytest.mark.parametrize("name", ["accuracy", "top_k", "confusion_matrix", "f1", "perplexity"])
@pytest.mark.slow_cases("top_k", "confusion_matrix")
def test_steps_of_sequences_count_one_by_one(name):
    """Padding does not, with NaN in it and labels far out of range; nor does a sequence of weight 0."""
    metric, lengths = CASES[name][0], np.array([3, 0, 2])
    scores, labels = floats(3, 4, 3), integers(3, 4, high=3)
    mask = np.arange(4) < lengths[:, None]
    flat = scores[mask], labels[mask]

    @jax.jit
    def program(scores, labels, lengths, flat):
        o, t = jn.Padded(scores, lengths), jn.Padded(labels, lengths)
        pairs = {"outputs": (o, labels), "targets": (scores, t), "both": (o, t)}
        return {
            "flat": metric(*flat),
            "weights": metric(scores, labels, mask.astype(np.float32)),
            "first sequence": metric(flat[0][:3], flat[1][:3]),
            "all": {where: metric(*pair) for where, pair in pairs.items()},
            "without the last": {
                where: metric(*pair, np.array([1, 1, 0], np.float32)) for where, pair in pairs.items()
            },
        }

    found = program(np.where(mask[..., None], scores, np.nan), np.where(mask, labels, 99), lengths, flat)
    np.testing.assert_allclose(found["weights"], found["flat"], rtol=1e-6)
    for where, value in found["all"].items():
        np.testing.assert_allclose(value, found["flat"], rtol=1e-6, err_msg=where)
        np.testing.assert_allclose(found["without the last"][where], found["first sequence"], rtol=1e-6, err_msg=where)


def test_perplexity_is_of_tokens_not_of_sequences():
    logits = np.array([[[0.0, 0.0]] * 4, [[50.0, 0.0]] * 4], np.float32)
    padded = jn.Padded(logits, np.array([1, 4]))
    found = jax.jit(metrics.perplexity)(padded, np.zeros((2, 4), np.int32))
    np.testing.assert_allclose(found, 2 ** (1 / 5), rtol=1e-6)


def test_no_data_has_no_value():
    for name in ("accuracy", "perplexity", "r2", "mean_squared_error"):
        _, outputs, targets = CASES[name]
        assert np.isnan(whole(name, outputs, targets, 0 * WEIGHTS))


@each_case
def test_half_and_double_precision(name):
    metric, outputs, targets = CASES[name]
    half, double = (jax.ShapeDtypeStruct(outputs.shape, dtype) for dtype in (jnp.bfloat16, np.float64))
    for leaf in jax.tree.leaves(jax.eval_shape(metric.measure, half, targets, WEIGHTS)):
        assert leaf.dtype == jnp.float32
    with jax.enable_x64(True):
        for leaf in jax.tree.leaves(jax.eval_shape(metric.measure, double, targets, WEIGHTS)):
            assert leaf.dtype == jnp.float64


def test_a_metric_prints_its_name():
    named = [metric for metric, *_ in CASES.values()]
    assert [repr(metric) for metric in named] == [
        {
            "top_k": "top_2",
            "mean": "huber",
            "mean_squared_error": "squared_error",
            "mean_absolute_error": "absolute_error",
        }.get(n, n)
        for n in CASES
    ]


MISTAKES = {
    "one logit": (lambda: metrics.accuracy(LOGITS[:, 0], LABELS), r"accuracy expects outputs .*binary_accuracy"),
    "column": (
        lambda: metrics.accuracy(LOGITS, LABELS[:, None]),
        r"accuracy expects labels \(40,\).*drop the last axis",
    ),
    "float labels": (lambda: metrics.perplexity(LOGITS, LABELS * 1.0), "perplexity expects integer labels, got float"),
    "label out of range": (lambda: metrics.f1(3)(LOGITS, LABELS + 1), "f1 expects labels from 0 to 2, got 3"),
    "other classes": (lambda: metrics.confusion_matrix(4)(LOGITS, LABELS), "expects 4 classes, got outputs of 3"),
    "k too large": (lambda: metrics.top_k(4)(LOGITS, LABELS), "top_4 expects at least 4 classes, got 3"),
    "k 0": (lambda: metrics.top_k(0), "top_k expects k ≥ 1, got 0"),
    "average": (lambda: metrics.recall(3, average="mean"), "recall expects average 'macro'.*got 'mean'"),  # type: ignore[arg-type]
    "classes": (lambda: metrics.precision(0), "precision expects classes ≥ 1, got 0"),
    "r2 shapes": (lambda: metrics.r2(NUMBERS, TARGETS[:, :1]), r"r2 .*the same shape, got \(40, 2\) and \(40, 1\)"),
    "weights": (lambda: metrics.accuracy(LOGITS, LABELS, WEIGHTS[:3]), r"expects weights \(40,\), got \(3,\)"),
    "negative weights": (lambda: metrics.r2(NUMBERS, TARGETS, -WEIGHTS), "expects weights ≥ 0, got -1"),
    "mean weights": (
        lambda: metrics.mean_squared_error(NUMBERS, TARGETS, WEIGHTS[:3]),
        r"weights, \(3,\), got \(40, 2\)",
    ),
    "not by example": (lambda: metrics.mean(lambda o, t: o)(NUMBERS, TARGETS), r"one value per .*got \(40, 2\)"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_explained(name: str):
    make, message = MISTAKES[name]
    with pytest.raises(jn.NetError, match=message):
        make()


def test_a_mean_counts_what_is_true():
    wrong = jn.metrics.mean(lambda scores, labels: scores.argmax(-1) != labels)
    assert wrong(jnp.eye(4), jnp.array([0, 1, 3, 3])) == 0.25
