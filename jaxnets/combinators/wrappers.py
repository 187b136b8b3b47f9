"""Wrappers that keep names and parameters: mixed precision, and recomputation in the backward pass."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.combinators.serial import Layer
from jaxnets.core.dtypes import to_dtype
from jaxnets.core.errors import NetError, shown
from jaxnets.core.layer import as_net
from jaxnets.core.net import Apply, Key, Net, Params, State, compose, spec
from jaxnets.core.value import recorded


@dataclass(frozen=True)
class Policy:
    """The dtypes of a network's parameters, arithmetic and outputs.

    Attributes:
        param: dtype of the parameters that `init` makes.
        compute: dtype of inputs and parameters inside.
        output: dtype of the outputs.
    """

    param: Any = jnp.float32
    compute: Any = jnp.bfloat16
    output: Any = jnp.float32

    def __post_init__(self) -> None:
        for name, dtype in vars(self).items():
            try:
                fits = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
            except TypeError:
                fits = False
            if not fits:
                expects = f"expects a floating dtype for {name}, such as jnp.bfloat16"
                raise NetError(f"{expects}, got {shown(dtype)}", label="Policy")


@recorded
def cast(net: Layer, policy: Policy | Any = Policy()) -> Net:
    """Run a network in mixed precision: parameters in one dtype, arithmetic in another.

    Floating inputs and parameters are cast to `policy.compute`, floating outputs to `policy.output`; integers are
    unchanged. Normalization layers keep their parameters, statistics and reductions in float32. Compute losses
    outside, in float32. Gradients have the dtype `policy.param`.

    Args:
        net: the network.
        policy: the dtypes; a single dtype, `jn.cast(net, jnp.bfloat16)`, is that of the arithmetic.

    Raises:
        NetError: for a dtype that is not floating.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = cast(jn.dense(3), jn.Policy(compute=jnp.bfloat16, output=jnp.bfloat16))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> params["kernel"].dtype.name, net.apply(params, state, jnp.ones((1, 4)))[0].dtype.name
    ('float32', 'bfloat16')
    """
    inner, policy = as_net(net), policy if isinstance(policy, Policy) else Policy(compute=policy)

    def around(apply_inner: Apply) -> Apply:
        def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
            params, x = _lower(inner, params, policy.compute), to_dtype(x, policy.compute)
            y, state = apply_inner(params, state, x, key=key, train=train)
            return to_dtype(y, policy.output), state

        return apply

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        params, state, y = inner.init_with_output(key, spec_in(x, policy.compute))
        return _lower(inner, params, policy.param), state, spec_in(y, policy.output)

    label = f"cast({inner.label}, {jnp.dtype(policy.compute).name})"
    return wrap(
        "cast", inner, around(inner.apply), build, label, lambda change: cast(change(inner), policy), around=around
    )


def spec_in(x: Any, dtype: Any) -> Any:
    """Return the spec of `x` with its floating leaves in `dtype`."""
    return jax.eval_shape(lambda x: to_dtype(x, dtype), spec(x))


def _lower(net: Net, params: Params, dtype: Any) -> Params:
    """Cast parameters, except those of layers that need full precision."""
    if net.full_precision:
        return params
    if net.children and isinstance(params, Mapping):
        known = net.children
        return {name: _lower(known[name], own, dtype) if name in known else own for name, own in params.items()}
    return to_dtype(params, dtype)


@recorded
def remat(net: Layer, *, policy: Callable[..., bool] | None = None) -> Net:
    """Recompute a network's intermediate values in the backward pass instead of storing them.

    The network's input is the only residual; the backward pass takes about one forward pass longer. Outputs, gradients,
    names and parameters are unchanged.

    Args:
        net: the network, usually a block of a deep one.
        policy: which values to store anyway, one of `jax.checkpoint_policies`.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> remat(jn.dense(3)).init(jax.random.key(0), jnp.ones((1, 4)))[0]["kernel"].shape
    (4, 3)
    """
    inner = as_net(net)

    def around(apply_inner: Apply) -> Apply:
        def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
            def run(params: Params, state: State, x: Any, key: Key | None) -> tuple[Any, State]:
                return apply_inner(params, state, x, key=key, train=train)

            return jax.checkpoint(run, policy=policy)(params, state, x, key)

        return apply

    return wrap(
        "remat",
        inner,
        around(inner.apply),
        inner.init_with_output,
        f"remat({inner.label})",
        lambda change: remat(change(inner), policy=policy),
        around=around,
    )


def wrap(
    kind: str,
    inner: Net,
    apply: Apply,
    build: Callable[[Key, Any], tuple[Params, State, Any]],
    label: str,
    remake: Callable[[Callable[[Net], Net]], Net],
    *,
    around: Callable[[Apply], Apply] | None = None,
    copies: int | None = None,
) -> Net:
    """Return a network that runs another one differently, with its children; `around` wraps the `apply` of a cut."""
    cut = inner.cut
    return compose(
        build,
        apply,
        label=label,
        children=inner.children,
        cut=None if cut is None or around is None else lambda path: around(cut(path)),
        full_precision=inner.full_precision,
        copies=inner.copies if copies is None else copies,
        kind=kind,
        inner=inner,
        remake=remake,
    )
