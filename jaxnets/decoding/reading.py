"""How a language model reads: whole prompts at once, then token by token with a carry."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.cache import batch_of, grow
from jaxnets.core.checks import refuse
from jaxnets.core.compiled import computed
from jaxnets.core.errors import NetError, check_count, known, labeled_as, shown
from jaxnets.core.net import Net, Params, State
from jaxnets.core.padded import Padded, check_padded
from jaxnets.layers.inputs import refuse_packed


def prefill(
    net: Net, params: Params, state: State, prompts: Any, *, steps: int = 0, carry: Any = None
) -> tuple[jax.Array, Any]:
    """Read prompts, and return the logits after the last token of each, and the carry there.

    Args:
        net: a network from `(tokens, carry)` to `(logits, carry)`: `jn.models.gpt2`, `jn.models.language_model`, or
            any in `jn.cached`.
        params: the network's parameters.
        state: the network's state.
        prompts: integers `(batch, time)`, an array or `Padded`, at least one token per example.
        steps: for how many tokens after the prompts the carry has room.
        carry: what was read before the prompts. Default: nothing.

    Returns:
        Logits `(batch, vocabulary)`, and the carry for `step`.

    Raises:
        NetError: for an empty prompt or a token out of range, if known; more tokens than the network can read; or a
            network that does not return `(logits, carry)`.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = jn.models.gpt2("small", vocabulary=11, length=8, layers=2, heads=2, features=8)
    >>> prompts = jn.Padded(jnp.array([[1, 2, 3], [4, 0, 0]]), jnp.array([3, 1]))
    >>> params, state = net.init(jax.random.key(0), prompts)
    >>> logits, carry = prefill(net, params, state, prompts, steps=5)
    >>> logits, carry = step(net, params, state, logits.argmax(-1), carry)
    >>> logits.shape
    (2, 11)
    """
    with labeled_as("prefill"):
        if steps != 0:
            check_count("steps", steps)
        refuse_packed(prompts, "each row is continued as one text")
        last = _last_places(prompts)
        if carry is None:
            check_room(net, params, state, prompts, steps)
        given = carry
        logits, carry = computed(_prefill, [net, steps], params, state, prompts, last, carry)
        # Tokens or positions out of range, which a compiled program can't refuse, become NaN: find what says so.
        if (values := known(logits)) is not None and jnp.isnan(values).any():
            net.apply(params, state, (prompts, given))
    return logits, carry


def step(net: Net, params: Params, state: State, tokens: jax.Array, carry: Any) -> tuple[jax.Array, Any]:
    """Read one token of each example, `(batch,)`, and return the logits of the next and the new carry.

    Args:
        net: as for `prefill`.
        params: the network's parameters.
        state: the network's state.
        tokens: integers `(batch,)`.
        carry: that of `prefill` or of the step before; at the start, what the network takes there.

    Returns:
        Logits `(batch, vocabulary)`, and the new carry.

    Raises:
        NetError: for a network that does not return `(logits, carry)`, or a carry of another network or batch.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, tokens = jn.models.llama(11, 8, layers=1, heads=2), jnp.array([[1, 2, 3]])
    >>> params, state = net.init(jax.random.key(0), tokens)
    >>> _, carry = prefill(net, params, state, tokens[:, :2], steps=1)
    >>> logits, _ = step(net, params, state, tokens[:, 2], carry)
    >>> bool(jnp.allclose(logits, net.apply(params, state, tokens)[0][:, 2], atol=1e-6))
    True
    """
    if jnp.ndim(tokens) != 1:
        raise NetError(f"expects tokens (batch,), one for each example, got {np.shape(tokens)}", label="step")
    # A sequence of length 1: tokens (batch, 1), logits (batch, 1, vocabulary).
    logits, carry = _pair(net, net.apply(params, state, (jnp.asarray(tokens)[:, None], carry))[0])
    return logits[:, 0], carry


def begun(net: Net, params: Params, state: State, carry: Any, steps: int) -> Any:
    """Return the carry of a decoder before its first token, with room for `steps` of them."""
    empty = jnp.zeros((batch_of(carry), 0), jnp.int32)
    # Nothing is read but what the decoder keeps of its memory.
    return grow(net.apply(params, state, (empty, carry))[0][1], steps)


def _prefill(
    net: Net, steps: int, params: Params, state: State, prompts: Any, last: Any, carry: Any
) -> tuple[jax.Array, Any]:
    if carry is not None:
        carry = grow(carry, np.shape(prompts.values if isinstance(prompts, Padded) else prompts)[1] + steps)
    logits, after = _pair(net, net.apply(params, state, (prompts, carry))[0])
    # (batch, time, vocabulary)
    logits = logits.values if isinstance(logits, Padded) else logits
    after_prompts = logits[jnp.arange(len(logits)), last]
    if isinstance(prompts, Padded):
        # An empty prompt that is traced, and so can't be refused, must not give a number of its padding.
        after_prompts = jnp.where((last >= 0)[:, None], after_prompts, jnp.nan)
    return after_prompts, grow(after, steps) if carry is None else after


def _pair(net: Net, outputs: Any) -> tuple[Any, Any]:
    if not isinstance(outputs, tuple) or len(outputs) != 2:
        hint = "; jn.cached(net) makes one of a transformer"
        raise NetError(f"expects a network from (tokens, carry) to (logits, carry), got {net.label}{hint}")
    return outputs


def check_room(net: Net, params: Params, state: State, prompts: Any, steps: int) -> None:
    """Raise if prompts and the steps after them are more than the network can read; nothing is computed."""
    batch, time = np.shape(prompts.values if isinstance(prompts, Padded) else prompts)
    whole = jax.ShapeDtypeStruct((batch, time + steps), jnp.int32)
    jax.eval_shape(net.apply, params, state, (whole, None))


def _last_places(prompts: Any) -> Any:
    """Check the prompts, and return the index of each one's last token."""
    values = prompts.values if isinstance(prompts, Padded) else prompts
    if not hasattr(values, "shape"):
        raise NetError(f"expects prompts as an array (batch, time) or Padded, got {shown(values)}; use jnp.asarray")
    if len(np.shape(values)) != 2 or not np.shape(values)[1]:
        raise NetError(f"expects prompts (batch, time) of at least one token, got {np.shape(values)}")
    if not isinstance(prompts, Padded):
        return jnp.full(1, -1)
    check_padded(prompts)
    time = np.shape(values)[1]
    refuse(prompts.lengths, lambda n: (n < 1) | (n > time), f"expects prompts of 1 to {time} tokens, got {{}}")
    return jnp.asarray(prompts.lengths) - 1
