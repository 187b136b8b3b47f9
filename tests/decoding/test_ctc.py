"""Decoding of CTC against plain Python, the sum over all paths, and pyctcdecode."""

import importlib
import importlib.util
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.decoding import ctc_beam_search, ctc_greedy
from tests.oracle import floats, witness

LOGITS, TIMES = floats(3, 5, 3, scale=2.0), np.array([5, 3, 0], np.int32)
LONG = floats(4, 30, 6, scale=2.0)


def merged(path):
    return tuple(k for place, k in enumerate(path) if k and (place == 0 or k != path[place - 1]))


def over_all_paths(p):
    """Return the probability of every labeling, from probabilities (time, classes)."""
    found = {}
    for path in itertools.product(range(p.shape[1]), repeat=len(p)):
        labels = merged(path)
        found[labels] = found.get(labels, 0.0) + math.prod(p[t, k] for t, k in enumerate(path))
    return found


def by_dicts(p, beam):
    """Return the best labelings and their probabilities, by the algorithm as it is usually written."""
    kept = {(): (1.0, 0.0)}
    for row in p:
        new = {}

        def put(labels, blank, label, new=new):
            b, n = new.get(labels, (0.0, 0.0))
            new[labels] = b + blank, n + label

        for labels, (blank, label) in kept.items():
            put(labels, (blank + label) * row[0], label * row[labels[-1]] if labels else 0.0)
            for k in range(1, len(row)):
                put((*labels, k), 0.0, row[k] * (blank if labels[-1:] == (k,) else blank + label))
        kept = dict(sorted(new.items(), key=lambda each: -sum(each[1]))[:beam])
    return sorted(((labels, sum(both)) for labels, both in kept.items()), key=lambda each: -each[1])


def softmax(logits):
    e = np.exp(logits.astype(np.float64))
    return e / e.sum(-1, keepdims=True)


def rows(decoded):
    """Return labelings with their probabilities, for each clip."""
    tokens, lengths, scores = (np.asarray(each) for each in decoded)
    assert not any(t[n:].any() for t, n in zip(tokens.reshape(-1, tokens.shape[-1]), lengths.ravel(), strict=True))
    return [
        [(tuple(t[:n].tolist()), math.exp(s)) for t, n, s in zip(*clip, strict=True) if s > -np.inf]
        for clip in zip(tokens, lengths, scores, strict=True)
    ]


def same(found, want):
    assert [labels for labels, _ in found] == [labels for labels, _ in want]
    np.testing.assert_allclose([p for _, p in found], [p for _, p in want], rtol=1e-9)


def test_a_wide_beam_is_the_sum_over_all_paths_and_the_loss():
    spoiled = LOGITS.copy()
    for row, time in zip(spoiled, TIMES, strict=True):
        row[time:] = np.nan
    with jax.enable_x64(True):
        padded = jn.Padded(jnp.asarray(spoiled, jnp.float64), jnp.asarray(TIMES))
        decoded = jax.jit(lambda x: ctc_beam_search(x, beam=64))(padded)
        best = jn.Padded(decoded.tokens[:, 0], decoded.lengths[:, 0])
        loss = jn.losses.ctc(padded, best)
    for found, logits, time in zip(rows(decoded), LOGITS, TIMES, strict=True):
        want = sorted(over_all_paths(softmax(logits[:time])).items(), key=lambda each: -each[1])
        same(found, [each for each in want if each[1] > 0])
    np.testing.assert_allclose(decoded.log_probabilities[:, 0], -loss, atol=1e-9)


@pytest.mark.parametrize("beam", [1, 7])
def test_a_narrow_beam_is_the_textbook_algorithm(beam):
    with jax.enable_x64(True):
        decoded = ctc_beam_search(jnp.asarray(LONG, jnp.float64), beam=beam)
    for found, logits in zip(rows(decoded), LONG, strict=True):
        same(found, by_dicts(softmax(logits), beam))


def by_pyctcdecode():
    decoder = importlib.import_module("pyctcdecode").build_ctcdecoder(["", "a", "b"])
    beams = decoder.decode_beams(
        np.log(softmax(LOGITS[0])), beam_width=10_000, beam_prune_logp=-1e9, token_min_logp=-1e9
    )
    scores = {}
    for text, *_, score, _ in beams:
        scores[text] = np.logaddexp(scores.get(text, -np.inf), score)
    texts = sorted(scores, key=lambda text: -scores[text])
    tokens = np.zeros((len(texts), 5), np.int32)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = [" ab".index(each) for each in text]
    return {"tokens": tokens, "scores": np.array([scores[text] for text in texts])}


def test_equals_pyctcdecode():
    want = witness("decoding/ctc", by_pyctcdecode, installed=importlib.util.find_spec("pyctcdecode") is not None)
    decoded = ctc_beam_search(LOGITS[:1], beam=64)
    count = len(want["scores"])
    np.testing.assert_array_equal(decoded.tokens[0, :count], want["tokens"])
    np.testing.assert_allclose(decoded.log_probabilities[0, :count], want["scores"], atol=1e-5)


def test_greedy_merges_the_best_path():
    padded = jn.Padded(jnp.asarray(LONG), jnp.array([30, 0, 7, 1]))
    decoded = jax.jit(ctc_greedy)(padded)
    for tokens, length, score, logits, time in zip(*decoded, LONG, padded.lengths, strict=True):
        want = merged(logits[:time].argmax(-1).tolist())
        assert tuple(tokens[:length].tolist()) == want
        assert not tokens[length:].any()
        np.testing.assert_allclose(score, np.log(softmax(logits[:time]).max(-1)).sum(), rtol=1e-5, atol=1e-6)


def test_no_more_labels_than_asked_for():
    decoded = ctc_beam_search(LONG, beam=5, max_length=3)
    assert decoded.tokens.shape == (4, 5, 3)
    assert decoded.lengths.max() == 3


def test_nan_and_mistakes():
    broken = jnp.asarray(LONG).at[1, 3, 2].set(jnp.nan)
    for decoded in (ctc_greedy(broken), ctc_beam_search(broken, beam=2)):
        wrong = np.isnan(decoded.log_probabilities).reshape(4, -1)
        np.testing.assert_array_equal(wrong.all(1), [False, True, False, False])
        assert (decoded.tokens[1] == -1).all()
        assert (decoded.tokens[0] >= 0).all()
    with pytest.raises(jn.NetError, match=r"ctc_greedy expects floating logits \(batch, time, classes\)"):
        ctc_greedy(jnp.zeros((3, 4)))
    with pytest.raises(jn.NetError, match="expects beam ≥ 1, got 0"):
        ctc_beam_search(LONG, beam=0)
    with pytest.raises(jn.NetError, match="expects max_length ≥ 1, got 0"):
        ctc_beam_search(LONG, beam=1, max_length=0)
