"""The convolutional LSTM: a recurrence over frames whose memory is a map."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import along_last, check_floating, check_params
from jaxnets.core.contract import check_key
from jaxnets.core.dtypes import param_dtype, to_dtype
from jaxnets.core.errors import NetError, check_count, concrete, shown
from jaxnets.core.layer import labeled
from jaxnets.core.net import Key, Net, Params, State, spec
from jaxnets.core.padded import Padded
from jaxnets.layers.cells import LSTMCarry, match_carry
from jaxnets.ops.conv import forward

Initializer = jax.nn.initializers.Initializer


@labeled
def conv_lstm(
    features: int,
    kernel_size: int | tuple[int, int] = 3,
    *,
    return_sequences: bool = True,
    return_carry: bool = False,
    forget_bias: Any = 1.0,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.glorot_uniform(),
    recurrent_init: Initializer = jax.nn.initializers.glorot_uniform(),
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Net:
    """Run an LSTM over frames, with convolutions in place of its matrix products.

    i = σ(W_i ∗ x + U_i ∗ h + b_i), f and o in the same way, g = tanh(W_g ∗ x + U_g ∗ h + b_g), with the logistic
    function σ; c' = f c + i g, h' = o tanh(c'). Both convolutions pad with zeros, so that all maps have the size of a
    frame. There are no peepholes; the paper's have a weight for each position. The order of the gates is i, f, g, o, as
    in Keras.

    The input is `x` or `(x, carry)`, and with `return_carry=True` the output is `(y, carry)`, as for `jn.recurrent`:
    two halves of a film, with the carry passed on, equal the whole. The convolutions of the input are computed for all
    frames at once.

    Args:
        features: the channels F of c and h, at least 1.
        kernel_size: the size of both kernels, odd: an integer or one for each axis. Movements of more than half of it
            a frame can't be followed by one layer.
        return_sequences: whether to return the outputs of all frames, or only of the last.
        return_carry: whether to also return the carry after the last frame.
        forget_bias: initial value of the forget gate's part of `bias`, in place of `bias_init`. May be traced.
        use_bias: whether to add `bias`.
        kernel_init: initializer of each gate's W.
        recurrent_init: initializer of each gate's U.
        bias_init: initializer of b for i, g and o.

    Returns:
        A network from `(batch, time, height, width, channels)`, of any floating dtype, to
        `(batch, time, height, width, F)`, or `(batch, height, width, F)` with `return_sequences=False`, with parameters
        `kernel` `(*kernel_size, channels, 4 F)`, `recurrent_kernel` `(*kernel_size, F, 4 F)` and `bias` `(4 F,)`. The
        carry is `LSTMCarry(cell, hidden)`, `(batch, height, width, F)` each, the cell in float32 or wider.

    Raises:
        NetError: for `features` < 1, an even kernel, input that is not a floating array with five axes or has no frame,
            a carry of another shape, or parameters made for other numbers of channels or features.

    Shi et al., "Convolutional LSTM Network: A Machine Learning Approach for Precipitation Nowcasting" (2015),
    equation 3.

    >>> import jax, jax.numpy as jnp
    >>> net, film = conv_lstm(4), jnp.ones((2, 5, 8, 8, 1))
    >>> params, state = net.init(jax.random.key(0), film)
    >>> params["kernel"].shape, net.apply(params, state, film)[0].shape
    ((3, 3, 1, 16), (2, 5, 8, 8, 4))
    """
    check_count("features", features)
    concrete(forget_bias, "forget_bias")
    sizes = (kernel_size,) * 2 if isinstance(kernel_size, int) else tuple(kernel_size)
    if len(sizes) != 2 or not all(isinstance(n, int) and n > 0 and n % 2 for n in sizes):
        raise NetError(f"expects kernel_size odd, an integer or a pair, got {shown(kernel_size)}")
    pads = tuple((n // 2, n // 2) for n in sizes)

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return forward.conv(x, kernel, (1, 1), pads, (1, 1))

    def shapes(channels: int) -> dict[str, tuple[int, ...]]:
        bias = {"bias": (4 * features,)} if use_bias else {}
        return {"kernel": (*sizes, channels, 4 * features), "recurrent_kernel": (*sizes, features, 4 * features)} | bias

    def init_fn(key: Key, x: Any) -> tuple[Params, State]:
        check_key(key)
        x = spec(_split(x)[0])
        keys, dtype, gates = jax.random.split(key, 3), param_dtype(x), range(4)

        def drawn(init: Initializer, key: Key, shape: tuple[int, ...]) -> jax.Array:
            return jnp.concatenate([init(each, shape, dtype) for each in jax.random.split(key, 4)], axis=-1)

        params = {
            "kernel": drawn(kernel_init, keys[0], (*sizes, x.shape[-1], features)),
            "recurrent_kernel": drawn(recurrent_init, keys[1], (*sizes, features, features)),
        }
        if use_bias:
            biases = [bias_init(each, (features,), dtype) for each in jax.random.split(keys[2], 4)]
            biases[1] = jnp.full((features,), forget_bias, dtype)
            params["bias"] = jnp.concatenate([biases[gate] for gate in gates])
        return params, {}

    def apply_fn(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        x, given = _split(x)
        check_params(params, shapes(x.shape[-1]), x)
        params, x = to_dtype(params, x.dtype), jnp.asarray(x)
        batch, time, *places, channels = x.shape
        wide = x.dtype if jnp.finfo(x.dtype).bits >= 32 else jnp.float32
        like = LSTMCarry(*(jax.ShapeDtypeStruct((batch, *places, features), each) for each in (wide, x.dtype)))
        carry = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like) if given is None else given
        carry = match_carry(carry, like)
        # (time, batch, height, width, 4 F), of all frames at once
        z = convolve(jnp.swapaxes(x, 0, 1).reshape(time * batch, *places, channels), params["kernel"])
        z = (z + along_last(params["bias"], z) if use_bias else z).reshape(time, batch, *places, 4 * features)

        def step(carry: LSTMCarry, z: jax.Array) -> tuple[LSTMCarry, jax.Array]:
            c, h = carry
            # Gates are computed in the precision of c.
            i, f, g, o = jnp.split((z + convolve(h, params["recurrent_kernel"])).astype(c.dtype), 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = (jax.nn.sigmoid(o) * jnp.tanh(c)).astype(x.dtype)
            return LSTMCarry(c, h), h

        carry, y = jax.lax.scan(step, carry, z)
        y = jnp.swapaxes(y, 0, 1) if return_sequences else y[-1]
        return ((y, carry) if return_carry else y), state

    return Net(init_fn, apply_fn, "conv_lstm")


def _split(x: Any) -> tuple[Any, Any]:
    """Return the frames and the carry, `None` if there is none."""
    x, carry = x if isinstance(x, tuple) and len(x) == 2 else (x, None)
    if isinstance(x, Padded):
        raise NetError("takes no Padded films; cut them to one length")
    check_floating(x)
    if len(x.shape) != 5:
        hint = "; add the missing axis, x[None] for the batch or x[..., None] for the channels" * (len(x.shape) == 4)
        raise NetError(f"expects (batch, time, height, width, channels), got {x.shape}{hint}")
    if not x.shape[1]:
        raise NetError(f"expects at least one frame, got {x.shape}")
    return x, carry
