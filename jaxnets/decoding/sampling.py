"""Text from a language model, token by token."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import refuse
from jaxnets.core.compiled import computed
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, check_positive, concrete, labeled_as
from jaxnets.core.net import Key, Net, Params, State, check_key
from jaxnets.core.padded import Padded, check_padded


def sample(
    net: Net,
    params: Params,
    state: State,
    prompt: Any,
    steps: int,
    *,
    key: Key | None = None,
    temperature: Any = 1.0,
    top_k: int | None = None,
    carry: Any = None,
) -> jax.Array:
    """Return tokens that follow a prompt, each drawn from p_k ∝ exp(o_k / τ) given all before it.

    o are the network's logits and τ is the temperature. Each example goes on from its own last real token. Example
    i draws from the key folded by i, then by the number of the token, so that its text doesn't depend on its
    neighbors. The loop is one compiled scan; the function itself may be jitted and mapped.

    Args:
        net: a network from `(tokens, carry)` to `(logits, carry)`, such as `jn.models.language_model`.
        params: its parameters.
        state: its state.
        prompt: integers `(batch, time)`, an array or `Padded`, at least one token an example.
        steps: how many tokens follow.
        key: needed unless the temperature is known to be 0.
        temperature: τ ≥ 0: below 1 likelier tokens gain, at 0 the likeliest is always taken. May be traced.
        top_k: how many of the likeliest tokens are drawn from; all if not given.
        carry: what the network remembers from before the prompt; nothing if not given.

    Returns:
        The tokens that follow, without the prompt: `(batch, steps)`, int32.

    Raises:
        NetError: for an empty prompt or a token out of range where they are known, a negative temperature,
            `top_k` outside 1 … vocabulary, no key, or a network that gives no `(logits, carry)`.

    Graves, "Generating Sequences With Recurrent Neural Networks" (2013); top-k: Fan et al. (2018).

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = jn.models.language_model(27, 8, cell=jn.gru_cell)
    >>> prompt = jn.Padded(jnp.array([[1, 2, 3], [4, 0, 0]]), jnp.array([3, 1]))
    >>> params, state = net.init(jax.random.key(0), prompt)
    >>> sample(net, params, state, prompt, 5, key=jax.random.key(1), temperature=0.8, top_k=10).shape
    (2, 5)
    """
    with labeled_as("generate"):
        check_count("steps", steps)
        check_positive("temperature", temperature, zero=True)
        if top_k is not None:
            check_count("top_k", top_k)
        if key is None and concrete(temperature) != 0.0:
            raise NetError("draws tokens and needs a key, got none; pass key=, or temperature=0 for the likeliest")
        key = jax.random.key(0) if key is None else key  # any will do where nothing is drawn
        check_key(key)
        last = _check_prompt(prompt)
        read, _ = net.apply(params, state, (prompt, carry))
        if not isinstance(read, tuple) or len(read) != 2:
            raise NetError(f"expects a network from (tokens, carry) to (logits, carry), got {net.label}")
        logits = read[0].values if isinstance(read[0], Padded) else read[0]
        if top_k is not None and top_k > logits.shape[-1]:
            raise NetError(f"expects top_k ≤ {logits.shape[-1]}, the vocabulary, got {top_k}")
    rows = jnp.arange(logits.shape[0])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
    start = logits[rows, last], read[1]
    return computed(_draw_on, [net, steps, top_k], params, state, start, keys, jnp.asarray(temperature))


def _draw_on(
    net: Net, steps: int, top_k: int | None, params: Params, state: State, start: Any, keys: Key, temperature: Any
) -> jax.Array:
    def one(carried: tuple[jax.Array, Any], step: jax.Array) -> tuple[tuple[jax.Array, Any], jax.Array]:
        logits, carry = carried  # (batch, vocabulary)
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
        tokens = _draw(own, logits.astype(param_dtype(logits)), temperature, top_k)
        (logits, carry), _ = net.apply(params, state, (tokens[:, None], carry))
        return (logits[:, 0], carry), tokens

    _, tokens = jax.lax.scan(one, start, jnp.arange(steps))  # (steps, batch)
    return tokens.T


def _draw(keys: Key, logits: jax.Array, temperature: jax.Array, top_k: int | None) -> jax.Array:
    best = logits.argmax(axis=-1)
    if top_k is not None:
        values, places = jax.lax.top_k(logits, top_k)
        logits = jnp.put_along_axis(jnp.full_like(logits, -jnp.inf), places, values, axis=-1, inplace=False)
    below = logits - logits.max(axis=-1, keepdims=True)  # the best stays 0 however small the temperature
    scale = jnp.where(temperature > 0, temperature, 1).astype(below.dtype)
    drawn = jax.vmap(jax.random.categorical)(keys, below / scale)
    return jnp.where(temperature > 0, drawn, best).astype(jnp.int32)


def _check_prompt(prompt: Any) -> Any:
    """Return where each example's last token stands."""
    values = prompt.values if isinstance(prompt, Padded) else prompt
    if len(jnp.shape(values)) != 2 or not jnp.shape(values)[1]:
        raise NetError(f"expects a prompt (batch, time) of at least one token, got {jnp.shape(values)}")
    if not isinstance(prompt, Padded):
        return -1
    check_padded(prompt)
    time = jnp.shape(values)[1]
    refuse(prompt.lengths, lambda n: (n < 1) | (n > time), f"expects prompts of 1 to {time} tokens, got {{}}")
    return jnp.asarray(prompt.lengths) - 1
