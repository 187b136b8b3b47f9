"""Wrappers that normalize the kernel of a layer: by the norm of each feature, or by the largest singular value."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.combinators.fold import LINEAR
from jaxnets.combinators.wrappers import wrap
from jaxnets.core.checks import check_params, check_state
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, labeled_as, shown
from jaxnets.core.keywords import explained
from jaxnets.core.net import Key, Net, Params, State, fold
from jaxnets.layers.conv import conv_transpose
from jaxnets.layers.dense import dense
from jaxnets.layers.inputs import values_of

WARM_UP = 15
"""Steps of the power iteration in `init`, as in PyTorch."""


@explained
def weight_norm(net: Net) -> Net:
    """Learn length and direction of each feature's weights separately: kernel = scale · v / ‖v‖.

    The norm of v is taken for each output feature, over all its weights; `scale` starts as this norm, so that the layer
    starts as it would without the wrapper. The gradient for v is orthogonal to v, so its norm never shrinks in plain
    gradient descent, and the step in the direction adapts to it. Norms are computed in float32 or wider.

    Args:
        net: a `dense`, `conv`, `depthwise_conv` or `conv_transpose`.

    Returns:
        The layer with v as its parameter `kernel`, and one more parameter `scale` `(features,)`. Inputs and outputs,
        `Padded` sequences among them, are those of the layer. Regularizers of `kernel` act on v, which does not change
        the layer: give them `scale`.

    Raises:
        NetError: for another network, a layer whose kernel starts at zero, which has no direction, or parameters of
            another layer. A v that becomes zero gives NaN.

    Salimans and Kingma, "Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural
    Networks" (2016), equation 2; as `torch.nn.utils.parametrizations.weight_norm`, with dim=1 for a transposed
    convolution. There, a transposed convolution in groups shares norms between groups.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, x = weight_norm(jn.dense(2, use_bias=False)), jnp.array([[3.0, 4.0]])
    >>> params, state = net.init(jax.random.key(0), x)
    >>> params |= {"kernel": jnp.array([[30.0, 0.0], [40.0, 1.0]]), "scale": jnp.array([1.0, 2.0])}
    >>> print(net.apply(params, state, x)[0])
    [[5. 8.]]
    """
    inner = _linear(net, "weight_norm")
    label = f"weight_norm({inner.label})"
    groups = inner.arguments["groups"] if inner.constructor is conv_transpose else 1

    def by_feature(kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the kernel with an axis of groups, and the norm of each feature, `(1, ..., groups, 1, features)`."""
        kernel = kernel.astype(param_dtype(kernel))
        *window, channels, features = kernel.shape
        kernel = kernel.reshape(*window, groups, channels // groups, features)
        # Without groups of features, all axes but the last.
        axes = (*range(len(window)), len(window) + 1)
        return kernel, jnp.sqrt(jnp.sum(jnp.square(kernel), axes, keepdims=True))

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        params, state, y = inner.init_with_output(key, x)
        return params | {"scale": by_feature(params["kernel"])[1].ravel()}, state, y

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        _check(inner, params, x, label, more=("scale",))
        scale, own = params["scale"], {name: leaf for name, leaf in params.items() if name != "scale"}
        kernel, norms = by_feature(own["kernel"])
        with labeled_as(label):
            check_params({"scale": scale}, {"scale": (norms.size,)}, values_of(x))
        kernel = kernel * (scale.reshape(norms.shape).astype(norms.dtype) / norms)
        return inner.apply(own | {"kernel": kernel.reshape(own["kernel"].shape)}, state, x, key=key, train=train)

    return wrap("weight_norm", inner, apply, build, label, lambda change: weight_norm(change(inner)))


@explained
def spectral_norm(net: Net, *, iterations: int = 1) -> Net:
    """Divide the kernel of a layer by the largest singular value of the layer, so that it stretches no input.

    Without its bias the layer is a linear map A of one example, and y = A x / σ + b with σ = uᵀ A v an estimate of
    ‖A‖ = max ‖A x‖ / ‖x‖. Each training call moves u and v by steps of the power iteration, before they are used:

        u ← A v / ‖A v‖,    v ← Aᵀ u / ‖Aᵀ u‖

    In evaluation they stay as they are. No gradient flows through u and v. For a dense layer A is the matrix of the
    kernel, and values and gradients are PyTorch's. For a convolution A maps whole feature maps: σ tends to the
    largest singular value of the convolution itself, with its padding, stride, dilation and groups, and not to that of
    the kernel reshaped to a matrix, which PyTorch and Keras divide by and which may be several times too small or too
    large. It belongs to the size of the maps, so the size is fixed.

    σ never exceeds ‖A‖, so the layer's Lipschitz constant ‖A‖ / σ tends to 1 from above; as long as training changes
    the kernel slowly, u and v follow it. A call computes A once more, each step A and Aᵀ.

    Args:
        net: a `dense`, `conv`, `depthwise_conv` or `conv_transpose`.
        iterations: the number of steps in a training call, at least 1. `init` makes 15.

    Returns:
        The layer with the same parameters, and the state `v` and `u`, unit vectors of the shape of one input and one
        output: `(*spatial, channels)` and `(*out, features)`, for a dense layer `(in,)` and `(features,)`. Inputs and
        outputs, `Padded` sequences among them, are those of the layer.

    Raises:
        NetError: for another network, a layer whose kernel starts at zero, iterations < 1, maps of another size than in
            `init`, or parameters or state of another layer.

    Miyato, Kataoka, Koyama and Yoshida, "Spectral Normalization for Generative Adversarial Networks" (2018), algorithm
    1; Gouk, Frank, Pfahringer and Cree, "Regularisation of Neural Networks by Enforcing Lipschitz Continuity" (2021),
    and Farnia, Zhang and Tse, "Generalizable Adversarial Training via Spectral Normalization" (2019), for convolutions.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, x = spectral_norm(jn.dense(2, use_bias=False)), jnp.ones((1, 2))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> params = {"kernel": jnp.diag(jnp.array([4.0, 1.0]))}
    >>> for _ in range(9):
    ...     y, state = net.apply(params, state, x, train=True)
    >>> print(y.round(3))
    [[1.   0.25]]
    """
    inner = _linear(net, "spectral_norm")
    with labeled_as("spectral_norm"):
        check_count("iterations", iterations)
    label = f"spectral_norm({inner.label}{f', iterations={iterations}' if iterations > 1 else ''})"

    def linear(params: Params) -> Callable[[jax.Array], jax.Array]:
        """Return the map of one example without the bias."""
        own = {name: leaf if name == "kernel" else jnp.zeros_like(leaf) for name, leaf in params.items()}
        return lambda x: inner.apply(own, {}, x[None])[0][0]

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        params, state, y = inner.init_with_output(key, x)
        shape, _ = _shapes(inner, x, y)
        v = jax.random.normal(fold(key, "v"), shape, param_dtype(values_of(x)))
        u, v = _iterate(linear(_widened(params)), _unit(v), WARM_UP)
        return params, state | {"u": u, "v": v}, y

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        shapes = _shapes(inner, x, _check(inner, params, x, label))
        with labeled_as(label):
            check_state(state, dict(zip("vu", shapes)), values_of(x))
        wide = _widened(params)
        u, v = jax.lax.stop_gradient((state["u"], state["v"]))
        if train:
            u, v = _iterate(linear(jax.lax.stop_gradient(wide)), v, iterations)
        sigma = jnp.sum(u * linear(wide)(v)).astype(wide["kernel"].dtype)
        y, _ = inner.apply(params | {"kernel": wide["kernel"] / sigma}, {}, x, key=key, train=train)
        return y, {"u": u, "v": v}

    def remake(change: Callable[[Net], Net]) -> Net:
        return spectral_norm(change(inner), iterations=iterations)

    return wrap("spectral_norm", inner, apply, build, label, remake)


def _linear(net: Any, label: str) -> Net:
    """Return a layer after checking that it is linear but for its bias, and does not start at zero."""
    if not isinstance(net, Net) or net.constructor not in LINEAR:
        kinds = ", ".join(f"jn.{each.__name__}" for each in LINEAR)
        came = net.label if isinstance(net, Net) else shown(net)
        raise NetError(f"expects a layer with a kernel, {kinds}, got {came}; wrap the layers inside it", label=label)
    if net.arguments["kernel_init"] is jax.nn.initializers.zeros:
        raise NetError(f"expects a kernel other than zero, got zeros as kernel_init of {net.label}", label=label)
    return net


def _check(inner: Net, params: Any, x: Any, label: str, more: tuple[str, ...] = ()) -> Any:
    """Check the parameters of a layer and `more`, and its input; return the spec of its output."""
    wanted = ("kernel", *(["bias"] if inner.arguments["use_bias"] else []), *more)
    if not isinstance(params, Mapping) or set(params) != set(wanted):
        have = ", ".join(params) or "none"
        raise NetError(f"needs the parameters {', '.join(wanted)}, got {have}", label=label, names_differ=True)
    own = {name: leaf for name, leaf in params.items() if name not in more}
    # The layer checks them, and nothing is computed.
    return jax.eval_shape(lambda params, x: inner.apply(params, {}, x)[0], own, x)


def _shapes(inner: Net, x: Any, y: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of what the layer maps: rows for a dense layer, whole maps for a convolution."""
    own, out = (tuple(values_of(each).shape) for each in (x, y))
    return (own[-1:], out[-1:]) if inner.constructor is dense else (own[1:], out[1:])


def _widened(params: Params) -> Params:
    return {name: leaf.astype(param_dtype(leaf)) for name, leaf in params.items()}


def _unit(x: jax.Array) -> jax.Array:
    # As in PyTorch, zero stays zero.
    return x / jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(x))), jnp.asarray(1e-12, x.dtype))


def _iterate(linear: Callable[[jax.Array], jax.Array], v: jax.Array, steps: int) -> tuple[jax.Array, jax.Array]:
    """Return u and v after steps of the power iteration."""

    def step(_: Any, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        # Of a linear map, the derivative anywhere has its transpose.
        y, transpose = jax.vjp(linear, pair[1])
        u = _unit(y)
        return u, _unit(transpose(u)[0])

    u = jnp.zeros(jax.eval_shape(linear, v).shape, v.dtype)
    return jax.lax.fori_loop(0, steps, step, (u, v)) if steps > 1 else step(0, (u, v))
