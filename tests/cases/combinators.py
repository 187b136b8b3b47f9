"""Networks made of networks."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxnets as jn
from tests.cases.case import Case
from tests.oracle import floats

X, IMAGES = floats(4, 6), floats(3, 5, 4, 2)
TOKENS, EIGHT = floats(4, 3, 6), floats(4, 3, 8)
PADDED = jn.Padded(floats(4, 5, 2), np.array([5, 1, 3, 4], np.int32))
SEGMENTS = np.array([[0, 0, 0, 2, 2], [1, 3, 3, 3, 3], [4, 4, 4, 4, 4], [5, 6, 7, 7, -1]])
PACKED = jn.Packed(floats(4, 5, 6), np.array([5, 4, 5, 4]), SEGMENTS)


def _block() -> jn.Net:
    return jn.residual(jn.serial(fc1=jn.dense(6), tanh=jnp.tanh, fc2=jn.dense(6)))


def _llama_block() -> jn.Net:
    options = {"gated": True, "norm": jn.rms_norm, "activation": jax.nn.silu, "use_bias": False}
    return jn.encoder_block(8, 4, hidden=5, kv_heads=2, causal=True, positions="rotary", **options)


CASES = [
    Case("combinators/serial", lambda: jn.serial(jn.dense(5), jnp.tanh, out=jn.dense(2)), X),
    Case("combinators/residual", _block, X),
    Case(
        "combinators/residual_shortcut",
        lambda: jn.residual(jn.serial(fc=jn.dense(3)), shortcut=jn.dense(3), activation=jnp.tanh),
        X,
    ),
    Case("combinators/residual_leaf", lambda: jn.residual(jn.dense(6)), X),
    Case("combinators/attention", lambda: jn.attention(6, 2), TOKENS),
    Case(
        "combinators/attention_causal", lambda: jn.attention(8, 4, kv_heads=2, causal=True, positions="rotary"), EIGHT
    ),
    Case("combinators/attention_cross", lambda: jn.attention(6, 2, cross=True, positions="distance"), (TOKENS, PADDED)),
    Case("combinators/encoder_block", lambda: jn.encoder_block(6, 2, dropout=0.3), TOKENS, random=True),
    Case("combinators/encoder_block_gated", _llama_block, EIGHT),
    Case("combinators/encoder_block_packed", lambda: jn.encoder_block(6, 2, causal=True, positions="distance"), PACKED),
    Case("combinators/decoder_block", lambda: jn.decoder_block(6, 2, hidden=5, norm_first=False), (TOKENS, PADDED)),
    Case("combinators/film", lambda: jn.film(6), (TOKENS, X)),
    Case("combinators/cached", lambda: jn.cached(jn.encoder_block(6, 2, causal=True)), TOKENS),
    Case("combinators/tied", lambda: jn.tied(jn.serial(a=jn.dense(6), b=jn.dense(6)), {"b/kernel": "a/kernel"}), X),
    Case("combinators/branches", lambda: jn.branches(jn.concatenate, a=jn.dense(2), b=jnp.tanh), X),
    Case("combinators/heads", lambda: jn.branches(dict, label=jn.dense(2), value=jn.dense(1)), X),
    Case("combinators/repeat", lambda: jn.repeat(_block(), 3), X),
    Case("combinators/repeat_leaf", lambda: jn.repeat(jn.dense(6), 2), X),
    Case("combinators/repeat_empty", lambda: jn.repeat(jax.nn.silu, 2), X),
    Case("combinators/remat", lambda: jn.remat(_block()), X),
    Case(
        "combinators/cast",
        lambda: jn.cast(_block(), jn.Policy(jnp.float32, jnp.bfloat16, jnp.bfloat16)),
        X,
        differentiable=False,
    ),
    Case("combinators/weight_norm", lambda: jn.weight_norm(jn.dense(5)), X),
    Case("combinators/weight_norm_conv", lambda: jn.weight_norm(jn.conv_transpose(4, 3, groups=2)), IMAGES),
    # In training no gradient flows through the vectors: tests/combinators/test_kernels.py
    Case("combinators/spectral_norm", lambda: jn.spectral_norm(jn.dense(5)), X, differentiable=False),
    Case("combinators/spectral_norm_conv", lambda: jn.spectral_norm(jn.conv(3, 3)), IMAGES, differentiable=False),
    Case("combinators/ensemble", lambda: jn.ensemble(_block(), 3), X),
    Case("combinators/upto", lambda: jn.serial(a=jn.dense(5), b=jnp.tanh, c=jn.dense(2)).upto("b"), X),
]
