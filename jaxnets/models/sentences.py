"""Encoders of sentences, their classifiers, and the comparison of two sentences."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxnets.combinators.graph import graph
from jaxnets.combinators.serial import build_child, serial
from jaxnets.core.errors import NetError, check_count, labeled_as, shown
from jaxnets.core.keywords import explained
from jaxnets.core.layer import as_net
from jaxnets.core.net import Key, Net, Params, State, apply_child, compose
from jaxnets.core.packed import Packed
from jaxnets.core.padded import Padded
from jaxnets.layers import dense, embed, lstm_cell
from jaxnets.layers import dropout as dropout_layer
from jaxnets.models.recurrent import MakeCell, recurrent_stack

Pool = Literal["attention", "max", "mean"]


@explained
def sentence_encoder(
    vocabulary: int,
    hidden: int | None,
    num_classes: int | None = None,
    *,
    pool: Pool = "attention",
    scores: int | None = None,
    layers: int = 1,
    bidirectional: bool = True,
    dropout: Any = 0.0,
    embedding: int | None = None,
    cell: MakeCell = lstm_cell,
) -> Net:
    """Return a network from the words of a sentence to its features, or to the logits of classes.

    Words are integers `(batch, time)` in [0, vocabulary), an array or `Padded`. An LSTM reads their embeddings, in both
    directions by default, and its outputs h_1 … h_T are pooled over time, padding left out:

    - "attention": y = Σ_t a_t h_t, where a is the softmax over time of v · tanh(W h_t + b);
    - "max": the largest of each feature; "mean": their mean.

    Without a recurrent network, `hidden=None`, the embeddings are pooled: with "mean" this is a bag of words, which
    does not see the order of the words. A sentence without any word has the features 0. The children are `embedding`,
    `lstm`, `pool` with `hidden` and `score` inside, `dropout`, `fc`.

    Args:
        vocabulary: the number of words.
        hidden: the width of the cells, in each direction; `None` for none.
        num_classes: the number of logits; without it the output is the features, `(batch, features)`.
        pool: how the steps become one vector.
        scores: the width of W h + b for "attention". Default: that of its input, or of `hidden`.
        layers: the number of recurrent layers.
        bidirectional: whether each layer has a second cell that runs backward.
        dropout: the rate in [0, 1) between the layers and before the output. May be traced.
        embedding: the width of a word's embedding. Default: `hidden`.
        cell: a function from a width to a cell.

    Raises:
        NetError: for another `pool`; neither `hidden` nor `embedding`; a size below 1, or a rate out of range; when
            called, for `Packed` rows.

    Yang et al., "Hierarchical Attention Networks for Document Classification" (2016), section 2.2, for "attention";
    Conneau et al., "Supervised Learning of Universal Sentence Representations" (2017), section 3.2, for "max"; Joulin
    et al., "Bag of Tricks for Efficient Text Classification" (2017), for the bag of words.

    >>> import jax, jax.numpy as jnp
    >>> net, words = sentence_encoder(100, 16, 2), jnp.ones((3, 7), int)
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), words)
    >>> jax.eval_shape(net.apply, params, state, words)[0].shape, params["pool"]["hidden"]["kernel"].shape
    ((3, 2), (32, 16))
    """
    with labeled_as("sentence_encoder"):
        width = embedding if embedding is not None else hidden
        if width is None:
            raise NetError("expects hidden, the width of the cells, or embedding, that of a word, got neither")
        if pool not in ("attention", "max", "mean"):
            raise NetError(f"expects pool 'attention', 'max' or 'mean', got {pool!r}")
        if scores is not None:
            if pool != "attention":
                raise NetError(f"takes scores for pool='attention' alone, got {pool!r}")
            check_count("scores", scores)
        children: dict[str, Any] = {"embedding": embed(vocabulary, width)}
        if hidden is not None:
            children["lstm"] = recurrent_stack(cell, hidden, layers, dropout, bidirectional)
        children["pool"] = attention_pool(scores or hidden or width) if pool == "attention" else _POOLS[pool]
        children["dropout"] = dropout_layer(dropout)
        return serial(**children) if num_classes is None else serial(**children, fc=dense(num_classes))


def attention_pool(hidden: int) -> Net:
    """Return the sum of a sequence's steps, weighted by attention: `(batch, time, features)` to `(batch, features)`.

    y = Σ_t a_t h_t with a = softmax over the real steps of v · tanh(W h_t + b); 0 for a sequence without steps. The
    children are `hidden`, W and b, and `score`, v. The softmax is computed in float32 or wider.
    """
    return graph(
        hidden=(dense(hidden), "input"), tanh=jnp.tanh, score=dense(1, use_bias=False), sum=(_attend, "score", "input")
    )


def _attend(pair: tuple[Any, Any]) -> jax.Array:
    scores, x = pair
    values, mask = _steps(x)
    scores = _steps(scores)[0].astype(jnp.promote_types(values.dtype, jnp.float32))  # (batch, time, 1)
    # The least finite number, since a row of -inf would have the softmax NaN.
    shares = jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(scores.dtype).min), axis=1)
    return (jnp.where(mask, shares, 0).astype(values.dtype) * values).sum(1)


def _max(x: Any) -> jax.Array:
    values, mask = _steps(x)
    if not values.shape[1]:
        return values.sum(1)
    largest = jnp.where(mask, values, jnp.finfo(values.dtype).min).max(1)
    return jnp.where(mask.any(1), largest, 0)


def _mean(x: Any) -> jax.Array:
    values, mask = _steps(x)
    return values.sum(1) / jnp.maximum(mask.sum(1), 1).astype(values.dtype)


def _steps(x: Any) -> tuple[jax.Array, jax.Array]:
    """Return the values `(batch, time, features)`, 0 for padding, and which steps are real `(batch, time, 1)`."""
    if isinstance(x, Packed):
        raise NetError("pools a whole row, got Packed documents; give each its own row, jn.Padded")
    if isinstance(x, Padded):
        return x.zeroed(), x.mask[..., None]
    return jnp.asarray(x), jnp.ones((*x.shape[:2], 1), bool)


def _whole(name: str, function: Callable[[Any], jax.Array]) -> Net:
    """Return the network that gives a function the `Padded` itself."""

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        return function(x), state

    return Net(lambda key, x: ({}, {}), apply, name)


_POOLS = {"max": _whole("max_over_time", _max), "mean": _whole("mean_over_time", _mean)}


@explained
def siamese(
    encoder: Net, num_classes: int, *, hidden: int | None = None, activation: Callable[[Any], Any] = jnp.tanh
) -> Net:
    """Return a network that compares two inputs by the features u and v that one encoder gives them.

    The logits are a map of (u, v, |u − v|, u v), through a hidden layer if `hidden` is given. The input is a pair of
    whatever the encoder reads. Both are read with the same parameters; the state, if there is one, passes from the
    first to the second. The children are `encoder` and `classifier`, with `hidden` and `fc` inside.

    Args:
        encoder: a network to features `(batch, features)`, such as `jn.models.sentence_encoder`.
        num_classes: the number of logits.
        hidden: the width of a hidden layer.
        activation: of the hidden layer.

    Raises:
        NetError: for a size below 1; at a call, for an input that is not a pair, or features of other than two axes.

    Conneau et al., "Supervised Learning of Universal Sentence Representations from Natural Language Inference Data"
    (2017), section 3.1.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = siamese(jn.models.sentence_encoder(50, 8, pool="max"), 3, hidden=10)
    >>> pair = jnp.ones((4, 6), int), jnp.ones((4, 9), int)
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), pair)
    >>> jax.eval_shape(net.apply, params, state, pair)[0].shape, params["classifier"]["hidden"]["kernel"].shape
    ((4, 3), (64, 10))
    """
    with labeled_as("siamese"):
        encoder = as_net(encoder)
        classifier = (
            serial(fc=dense(num_classes))
            if hidden is None
            else serial(hidden=dense(hidden), activation=activation, fc=dense(num_classes))
        )

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        first, second = _pair(x)
        params: dict[str, Any] = {}
        state: dict[str, Any] = {}
        u = build_child(encoder, "encoder", key, first, params, state)
        v = jax.eval_shape(
            lambda p, s, x: encoder.apply(p, s, x)[0], params.get("encoder", {}), state.get("encoder", {}), second
        )
        y = build_child(classifier, "classifier", key, jax.eval_shape(_compared, u, v), params, state)
        return params, state, y

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        first, second = _pair(x)
        keys = (None, None) if key is None else jax.random.split(key)
        features, new_state = [], dict(state)
        for each, own in zip((first, second), keys, strict=True):
            y, inner = apply_child(encoder, "encoder", params, new_state, each, key=own, train=train)
            new_state |= {"encoder": inner} if inner else {}
            features.append(y)
        y, _ = apply_child(classifier, "classifier", params, state, _compared(*features), key=key, train=train)
        return y, new_state

    return compose(build, apply, label="siamese", children={"encoder": encoder, "classifier": classifier})


def _pair(pair: Any) -> Any:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise NetError(f"expects a pair of inputs to compare, got {shown(pair)}", label="siamese")
    return pair


def _compared(u: Any, v: Any) -> jax.Array:
    for each in (u, v):
        if isinstance(each, Padded) or len(each.shape) != 2:
            raise NetError(
                f"expects an encoder to features (batch, features), got {shown(each)}; pool over time", label="siamese"
            )
    return jnp.concatenate([u, v, jnp.abs(u - v), u * v], -1)
