"""Recurrent networks."""

import jax

import jaxnets as jn
from jaxnets import Padded
from tests.cases.case import Case
from tests.oracle import floats, integers

X = floats(4, 5, 3)
PADDED = Padded(X, integers(4, low=0, high=6, seed=1))
NORMAL = jax.nn.initializers.normal(0.5)
HIDDEN = floats(4, 2, seed=1)


def _peephole(features: int) -> jn.Cell:
    return jn.lstm_cell(features, peepholes=True, peephole_init=NORMAL)


CASES = [
    Case("recurrent/rnn", lambda: jn.recurrent(jn.rnn_cell(2)), X),
    Case("recurrent/rnn_relu", lambda: jn.recurrent(jn.rnn_cell(2, activation=jax.nn.relu, use_bias=False)), X),
    Case("recurrent/lstm", lambda: jn.recurrent(jn.lstm_cell(2)), X),
    Case("recurrent/lstm_no_bias", lambda: jn.recurrent(jn.lstm_cell(2, use_bias=False), unroll=2), X),
    Case("recurrent/lstm_peepholes", lambda: jn.recurrent(_peephole(2)), X),
    Case("recurrent/gru", lambda: jn.recurrent(jn.gru_cell(2)), X),
    Case("recurrent/gru_no_bias", lambda: jn.recurrent(jn.gru_cell(2, use_bias=False)), X),
    Case("recurrent/gru_reset_before", lambda: jn.recurrent(jn.gru_cell(2, reset_after=False, bias_init=NORMAL)), X),
    Case("recurrent/padded", lambda: jn.recurrent(jn.lstm_cell(2)), PADDED),
    Case("recurrent/reverse", lambda: jn.recurrent(jn.gru_cell(2), reverse=True), PADDED),
    Case("recurrent/last", lambda: jn.recurrent(jn.rnn_cell(2), return_sequences=False), PADDED),
    Case("recurrent/last_reverse", lambda: jn.recurrent(jn.lstm_cell(2), reverse=True, return_sequences=False), X),
    Case("recurrent/carry_out", lambda: jn.recurrent(jn.gru_cell(2), return_carry=True), PADDED),
    Case("recurrent/carry_in", lambda: jn.recurrent(jn.gru_cell(2)), (X, HIDDEN)),
    Case(
        "recurrent/carry_through",  # the cell of an LSTM stays float32
        lambda: jn.recurrent(_peephole(2), jn.gru_cell(2), return_sequences=False, return_carry=True),
        (PADDED, (jn.LSTMCarry(HIDDEN, HIDDEN), HIDDEN)),
        half=False,
    ),
    Case("recurrent/stacked", lambda: jn.recurrent(jn.rnn_cell(3), jn.lstm_cell(2)), X),
    Case("recurrent/dropout", lambda: jn.recurrent(jn.lstm_cell(3), jn.gru_cell(2), dropout=0.5), X, random=True),
    Case(
        "recurrent/dropout_padded",
        lambda: jn.recurrent(*[jn.rnn_cell(2)] * 3, dropout=0.5),
        (PADDED, (HIDDEN, HIDDEN, HIDDEN)),
        random=True,
    ),
    Case("recurrent/bidirectional", lambda: jn.bidirectional(jn.lstm_cell(2)), X),
    Case(
        "recurrent/bidirectional_last",
        lambda: jn.bidirectional(jn.gru_cell(2), jn.rnn_cell(3), return_sequences=False, return_carry=True),
        PADDED,
    ),
    Case(
        "recurrent/bidirectional_carry",
        lambda: jn.bidirectional(jn.gru_cell(2), merge=lambda forward, backward: forward * backward),
        (PADDED, (HIDDEN, -HIDDEN)),
    ),
    Case(
        "recurrent/bidirectional_stacked",
        lambda: jn.serial(jn.bidirectional(jn.rnn_cell(2)), jn.bidirectional(jn.gru_cell(2)), jn.dense(2)),
        PADDED,
    ),
    Case("recurrent/repeat", lambda: jn.repeat(jn.recurrent(jn.lstm_cell(3)), 2), PADDED),
    Case(
        "recurrent/cast",
        lambda: jn.cast(jn.recurrent(jn.lstm_cell(3), jn.gru_cell(2)), jn.Policy(output=jax.numpy.bfloat16)),
        PADDED,
        differentiable=False,
    ),
    Case("recurrent/ensemble", lambda: jn.ensemble(jn.recurrent(jn.gru_cell(2), return_sequences=False), 2), PADDED),
]
