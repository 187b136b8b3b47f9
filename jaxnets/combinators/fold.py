"""Folding of batch norms into the layers before them, for networks that are evaluated and not trained."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.combinators.serial import add, wire
from jaxnets.combinators.wrappers import wrap
from jaxnets.core.checks import along_last
from jaxnets.core.dtypes import to_dtype
from jaxnets.core.errors import NetError, known
from jaxnets.core.layer import as_net
from jaxnets.core.net import Apply, Key, Net, Params, State, Wiring
from jaxnets.core.padded import Padded
from jaxnets.core.paths import paths
from jaxnets.core.value import recorded
from jaxnets.layers.batch_norm import batch_norm
from jaxnets.layers.conv import conv, conv_transpose, depthwise_conv
from jaxnets.layers.dense import dense
from jaxnets.layers.inputs import zero_padding
from jaxnets.layers.windows import Windows, spread
from jaxnets.ops.conv.fused import conv_fused
from jaxnets.ops.geometry import Geometry

LINEAR = (conv, conv_transpose, dense, depthwise_conv)
"""Layers that a batch norm behind them can be folded into: each is linear, then adds a bias."""

FUSED = "conv_relu"
"""The kind of a convolution that also computes a ReLU."""

IDENTITY = as_net(jax.nn.identity)
SUM, OUTPUT = "+", "="
"""Stand for the sum with a shortcut, and for the caller, among the readers of a child."""


def fold_batch_norm(net: Net, params: Params, state: State) -> tuple[Net, Params, State]:
    """Fold each batch norm into the convolution or dense layer before it, for a network that is only evaluated.

    With running averages m and v, scale s and bias b, the layer's kernel W and bias c become
    W · s / √(v + ε) and (c - m) · s / √(v + ε) + b, per feature, and the batch norm becomes the identity. A convolution
    at the end of a `residual` also adds the shortcut and applies the ReLU after the sum, and a 1×1 convolution applies
    a ReLU that follows it: on a CPU, oneDNN does so in the same pass over the output. Outputs in evaluation agree with
    those of `net` up to rounding.

    Names and paths remain, except those of the folded batch norms, which have no parameters or state any more. A batch
    norm stays as it is if it is not directly behind one of these layers, as at the start of a block of `resnet50_v2`,
    or if others read the layer's output too, or in a network that `upto` has cut. To extract features, fold first, then
    cut. `jn.save(path, params, net=net)` saves the result.

    Args:
        net: a network with batch norms, at any depth, also inside `repeat`, `ensemble`, `cast` and `remat`.
        params: its parameters.
        state: its state, with the running averages.

    Returns:
        The folded network, its parameters and its state. With `train=True` it computes the same as in evaluation,
        except for dropout and the like: train the network before folding it. Auxiliary heads are not run. If a
        convolution computes a ReLU, an example with a NaN or an infinity has NaN for its outputs; a NaN of values that
        overflow inside counts as 0.

    Raises:
        NetError: for a kernel, bias or running average that is not finite, unless it is traced.

    Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018),
    equation 14.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = jn.serial(conv=jn.conv(4, 3, use_bias=False), bn=jn.batch_norm(), relu=jax.nn.relu)
    >>> x = jnp.ones((2, 5, 5, 3))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> folded, folded_params, folded_state = fold_batch_norm(net, params, state)
    >>> {name: sorted(leaves) for name, leaves in folded_params.items()}, folded_state
    ({'conv': ['bias', 'kernel']}, {})
    >>> y, _ = net.apply(params, state, x)
    >>> bool(jnp.allclose(folded.apply(folded_params, folded_state, x)[0], y, atol=1e-5))
    True
    """
    params, state = _fold_values(net, params, state)
    for path, leaf in paths(params).items():
        if (values := known(leaf)) is not None and not np.isfinite(values).all():
            # oneDNN's ReLU would make 0 of a NaN.
            raise NetError(f"expects finite parameters and averages, got NaN or infinity in {path}", label="fold")
    return folded(net), params, state


@recorded
def folded(net: Net) -> Net:
    """Return the network that `fold_batch_norm` returns; it depends on no parameters, and a file can name it."""
    inner = _folded(net)
    return _guarded(inner) if _computes_relu(inner) else inner


def _guarded(net: Net) -> Net:
    """Return a network whose outputs are NaN for an example that is not finite, which oneDNN's ReLU would hide."""

    def around(apply_inner: Apply) -> Apply:
        def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
            y, state = apply_inner(params, state, x, key=key, train=train)
            finite = _finite(x)
            return jax.tree.map(lambda leaf: _with_nan(finite, leaf), y), state

        return apply

    def remake(change: Callable[[Net], Net]) -> Net:
        return _guarded(change(net))

    return wrap("folded", net, around(net.apply), net.init_with_output, net.label, remake, around=around)


