"""The transformer of 2017: an encoder and a decoder of attention, for translation."""

from typing import Any

import jax

from jaxnets.combinators.attention import first, second
from jaxnets.combinators.cached import cached
from jaxnets.combinators.graph import graph
from jaxnets.combinators.repeat import repeat
from jaxnets.combinators.serial import serial
from jaxnets.combinators.tied import tied
from jaxnets.combinators.transformer import decoder_block, encoder_block
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.net import Net
from jaxnets.layers import dense, embed, layer_norm, sinusoidal_positions
from jaxnets.layers import dropout as drop
from jaxnets.models.sequence_to_sequence import joined


@explained
def transformer(
    source_vocabulary: int,
    target_vocabulary: int | None = None,
    *,
    features: int = 512,
    layers: int = 6,
    heads: int = 8,
    hidden: int | None = None,
    dropout: Any = 0.1,
    norm_first: bool = False,
    scan: bool = False,
) -> Net:
    """Return an encoder–decoder of attention, which gives the logits of a target: p(y_t | x, y_1 … y_{t-1}).

    The input is `(source, target_in)`, integers `(batch, time)` each, arrays or `Padded`; the output is
    `(batch, target time, target_vocabulary)`. In training `target_in` is the target delayed by one step, after a start
    token ("teacher forcing"), and the loss is `jn.losses.sequence(jn.losses.cross_entropy)` with the target itself,
    including its end token. `jn.decoding.greedy` and `jn.decoding.beam_search` write targets, with caches.

    The children are `encoder`, from the source to its features, and `decoder`, from `(target_in, carry)` to
    `(logits, carry)`, as `jn.cached(..., memory=True)`. The defaults are the paper's base model, 63,082,496 parameters
    with a vocabulary of 37,000 tokens that both languages share, of which the paper says 65 million.

    Args:
        source_vocabulary: the number of tokens of the source.
        target_vocabulary: that of the target; `None` if both share one vocabulary. Then one table is the embedding of
            both and, transposed, the last kernel.
        features: of each token, in every block.
        layers: the number of blocks of each of the two.
        heads: the number of heads.
        hidden: features of the feed-forward networks; the default is 4 · features.
        dropout: the rate after the positions, and in each block. May be traced.
        norm_first: whether norms stand before attention and feed-forward networks, and one more at the end; the paper
            has them after the sums, which needs a warm-up of the learning rate.
        scan: whether the blocks run in one loop over stacked parameters, which compiles faster.

    Raises:
        NetError: for settings out of range, or an input that is not `(source, target_in)`.

    Vaswani et al., "Attention Is All You Need" (2017), sections 3 and 5.4. Embeddings are N(0, 1/features), multiplied
    by √features; a shared vocabulary as in section 3.4.

    >>> import jax, jax.numpy as jnp
    >>> net, x = transformer(37_000), (jnp.ones((1, 7), int), jnp.ones((1, 9), int))
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    63082496
    """
    shared = target_vocabulary is None
    with labeled_as("transformer"):
        check_count("features", features)
        check_count("layers", layers)
        if features % 2:
            raise NetError(f"expects an even number of features for the positions, got {features}")
        options: Any = {"hidden": hidden, "dropout": dropout, "norm_first": norm_first, "activation": jax.nn.relu}
        normal = jax.nn.initializers.normal(features**-0.5)

        def stack(block: Net) -> Net:
            return repeat(block, layers) if scan else serial(*[block] * layers)

        def begin(vocabulary: int) -> dict[str, Any]:
            table = embed(vocabulary, features, embedding_init=normal)
            return {
                "embedding": table,
                "scale": lambda x: x * features**0.5,
                "positions": sinusoidal_positions(),
                "dropout": drop(dropout),
            }

        norm = {"norm": layer_norm()} if norm_first else {}
        size = source_vocabulary if target_vocabulary is None else target_vocabulary
        encoder = serial(**begin(source_vocabulary), layers=stack(encoder_block(features, heads, **options)), **norm)
        table, *rest = begin(size).items()
        decoder = graph(
            target=(first, "input"),
            memory=(second, "input"),
            **{table[0]: (table[1], "target")},
            **dict(rest),
            pair=(tuple, "dropout", "memory"),
            layers=stack(decoder_block(features, heads, **options)),
            last=first,
            **norm,
            fc=dense(size, use_bias=False, kernel_init=normal),
        )
        net = joined("transformer", encoder, cached(decoder, memory=True))
        one = "encoder/embedding/embedding"
        return tied(net, {"decoder/embedding/embedding": one, "decoder/fc/kernel": one}) if shared else net
