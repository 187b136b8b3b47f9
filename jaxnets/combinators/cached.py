"""Causal networks that continue from what they have read: the cache of a transformer as an explicit carry."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.combinators.serial import Layer
from jaxnets.combinators.wrappers import wrap
from jaxnets.core.cache import Cache, doubled, merged, parted
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.layer import as_net
from jaxnets.core.net import Apply, Key, Net, Params, State
from jaxnets.core.packed import Packed
from jaxnets.core.padded import Padded
from jaxnets.core.value import recorded

_MIXES_TIME = {
    *("bidirectional", "class_token", "recurrent", "conv", "conv_transpose", "depthwise_conv", "group_norm"),
    *("avg_pool", "max_pool", "global_avg_pool", "global_max_pool"),
}


class Started(NamedTuple):
    """The carry of a decoder that has begun to read: the memory, and the caches of its layers."""

    memory: Any
    caches: Mapping[str, Any]


@recorded
def cached(net: Layer, *, memory: bool = False) -> Net:
    """Let a causal network continue a sequence: from x to y as before, and from `(x, carry)` to `(y, carry)`.

    The carry holds the keys and values that each attention has read, so a step costs what it adds. It is explicit, as
    in recurrent networks: `None` is the start of a sequence, and parts of a sequence, each with the carry of the one
    before, give the outputs of the whole. Examples may have parts of different lengths, as `Padded`.

    A carry holds a fixed number of steps, its capacity: at first, those that were read. In code that is not jitted, a
    full carry is replaced by one of twice the capacity. Under `jax.jit`, where shapes are fixed, add to the capacity
    before by `jn.decoding.grow`; steps beyond it give NaN.

    Args:
        net: a network whose attentions are causal; its other layers treat each step alone, or add positions.
        memory: for a decoder from `(x, memory)`: the input is always `(x, carry)`, where the carry at the start is the
            memory, an array or `Padded`, which is read once.

    Returns:
        A network with the parameters and children of `net`.

    Raises:
        NetError: for an attention that is not causal, a layer that is known to mix steps in another way, or none that
            keeps anything; at a call, for a carry of another network or batch.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = cached(jn.encoder_block(8, heads=2, causal=True))
    >>> x = jax.random.normal(jax.random.key(1), (2, 5, 8))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> whole, _ = net.apply(params, state, x)
    >>> (first, carry), _ = net.apply(params, state, (x[:, :3], None))
    >>> (second, carry), _ = net.apply(params, state, (x[:, 3:], carry))
    >>> bool(jnp.allclose(jnp.concatenate([first, second], 1), whole, atol=1e-6))
    True
    """
    inner = as_net(net)
    label = f"cached({inner.label})"
    with labeled_as(label):
        start = _start(inner)
        if not start:
            raise NetError("expects a network with causal attention or positions, got none; drop cached")

    def parts(x: Any) -> tuple[Any, Any, bool]:
        """Return the input of the network, the caches, and whether a carry is returned."""
        if not memory:
            if not isinstance(x, tuple):
                return x, None, False
            x, carry = _pair(x, "(x, carry)")
            return x, start if carry is None else carry, True
        x, carry = _pair(x, "(x, carry), at the start (x, memory)")
        begun = isinstance(carry, Started)
        return (x, carry.memory if begun else carry), carry.caches if begun else start, True

    def around(apply_inner: Apply) -> Apply:
        def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
            x, caches, returned = parts(x)
            if not returned:
                return apply_inner(params, state, x, key=key, train=train)
            if _names(caches) != _names(start):
                raise NetError(f"expects its own carry, or None at the start, got {type(caches).__name__} of another")
            own = x[0] if memory else x
            shape = np.shape(own.values if isinstance(own, Padded) else own)
            if len(shape) < 2:
                raise NetError(f"expects sequences (batch, time, ...), got {shape}; add a batch axis with x[None]")
            room = doubled(caches, shape[1])
            y, new = apply_inner(params, merged(state, room), x, key=key, train=train)
            if caches is start:
                _check_steps(apply_inner, params, state, x)
            state, caches = parted(new)
            # A decoder returns (y, memory).
            return (y, caches) if not memory else (y, Started(x[1], caches)), state

        return apply

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        first, _, returned = parts(x)
        params, state, y = inner.init_with_output(key, first)
        if returned:
            y = jax.eval_shape(lambda params, state, x: apply(params, state, x)[0], params, state, x)
        return params, state, y

    apply = around(inner.apply)
    return wrap(
        "cached", inner, apply, build, label, lambda change: cached(change(inner), memory=memory), around=around
    )


def _check_steps(apply: Apply, params: Params, state: State, x: Any) -> None:
    """Raise if a function among the layers mixes steps, as it may not for `Packed` rows; nothing is computed."""

    def packed(each: Any) -> Any:
        values, lengths = (each.values, each.lengths) if isinstance(each, Padded) else (each, None)
        rows, time = np.shape(values)[:2]
        lengths = jnp.full(rows, time, jnp.int32) if lengths is None else lengths
        return Packed(values, lengths, jnp.zeros((rows, time), jnp.int32))

    try:
        given = jax.tree.map(packed, x, is_leaf=lambda each: isinstance(each, Padded))
        jax.eval_shape(lambda params, state, x: apply(params, state, x)[0], params, state, given)
    except NetError as error:
        raise NetError(f"can't continue from a carry: {error}") from error


def _start(net: Net) -> dict[str, Any]:
    """Return the carry before the first step: an empty `Cache` for each layer that keeps one."""
    if net.caches:
        return {net.caches: Cache()}
    kinds, inner = {net.kind}, net.inner
    while inner is not None:
        kinds, inner = kinds | {inner.kind}, inner.inner
    if kinds & _MIXES_TIME:
        raise NetError("reads other steps, and can't continue from a carry; use causal attention", label=net.label)
    found = {}
    for name, child in net.children.items():
        with labeled_as(child=name):
            if child.kind == "mix" and not child.caches:
                raise NetError("expects causal attention, whose outputs do not change later; give causal=True")
            found[name] = _start(child)
    return {name: each for name, each in found.items() if each}


def _names(tree: Any) -> Any:
    """Return the names of the layers in a carry, nested."""
    if isinstance(tree, Cache) or not isinstance(tree, Mapping):
        return isinstance(tree, Cache)
    return {name: _names(each) for name, each in tree.items()}


def _pair(x: Any, wanted: str) -> tuple[Any, Any]:
    if not isinstance(x, tuple) or len(x) != 2:
        raise NetError(f"expects {wanted}, got {f'a tuple of {len(x)}' if isinstance(x, tuple) else 'one input'}")
    return x
