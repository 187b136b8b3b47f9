"""Layers."""

import jax
import numpy as np

import jaxnets as jn
from tests.cases.case import Case
from tests.oracle import floats, integers

IMAGES = floats(3, 5, 4, 2)
# Values so far apart that finite differences do not change a maximum.
APART = (floats(3, 5, 4, 2, seed=1, scale=0.01) + integers(3, 5, 4, 2, high=9)).astype("float32")
SEQUENCES = jn.Padded(floats(3, 4, 2), integers(3, low=1, high=5))
FOUR_IMAGES = floats(4, 3, 2, 4)
FOUR_SEQUENCES = jn.Padded(floats(4, 3, 2), np.array([3, 1, 2, 3], np.int32))
TOKENS = jn.Padded(integers(4, 3, high=6), FOUR_SEQUENCES.lengths)
COLUMNS = {"numbers": floats(4, 2), "categories": integers(4, 2, high=4)}

CASES = [
    Case("layers/dense", lambda: jn.dense(3), floats(4, 5)),
    Case("layers/dense_no_bias", lambda: jn.dense(3, use_bias=False), floats(4, 2, 5)),
    Case("layers/flatten", lambda: jn.as_net(jn.flatten), floats(4, 2, 3)),
    Case("layers/conv_1d", lambda: jn.conv(3, 2), floats(3, 5, 2)),
    Case("layers/conv_2d", lambda: jn.conv(3, 3, stride=(2, 1), padding=((0, 1), (1, 1))), IMAGES),
    Case("layers/conv_3d", lambda: jn.conv(2, 2, padding=(0, 1, 0)), floats(3, 2, 2, 3, 1)),
    Case("layers/conv_1x1", lambda: jn.conv(3, 1, stride=2, use_bias=False), IMAGES),
    Case("layers/conv_grouped", lambda: jn.conv(4, 3, groups=2, dilation=2, padding="SAME"), IMAGES),
    Case("layers/conv_padded", lambda: jn.conv(3, 3, padding="SAME"), SEQUENCES),
    Case("layers/depthwise_conv", lambda: jn.depthwise_conv(3, 2, padding="SAME"), IMAGES),
    Case("layers/conv_lstm", lambda: jn.conv_lstm(2), floats(3, 2, 3, 4, 2)),
    Case("layers/conv_transpose", lambda: jn.conv_transpose(3, 4, stride=2, padding=1), floats(3, 3, 2, 2)),
    Case("layers/conv_transpose_grouped", lambda: jn.conv_transpose(4, 3, groups=2), floats(3, 3, 2, 2)),
    Case("layers/pixel_shuffle", lambda: jn.pixel_shuffle(2), FOUR_IMAGES),
    Case("layers/resize", lambda: jn.resize(scale=2), IMAGES),
    Case("layers/resize_linear", lambda: jn.resize((3, 7), method="linear"), IMAGES),
    Case("layers/max_pool", lambda: jn.max_pool(2), APART),
    Case("layers/max_pool_overlapping", lambda: jn.max_pool(3, stride=2, padding=1), APART),
    Case("layers/avg_pool", lambda: jn.avg_pool(2), IMAGES),
    Case("layers/avg_pool_ceil", lambda: jn.avg_pool(3, stride=2, padding=1, ceil_mode=True), IMAGES),
    Case("layers/adaptive_avg_pool", lambda: jn.adaptive_avg_pool((2, 3)), IMAGES),
    Case("layers/adaptive_max_pool", lambda: jn.adaptive_max_pool((2, 3)), APART),
    Case("layers/global_avg_pool", lambda: jn.as_net(jn.global_avg_pool), IMAGES),
    Case("layers/global_max_pool", lambda: jn.as_net(jn.global_max_pool), APART),
    Case("layers/batch_norm", jn.batch_norm, FOUR_IMAGES),
    Case("layers/batch_norm_plain", lambda: jn.batch_norm(decay=0.5, use_scale=False, use_bias=False), floats(4, 3)),
    Case("layers/batch_norm_padded", jn.batch_norm, FOUR_SEQUENCES),
    Case("layers/layer_norm", jn.layer_norm, floats(4, 2, 5)),
    Case("layers/layer_norm_axes", lambda: jn.layer_norm(axis=(1, -1), use_bias=False), FOUR_IMAGES),
    Case("layers/layer_norm_padded", jn.layer_norm, FOUR_SEQUENCES),
    Case("layers/rms_norm", jn.rms_norm, floats(4, 2, 5)),
    Case("layers/rms_norm_axes", lambda: jn.rms_norm(axis=(1, -1), use_scale=False), FOUR_IMAGES),
    Case("layers/rms_norm_padded", jn.rms_norm, FOUR_SEQUENCES),
    Case("layers/group_norm", lambda: jn.group_norm(2), FOUR_IMAGES),
    Case("layers/group_norm_padded", lambda: jn.group_norm(1), FOUR_SEQUENCES),
    Case("layers/layer_scale", jn.layer_scale, FOUR_IMAGES),
    Case("layers/layer_scale_padded", lambda: jn.layer_scale(scale_init=jax.nn.initializers.ones), FOUR_SEQUENCES),
    Case("layers/local_response_norm", lambda: jn.local_response_norm(4, alpha=1.0), FOUR_IMAGES),
    Case("layers/dropout", lambda: jn.dropout(0.3), FOUR_IMAGES, random=True),
    Case("layers/dropout_shared", lambda: jn.dropout(0.5, broadcast_axes=(1, -2)), floats(6, 3, 2, 4), random=True),
    Case("layers/dropout_padded", lambda: jn.dropout(0.5), FOUR_SEQUENCES, random=True),
    Case("layers/spatial_dropout", lambda: jn.spatial_dropout(0.5), FOUR_IMAGES, random=True),
    Case("layers/drop_path", lambda: jn.drop_path(0.5), floats(8, 3, 2), random=True),
    Case("layers/drop_path_padded", lambda: jn.drop_path(0.5), SEQUENCES, random=True),
    # Integers carry no precision: the output's is the table's, and its gradient is tested in test_embed.
    Case("layers/embed", lambda: jn.embed(7, 3), integers(4, 2, high=7), differentiable=False, half=False),
    Case("layers/embed_padded", lambda: jn.embed(6, 3), TOKENS, differentiable=False, half=False),
    Case(
        "layers/embed_columns", lambda: jn.embed_columns({"a": 4, "b": 7}, 3), COLUMNS, differentiable=False, half=False
    ),
    Case("layers/patch_embed", lambda: jn.patch_embed(3, 2), floats(3, 4, 6, 2)),
    Case("layers/class_token", jn.class_token, floats(3, 4, 2)),
    Case("layers/class_token_padded", lambda: jn.class_token(token_init=jax.nn.initializers.ones), SEQUENCES),
    Case("layers/learned_positions", lambda: jn.learned_positions(6), floats(3, 4, 2)),
    Case("layers/learned_positions_padded", lambda: jn.learned_positions(4), SEQUENCES),
    Case("layers/sinusoidal_positions", jn.sinusoidal_positions, floats(3, 5, 4)),
    Case("layers/sinusoidal_positions_padded", lambda: jn.sinusoidal_positions(period=9.0), SEQUENCES),
    Case("layers/maxout", lambda: jn.maxout(3, 4), floats(4, 5)),
    Case("layers/maxout_no_bias", lambda: jn.maxout(3, use_bias=False), floats(4, 2, 5)),
    Case("layers/gated_dense", lambda: jn.gated_dense(3), floats(4, 5)),
    Case("layers/gated_dense_swiglu", lambda: jn.gated_dense(3, activation=jax.nn.silu, use_bias=False), SEQUENCES),
    Case("layers/prelu", jn.prelu, floats(4, 5)),
    Case("layers/prelu_per_channel", lambda: jn.prelu(per_channel=True), FOUR_IMAGES),
    Case("layers/scaled_tanh", lambda: jn.as_net(jn.activations.scaled_tanh), floats(4, 5)),
    Case("layers/tanh_shrink", lambda: jn.as_net(jn.activations.tanh_shrink), floats(4, 5)),
]
