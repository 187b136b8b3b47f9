"""Networks and their weights for Flax."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxnets.core.checks import variables as trees_of
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.layer import as_net
from jaxnets.core.net import Net, Params, State, spec
from jaxnets.core.paths import paths
from jaxnets.interop.flax import matched
from jaxnets.interop.settings import flax_modules
from jaxnets.interop.spec import flat
from jaxnets.interop.tensors import modules_renamed, renamed, shortened

if TYPE_CHECKING:
    import flax.linen as nn
    from flax import nnx


@labeled_as("to_linen", keep=True)
def to_linen(net: Net, *, collection: str = "batch_stats", train: bool = False) -> "nn.Module":
    """Return a network as a module of Flax Linen.

    Its variables are the same trees: `{"params": params, "batch_stats": state}`. It is called as Linen's own modules,
    `module.apply(variables, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"])`, alone or inside another
    module, and `nn.vmap`, `nn.scan` and the like lift it. Modules of equal networks are equal.

    Linen folds its keys: `module.init(key, x)` draws what `net.init` draws from
    `module.bind({}, rngs={"params": key}).make_rng("params")`, and a call in training gives the network
    `module.bind({}, rngs={"dropout": key}).make_rng("dropout")`.

    Args:
        net: the network.
        collection: the collection of its state.
        train: whether a call without `train=` is one in training, as inside `nn.Sequential`.

    Returns:
        A Linen module of `(x, train=None)`. `jn.from_flax_module` makes the network of it again.

    Raises:
        NetError: for a collection without a name or named `params`, or anything else than a network.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = jn.serial(fc=jn.dense(3), bn=jn.batch_norm(), drop=jn.dropout(0.5))
    >>> module, x = to_linen(net), jnp.ones((4, 2))
    >>> variables = module.init(jax.random.key(0), x)
    >>> jax.tree.map(jnp.shape, variables["batch_stats"])
    {'bn': {'mean': (3,), 'var': (3,)}}
    >>> rngs = {"dropout": jax.random.key(1)}
    >>> y, updates = module.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])
    >>> jn.from_flax_module(module) == net
    True
    """
    from jaxnets.interop.flax_classes import LinenNet

    if not isinstance(collection, str) or collection in ("", "params"):
        raise NetError(f"expects a name for collection, other than params, got {collection!r}")
    return LinenNet(as_net(net), collection, train)


@labeled_as("to_nnx", keep=True)
def to_nnx(net: Net, x: Any, *, rngs: Any, trained: Any = None) -> "nnx.Module":
    """Return a network with its parameters and state as a module of Flax NNX.

    Each parameter is an `nnx.Param`, by its path under `module.params`; each array of the state is an `nnx.BatchStat`
    under `module.state`. As NNX's own modules it starts in training: `module.eval()` and `module.train()` switch. A
    call in training draws its key from the stream `rngs.dropout`, and updates the state.

    Args:
        net: the network.
        x: an input or its spec, as for `net.init`.
        rngs: an `nnx.Rngs`, or the seed or key of one. Parameters are drawn from `rngs.params()`.
        trained: values to hold instead, a train state, what `jn.load` returns or a pair `(params, state)`.

    Returns:
        An NNX module of `x`, for `nnx.Optimizer`, `nnx.value_and_grad`, `nnx.jit` and the like.

    Raises:
        NetError: for trained values of another network.

    >>> import jax.numpy as jnp, jaxnets as jn, optax
    >>> from flax import nnx
    >>> module = to_nnx(jn.serial(fc=jn.dense(1)), jnp.ones((1, 3)), rngs=0)
    >>> optimizer = nnx.Optimizer(module, optax.sgd(0.1), wrt=nnx.Param)
    >>> loss, gradients = nnx.value_and_grad(lambda module: module(jnp.ones((4, 3))).mean())(module)
    >>> _ = optimizer.update(module, gradients)
    >>> print(module.params["fc"]["bias"][...])
    [-0.1]
    """
    from flax import nnx

    from jaxnets.interop.flax_classes import NnxNet

    net, rngs = as_net(net), rngs if isinstance(rngs, nnx.Rngs) else nnx.Rngs(rngs)
    trees = net.init(rngs.params(), x) if trained is None else trees_of(trained)
    if trained is not None:
        _check(flat(*jax.eval_shape(net.init, jax.random.key(0), x)), flat(*trees))
    return NnxNet(net, *trees, rngs)


@labeled_as("to_flax", keep=True)
def to_flax(
    net: Net, params: Params, state: State, target: Any, x: Any, *, rename: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a network's parameters and state as the variables of its counterpart in Flax.

    This is the inverse of `from_flax`, bit for bit: layers are matched by the same rules.

    Args:
        net: the network.
        params: its parameters.
        state: its state.
        target: the module to get variables for, whose settings are compared with the network's: of Linen or NNX, or
            `functools.partial(module.init, train=False)`. Or variables of it, of which only the shapes are read; then
            nothing is compared.
        x: an input or its spec, as for `net.init`.
        rename: as for `from_flax`: the same argument.

    Returns:
        NumPy arrays in nested dicts, as the target has them: `{"params": ..., "batch_stats": ...}` for Linen; for NNX
        what `nnx.update(module, variables)` takes.

    Raises:
        NetError: for parameters of another network, those that Flax's module does not have (such as a `recurrent_bias`
            other than zero for NNX's GRU), and as in `from_flax`.

    >>> import flax.linen as nn
    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, x = jn.serial(jn.dense(8), jax.nn.relu, jn.dense(2)), jnp.ones((1, 4))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> theirs = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(2)])
    >>> variables = to_flax(net, params, state, theirs, x, rename={"layers_0": "0", "layers_2": "2"})
    >>> bool(jnp.allclose(theirs.apply(variables, x), net.apply(params, state, x)[0]))
    True
    """
    given, modules = isinstance(target, Mapping), {}
    if not given:
        modules = modules_renamed(flax_modules(target, x).items(), rename or {}, "/")
    variables = target if given else _variables(target, x)
    places = paths(variables)
    bare = {path.partition("/")[2] if "params" in variables else path: path for path in places}
    # Every entry of Flax's arrays has a number, and where from_flax puts it is where its value is here.
    ends = np.cumsum([1, *(int(np.prod(leaf.shape)) for leaf in places.values())])
    numbers = {
        name: np.arange(start, end).reshape(places[path].shape)
        for (name, path), start, end in zip(bare.items(), ends, ends[1:])
    }
    skeleton, found = matched(net, renamed(numbers.items(), rename or {}, "/"), x, modules)
    ours = flat(params, state)
    _check(skeleton.specs, ours)
    kinds = {np.asarray(leaf).dtype for leaf in ours.values()}
    values = np.zeros(ends[-1], kinds.pop() if len(kinds) == 1 else np.float64)
    for path, numbered in found.items():
        array = np.asarray(ours[path])
        # Number 0: an array that Flax's module lacks.
        if np.any(array[numbered == 0]):
            raise NetError(f"expects zeros in {path}, which the module does not have, got other values")
        values[numbered] = array
    leaves = [
        values[start:end].reshape(leaf.shape).astype(leaf.dtype)
        for leaf, start, end in zip(places.values(), ends, ends[1:])
    ]
    return jax.tree.unflatten(jax.tree.structure(variables), leaves)


def _variables(target: Any, x: Any) -> Any:
    """Return the variables of a module, or their specs."""
    import flax.linen as nn
    from flax import nnx

    if isinstance(target, nnx.Module):
        return nnx.to_pure_dict(nnx.state(target, (nnx.Param, nnx.BatchStat)))
    init = target.init if isinstance(target, nn.Module) else target
    return jax.eval_shape(init, jax.random.key(0), spec(x))


def _check(specs: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Check that arrays are those of a network."""
    differing = [path for path, each in specs.items() if path not in given or np.shape(given[path]) != each.shape]
    if differing := [*differing, *(path for path in given if path not in specs)]:
        raise NetError(f"expects the network's arrays, got others: {shortened(differing)}")