def _finite(x: Any) -> jax.Array:
    """Return which examples are finite, `(batch,)`: in every array, if the input is a tuple or a dict of them."""
    leaves = jax.tree.leaves(x, is_leaf=lambda each: isinstance(each, Padded))
    arrays = (zero_padding(each)[0] for each in leaves)
    return jnp.stack([jnp.isfinite(each.reshape(each.shape[0], -1)).all(1) for each in arrays]).all(0)


def _with_nan(finite: jax.Array, y: jax.Array) -> jax.Array:
    """Return outputs `(batch, ...)` with NaN for the examples that are not finite; integers are unchanged."""
    if not jnp.issubdtype(y.dtype, jnp.floating):
        return y
    return jnp.where(finite.reshape(-1, *(1,) * (y.ndim - 1)), y, jnp.asarray(jnp.nan, y.dtype))


def _computes_relu(net: Net) -> bool:
    return net.kind == FUSED or any(map(_computes_relu, net.children.values()))


def _folded(net: Net) -> Net:
    if net.remake is not None:
        return net.remake(_folded)
    return net if net.wiring is None else _rewired(net, net.wiring)


def _rewired(net: Net, wiring: Wiring) -> Net:
    """Fold the batch norms of a network that is described by its wiring."""
    children = {name: _folded(child) for name, child in net.children.items()}
    for layer, norm in _pairs(net):
        children[layer] = _with_bias(children[layer])
        children[norm] = IDENTITY

    sources, readers = dict(wiring.sources), _readers(net, wiring)
    shortcut, activation = wiring.shortcut, wiring.activation
    for name in [name for name, child in children.items() if child.constructor is conv and child.arguments["use_bias"]]:
        # The last of the identities behind the convolution, and what reads it, if that is one child.
        end, behind = name, _only(readers[name])
        while children.get(behind) is IDENTITY:
            end, behind = behind, _only(readers[behind])
        # With a larger kernel the convolution takes so long that a pass over its output is not noticed.
        if behind in children and _is_relu(children[behind]) and _is_pointwise(children[name]):
            children[name], children[behind] = _with_epilogue(children[name], relu=True), IDENTITY
        elif behind == SUM and end == wiring.output and shortcut is not None and activation in (None, jax.nn.relu):
            children[name] = _with_epilogue(children[name], adds=True, relu=activation is not None)
            sources[name] = (*sources[name], shortcut)
            # The shortcut runs before the convolution that adds it.
            order = [each for each in children if each != shortcut]
            order[order.index(name) : order.index(name)] = [shortcut] if shortcut else []
            children, shortcut, activation = {each: children[each] for each in order}, None, None

    output = wiring.output
    if shortcut is not None:
        children["(sum)"], sources["(sum)"], output = as_net(_sum), (output, shortcut), "(sum)"
        if activation is not None:
            children["(activation)"], sources["(activation)"] = as_net(activation), (output,)
            output = "(activation)"
    return wire(net.kind, children, sources, output)


def _readers(net: Net, wiring: Wiring) -> dict[str, list[str]]:
    """Return for each child, and "" for the input, who reads it: children, the `SUM`, the caller as `OUTPUT`."""
    readers: dict[str, list[str]] = {name: [] for name in ("", *net.children)}
    for name, read in wiring.sources.items():
        for source in read:
            readers[source].append(name)
    readers[wiring.output].append(OUTPUT if wiring.shortcut is None else SUM)
    if wiring.shortcut is not None:
        readers[wiring.shortcut].append(SUM)
    return readers


def _only(readers: list[str]) -> str:
    """Return the only reader, or "" if there are several."""
    return readers[0] if len(readers) == 1 else ""


