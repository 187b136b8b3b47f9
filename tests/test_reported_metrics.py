"""Metrics of rankings, probabilities and agreement against scikit-learn and torchmetrics, and their intervals."""

import importlib.util
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as by_sklearn

import jaxnets as jn
from jaxnets import metrics
from jaxnets.metrics.calibration import bin_of
from jaxnets.ops.sums import as_sum
from tests.oracle import floats, integers, witness
from tests.peers import torchvision_models

N = 48
LOGITS, LABELS = floats(N, 3), integers(N, high=3)
# One score an example, with many ties.
SCORES, TRUTH = np.round(floats(N), 1), integers(N, high=2, seed=1)
WEIGHTS = np.array([0.0, 1.0, 0.5, 2.0] * 12, np.float32)
IMAGES, MASKS = floats(4, 5, 6, 3), integers(4, 5, 6, high=2)  # class 2 is predicted only
AVERAGES: tuple[Any, ...] = ("macro", "weighted", "micro", None)


def ours(kind: Any, averages: tuple[Any, ...]) -> dict[str, Any]:
    """Return the values of all metrics, in one compiled program."""

    def program(logits: Any, scores: Any, images: Any, w: Any) -> dict[str, Any]:
        found = {}
        for average in averages:
            found[f"auc {average}"] = metrics.roc_auc(average=average)(logits, LABELS, w)
            found[f"ap {average}"] = metrics.average_precision(average=average)(logits, LABELS, w)
            found[f"labels auc {average}"] = metrics.roc_auc(average=average)(logits, ONE_HOT, w)
            for name, options in DICE.items():
                found[f"dice {name} {average}"] = metrics.dice(3, average=average, **options)(images, MASKS)
        for distance in (None, "linear", "quadratic"):
            found[f"kappa {distance}"] = metrics.cohen_kappa(3, distance=distance)(logits, LABELS, w)  # type: ignore[arg-type]
        return found | {
            "auc": metrics.roc_auc()(scores, TRUTH, w),
            "ap": metrics.average_precision()(scores, TRUTH, w),
            "auc of probabilities": metrics.roc_auc(from_logits=False)(jax.nn.softmax(logits), LABELS, w),
            "matthews": metrics.matthews(3)(logits, LABELS, w),
            "matthews of two": metrics.matthews(2)(jnp.stack([0 * scores, scores], 1), TRUTH, w),
            "brier": metrics.brier()(logits, LABELS, w),
            "brier of two": metrics.brier()(jnp.stack([0 * scores, scores], 1), TRUTH, w),
            "brier of one": metrics.brier()(scores, 2 * TRUTH - 1, w),
            "ece": metrics.expected_calibration_error(10)(logits, LABELS),
            "ece of one": metrics.expected_calibration_error()(scores, TRUTH),
        }

    data = (each.astype(kind) for each in (LOGITS, SCORES, IMAGES, WEIGHTS))
    return jax.tree.map(np.asarray, jax.jit(program)(*data))


ONE_HOT = np.eye(3, dtype=np.int32)[LABELS]
DICE: dict[str, dict[str, Any]] = {
    "by example": {},
    "without background": {"background": False},
    "of all": {"by_example": False},
}


