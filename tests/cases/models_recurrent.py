"""Recurrent models."""

import jaxnets as jn
from jaxnets import Padded
from tests.cases.case import Case
from tests.oracle import floats, integers

LENGTHS = integers(4, low=1, high=4, seed=1)
TOKENS = Padded(integers(4, 3, high=5), LENGTHS)

CASES = [
    Case(
        "models/gru",
        lambda: jn.models.gru(2, 3, bidirectional=True, dropout=0.5),
        Padded(floats(4, 3, 2), LENGTHS),
        random=True,
    ),
    # Tables are float32 whatever else is; gradients through them are tested against PyTorch in float64.
    Case(
        "models/language_model",
        lambda: jn.models.language_model(5, 3, cell=jn.rnn_cell, layers=2, dropout=0.5, tie_weights=True),
        (TOKENS, (floats(4, 3), floats(4, 3, seed=1))),
        random=True,
        differentiable=False,
        half=False,
    ),
    Case(
        "models/encoder_decoder",
        lambda: jn.models.encoder_decoder(None, 5, 3),
        (Padded(floats(4, 3, 2), LENGTHS), TOKENS),
        differentiable=False,
        half=False,
    ),
    Case(
        "models/conv_gru",
        lambda: jn.models.conv_gru(3, 2, layers=1, widths=(3,), dropout=0.5),
        Padded(floats(4, 5, 2), LENGTHS),
        random=True,
    ),
    Case(
        "models/conv_transformer",
        lambda: jn.models.conv_transformer(3, 4, heads=2, layers=1, widths=(), hidden=5, dropout=0.5),
        Padded(floats(4, 5, 2), LENGTHS),
        random=True,
        differentiable=False,
    ),
]