def _pairs(net: Net) -> list[tuple[str, str]]:
    """Return the names of the layers and the batch norms to fold into them."""
    if net.wiring is None:
        return []
    constructors = {name: child.constructor for name, child in net.children.items()}
    read_by = ((layer, _only(readers)) for layer, readers in _readers(net, net.wiring).items())
    return [
        (layer, norm)
        for layer, norm in read_by
        if constructors.get(layer) in LINEAR and constructors.get(norm) is batch_norm
    ]


def _with_bias(layer: Net) -> Net:
    assert layer.constructor is not None
    return layer.constructor(**{**layer.arguments, "use_bias": True})


def _fold_values(net: Net, params: Params, state: State) -> tuple[Params, State]:
    """Return the parameters and the state of the folded network."""
    if net.wiring is None and net.remake is None:
        return params, state
    if net.inner is not None:
        inner = partial(_fold_values, net.inner)
        return (jax.vmap(inner) if net.kind in ("repeat", "ensemble") else inner)(params, state)
    params, state = dict(params), dict(state)
    for name, child in net.children.items():
        params[name], state[name] = _fold_values(child, params.get(name, {}), state.get(name, {}))
    for layer, norm in _pairs(net):
        averages, affine = state.pop(norm), params.pop(norm, {})
        params[layer] = _merged(net.children[layer], params[layer], net.children[norm], affine, averages)
    # A child without parameters or state has no entry.
    return {name: own for name, own in params.items() if own}, {name: own for name, own in state.items() if own}


def _with_epilogue(layer: Net, *, relu: bool, adds: bool = False) -> Net:
    """Return a convolution that also computes a ReLU; if `adds`, its input is a pair, whose second is added before."""
    settings = {name: layer.arguments[name] for name in ("kernel_size", "stride", "padding", "dilation")}
    features, groups = (layer.arguments[name] for name in ("features", "groups"))

    def init(key: Key, x: Any) -> tuple[Params, State]:
        return layer.init(key, x[0] if adds else x)

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        x, residual = x if adds else (x, None)
        if isinstance(x, Padded):
            y, _ = layer.apply(params, state, x)
            y = y if residual is None else add(y, residual)
            return jax.tree.map(jax.nn.relu, y) if relu else y, state
        x = jnp.asarray(x)
        _, stride, padding, dilation = Windows(**settings).over(x)
        window = params["kernel"].shape[:-2]
        geometry = Geometry(x.shape[1:-1], window, x.shape[-1], features, stride, padding, dilation, groups)
        if residual is not None and residual.shape != (wanted := (x.shape[0], *geometry.out, features)):
            raise NetError(f"adds {wanted} from the body to {residual.shape} from the shortcut, which must be equal")
        low = to_dtype(params, x.dtype)
        return conv_fused(x, low["kernel"], low["bias"], residual, geometry, relu=relu), state

    label = f"{layer.label}{' + shortcut' * adds}{', relu' * relu}"
    return Net(init, apply, label, kind=FUSED if relu else "conv")


def _sum(pair: tuple[Any, Any]) -> Any:
    return add(*pair)


def _is_pointwise(layer: Net) -> bool:
    return set(spread(layer.arguments["kernel_size"], 1)) == {1}


def _is_relu(net: Net) -> bool:
    return net.constructor is as_net and net.arguments["function"] is jax.nn.relu


def _merged(layer: Net, params: Params, norm: Net, affine: Params, averages: State) -> Params:
    """Return the kernel and bias of a layer after folding the batch norm that follows it."""
    # (features,)
    factor = jax.lax.rsqrt(averages["var"] + jnp.asarray(norm.arguments["epsilon"], averages["var"].dtype))
    factor = factor * affine["scale"] if "scale" in affine else factor
    kernel = params["kernel"]
    if layer.constructor is conv_transpose:
        # The channels of a group are adjacent, and so are its features: (*window, groups, channels / groups, features)
        *window, channels, features = kernel.shape
        groups = layer.arguments["groups"]
        grouped = kernel.reshape(*window, groups, channels // groups, features)
        each = factor.reshape(groups, 1, features)
        kernel = (grouped * each.reshape((1,) * len(window) + each.shape)).reshape(kernel.shape)
    else:
        kernel = kernel * along_last(factor, kernel)
    bias = (params.get("bias", 0) - averages["mean"]) * factor
    return {"kernel": kernel, "bias": bias + affine["bias"] if "bias" in affine else bias}
