"""Language models as Llama: root mean square norms, rotary positions, gated layers, grouped heads."""

from typing import Any

import jax

from jaxnets.combinators.cached import cached
from jaxnets.combinators.repeat import repeat
from jaxnets.combinators.serial import serial
from jaxnets.combinators.tied import tied
from jaxnets.combinators.transformer import encoder_block
from jaxnets.core.errors import check_count, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.net import Net
from jaxnets.layers import dense, embed, rms_norm


@explained
def llama(
    vocabulary: int,
    features: int,
    layers: int,
    heads: int,
    *,
    kv_heads: int | None = None,
    hidden: int | None = None,
    width: int | None = None,
    window: int | None = None,
    period: Any = 10000.0,
    epsilon: float = 1e-5,
    tie_weights: bool = False,
    dropout: Any = 0.0,
    scan: bool = False,
) -> Net:
    """Return a language model with the blocks of Llama; input, output and carry are those of `gpt2`.

    A block is norm, causal attention with rotary positions and grouped heads, norm, SwiGLU, without biases. There is no
    longest text. The children are `embed_tokens`, `layers`, `norm` and `lm_head`, as in Hugging Face's Llama. Published
    models, with their numbers of parameters:

    | model | call | parameters |
    | --- | --- | --- |
    | Llama 2 7B | `llama(32000, 4096, 32, 32)` | 6,738,415,616 |
    | TinyLlama 1.1B | `llama(32000, 2048, 22, 32, kv_heads=4)` | 1,100,048,384 |
    | Llama 3 8B | `llama(128256, 4096, 32, 32, kv_heads=8, hidden=14336, period=500000.0)` | 8,030,261,248 |
    | Mistral 7B | `llama(32000, 4096, 32, 32, kv_heads=8, hidden=14336, window=4096)` | 7,241,732,096 |

    Args:
        vocabulary: the number of tokens.
        features: of each token, in every block.
        layers: the number of blocks.
        heads: the number of heads.
        kv_heads: the number of heads of keys and values, a divisor of `heads`; the default is `heads`.
        hidden: features inside SwiGLU; the default is 8/3 · features, rounded up to a multiple of 256.
        width: features of a head; the default is features / heads.
        window: how many tokens, with its own, a token reads; the default is all before it.
        period: of the rotary positions.
        epsilon: of the norms.
        tie_weights: whether the table of `embed_tokens` is also the kernel of `lm_head`.
        dropout: the rate, four times in each block. May be traced.
        scan: whether the blocks run in one loop over stacked parameters, which compiles faster, and decodes slower.

    Raises:
        NetError: for settings out of range.

    Touvron et al., "Llama 2: Open Foundation and Fine-Tuned Chat Models" (2023), section 2.2; Jiang et al., "Mistral
    7B" (2023), for the window. Initial values are N(0, 0.02²).

    >>> import jax, jax.numpy as jnp
    >>> net, tokens = llama(32000, 2048, 22, 32, kv_heads=4), jax.ShapeDtypeStruct((1, 16), jnp.int32)
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), tokens)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    1100048384
    """
    with labeled_as("llama"):
        check_count("features", features)
        check_count("layers", layers)
        normal = jax.nn.initializers.normal(0.02)

        def norm() -> Net:
            return rms_norm(epsilon=epsilon)

        block = encoder_block(
            features,
            heads,
            hidden=-(-(8 * features // 3) // 256) * 256 if hidden is None else hidden,
            norm=norm,
            activation=jax.nn.silu,
            gated=True,
            dropout=dropout,
            use_bias=False,
            kernel_init=normal,
            width=width,
            kv_heads=kv_heads,
            causal=True,
            window=window,
            positions="rotary",
            period=period,
        )
        net = cached(
            serial(
                embed_tokens=embed(vocabulary, features, embedding_init=normal),
                layers=repeat(block, layers) if scan else serial(*[block] * layers),
                norm=norm(),
                lm_head=dense(vocabulary, use_bias=False, kernel_init=normal),
            )
        )
        return tied(net, {"lm_head/kernel": "embed_tokens/embedding"}) if tie_weights else net
