"""Models of text made of attention."""

from typing import Any

import jax
import numpy as np

import jaxnets as jn
from jaxnets import Padded
from tests.cases.case import Case
from tests.oracle import integers, variables

TOKENS = Padded(integers(4, 3, high=5), integers(4, low=1, high=4, seed=1))
SMALL: Any = {"layers": 1, "heads": 2, "features": 4}


def _carry() -> object:
    """Return what a language model has read of two tokens, as NumPy arrays."""
    net = jn.models.llama(5, 4, 1, 2, hidden=3)
    params, state = variables(net, TOKENS.values)
    (_, carry), _ = net.apply(params, state, (TOKENS.values[:, :2], None))
    return jax.tree.map(np.asarray, jn.decoding.grow(carry, 3))


# Tables are float32 whatever else is; gradients through them are tested against PyTorch.
CASES = [
    Case(
        "models/small_gpt2",
        lambda: jn.models.gpt2(vocabulary=5, length=3, dropout=0.5, scan=True, **SMALL),
        TOKENS,
        random=True,
        differentiable=False,
        half=False,
    ),
    Case(
        "models/llama",
        lambda: jn.models.llama(5, 4, 1, 2, hidden=3),
        (TOKENS, _carry()),
        differentiable=False,
        half=False,
    ),
    Case(
        "models/small_bert",
        lambda: jn.models.bert("base", "classes", num_classes=3, vocabulary=5, length=3, **SMALL),
        (TOKENS, Padded(TOKENS.values % 2, TOKENS.lengths)),
        differentiable=False,
        half=False,
    ),
    Case(
        "models/siamese",
        lambda: jn.models.siamese(jn.models.sentence_encoder(5, 2, dropout=0.5), 3, hidden=4),
        (TOKENS, Padded(TOKENS.values[::-1].copy(), TOKENS.lengths)),
        random=True,
        differentiable=False,
        half=False,
    ),
    Case(
        "models/sentence_encoder",
        lambda: jn.models.sentence_encoder(5, None, 3, pool="mean", embedding=4),
        TOKENS,
        differentiable=False,
        half=False,
    ),
    Case(
        "models/transformer",
        lambda: jn.models.transformer(5, features=4, layers=1, heads=2, dropout=0.5),
        (TOKENS, TOKENS),
        random=True,
        differentiable=False,
        half=False,
    ),
]
