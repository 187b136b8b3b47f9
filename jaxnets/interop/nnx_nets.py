"""Networks made of modules of Flax NNX."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import check_params, check_train_key
from jaxnets.core.contract import check_key
from jaxnets.core.errors import NetError, labeled_as, shown
from jaxnets.core.net import Key, Net, Params, State, fold
from jaxnets.core.paths import paths
from jaxnets.core.value import recorded
from jaxnets.interop.flax_calls import MODES, check_call, name_of, refuse_padded, taken_by

# The tag of streams that initialize carries, which needs no key.
CARRY = "carry"


@recorded
def made(make: Callable[..., Any], call: Callable[..., Any] | None) -> Net:
    """Make a network of a function that makes an NNX module."""
    from flax import nnx

    with labeled_as("from_flax_module"):
        try:
            module = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
        except TypeError as error:
            hint = "give other arguments first, functools.partial(Model, 3, 10)"
            raise NetError(f"expects a function (*, rngs), got one that fails: {error}; {hint}") from error
        if not isinstance(module, nnx.Module):
            raise NetError(f"expects a function that makes a module of NNX, got one that makes {shown(module)}")
        check_call(module, call)

    def draw(key: Key) -> tuple[Any, Any]:
        _, params, _, rest = _parts(make(rngs=nnx.Rngs(key)))
        return params, rest

    return _net(module, draw, call)


@recorded
def of_values(graphdef: Any, structure: Any, leaves: tuple[Any, ...], call: Callable[..., Any] | None) -> Net:
    """Make a network of an NNX module in parts, which the user can't change."""
    from flax import nnx

    module = nnx.merge(graphdef, jax.tree.unflatten(structure, leaves), copy=True)
    _, params, _, rest = _parts(module)
    return _net(module, lambda key: (params, rest), call)


def _net(module: Any, draw: Callable[[Key], tuple[Any, Any]], call: Callable[..., Any] | None) -> Net:
    from flax import nnx

    label = f"from_flax_module({name_of(module)})"
    taken = taken_by(module)
    run = call or (lambda each, x, train: each(x, **{name: MODES[name] == train for name in taken}))
    # The parts of the module in evaluation and in training.
    modes = {}
    for train in (False, True):
        each = nnx.clone(module)
        (each.train if train else each.eval)()
        modes[train] = _parts(each)

    def init_fn(key: Key, x: Any) -> tuple[Params, State]:
        with labeled_as(label):
            check_key(key)
            refuse_padded(x, call)
            params, rest = draw(key)
            return _values(params), _values(rest)

    def apply_fn(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        graphdef, own, streams, rest = modes[bool(train)]
        with labeled_as(label):
            refuse_padded(x, call)
            if train and any(variable.tag != CARRY for _, variable in nnx.to_flat_state(streams)):
                check_train_key(key)
            key = jax.random.key(0) if key is None else key
            parts = _filled(own, params, x), _reseeded(streams, key), _filled(rest, state, x)
            each = nnx.merge(graphdef, *parts)
        y = run(each, x, train)
        # What the module recorded on the way is dropped: these are the variables that it was made with.
        return y, _like(rest, nnx.state(each)) if train else state

    return Net(init_fn, apply_fn, label, kind="from_flax_module")


def _parts(module: Any) -> Any:
    """Return the structure of an NNX module, its parameters, streams and other variables."""
    from flax import nnx

    nnx.pop(module, (nnx.Intermediate, nnx.Perturbation))
    return nnx.split(module, nnx.Param, nnx.RngState, ...)


def _values(state: Any) -> dict[str, Any]:
    """Return the values of NNX's variables in nested dicts with text as names."""
    from flax import nnx

    def named(tree: Any) -> Any:
        return {str(name): named(each) for name, each in tree.items()} if isinstance(tree, Mapping) else tree

    return named(nnx.to_pure_dict(state))


def _filled(state: Any, values: Any, x: Any) -> Any:
    """Return NNX's variables with other values, of the same shapes."""
    from flax import nnx

    check_params(paths(values), {path: np.shape(leaf) for path, leaf in paths(_values(state)).items()}, x)
    return nnx.from_flat_state(
        {path: variable.replace(_at(values, path)) for path, variable in nnx.to_flat_state(state)}
    )


def _like(state: Any, after: Any) -> dict[str, Any]:
    """Return the values of the variables of `state` that they have `after` a call."""
    from flax import nnx

    found = _values(after)
    return _values(
        nnx.from_flat_state({path: variable.replace(_at(found, path)) for path, variable in nnx.to_flat_state(state)})
    )


def _at(values: Any, path: Sequence[Any]) -> Any:
    for name in path:
        values = values[str(name)]
    return values


def _reseeded(streams: Any, key: Key) -> Any:
    """Return NNX's streams from their beginning, each with the key folded with its path."""
    from flax import nnx

    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)

    def seed(path: Sequence[Any], variable: Any) -> Any:
        shape = variable.shape
        if isinstance(variable, nnx.RngCount):
            return jnp.zeros(shape, jnp.uint32)
        own = fold(key, "/".join(map(str, path[:-1])))
        return jax.random.split(own, shape) if shape else own

    return nnx.from_flat_state(
        {path: variable.replace(seed(path, variable)) for path, variable in nnx.to_flat_state(streams)}
    )