def theirs() -> dict[str, Any]:
    logits, scores = LOGITS.astype(np.float64), SCORES.astype(np.float64)
    p, labels = scipy.special.softmax(logits, 1), LOGITS.argmax(1)
    w: Any = {"sample_weight": WEIGHTS.astype(np.float64)}
    found = {}
    for average in AVERAGES:
        found[f"auc {average}"] = by_sklearn.roc_auc_score(ONE_HOT, p, average=average, **w)
        found[f"ap {average}"] = by_sklearn.average_precision_score(ONE_HOT, p, average=average, **w)
        found[f"labels auc {average}"] = by_sklearn.roc_auc_score(ONE_HOT, logits, average=average, **w)
    for distance in (None, "linear", "quadratic"):
        found[f"kappa {distance}"] = by_sklearn.cohen_kappa_score(LABELS, labels, weights=distance, **w)
    one = scipy.special.expit(scores)
    return found | {
        "auc": by_sklearn.roc_auc_score(TRUTH, scores, **w),
        "ap": by_sklearn.average_precision_score(TRUTH, scores, **w),
        "auc of probabilities": by_sklearn.roc_auc_score(LABELS, p, multi_class="ovr", **w),
        "matthews": by_sklearn.matthews_corrcoef(LABELS, labels, **w),
        "matthews of two": by_sklearn.matthews_corrcoef(TRUTH, scores > 0, **w),
        "brier": by_sklearn.brier_score_loss(LABELS, p, **w),
        "brier of two": by_sklearn.brier_score_loss(TRUTH, np.stack([1 - one, one], 1), **w),
        "brier of one": by_sklearn.brier_score_loss(TRUTH, one, **w),
    }


def torchmetrics_says() -> dict[str, np.ndarray]:
    torchvision_models()  # torchmetrics imports torchvision
    import torch
    from torchmetrics.functional import classification, segmentation  # type: ignore[import-not-found]  # its answers are stored

    logits, scores = (torch.tensor(each, dtype=torch.float64) for each in (LOGITS, SCORES))
    found = {
        "ece": classification.multiclass_calibration_error(logits, torch.tensor(LABELS), 3, 10),
        "ece of one": classification.binary_calibration_error(scores, torch.tensor(TRUTH), 15),
    }
    for average in AVERAGES:
        for name, options in DICE.items():
            each = segmentation.dice_score(
                torch.tensor(IMAGES.argmax(-1)),
                torch.tensor(MASKS).long(),
                3,
                options.get("background", True),
                average=average or "none",
                input_format="index",
                aggregation_level="samplewise" if options.get("by_example", True) else "global",
            )
            found[f"dice {name} {average}"] = torch.nanmean(each, dim=0)
    return {name: each.numpy() for name, each in found.items()}


# What torchmetrics computes in float32 whatever it is given.
SINGLE = ("dice", "ece")


@pytest.mark.parametrize(("kind", "averages"), [(np.float32, ("macro",)), (np.float64, AVERAGES)], ids=["one", "all"])
@pytest.mark.slow_cases("all")
def test_values_match_scikit_learn_and_torchmetrics(kind, averages):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a class that is never true, in torchmetrics' own code
        installed = all(importlib.util.find_spec(name) for name in ("torch", "torchvision", "torchmetrics"))
        want = theirs() | witness("reported_metrics", torchmetrics_says, installed=installed)
    with jax.enable_x64(kind == np.float64):
        found = ours(kind, averages)
    assert found.keys() == want.keys() - {
        name for name in want if any(f" {a}" in name for a in {*AVERAGES} - {*averages}) and "kappa" not in name
    }
    for name, value in found.items():
        assert value.dtype == kind
        close = 1e-12 if kind == np.float64 and not name.startswith(SINGLE) else 1e-6
        np.testing.assert_allclose(value, want[name], rtol=close, atol=close, err_msg=name)


