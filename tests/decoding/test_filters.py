"""Restricted distributions against those of Hugging Face's `generate`."""

import importlib.util
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.decoding.filters import filtered, penalized
from tests.oracle import TORCH, floats, integers, witness

LOGITS = floats(4, 9, scale=2.0)
SEEN = integers(4, 3, high=9)
SETTINGS = {
    "top_k": {"top_k": 3},
    "top_p": {"top_p": 0.7},
    "top_p_0": {"top_p": 0.001},
    "min_p": {"min_p": 0.2},
    "all": {"top_k": 6, "top_p": 0.9, "min_p": 0.1},
}
INSTALLED = TORCH and importlib.util.find_spec("transformers") is not None


def by_transformers():
    import torch
    from transformers.generation import logits_process

    g: Any = logits_process
    makers = {"top_k": g.TopKLogitsWarper, "top_p": g.TopPLogitsWarper, "min_p": g.MinPLogitsWarper}
    ids, logits = torch.tensor(SEEN).long(), torch.tensor(LOGITS)
    found = {"penalty": g.RepetitionPenaltyLogitsProcessor(1.7)(ids, logits.clone()).numpy()}
    for name, settings in SETTINGS.items():
        scores = logits.clone()
        for each, value in settings.items():
            scores = makers[each](value)(ids, scores)
        found[name] = scores.numpy()
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_tokens_are_left(name):
    wanted = witness("decoding/filters", by_transformers, installed=INSTALLED)[name]
    settings = SETTINGS[name]
    found = filtered(jnp.asarray(LOGITS), settings.get("top_k"), settings.get("top_p"), settings.get("min_p"))
    np.testing.assert_array_equal(found, wanted)
    assert 0 < np.isfinite(wanted).sum() < wanted.size


def test_the_same_penalty():
    seen = jnp.zeros(LOGITS.shape, bool).at[jnp.arange(4)[:, None], SEEN].set(True)
    wanted = witness("decoding/filters", by_transformers, installed=INSTALLED)["penalty"]
    np.testing.assert_allclose(penalized(jnp.asarray(LOGITS), seen, 1.7), wanted, rtol=1e-6)


def test_the_limits_leave_all_or_one():
    logits = jnp.asarray(LOGITS)
    np.testing.assert_array_equal(filtered(logits, None, 1.0, 0.0), LOGITS)
    for settings in ((1, None, None), (None, 0.0, None), (None, None, 1.0)):
        left = np.isfinite(filtered(logits, *settings))
        np.testing.assert_array_equal(left.argmax(-1), LOGITS.argmax(-1))
        assert (left.sum(-1) == 1).all()
