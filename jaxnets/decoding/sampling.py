"""Sample text from a language model, token by token."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import refuse
from jaxnets.core.compiled import computed
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, check_positive, concrete, labeled_as
from jaxnets.core.net import Key, Net, Params, State, check_key
from jaxnets.core.padded import Padded, check_padded
from jaxnets.layers.inputs import refuse_packed


def sample(
    net: Net,
    params: Params,
    state: State,
    prompts: Any,
    steps: int,
    *,
    key: Key | None = None,
    temperature: Any = 1.0,
    top_k: int | None = None,
    carry: Any = None,
) -> jax.Array:
    """Continue prompts by drawing each token from p_k ∝ exp(o_k / τ), given all tokens before it.

    o are the network's logits and τ is the temperature. Each example continues after its last real token. Token t of
    example i is drawn with `fold_in(fold_in(key, i), t)`, so a text does not depend on the others in the batch.
    The loop is one compiled scan. The function can be jitted, and mapped over keys, temperatures and parameters.

    Args:
        net: a network from `(tokens, carry)` to `(logits, carry)`, for example `jn.models.language_model`.
        params: the network's parameters.
        state: the network's state.
        prompts: integers `(batch, time)`, an array or `Padded`, at least one token per example.
        steps: the number of tokens to draw.
        key: required unless the temperature is known to be 0.
        temperature: τ ≥ 0. Below 1 sharpens the distribution; 0 always takes the most probable token. May be traced.
        top_k: the number of most probable tokens to draw from. Default: all.
        carry: the network's carry before the prompts. Default: the start of a text.

    Returns:
        The tokens after the prompts, `(batch, steps)` int32.

    Raises:
        NetError: for an empty prompt or a token out of range, if known; a negative temperature; `top_k` outside
            1 … vocabulary; no key; or a network that does not return `(logits, carry)`.

    Graves, "Generating Sequences With Recurrent Neural Networks" (2013); Fan et al. (2018) for top-k.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = jn.models.language_model(27, 8, cell=jn.gru_cell)
    >>> prompts = jn.Padded(jnp.array([[1, 2, 3], [4, 0, 0]]), jnp.array([3, 1]))
    >>> params, state = net.init(jax.random.key(0), prompts)
    >>> sample(net, params, state, prompts, 5, key=jax.random.key(1), temperature=0.8, top_k=10).shape
    (2, 5)
    """
    with labeled_as("sample"):
        check_count("steps", steps)
        check_positive("temperature", temperature, zero=True)
        if top_k is not None:
            check_count("top_k", top_k)
        if key is None and concrete(temperature) != 0.0:
            raise NetError("draws tokens and needs a key, got none; pass key=, or temperature=0 for the most probable")
        # At temperature 0 nothing depends on the key.
        key = jax.random.key(0) if key is None else key
        check_key(key)
        refuse_packed(prompts, "each row is continued as one text")
        last = _last_places(prompts)
        outputs, _ = net.apply(params, state, (prompts, carry))
        if not isinstance(outputs, tuple) or len(outputs) != 2:
            raise NetError(f"expects a network from (tokens, carry) to (logits, carry), got {net.label}")
        # (batch, time, vocabulary)
        logits = outputs[0].values if isinstance(outputs[0], Padded) else outputs[0]
        if top_k is not None and top_k > logits.shape[-1]:
            raise NetError(f"expects top_k ≤ {logits.shape[-1]}, the vocabulary, got {top_k}")
    rows = jnp.arange(logits.shape[0])
    # One key per example.
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
    # The logits after each prompt's last token, (batch, vocabulary), and the carry there.
    first = logits[rows, last], outputs[1]
    return computed(_sample, [net, steps, top_k], params, state, first, keys, jnp.asarray(temperature))


def _last_places(prompts: Any) -> Any:
    """Check the prompts, and return the index of each one's last token."""
    values = prompts.values if isinstance(prompts, Padded) else prompts
    if len(jnp.shape(values)) != 2 or not jnp.shape(values)[1]:
        raise NetError(f"expects prompts (batch, time) of at least one token, got {jnp.shape(values)}")
    if not isinstance(prompts, Padded):
        return -1
    check_padded(prompts)
    time = jnp.shape(values)[1]
    refuse(prompts.lengths, lambda n: (n < 1) | (n > time), f"expects prompts of 1 to {time} tokens, got {{}}")
    return jnp.asarray(prompts.lengths) - 1


def _sample(
    net: Net, steps: int, top_k: int | None, params: Params, state: State, first: Any, keys: Key, temperature: Any
) -> jax.Array:
    def sample_token(loop: tuple[jax.Array, Any], step: jax.Array) -> tuple[tuple[jax.Array, Any], jax.Array]:
        # logits: (batch, vocabulary)
        logits, carry = loop
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
        tokens = _draw(step_keys, logits.astype(param_dtype(logits)), temperature, top_k)
        # A sequence of length 1: tokens (batch, 1), logits (batch, 1, vocabulary).
        (logits, carry), _ = net.apply(params, state, (tokens[:, None], carry))
        return (logits[:, 0], carry), tokens

    # (steps, batch)
    _, tokens = jax.lax.scan(sample_token, first, jnp.arange(steps))
    return tokens.T


def _draw(keys: Key, logits: jax.Array, temperature: jax.Array, top_k: int | None) -> jax.Array:
    """Draw one token `(batch,)` from logits `(batch, vocabulary)`, with one key per row."""
    best = logits.argmax(axis=-1)
    if top_k is not None:
        # Mask all but the k largest with −∞.
        values, places = jax.lax.top_k(logits, top_k)
        logits = jnp.put_along_axis(jnp.full_like(logits, -jnp.inf), places, values, axis=-1, inplace=False)
    # The largest logit becomes 0, and remains 0 however small the temperature is.
    shifted = logits - logits.max(axis=-1, keepdims=True)
    # At temperature 0 the draw is discarded; dividing by 1 keeps it free of NaN.
    scale = jnp.where(temperature > 0, temperature, 1).astype(shifted.dtype)
    drawn = jax.vmap(jax.random.categorical)(keys, shifted / scale)
    return jnp.where(temperature > 0, drawn, best).astype(jnp.int32)