RANKED = {name: jax.jit(each) for name, each in (("auc", metrics.roc_auc()), ("ap", metrics.average_precision()))}


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from([0.0, 0.5, 1.0, 3.0])), min_size=12, max_size=12
    )
)
def test_ties_count_as_scikit_learn_counts_them(rows):
    scores, truth, weights = (np.array(each) for each in zip(*rows, strict=True))
    kept = weights > 0
    found = {name: float(each(scores / 4, truth, weights)) for name, each in RANKED.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there may be one class only
        data: Any = (truth[kept], scores[kept])
        w: Any = {"sample_weight": weights[kept]}
        want = {
            "auc": by_sklearn.roc_auc_score(*data, **w) if kept.any() else np.nan,
            "ap": by_sklearn.average_precision_score(*data, **w) if kept.any() else np.nan,
        }
    for name, value in found.items():
        np.testing.assert_allclose(value, want[name], rtol=2e-6, atol=2e-6, err_msg=name)


COLLECTED = {
    "auc": (metrics.roc_auc(average="weighted"), LOGITS, LABELS),
    "ap": (metrics.average_precision(), SCORES, TRUTH),
}
ADDED = {
    "matthews": (metrics.matthews(3), LOGITS, LABELS),
    "kappa": (metrics.cohen_kappa(3), LOGITS, LABELS),
    "brier": (metrics.brier(), LOGITS, LABELS),
    "ece": (metrics.expected_calibration_error(), LOGITS, LABELS),
    "dice": (metrics.dice(3), IMAGES, MASKS),
}
CASES = COLLECTED | ADDED


@pytest.mark.parametrize("batch", [7, 16, 100])
@pytest.mark.slow_cases("16", "100")
def test_the_value_does_not_depend_on_the_batches(batch):
    """Also weighted, with NaN where the weight is 0, and vmapped over networks."""
    net = jn.layer(lambda key, x: {}, lambda params, x: x * params["scale"])
    weights = (np.arange(N) % 4 > 0).astype(np.float32)
    x = np.where(weights[:, None] == 0, np.nan, LOGITS)
    named = {name: each[0] for name, each in CASES.items() if each[1] is LOGITS}
    params = {"scale": jnp.array([1.0, -2.0])}

    @jax.jit
    def program(params, data):
        return jax.vmap(lambda p: jn.evaluate(net, (p, {}), data, named, batch_size=batch))(params)

    found = program(params, (x, LABELS, weights))
    whole = jax.jit(lambda logits, labels: {name: metric(logits, labels) for name, metric in named.items()})
    for place, scale in enumerate((1.0, -2.0)):
        for name, value in whole(np.float32(scale) * LOGITS[weights > 0], LABELS[weights > 0]).items():
            np.testing.assert_allclose(found[name][place], value, rtol=2e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.slow_cases("kappa", "ap", "brier")
def test_parts_merge(name):
    metric, outputs, targets = CASES[name]

    @jax.jit
    def program(outputs, targets):
        parts = [metric.measure(outputs[rows], targets[rows]) for rows in (slice(0, 2), slice(2, 3), slice(3, None))]
        nothing = jax.tree.map(jnp.zeros_like, parts[1])
        merged = metric.merge(metric.merge(parts[2], nothing), metric.merge(parts[0], parts[1]))
        return metric.value(merged), metric(outputs, targets)

    np.testing.assert_allclose(*program(outputs, targets), rtol=1e-6)


@pytest.mark.promotes
def test_fit_reports_them():
    x, y = floats(40, 3), integers(40, high=2)
    named = [metrics.roc_auc(), metrics.expected_calibration_error(), metrics.accuracy]
    state, history = jn.fit(
        jn.dense(2), jn.losses.cross_entropy, optax.sgd(0.1), (x, y), epochs=2, batch_size=16, validation=(x, y),
        metrics=named, callbacks=[jn.train.early_stopping("validation/roc_auc", patience=3)], key=jax.random.key(0),
    )  # fmt: skip
    scores = jn.predict(jn.dense(2), state, x)
    best = int(np.argmax(history["validation/roc_auc"]))
    np.testing.assert_allclose(
        history["validation/roc_auc"][best], by_sklearn.roc_auc_score(y, scores[:, 1] - scores[:, 0])
    )
    assert history["roc_auc"].shape == (2,)
    stream = jn.data.stream((x, y), batch_size=8)
    with pytest.raises(jn.NetError, match=r"can't report roc_auc on a stream: .*jn\.evaluate"):
        jn.train.program(jn.dense(2), jn.losses.cross_entropy, optax.sgd(0.1), stream, epochs=1, metrics=named)


def test_nan_and_what_is_undefined():
    broken = LOGITS.copy()
    broken[3, 1] = np.nan
    traced = jax.jit(lambda logits, w: [m(logits, LABELS, w) for m, x, _ in CASES.values() if x is LOGITS])
    assert np.isnan(traced(broken, np.ones(N, np.float32))).all()
    assert not np.isnan(traced(broken, np.arange(N) != 3)).any()  # a weight of 0 masks it
    assert np.isnan(traced(LOGITS, np.where(np.arange(N) == 1, -1.0, 1.0).astype(np.float32))).all()
    assert np.isnan(traced(LOGITS, np.zeros(N, np.float32))[0])
    soft = jax.jit(metrics.roc_auc())(SCORES, np.full(N, 0.5, np.float32))
    assert np.isnan(soft)  # targets that can't be checked are not taken for classes
    one_class = jnp.zeros((4, 2)).at[:, 0].set(1), jnp.zeros(4, int)
    assert metrics.matthews(2)(*one_class) == 0  # as scikit-learn has it
    assert np.isnan(metrics.cohen_kappa(2)(*one_class))


def test_a_rare_class_does_not_cancel():
    """A million examples, ten of them positive: n² − Σ p² would lose the ten in float32."""
    counts = np.array([[10**6, 7, 0], [3, 7, 0]], np.float64)
    true, predicted = (
        np.repeat([0, 0, 1, 1], counts[:, :2].astype(int).ravel()),
        np.repeat([0, 1, 0, 1], counts[:, :2].astype(int).ravel()),
    )
    want = by_sklearn.matthews_corrcoef(true, predicted), by_sklearn.cohen_kappa_score(true, predicted)
    found = [m.value(as_sum(jnp.asarray(counts, jnp.float32))) for m in (metrics.matthews(2), metrics.cohen_kappa(2))]
    np.testing.assert_allclose(found, want, rtol=1e-6)


def test_steps_of_sequences_and_several_labels():
    scores, truth, lengths = floats(3, 4, 2), integers(3, 4, 2, high=2), np.array([3, 1, 4])
    mask = np.arange(4) < lengths[:, None]
    padded = jn.Padded(jnp.where(mask[..., None], scores, jnp.nan), lengths)
    value = jax.jit(metrics.roc_auc())
    np.testing.assert_allclose(value(padded, truth), by_sklearn.roc_auc_score(truth[mask], scores[mask]), rtol=1e-6)
    one = jn.Padded(padded.values[..., 0], lengths)
    want = by_sklearn.roc_auc_score(truth[mask][:, 0], scores[mask][:, 0])
    np.testing.assert_allclose(value(one, truth[..., 0]), want, rtol=1e-6)


def test_a_bin_holds_its_upper_end():
    confidence = np.array([0.0, 0.1, 0.5, 1.0], np.float32)
    assert bin_of(jnp.asarray(confidence), 10).tolist() == [0, 0, 4, 9]


def test_pixels_and_examples_weigh_alike():
    """Weights of examples, of pixels, and leaving out what has weight 0 agree."""
    value = jax.jit(metrics.dice(3))
    whole = value(IMAGES[:2], MASKS[:2])
    some = np.array([3.0, 3.0, 0.0, 0.0], np.float32)
    np.testing.assert_allclose(value(IMAGES, MASKS, some), whole, rtol=1e-6)
    np.testing.assert_allclose(
        value(IMAGES, MASKS, np.broadcast_to(some[:, None, None], MASKS.shape)), whole, rtol=1e-6
    )
    each = [float(value(IMAGES[k : k + 1], MASKS[k : k + 1])) for k in range(2)]
    mean = value(IMAGES[:2], MASKS[:2], np.array([1.0, 3.0], np.float32))
    np.testing.assert_allclose(mean, np.average(each, weights=[1, 3]), rtol=1e-6)


@pytest.mark.parametrize("name", ["accuracy", "auc"])
@pytest.mark.slow_cases("auc")
def test_intervals_are_those_of_scipy(name):
    metric = metrics.accuracy if name == "accuracy" else metrics.roc_auc()
    outputs, targets = (LOGITS, LABELS) if name == "accuracy" else (SCORES, TRUTH)
    value, low, high = metrics.bootstrap(metric, outputs, targets, key=jax.random.key(0), samples=1000, level=0.9)

    def statistic(rows: np.ndarray) -> float:
        if name == "accuracy":
            return float((LOGITS[rows].argmax(1) == LABELS[rows]).mean())
        return float(by_sklearn.roc_auc_score(TRUTH[rows], SCORES[rows]))

    options: Any = {"vectorized": False, "method": "percentile", "n_resamples": 1000, "confidence_level": 0.9}
    want = scipy.stats.bootstrap((np.arange(N),), statistic, **options, rng=np.random.default_rng(0))
    # Between two sets of samples, both ends differ by their standard error, about 3 % of the width.
    width = want.confidence_interval.high - want.confidence_interval.low
    np.testing.assert_allclose((low, high), want.confidence_interval, atol=0.1 * width)
    np.testing.assert_allclose(value, metric(outputs, targets), rtol=1e-6)


def test_intervals_of_several_values_and_of_images():
    found = metrics.bootstrap(metrics.f1(3, average=None), LOGITS, LABELS, WEIGHTS, key=jax.random.key(0), samples=50)
    assert [each.shape for each in found] == [(3,)] * 3
    assert (found.low <= found.value).all()
    assert (found.value <= found.high).all()
    again = metrics.bootstrap(metrics.f1(3, average=None), LOGITS, LABELS, WEIGHTS, key=jax.random.key(0), samples=50)
    np.testing.assert_array_equal(found.low, again.low)


MISTAKES = {
    "average": (lambda: metrics.roc_auc(average="mean"), "roc_auc expects average 'macro'.*got 'mean'"),  # type: ignore[arg-type]
    "targets": (lambda: metrics.roc_auc()(SCORES, TRUTH + 1), "roc_auc expects targets 0 and 1, or -1 and 1, got 2"),
    "label out of range": (lambda: metrics.brier()(LOGITS, LABELS + 1), "brier expects labels from 0 to 2, got 3"),
    "logits for probabilities": (
        lambda: metrics.brier(from_logits=False)(9 * LOGITS, LABELS),
        "brier expects probabilities from 0 to 1, got .*; leave out from_logits=False",
    ),
    "column": (lambda: metrics.average_precision()(SCORES[:, None], TRUTH), "average_precision expects outputs"),
    "negative weights": (lambda: metrics.roc_auc()(SCORES, TRUTH, -WEIGHTS), "expects weights ≥ 0, got -1"),
    "bins": (lambda: metrics.expected_calibration_error(0), "expected_calibration_error expects bins ≥ 1, got 0"),
    "distance": (lambda: metrics.cohen_kappa(3, distance="far"), "cohen_kappa expects distance .*got 'far'"),  # type: ignore[arg-type]
    "dice of background": (lambda: metrics.dice(1, background=False), "dice expects classes ≥ 1, got 0"),
    "dice average": (lambda: metrics.dice(2, average="mean"), "dice expects average .*got 'mean'"),  # type: ignore[arg-type]
    "dice classes": (lambda: metrics.dice(2)(IMAGES, MASKS), "dice expects 2 classes, got outputs of 3"),
    "level": (
        lambda: metrics.bootstrap(metrics.accuracy, LOGITS, LABELS, key=jax.random.key(0), level=95),
        "bootstrap expects level between 0 and 1, got 95",
    ),
    "no metric": (
        lambda: metrics.bootstrap(by_sklearn.accuracy_score, LOGITS, LABELS, key=jax.random.key(0)),  # type: ignore[arg-type]
        "bootstrap expects one of jn.metrics, got the function accuracy_score",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_explained(name: str):
    make, message = MISTAKES[name]
    with pytest.raises(jn.NetError, match=message):
        make()


def test_probabilities_that_are_traced_and_out_of_range_give_nan():
    for metric in (metrics.brier(from_logits=False), metrics.expected_calibration_error(from_logits=False)):
        found = jax.jit(metric)(jax.numpy.array([[0.5, 0.5], [2.0, -1.0]]), jax.numpy.array([0, 1]))
        assert np.isnan(found)
        assert not np.isnan(metric(jax.numpy.array([[1 + 1e-7, 0.0]]), jax.numpy.array([0])))
