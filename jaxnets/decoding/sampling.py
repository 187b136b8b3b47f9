"""Sample text from a language model, token by token: as one compiled loop, or step by step for a reader."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.cache import grow
from jaxnets.core.compiled import computed
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, check_positive, concrete, labeled_as
from jaxnets.core.net import Key, Net, Params, State, check_key
from jaxnets.core.padded import Padded
from jaxnets.decoding.filters import check_filters, filtered, penalized
from jaxnets.decoding.reading import check_room, prefill, step

ROOM = 64
"""For how many tokens `stream` makes room in the carry at first."""


class _Static(NamedTuple):
    """What the program of a step depends on."""

    net: Net
    top_k: int | None
    stop: tuple[int, ...]


class _Options(NamedTuple):
    """Numbers of a distribution, `None` for those not used."""

    temperature: Any
    top_p: Any
    min_p: Any
    repetition_penalty: Any


class _Loop(NamedTuple):
    """What a step passes to the next: logits and, with a penalty, seen tokens, both `(batch, vocabulary)`."""

    place: jax.Array
    logits: jax.Array
    carry: Any
    seen: jax.Array | None
    # The stop token that ended an example, -1 before. (batch,)
    ended: jax.Array


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
    top_p: Any = None,
    min_p: Any = None,
    repetition_penalty: Any = None,
    stop: int | Sequence[int] = (),
    carry: Any = None,
) -> jax.Array:
    """Continue prompts by drawing each token from p_k ∝ exp(o_k / τ), given all tokens before it.

    o are the network's logits and τ is the temperature. Each example continues after its last real token. Token t of
    example i is drawn with `fold_in(fold_in(key, i), t)`, so a text does not depend on the others in the batch.
    The loop is one compiled scan, or with `stop` one that ends when all examples have. The function can be jitted, and
    mapped over keys, temperatures and parameters. Options restrict the distribution in the order of the arguments,
    after the penalty.

    Args:
        net: a network from `(tokens, carry)` to `(logits, carry)`, for example `jn.models.gpt2` or
            `jn.models.language_model`; `jn.cached` makes one.
        params: the network's parameters.
        state: the network's state.
        prompts: integers `(batch, time)`, an array or `Padded`, at least one token per example.
        steps: the number of tokens to draw.
        key: required unless the temperature is known to be 0.
        temperature: τ ≥ 0. Below 1 sharpens the distribution; 0 always takes the most probable token. May be traced.
        top_k: the number of most probable tokens to draw from. Default: all.
        top_p: draws only from the fewest most probable tokens whose probabilities reach this sum, in [0, 1]. May be
            traced.
        min_p: draws only from tokens of at least this fraction of the largest probability, in [0, 1]. May be traced.
        repetition_penalty: θ > 0: positive logits of tokens that the example has are divided by θ, negative ones
            multiplied. May be traced.
        stop: tokens that end an example, which it then repeats.
        carry: the network's carry before the prompts. Default: the start of a text.

    Returns:
        The tokens after the prompts, `(batch, steps)` int32; -1 where the logits are NaN.

    Raises:
        NetError: for an empty prompt or a token out of range, if known; more tokens than the network can read; an
            option out of range; no key; or a network that does not return `(logits, carry)`.

    Graves, "Generating Sequences With Recurrent Neural Networks" (2013); Fan et al. (2018) for top-k; Holtzman et al.,
    "The Curious Case of Neural Text Degeneration" (2020), for top-p; Keskar et al., "CTRL" (2019), section 4.1, for the
    penalty; values as those of Hugging Face's `generate`.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = jn.models.language_model(27, 8, cell=jn.gru_cell)
    >>> prompts = jn.Padded(jnp.array([[1, 2, 3], [4, 0, 0]]), jnp.array([3, 1]))
    >>> params, state = net.init(jax.random.key(0), prompts)
    >>> sample(net, params, state, prompts, 5, key=jax.random.key(1), temperature=0.8, top_k=10).shape
    (2, 5)
    """
    with labeled_as("sample"):
        check_count("steps", steps)
        static, options, keys = _checked(net, prompts, key, stop, temperature, top_k, top_p, min_p, repetition_penalty)
        logits, carry = prefill(net, params, state, prompts, steps=steps, carry=carry)
        first = _first(static, logits, carry, prompts, options)
        return computed(_sample, [static, steps], params, state, first, keys, options)


def stream(
    net: Net,
    params: Params,
    state: State,
    prompts: Any,
    steps: int | None = None,
    *,
    key: Key | None = None,
    temperature: Any = 1.0,
    top_k: int | None = None,
    top_p: Any = None,
    min_p: Any = None,
    repetition_penalty: Any = None,
    stop: int | Sequence[int] = (),
    carry: Any = None,
) -> Iterator[np.ndarray]:
    """Yield the tokens that `sample` draws as soon as they are drawn, `(batch,)` int32 at a time.

    Each step is one call of a compiled function; the carry is doubled when it is full. It ends after `steps` tokens, or
    when all examples have met a stop token.

    Args:
        net: as for `sample`, like all that follow.
        params: see there.
        state: see there.
        prompts: see there.
        steps: the largest number of tokens; `None` for no limit but that of the network.
        key: see there.
        temperature: see there.
        top_k: see there.
        top_p: see there.
        min_p: see there.
        repetition_penalty: see there.
        stop: see there.
        carry: see there.

    Raises:
        NetError: as `sample`, at the call; and at the first token that is not drawn because logits are NaN.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, prompts = jn.models.language_model(27, 8, cell=jn.gru_cell), jnp.array([[1, 2, 3]])
    >>> params, state = net.init(jax.random.key(0), prompts)
    >>> tokens = stream(net, params, state, prompts, 5, temperature=0)
    >>> bool((sample(net, params, state, prompts, 5, temperature=0)[0] == jnp.array([int(t[0]) for t in tokens])).all())
    True
    """
    with labeled_as("stream"):
        if steps is not None:
            check_count("steps", steps)
        static, options, keys = _checked(net, prompts, key, stop, temperature, top_k, top_p, min_p, repetition_penalty)
        room = ROOM if steps is None else min(ROOM, steps)
        if steps is not None and carry is None:
            check_room(net, params, state, prompts, steps)
        logits, carry = prefill(net, params, state, prompts, carry=carry)
        first = _first(static, logits, grow(carry, room), prompts, options)
        return _stream(static, params, state, first, keys, options, steps, room)


def _stream(
    static: _Static, params: Params, state: State, loop: _Loop, keys: Key, options: _Options, steps: Any, room: int
) -> Iterator[np.ndarray]:
    done = 0
    while steps is None or done < steps:
        if done == room:
            loop, room = loop._replace(carry=grow(loop.carry, room)), 2 * room
        loop, tokens = computed(_one, [static], params, state, loop, keys, options)
        tokens, done = np.asarray(tokens), done + 1
        if (tokens < 0).any():
            raise NetError(f"can't draw token {done}: its logits are NaN; the text may be too long", label="stream")
        yield tokens
        if static.stop and bool((loop.ended >= 0).all()):
            return


def _checked(
    net: Net, prompts: Any, key: Any, stop: Any, temperature: Any, top_k: Any, *others: Any
) -> tuple[_Static, _Options, Key]:
    """Return the checked options, and one key for each example."""
    check_positive("temperature", temperature, zero=True)
    check_filters(top_k, *others)
    if key is None and concrete(temperature) != 0.0:
        raise NetError("draws tokens and needs a key, got none; pass key=, or temperature=0 for the most probable")
    # At temperature 0 nothing depends on the key.
    key = jax.random.key(0) if key is None else key
    check_key(key)
    many = isinstance(stop, Sequence | np.ndarray | jax.Array) and not (isinstance(stop, str) or np.shape(stop) == ())
    stops: tuple[Any, ...] = tuple(stop) if many else (stop,)
    for token in stops:
        if isinstance(token, bool) or not hasattr(token, "__index__") or token < 0:
            raise NetError(f"expects tokens ≥ 0 for stop, integers, got {token!r}")
    values = prompts.values if isinstance(prompts, Padded) else prompts
    shape = getattr(values, "shape", ())
    rows = jnp.arange(shape[0] if shape else 1)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
    return _Static(net, top_k, tuple(map(int, stops))), _Options(jnp.asarray(temperature), *others), keys


def _first(static: _Static, logits: jax.Array, carry: Any, prompts: Any, options: _Options) -> _Loop:
    # Only the logits show the size of the vocabulary.
    if max(static.stop, default=0) >= logits.shape[-1]:
        raise NetError(f"expects tokens in [0, {logits.shape[-1]}) for stop, got {max(static.stop)}")
    seen = None
    if options.repetition_penalty is not None:
        values = jnp.asarray(prompts.values if isinstance(prompts, Padded) else prompts)
        # Padding is dropped, as it lies behind the vocabulary.
        values = jnp.where(prompts.mask, values, logits.shape[-1]) if isinstance(prompts, Padded) else values
        seen = jnp.zeros(logits.shape, bool).at[jnp.arange(len(values))[:, None], values].set(True, mode="drop")
    return _Loop(jnp.zeros((), jnp.int32), logits, carry, seen, jnp.full(len(logits), -1, jnp.int32))


def _sample(
    static: _Static, steps: int, params: Params, state: State, first: _Loop, keys: Key, options: _Options
) -> jax.Array:
    if not static.stop:

        def one(loop: _Loop, _: None) -> tuple[_Loop, jax.Array]:
            return _one(static, params, state, loop, keys, options)

        # (steps, batch)
        return jax.lax.scan(one, first, length=steps)[1].T

    def unfinished(both: tuple[_Loop, jax.Array]) -> jax.Array:
        return (both[0].place < steps) & (both[0].ended < 0).any()

    def next_token(both: tuple[_Loop, jax.Array]) -> tuple[_Loop, jax.Array]:
        loop, tokens = _one(static, params, state, both[0], keys, options)
        return loop, both[1].at[:, both[0].place].set(tokens)

    unset = jnp.zeros((len(first.logits), steps), jnp.int32)
    loop, tokens = jax.lax.while_loop(unfinished, next_token, (first, unset))
    # The loop may have ended before the last step.
    return jnp.where(jnp.arange(steps)[None] < loop.place, tokens, loop.ended[:, None])


def _one(
    static: _Static, params: Params, state: State, loop: _Loop, keys: Key, options: _Options
) -> tuple[_Loop, jax.Array]:
    """Draw one token of each example, `(batch,)`, and read it."""
    net, top_k, stop = static
    place, logits, carry, seen, ended = loop
    wide = logits.astype(param_dtype(logits))
    if seen is not None:
        wide = penalized(wide, seen, options.repetition_penalty)
    tokens = _draw(jax.vmap(jax.random.fold_in, (0, None))(keys, place), wide, top_k, options)
    if stop:
        tokens = jnp.where(ended < 0, tokens, ended)
        ended = jnp.where((tokens[:, None] == jnp.array(stop, jnp.int32)[None]).any(-1), tokens, ended)
    if seen is not None:
        seen = seen.at[jnp.arange(len(tokens)), tokens].set(True)
    new, carry = step(net, params, state, tokens, carry)
    return _Loop(place + 1, new.astype(logits.dtype), carry, seen, ended), tokens


def _draw(keys: Key, logits: jax.Array, top_k: int | None, options: _Options) -> jax.Array:
    """Draw one token `(batch,)` from logits `(batch, vocabulary)`, with one key per row."""
    temperature, top_p, min_p, _ = options
    # The largest logit becomes 0, and remains 0 however small the temperature is.
    largest = logits.max(axis=-1, keepdims=True)
    # At temperature 0 the draw is discarded; dividing by 1 keeps it free of NaN.
    scale = jnp.where(temperature > 0, temperature, 1).astype(logits.dtype)
    drawn = jax.vmap(jax.random.categorical)(keys, filtered((logits - largest) / scale, top_k, top_p, min_p))
    tokens = jnp.where(temperature > 0, drawn, logits.argmax(axis=-1))
    return jnp.where(jnp.isnan(largest[:, 0]), -1, tokens).astype(jnp.int32)
