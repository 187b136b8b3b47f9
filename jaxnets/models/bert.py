"""BERT, an encoder of text, with its heads."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxnets.combinators.graph import graph
from jaxnets.combinators.repeat import repeat
from jaxnets.combinators.serial import serial
from jaxnets.combinators.tied import tied
from jaxnets.combinators.transformer import encoder_block, plus
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.padded import Padded
from jaxnets.layers import dense, embed, layer_norm, learned_positions
from jaxnets.layers import dropout as drop
from jaxnets.models.gpt2 import of_size

# Layers, heads, features.
SIZES = {"base": (12, 12, 768), "large": (24, 16, 1024)}
HEADS = ("pooled", "classes", "span", "words")


@explained
def bert(
    size: Literal["base", "large"] = "base",
    head: Literal["pooled", "classes", "span", "words"] | None = None,
    *,
    num_classes: int | None = None,
    vocabulary: int = 30522,
    types: int = 2,
    length: int = 512,
    layers: int | None = None,
    heads: int | None = None,
    features: int | None = None,
    dropout: Any = 0.0,
    scan: bool = False,
) -> Net:
    """Return BERT, which reads a text in both directions.

    Tokens are integers `(batch, time)` in [0, vocabulary), an array or `Padded`, or a pair `(tokens, types)` with the
    number of the sentence that each token is in, 0 or 1, of the same shape; without it all are 0. The norms stand after
    the sums.

    | head | output | parameters, base | large |
    | --- | --- | --- | --- |
    | `None` | features of each token, `(batch, time, features)` | 108,891,648 | 334,092,288 |
    | `"pooled"` | tanh of a map of the first token's, `(batch, features)` | 109,482,240 | 335,141,888 |
    | `"classes"` | logits, `(batch, num_classes)`; here 2 | 109,483,778 | 335,143,938 |
    | `"span"` | logits that an answer begins and ends here, `(batch, time, 2)` | 108,893,186 | 334,094,338 |
    | `"words"` | logits of each word, `(batch, time, vocabulary)` | 109,514,298 | 335,174,458 |

    The children are `embeddings`, `encoder`, and those of the head: `pooler`, `classifier`; `qa_outputs`; `transform`,
    `norm` and `words`, whose kernel is the table of the embedding. The loss of "words" is
    `jn.losses.sequence(jn.losses.cross_entropy)` with weights for the masked words.

    Args:
        size: sets `layers`, `heads` and `features`.
        head: what stands on the last block.
        num_classes: for "classes" alone.
        vocabulary: the number of tokens.
        types: the number of types.
        length: the longest text.
        layers: the number of blocks, instead of that of the size.
        heads: likewise.
        features: likewise.
        dropout: the rate after the embeddings, four times in each block, and before the classifier. May be traced.
        scan: whether the blocks run in one loop over stacked parameters, which compiles faster.

    Raises:
        NetError: for another size or head, `num_classes` without its head, or settings out of range; at a call, for
            more tokens than `length`.

    Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding"
    (2019), sections 3 and 4. Initial values are N(0, 0.02²).

    >>> import jax, jax.numpy as jnp
    >>> net, tokens = bert("base", "pooled"), jax.ShapeDtypeStruct((1, 512), jnp.int32)
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), tokens)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    109482240
    """
    with labeled_as("bert"):
        layers, heads, features = of_size(SIZES, size, layers, heads, features)
        if head not in (None, *HEADS):
            raise NetError(f"expects head {', '.join(map(repr, HEADS))} or None, got {head!r}")
        if (head == "classes") != (num_classes is not None):
            raise NetError(
                f"expects num_classes for the head 'classes', and only there, got {num_classes} for {head!r}"
            )
        normal = jax.nn.initializers.normal(0.02)
        norm, project = partial(layer_norm, epsilon=1e-12), partial(dense, kernel_init=normal)
        gelu = partial(jax.nn.gelu, approximate=False)
        block = encoder_block(
            features, heads, norm_first=False, norm=norm, activation=gelu, dropout=dropout, kernel_init=normal
        )
        embeddings = graph(
            tokens=(_tokens, "input"),
            types=(_types, "input"),
            word_embeddings=(embed(vocabulary, features, embedding_init=normal), "tokens"),
            token_type_embeddings=(embed(types, features, embedding_init=normal), "types"),
            sum=(plus, "word_embeddings", "token_type_embeddings"),
            position_embeddings=learned_positions(length),
            norm=norm(),
            dropout=drop(dropout),
        )
        pooled = {"first": first_step(), "pooler": project(features), "tanh": jnp.tanh}
        ends: dict[str | None, dict[str, Any]] = {
            None: {},
            "pooled": pooled,
            "classes": {**pooled, "dropout": drop(dropout), "classifier": project(num_classes or 1)},
            "span": {"qa_outputs": project(2)},
            "words": {"transform": project(features), "gelu": gelu, "norm": norm(), "words": dense(vocabulary)},
        }
        encoder = repeat(block, layers) if scan else serial(*[block] * layers)
        net = serial(embeddings=embeddings, encoder=encoder, **ends[head])
        return tied(net, {"words/kernel": "embeddings/word_embeddings/embedding"}) if head == "words" else net


def first_step() -> Net:
    """Return a network from sequences `(batch, time, features)`, an array or `Padded`, to their first steps."""

    def init(key: Key, x: Any) -> tuple[Params, State]:
        return {}, {}

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        return (x.values if isinstance(x, Padded) else x)[:, 0], state

    return Net(init, apply, "first_step")


def _tokens(x: Any) -> Any:
    return _given(x)[0]


def _types(x: Any) -> Any:
    tokens, types = _given(x)
    if types is not None:
        return types
    zeros = jnp.zeros_like(tokens.values if isinstance(tokens, Padded) else tokens)
    return Padded(zeros, tokens.lengths) if isinstance(tokens, Padded) else zeros


def _given(x: Any) -> tuple[Any, Any]:
    if not isinstance(x, tuple):
        return x, None
    if len(x) != 2:
        raise NetError(f"expects tokens or (tokens, types), got a tuple of {len(x)}")
    return x
