"""GPT-2, a language model of causal attention."""

from collections.abc import Mapping
from typing import Any, Literal

import jax

from jaxnets.combinators.cached import cached
from jaxnets.combinators.repeat import repeat
from jaxnets.combinators.serial import serial
from jaxnets.combinators.tied import tied
from jaxnets.combinators.transformer import encoder_block
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.net import Net
from jaxnets.layers import dense, embed, layer_norm, learned_positions
from jaxnets.layers import dropout as drop

# Layers, heads, features.
SIZES = {"small": (12, 12, 768), "medium": (24, 16, 1024), "large": (36, 20, 1280), "xl": (48, 25, 1600)}


@explained
def gpt2(
    size: Literal["small", "medium", "large", "xl"] = "small",
    *,
    vocabulary: int = 50257,
    length: int = 1024,
    layers: int | None = None,
    heads: int | None = None,
    features: int | None = None,
    dropout: Any = 0.0,
    scan: bool = False,
) -> Net:
    """Return GPT-2, which returns for each token the logits of the next one: p(x_{t+1} | x_1 … x_t).

    Tokens are integers `(batch, time)` in [0, vocabulary), an array or `Padded`; logits are
    `(batch, time, vocabulary)`. For an input `(tokens, carry)` the output is `(logits, carry)`, as `jn.cached` says; so
    `jn.decoding.sample` continues prompts. The loss is `jn.losses.sequence(jn.losses.cross_entropy)` with the next
    tokens as targets.

    | size | blocks | heads | features | parameters | multiply-adds of 128 tokens |
    | --- | --- | --- | --- | --- | --- |
    | `"small"` | 12 | 12 | 768 | 124,439,808 | 16,114,089,984 |
    | `"medium"` | 24 | 16 | 1024 | 354,823,168 | 46,047,297,536 |
    | `"large"` | 36 | 20 | 1280 | 774,030,080 | 100,341,022,720 |
    | `"xl"` | 48 | 25 | 1600 | 1,557,611,200 | 201,552,896,000 |

    The children are `wte`, the embedding, `wpe`, the positions, `dropout`, `h`, the blocks, `ln_f`, and `lm_head`,
    which has no parameters of its own: its kernel is the table of `wte`. Hugging Face's GPT-2 has these names.

    Args:
        size: sets `layers`, `heads` and `features`.
        vocabulary: the number of tokens.
        length: the longest text.
        layers: the number of blocks, instead of that of the size.
        heads: likewise.
        features: likewise.
        dropout: the rate after the positions, and four times in each block. May be traced.
        scan: whether the blocks run in one loop over stacked parameters, which compiles faster, and decodes slower.

    Raises:
        NetError: for another size, or settings out of range; at a call, for more tokens than `length`.

    Radford, Wu, Child, Luan, Amodei and Sutskever, "Language Models are Unsupervised Multitask Learners" (2019), table
    2, where sizes were counted differently; initial values as their code's: N(0, 0.02²), 0.01² for positions, and
    0.02² / (2 · layers) for the last kernels of attention and feed-forward networks.

    >>> import jax, jax.numpy as jnp
    >>> net, tokens = gpt2("small"), jax.ShapeDtypeStruct((1, 1024), jnp.int32)
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), tokens)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    124439808
    """
    with labeled_as("gpt2"):
        layers, heads, features = of_size(SIZES, size, layers, heads, features)
        normal = jax.nn.initializers.normal
        block = encoder_block(
            features,
            heads,
            causal=True,
            dropout=dropout,
            kernel_init=normal(0.02),
            out_init=normal(0.02 / (2 * layers) ** 0.5),
        )
        whole = serial(
            wte=embed(vocabulary, features, embedding_init=normal(0.02)),
            wpe=learned_positions(length, embedding_init=normal(0.01)),
            dropout=drop(dropout),
            h=repeat(block, layers) if scan else serial(*[block] * layers),
            ln_f=layer_norm(),
            lm_head=dense(vocabulary, use_bias=False),
        )
        return tied(cached(whole), {"lm_head/kernel": "wte/embedding"})


def of_size(sizes: Mapping[str, tuple[int, int, int]], size: str, *given: int | None) -> tuple[int, int, int]:
    """Return layers, heads and features: those given, otherwise those of a size.

    Raises:
        NetError: for another size, or less than one layer.
    """
    if size not in sizes:
        raise NetError(f"expects size {', '.join(map(repr, sizes))}, got {size!r}")
    layers, heads, features = (own if each is None else each for each, own in zip(given, sizes[size], strict=True))
    check_count("layers", layers)
    return layers, heads, features
