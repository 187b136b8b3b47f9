"""Normalization, dropout, embedding, maxout, activations."""

import numpy as np

import jaxnets as jn
from tests.cases.case import Case
from tests.oracle import floats, integers

IMAGES = floats(4, 3, 2, 4)
SEQUENCES = jn.Padded(floats(4, 3, 2), np.array([3, 1, 2, 3], np.int32))
TOKENS = jn.Padded(integers(4, 3, high=6), SEQUENCES.lengths)

CASES = [
    Case("layers/batch_norm", jn.batch_norm, IMAGES),
    Case("layers/batch_norm_plain", lambda: jn.batch_norm(decay=0.5, use_scale=False, use_bias=False), floats(4, 3)),
    Case("layers/batch_norm_padded", jn.batch_norm, SEQUENCES),
    Case("layers/layer_norm", jn.layer_norm, floats(4, 2, 5)),
    Case("layers/layer_norm_axes", lambda: jn.layer_norm(axis=(1, -1), use_bias=False), IMAGES),
    Case("layers/layer_norm_padded", jn.layer_norm, SEQUENCES),
    Case("layers/group_norm", lambda: jn.group_norm(2), IMAGES),
    Case("layers/group_norm_padded", lambda: jn.group_norm(1), SEQUENCES),
    Case("layers/local_response_norm", lambda: jn.local_response_norm(4, alpha=1.0), IMAGES),
    Case("layers/dropout", lambda: jn.dropout(0.3), IMAGES, random=True),
    Case("layers/dropout_shared", lambda: jn.dropout(0.5, broadcast_axes=(1, -2)), floats(6, 3, 2, 4), random=True),
    Case("layers/dropout_padded", lambda: jn.dropout(0.5), SEQUENCES, random=True),
    Case("layers/spatial_dropout", lambda: jn.spatial_dropout(0.5), IMAGES, random=True),
    # Integers carry no precision: the output's is the table's, and its gradient is tested in test_embed.
    Case("layers/embed", lambda: jn.embed(7, 3), integers(4, 2, high=7), differentiable=False, half=False),
    Case("layers/embed_padded", lambda: jn.embed(6, 3), TOKENS, differentiable=False, half=False),
    Case("layers/maxout", lambda: jn.maxout(3, 4), floats(4, 5)),
    Case("layers/maxout_no_bias", lambda: jn.maxout(3, use_bias=False), floats(4, 2, 5)),
    Case("layers/prelu", jn.prelu, floats(4, 5)),
    Case("layers/prelu_per_channel", lambda: jn.prelu(per_channel=True), IMAGES),
    Case("layers/scaled_tanh", lambda: jn.as_net(jn.activations.scaled_tanh), floats(4, 5)),
    Case("layers/tanh_shrink", lambda: jn.as_net(jn.activations.tanh_shrink), floats(4, 5)),
]
