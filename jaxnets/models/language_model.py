"""A recurrent language model, which predicts the next token."""

from collections.abc import Callable
from typing import Any

import jax

from jaxnets.combinators.serial import build_child
from jaxnets.combinators.tied import tied
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.net import Key, Net, Params, State, apply_child, compose
from jaxnets.layers import dense, embed, lstm_cell
from jaxnets.layers import dropout as dropout_layer
from jaxnets.models.recurrent import MakeCell, recurrent_stack


@explained
def language_model(
    vocabulary: int,
    hidden: int,
    *,
    cell: MakeCell = lstm_cell,
    layers: int = 1,
    embedding: int | None = None,
    dropout: Any = 0.0,
    tie_weights: bool = False,
) -> Net:
    """Return a network that returns, for each token, the logits of the next one: p(x_{t+1} | x_1 … x_t).

    Tokens are integers `(batch, time)` in [0, vocabulary), an array or `Padded`; logits are
    `(batch, time, vocabulary)`. The carry is explicit: for an input `(tokens, carry)` the output is `(logits, carry)`,
    where a carry of `None` is the start of a text. So a long text can be learned piece by piece, and
    `jn.decoding.sample` continues a prompt. The loss is `jn.losses.sequence(jn.losses.cross_entropy)` with the next
    tokens as targets; its exponential is the perplexity.

    The children are `embedding`, `dropout1`, `rnn`, `dropout2`, `fc`. The weights are those of a PyTorch module with
    the recurrent attribute `rnn`: those of layer k under `rnn/k`, of a single layer under `rnn`.

    Args:
        vocabulary: the number of tokens.
        hidden: the width of the cells.
        cell: a function from a width to a cell: `jn.lstm_cell`, `jn.gru_cell`, `jn.rnn_cell`, or a custom one.
        layers: the number of recurrent layers.
        embedding: the width of a token's embedding. Default: `hidden`.
        dropout: the rate in [0, 1) before, between and after the layers, never along time. May be traced.
        tie_weights: whether the embedding table is also the kernel of `fc`, which then has only a bias; the widths must
            be equal. The table is initialized with a scale that suits logits.

    Raises:
        NetError: for a size below 1, a rate outside [0, 1), tied weights of different widths, or an input that is
            neither tokens nor `(tokens, carry)`.

    Mikolov, Karafiát, Burget, Černocký and Khudanpur, "Recurrent neural network based language model" (2010);
    Zaremba, Sutskever and Vinyals, "Recurrent Neural Network Regularization" (2014), for where dropout acts; Press
    and Wolf, "Using the Output Embedding to Improve Language Models" (2017), for tied weights.

    >>> import jax, jax.numpy as jnp
    >>> net, tokens = language_model(27, 8), jnp.ones((2, 5), int)
    >>> params, state = net.init(jax.random.key(0), tokens)
    >>> logits, _ = net.apply(params, state, tokens)
    >>> (first, carry), _ = net.apply(params, state, (tokens[:, :3], None))
    >>> (second, _), _ = net.apply(params, state, (tokens[:, 3:], carry))
    >>> logits.shape, bool(jnp.allclose(logits, jnp.concatenate([first, second], 1), atol=1e-6))
    ((2, 5, 27), True)
    """
    width = hidden if embedding is None else embedding
    with labeled_as("language_model"):
        if tie_weights and width != hidden:
            raise NetError(f"expects embedding equal to hidden to tie weights, got {width} and {hidden}")
        init = {"embedding_init": jax.nn.initializers.normal(width**-0.5)} if tie_weights else {}
        children = {
            "embedding": embed(vocabulary, width, **init),
            "dropout1": dropout_layer(dropout),
            "rnn": recurrent_stack(cell, hidden, layers, dropout, return_carry=True),
            "dropout2": dropout_layer(dropout),
            "fc": dense(vocabulary),
        }

    def run(x: Any, child: Callable[[str, Any], Any]) -> Any:
        pair = isinstance(x, tuple)
        if pair and len(x) != 2:
            raise NetError(f"expects tokens or (tokens, carry), got a tuple of {len(x)}", label="language_model")
        x, carry = x if pair else (x, None)
        x, carry = child("rnn", (child("dropout1", child("embedding", x)), carry))
        logits = child("fc", child("dropout2", x))
        return (logits, carry) if pair else logits

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        params: dict[str, Any] = {}
        y = run(x, lambda name, x: build_child(children[name], name, key, x, params, {}))
        return params, {}, y

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        def child(name: str, x: Any) -> Any:
            return apply_child(children[name], name, params, state, x, key=key, train=train)[0]

        return run(x, child), state

    net = compose(build, apply, label="language_model", children=children)
    return tied(net, {"fc/kernel": "embedding/embedding"}) if tie_weights else net
