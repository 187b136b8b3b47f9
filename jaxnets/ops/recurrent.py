"""Elman's network, the LSTM and the GRU over a sequence, with a hand-written derivative.

Each is a recurrence h_t = φ(x_t W + b, h_{t−1} U + b', …) with φ elementwise. Automatic differentiation adds a product
to dW and dU in every step of the reverse scan; each sums over only one batch, but reads and writes a whole matrix. So
the tangent is written by hand:

    e_t = ẋ_t W + x_t Ẇ + ḃ,   k_t = h_{t−1} U̇ + ḃ'     for all t at once, before the scan
    u_t = e_t + R_t (k_t + ḣ_{t−1} U)                    within it: the only product that depends on the last step
    ċ_t = F_t ċ_{t−1} + P_t u_t,   ḣ_t = Q_t ċ_t + …     with coefficients returned by the forward scan

F, P, Q and R are elementwise factors; R is r for the last gate of the GRU, and 1 elsewhere.

All of this is linear in the tangents, and JAX transposes it: one reverse scan with one product per step, du_t Uᵀ, then
dW, dU, dx and db each as a single product over all steps. As it is a `custom_jvp`, forward mode, reverse mode, higher
orders, `vmap`, `checkpoint` and export work as for any function. Implementation choices:

- σ(x) = ½ tanh(x/2) + ½, with the factor ½ of x in the weights. So a single tanh computes all gates that are known at
  the same time. Without a barrier XLA would recompute it in each loop that reads a gate.
- Uᵀ and the transposes of x and h are copied once, behind barriers: on a CPU, products are fastest with the rows of
  both factors contiguous, and XLA leaves a transpose inside the loop.
- The product with W is computed in the scan. Elman's network and the LSTM combine it with that of U: [x, h] [W; U].
  Computing it for all steps before the scan made an LSTM's forward scan 50 % slower, and its gradient no faster.

All arrays are time-major, `(time, batch, …)`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Weights = Mapping[str, Any]
Carry = tuple[jax.Array, ...]  # h last


class Recurrence(NamedTuple):
    """The functions that define a recurrence.

    Attributes:
        prepare: `weights -> weights`, in the layout that a step uses.
        step: `(prepared weights, carry, x) -> (carry, coefficients of the tangent)`.
        tangent: `(coefficients, ċarry, u) -> ċarry`, linear in the last two.
        gate: `(coefficients, k) -> R k`.
    """

    prepare: Callable[[Weights], Weights]
    step: Callable[[Weights, Carry, jax.Array], tuple[Carry, tuple[jax.Array, ...]]]
    tangent: Callable[[tuple[jax.Array, ...], Carry, jax.Array], Carry]
    gate: Callable[[tuple[jax.Array, ...], jax.Array], jax.Array] = lambda coefficients, k: k


def recurrent_scan(
    recurrence: Recurrence,
    weights: Weights,
    carry: Any,
    x: jax.Array,
    mask: jax.Array | None = None,
    *,
    reverse: bool = False,
    unroll: int = 1,
) -> tuple[Any, jax.Array]:
    """Run one of the recurrences below over a sequence.

    Args:
        recurrence: `RNN_TANH`, `RNN_RELU`, `LSTM` or `GRU`.
        weights: `kernel` W `(in, gates · H)`, `recurrent_kernel` U `(H, gates · H)`, and optionally `bias`
            `(gates · H,)`, in the dtype of `x`.
        carry: h `(batch, H)`, or a tuple whose last element is h, before the step computed first.
        x: `(time, batch, in)`, floating.
        mask: booleans `(time, batch)`, true where a step is real; elsewhere the carry is unchanged, the output is zero
            and no gradient flows. Inputs there must be finite.
        reverse: whether to run from the last step to the first.
        unroll: number of steps in one iteration of the loop.

    Returns:
        The carry after the step computed last, and the outputs h of all steps, `(time, batch, H)`.

    >>> weights = {"kernel": jnp.eye(1), "recurrent_kernel": jnp.eye(1)}
    >>> h, y = recurrent_scan(RNN_RELU, weights, jnp.zeros((1, 1)), jnp.ones((3, 1, 1)))
    >>> print(h.ravel(), y.ravel())
    [3.] [1. 2. 3.]
    """
    leaves, structure = jax.tree.flatten(carry)
    last, y = _run(recurrence, reverse, unroll, weights, tuple(leaves), x, mask)
    return jax.tree.unflatten(structure, last), y


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _run(
    recurrence: Recurrence,
    reverse: bool,
    unroll: int,
    weights: Weights,
    carry: Carry,
    x: jax.Array,
    mask: jax.Array | None,
) -> tuple[Carry, jax.Array]:
    prepared = recurrence.prepare(weights)

    # Without differentiation, the coefficients of the tangent are dropped.
    def step(carry: Carry, x: jax.Array) -> tuple[Carry, None]:
        return recurrence.step(prepared, carry, x)[0], None

    carry, y, _ = _loop(step, carry, x, mask, reverse, unroll)
    return carry, y


@partial(_run.defjvp, symbolic_zeros=True)
def _run_jvp(recurrence: Recurrence, reverse: bool, unroll: int, primals: Any, tangents: Any) -> Any:
    weights, carry, x, mask = primals
    prepared, U = recurrence.prepare(weights), weights["recurrent_kernel"]

    def step(carry: Carry, x: jax.Array) -> Any:
        new, coefficients = recurrence.step(prepared, carry, x)
        return new, (carry[-1], coefficients)

    # `before` is h before each step, (time, batch, H).
    last, y, (before, coefficients) = _loop(step, carry, x, mask, reverse, unroll)

    # Everything that depends on no earlier tangent, for all steps at once. Tangents that are zero are skipped.
    dweights, dcarry, dx, _ = tangents
    dcarry = tuple(jnp.zeros_like(leaf) if _zero(dleaf) else dleaf for leaf, dleaf in zip(carry, dcarry, strict=True))
    # The terms of e_t: (time, batch, gates · H), or (1, 1, gates · H) for the bias
    from_x = [] if _zero(dx) else [jnp.matmul(dx, weights["kernel"])]
    from_x += [] if _zero(dweights["kernel"]) else [_times_all(x, dweights["kernel"])]
    from_x += [dweights["bias"][None, None]] if "bias" in weights and not _zero(dweights["bias"]) else []
    # The terms of k_t
    from_h = [] if _zero(dweights["recurrent_kernel"]) else [_times_all(before, dweights["recurrent_kernel"])]
    if "recurrent_bias" in weights and not _zero(dweights["recurrent_bias"]):
        # (H,) → (1, 1, gates · H): it acts only on the last gate.
        db = dweights["recurrent_bias"]
        from_h += [jnp.pad(db, (U.shape[1] - len(db), 0))[None, None]]
    # (time, batch, gates · H)
    shape = (*x.shape[:2], U.shape[1])
    terms = [*from_x, *([recurrence.gate(coefficients, _sum(from_h, shape))] if from_h else [])]
    # e_t + R_t k_t
    outside = _sum(terms, shape) if terms else None
    # Behind a barrier, or XLA would transpose U in every step.
    transposed = lax.optimization_barrier(U.T)

    def tangent_step(dcarry: Carry, now: Any) -> tuple[Carry, None]:
        coefficients, outside = now
        # R_t ḣ_{t−1} U, a product with the rows of both factors contiguous
        u = recurrence.gate(coefficients, lax.dot_general(dcarry[-1], transposed, (((1,), (1,)), ((), ()))))
        return recurrence.tangent(coefficients, dcarry, u if outside is None else u + outside), None

    dlast, dy, _ = _loop(tangent_step, dcarry, (coefficients, outside), mask, reverse, unroll)
    return (last, y), (dlast, dy)


def _loop(
    step: Callable[[Carry, Any], tuple[Carry, Any]], carry: Carry, xs: Any, mask: Any, reverse: bool, unroll: int
) -> tuple[Carry, jax.Array, Any]:
    """Scan over time, and return the final carry, h of all steps, and what the steps returned besides the carry."""

    def body(carry: Carry, now: Any) -> tuple[Carry, Any]:
        x, real = now
        new, beside = step(carry, x)
        # The carry's last element is h, which is also the output.
        y = new[-1]
        # At padding the carry is kept, and the output is zero.
        if real is not None:
            new = tuple(jnp.where(real[:, None], a, b) for a, b in zip(new, carry, strict=True))
            y = jnp.where(real[:, None], y, jnp.zeros_like(y))
        return new, (y, beside)

    carry, (y, beside) = lax.scan(body, carry, (xs, mask), reverse=reverse, unroll=unroll)
    return carry, y, beside


def _zero(tangent: Any) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)


def _sum(terms: list[jax.Array], shape: tuple[int, ...]) -> jax.Array:
    return sum(jnp.broadcast_to(term, shape) for term in terms[1:]) + jnp.broadcast_to(terms[0], shape)


def _times_all(x: jax.Array, dkernel: jax.Array) -> jax.Array:
    """Return `x dkernel` in a form whose transpose is one fast product, of a contiguous xᵀ with the cotangent."""
    # (in, time · batch)
    columns = lax.optimization_barrier(x.reshape(-1, x.shape[-1]).T)
    y = lax.dot_general(columns, dkernel, (((0,), (0,)), ((), ())))
    return y.reshape(*x.shape[:-1], dkernel.shape[-1])


def _joined(weights: Weights, scale: jax.Array | None = None) -> Weights:
    """Return W stacked on U, and the bias, the columns of each gate times its scale."""
    # (in + H, gates · H)
    both = jnp.concatenate([weights["kernel"], weights["recurrent_kernel"]], axis=0)
    bias = weights.get("bias")
    if scale is not None:
        both, bias = both * scale[None], None if bias is None else bias * scale
    return {"both": both, "bias": bias}


def _affine(weights: Weights, x: jax.Array, h: jax.Array) -> jax.Array:
    z = jnp.matmul(jnp.concatenate([x, h], axis=-1), weights["both"])
    return z if weights["bias"] is None else z + weights["bias"][None]


def _rnn(activation: Callable, slope: Callable) -> Recurrence:
    def step(weights: Weights, carry: Carry, x: jax.Array) -> Any:
        h = activation(_affine(weights, x, carry[0]))
        return (h,), (slope(h),)

    return Recurrence(_joined, step, lambda coefficients, carry, u: (coefficients[0] * u,))


def _lstm_prepare(weights: Weights) -> Weights:
    W = weights["kernel"]
    # The factor ½ of σ for i, f and o; g is a tanh itself.
    return _joined(weights, jnp.repeat(jnp.array([0.5, 0.5, 1, 0.5], W.dtype), W.shape[1] // 4))


def _lstm_step(weights: Weights, carry: Carry, x: jax.Array) -> Any:
    c, h = carry
    # One tanh for all gates; without the barrier XLA recomputes it in each loop that reads a gate.
    t = lax.optimization_barrier(jnp.tanh(_affine(weights, x, h).astype(c.dtype)))
    t_i, t_f, g, t_o = jnp.split(t, 4, axis=-1)
    i, f, o = (0.5 * gate + 0.5 for gate in (t_i, t_f, t_o))
    new = f * c + i * g
    tanh_c = jnp.tanh(new)
    # With u before the gates, σ'(u) = (1 − t²) / 4. P is ∂c'/∂u for i, f and g, and ∂h'/∂u for o; Q is ∂h'/∂c'.
    slopes = [(1 - t_i * t_i) * g / 4, (1 - t_f * t_f) * c / 4, (1 - g * g) * i, (1 - t_o * t_o) * tanh_c / 4]
    P, Q = jnp.concatenate(slopes, axis=-1), o * (1 - tanh_c * tanh_c)
    return (new, (o * tanh_c).astype(h.dtype)), (P, Q, f)


def _lstm_tangent(coefficients: tuple[jax.Array, ...], carry: Carry, u: jax.Array) -> Carry:
    P, Q, F = coefficients
    c, h = carry
    i, f, g, o = jnp.split(P * u.astype(P.dtype), 4, axis=-1)
    # ċ' = F ċ + the terms of i, f and g; ḣ' = Q ċ' + the term of o
    c = F * c + i + f + g
    return c, (Q * c + o).astype(h.dtype)


def _gru_prepare(weights: Weights) -> Weights:
    W, U = weights["kernel"], weights["recurrent_kernel"]
    # The factor ½ of σ for r and z; n is a tanh itself.
    scale = jnp.repeat(jnp.array([0.5, 0.5, 1], W.dtype), W.shape[1] // 3)
    bias = weights.get("bias")
    return {
        "kernel": W * scale[None],
        "recurrent_kernel": U * scale[None],
        "bias": None if bias is None else bias * scale,
        "recurrent_bias": weights.get("recurrent_bias"),
    }


def _gru_step(weights: Weights, carry: Carry, x: jax.Array) -> Any:
    (h,) = carry
    width = h.shape[-1]
    # (batch, 3 H) each
    from_x, from_h = jnp.matmul(x, weights["kernel"]), jnp.matmul(h, weights["recurrent_kernel"])
    from_x = from_x if weights["bias"] is None else from_x + weights["bias"][None]
    # One tanh for r and z; n has to wait for r.
    t = lax.optimization_barrier(jnp.tanh(from_x[:, : 2 * width] + from_h[:, : 2 * width]))
    t_r, t_z = jnp.split(t, 2, axis=-1)
    r, z = 0.5 * t_r + 0.5, 0.5 * t_z + 0.5
    # k = h U_n + b'
    k = from_h[:, 2 * width :]
    k = k if weights["recurrent_bias"] is None else k + weights["recurrent_bias"][None]
    n = lax.optimization_barrier(jnp.tanh(from_x[:, 2 * width :] + r * k))
    # P is ∂h'/∂u, for u before the gates r, z and n.
    slope = (1 - z) * (1 - n * n)
    P = jnp.concatenate([slope * k * (1 - t_r * t_r) / 4, (h - n) * (1 - t_z * t_z) / 4, slope], axis=-1)
    return ((1 - z) * n + z * h,), (P, z, r)


def _gru_tangent(coefficients: tuple[jax.Array, ...], carry: Carry, u: jax.Array) -> Carry:
    P, z, _ = coefficients
    du_r, du_z, du_n = jnp.split(P * u, 3, axis=-1)
    return (z * carry[0] + du_r + du_z + du_n,)


def _gru_gate(coefficients: tuple[jax.Array, ...], k: jax.Array) -> jax.Array:
    # r multiplies only the recurrent product of the last gate.
    r = coefficients[2]
    width = r.shape[-1]
    return jnp.concatenate([k[..., : 2 * width], r * k[..., 2 * width :]], axis=-1)


RNN_TANH = _rnn(jnp.tanh, lambda h: 1 - h * h)
"""h' = tanh(x W + h U + b)."""

RNN_RELU = _rnn(jax.nn.relu, lambda h: (h > 0).astype(h.dtype))
"""The same with ReLU in place of tanh."""

LSTM = Recurrence(_lstm_prepare, _lstm_step, _lstm_tangent)
"""c' = f c + i g, h' = o tanh(c'), of the carry (c, h). The gates are in the order i, f, g, o, in the dtype of c."""

GRU = Recurrence(_gru_prepare, _gru_step, _gru_tangent, _gru_gate)
"""h' = (1 − z) n + z h with n = tanh(x W_n + b_n + r (h U_n + b')).

The gates are in the order r, z, n; r multiplies the product with U. The weights may have `recurrent_bias` b' `(H,)`.
"""
