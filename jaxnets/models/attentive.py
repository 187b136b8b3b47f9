"""Recurrent encoder–decoders with attention to all steps of the source, and one that copies from it."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxnets.combinators.attention import first, second
from jaxnets.combinators.graph import graph
from jaxnets.combinators.tied import tied
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.layer import layer
from jaxnets.core.net import Key, Net, Params
from jaxnets.core.padded import Padded
from jaxnets.layers import dense, embed, lstm_cell
from jaxnets.layers import dropout as drop
from jaxnets.layers.inputs import like_input, values_of
from jaxnets.models.recurrent import MakeCell, recurrent_stack
from jaxnets.models.sequence_to_sequence import joined

Score = Literal["general", "additive"]
NEVER = -1e9
"""The log-probability of a token that can be neither written nor copied: finite, so that gradients are."""


@explained
def attentive_encoder_decoder(
    source_vocabulary: int,
    target_vocabulary: int,
    hidden: int,
    *,
    cell: MakeCell = lstm_cell,
    layers: int = 1,
    embedding: int | None = None,
    dropout: Any = 0.0,
    score: Score = "general",
) -> Net:
    """Return an encoder–decoder whose decoder attends to all steps of the source: p(y_t | x, y_1 … y_{t-1}).

    The encoder runs in both directions, with hidden / 2 units in each; its outputs h_1 … h_S, `(batch, source,
    hidden)`, are the memory, and its last carries, joined, the first carry of the decoder. After each target token, the
    decoder's output s attends to the memory, a = softmax over i of score(s, h_i), c = Σ a_i h_i, and the logits are
    those of tanh(W [s, c] + b). The score is sᵀ W h_i ("general") or vᵀ tanh(W s + U h_i + b) ("additive").

    Input, output, loss and decoding are those of `jn.models.encoder_decoder`. The attention a, `(batch, target time,
    source)`, is the second output of `net["decoder"].upto("attend")`.

    Args:
        source_vocabulary: the number of tokens of the source.
        target_vocabulary: the number of tokens of the target, including start and end tokens.
        hidden: the width of the decoder's cells, even.
        cell: as for `jn.models.encoder_decoder`, like all that follow.
        layers: see there.
        embedding: see there.
        dropout: see there.
        score: "general", as fast as a product, or "additive", which takes memory for target time · source · hidden.

    Raises:
        NetError: for an odd width, a size below 1, a rate outside [0, 1), another score, or an input that is not
            `(source, target_in)`.

    Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate" (2015), for the
    additive score; Luong, Pham and Manning, "Effective Approaches to Attention-based Neural Machine Translation"
    (2015), section 3.1, for the general score and the layer after it, without input feeding.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, x = attentive_encoder_decoder(9, 7, 8), (jnp.ones((2, 4), int), jnp.ones((2, 3), int))
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> jax.eval_shape(net.apply, params, state, x)[0].shape, sorted(params["decoder"])
    ((2, 3, 7), ['combine', 'embedding', 'fc', 'rnn'])
    """
    with labeled_as("attentive_encoder_decoder"):
        shared = _Shared(hidden, cell, layers, embedding, dropout, score)
        decoder = graph(
            **shared.reader(target_vocabulary),
            combine=dense(hidden),
            tanh=jnp.tanh,
            dropout2=drop(dropout),
            fc=dense(target_vocabulary),
            output=(_with_carry, "fc", "rnn", "state"),
        )
        return joined("attentive_encoder_decoder", shared.encoder(source_vocabulary), decoder)


@explained
def pointer_generator(
    vocabulary: int,
    hidden: int,
    *,
    copies: int,
    unknown: int,
    cell: MakeCell = lstm_cell,
    embedding: int | None = None,
    dropout: Any = 0.0,
    score: Score = "additive",
) -> Net:
    """Return an encoder–decoder that writes tokens of its vocabulary or copies those of the source.

    Beside the tokens 0 … vocabulary - 1 there are `copies` numbers for words that the vocabulary lacks: the k-th such
    word of a source, from 0, is `vocabulary + k`. They are read as `unknown`. With a, c and s as in
    `attentive_encoder_decoder`, and the embedding e of the last token,

    p(w) = g softmax(V (W [s, c] + b) + d)_w + (1 - g) Σ over i with x_i = w of a_i,   g = sigmoid(u · [c, s, e] + f).

    The output is log p, `(batch, target time, vocabulary + copies)`, and so takes the place of logits: loss and
    decoding are those of `jn.models.encoder_decoder`. A token that can be neither written nor copied has -10⁹.

    Args:
        vocabulary: the number of tokens of source and target, including start, end and unknown tokens.
        hidden: the width of the decoder's cells, even.
        copies: the largest number of words of a source that the vocabulary lacks.
        unknown: the token as which these are read.
        cell: as for `jn.models.encoder_decoder`.
        embedding: the width of the embedding that source and target share. Default: `hidden`.
        dropout: the rate in [0, 1) after the embeddings and before the logits. May be traced.
        score: as for `jn.models.attentive_encoder_decoder`.

    Raises:
        NetError: for an odd width, a size below 1, an unknown token outside the vocabulary, another score, or an input
            that is not `(source, target_in)`.

    See, Liu and Manning, "Get To The Point: Summarization with Pointer-Generator Networks" (2017), sections 2.1 and
    2.2, without coverage.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, source, target = pointer_generator(5, 8, copies=2, unknown=0), jnp.array([[1, 5, 6]]), jnp.array([[1, 5]])
    >>> params, state = net.init(jax.random.key(0), (source, target))
    >>> p = jnp.exp(jax.jit(net.apply)(params, state, (source, target))[0])
    >>> p.shape, bool(jnp.allclose(p.sum(-1), 1)), bool((p[..., 5:] > 0.01).all())
    ((1, 2, 7), True, True)
    """
    with labeled_as("pointer_generator"):
        check_count("copies", copies)
        if isinstance(unknown, bool) or not hasattr(unknown, "__index__") or not 0 <= unknown < vocabulary:
            raise NetError(f"expects unknown from 0 to {vocabulary - 1}, a token of the vocabulary, got {unknown!r}")
        shared = _Shared(hidden, cell, 1, embedding, dropout, score, (vocabulary, copies, unknown))
        decoder = graph(
            **shared.reader(vocabulary),
            combine=dense(hidden),
            dropout2=drop(dropout),
            fc=dense(vocabulary),
            seen=(_concatenate, "context", "hidden", "dropout1"),
            gate=dense(1),
            mixture=(_mixture(vocabulary + copies), "fc", "gate", "attend", "state"),
            output=(_with_carry, "mixture", "rnn", "state"),
        )
        net = joined("pointer_generator", shared.encoder(vocabulary), decoder)
        return tied(net, {"decoder/embedding/embedding": "encoder/embedding/embedding"})


class _Shared:
    """The parts of both networks; with `copying`, tokens beyond the vocabulary are read as the unknown one."""

    def __init__(
        self, hidden: int, cell: MakeCell, layers: int, embedding: int | None, dropout: Any, score: Score,
        copying: tuple[int, int, int] | None = None,
    ) -> None:  # fmt: skip
        check_count("hidden", hidden)
        if hidden % 2:
            raise NetError(f"expects an even width for hidden, half of it in each direction, got {hidden}")
        if score not in ("general", "additive"):
            raise NetError(f"expects score 'general' or 'additive', got {score!r}")
        self.hidden, self.cell, self.layers, self.dropout = hidden, cell, layers, dropout
        self.score: Score = score
        self.embedding = hidden if embedding is None else embedding
        self.reading = {} if copying is None else {"read": _reading(*copying)}

    def encoder(self, vocabulary: int) -> Net:
        """Return the network from the source to `(carry, memory, keys)`, and the source for a pointer."""
        stack = recurrent_stack(
            self.cell, self.hidden // 2, self.layers, self.dropout, both_ways=True, return_carry=True
        )
        source = {"source": (layer(None, lambda _, x: x, label="source"), "input")} if self.reading else {}
        return graph(
            **source,
            **({"read": (self.reading["read"], "source")} if self.reading else {}),
            embedding=embed(vocabulary, self.embedding),
            dropout=drop(self.dropout),
            rnn=stack,
            memory=first,
            # The projection of the memory is the same at all steps of the target.
            keys=dense(self.hidden, use_bias=self.score == "additive"),
            carry=(_joined_carry(self.layers), "rnn"),
            output=(tuple, "carry", "memory", "keys", *source),
        )

    def reader(self, vocabulary: int) -> dict[str, Any]:
        """Return the nodes of the decoder up to `[hidden, context]`."""
        return {
            "tokens": (first, "input"),
            "state": (second, "input"),
            **({"read": (self.reading["read"], "tokens")} if self.reading else {}),
            "embedding": (embed(vocabulary, self.embedding), "read" if self.reading else "tokens"),
            "dropout1": drop(self.dropout),
            "carry": (layer(None, lambda _, state: state[0], label="carry"), "state"),
            "rnn": (
                recurrent_stack(self.cell, self.hidden, self.layers, self.dropout, return_carry=True),
                "dropout1", "carry",
            ),
            "hidden": first,
            "attend": (_attend(self.score, self.hidden), "hidden", "state"),
            "context": first,
            "both": (_concatenate, "hidden", "context"),
        }  # fmt: skip


def _attend(score: Score, hidden: int) -> Net:
    """Return the network from `(hidden, state)` to the context `(batch, time, hidden)` and the attention."""
    project = dense(hidden, use_bias=False)

    def init(key: Key, x: Any) -> Params:
        if score == "general":
            return {}
        query, vector = jax.random.split(key)
        kernel = jax.nn.initializers.lecun_normal()(vector, (hidden, 1), jnp.float32)
        return {"query": project.init(query, values_of(x[0]))[0], "score": kernel[:, 0]}

    def apply(params: Params, x: Any) -> Any:
        outputs, (_, memory, keys, *_) = x
        # (batch, time, hidden), and (batch, source, hidden)
        query, keys = values_of(outputs), values_of(keys)
        if score == "general":
            scores = jnp.einsum("bth,bsh->bts", query, keys)
        else:
            query, _ = project.apply(params["query"], {}, query)
            mixed = jnp.tanh(query[:, :, None] + keys[:, None])
            scores = jnp.einsum("btsh,h->bts", mixed, params["score"].astype(mixed.dtype))
        real = memory.mask[:, None] if isinstance(memory, Padded) else jnp.ones((1, 1, keys.shape[1]), bool)
        weights = jax.nn.softmax(jnp.where(real, scores, NEVER).astype(param_dtype(scores)), axis=-1)
        # Nothing is read of a source without steps.
        weights = jnp.where(real, weights, 0).astype(scores.dtype)
        values = memory.zeroed() if isinstance(memory, Padded) else memory
        return like_input(jnp.einsum("bts,bsh->bth", weights, values), outputs), weights

    return layer(init, apply, label=f"attend({score})")


def _mixture(size: int) -> Net:
    """Return the network from logits, gate, attention and state to log p of written and copied tokens."""

    def apply(_: Params, x: Any) -> Any:
        outputs, gate, (_, weights), (*_, source) = x
        logits, gate = values_of(outputs), values_of(gate)
        kind = param_dtype(logits)
        tokens = source.values if isinstance(source, Padded) else source
        rows = jnp.arange(tokens.shape[0])[:, None]
        # (batch, size, time): attention to all places of the source where a token stands
        copied = jnp.zeros((tokens.shape[0], size, weights.shape[1]), kind)
        copied = copied.at[rows, tokens].add(weights.astype(kind).swapaxes(1, 2), mode="drop").swapaxes(1, 2)
        # Logarithms of zero would have no gradient.
        copied = jnp.where(copied > 0, jnp.log(jnp.where(copied > 0, copied, 1)), NEVER)
        written = jax.nn.log_softmax(logits.astype(kind), axis=-1)
        rest = ((0, 0), (0, 0), (0, size - logits.shape[-1]))
        written = jnp.pad(written, rest, constant_values=NEVER)
        gate = gate.astype(kind)
        total = jnp.logaddexp(jax.nn.log_sigmoid(gate) + written, jax.nn.log_sigmoid(-gate) + copied)
        return like_input(jnp.maximum(total, NEVER).astype(logits.dtype), outputs)

    return layer(None, apply, label="mixture")


def _reading(vocabulary: int, copies: int, unknown: int) -> Net:
    """Return the network that reads the numbers of words beyond the vocabulary as the unknown token."""

    def apply(_: Params, x: Any) -> jax.Array:
        # Numbers beyond those of copies stay out of range, so that the embedding refuses them.
        return jnp.where((x >= vocabulary) & (x < vocabulary + copies), unknown, x)

    return layer(None, apply, label="read")


def _joined_carry(layers: int) -> Net:
    """Return the network from `(outputs, carries)` to the carry of a decoder of as many layers."""

    def join(both: Any) -> Any:
        return jax.tree.map(lambda forward, backward: jnp.concatenate([forward, backward], axis=-1), *both)

    return layer(None, lambda _, x: join(x[1]) if layers == 1 else tuple(map(join, x[1])), label="carry")


def _concatenate(parts: Any) -> Any:
    return like_input(jnp.concatenate([values_of(each) for each in parts], axis=-1), parts[0])


def _with_carry(x: Any) -> Any:
    """Return logits, and the state with the carry after them."""
    logits, (_, carry), (_, *memory) = x
    return logits, (carry, *memory)
