"""The arrays that a network expects, layer by layer, and parameter trees built from given arrays."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.contract import check_input
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.paths import Pattern, matches, paths
from jaxnets.interop.channel_order import Orders, feature_orders
from jaxnets.interop.tensors import shortened
from jaxnets.interop.torch_names import Layer, layers


class Skeleton:
    """The specs of what `net.init` returns for an input.

    Attributes:
        params: specs of the parameters.
        state: specs of the state.
        specs: both by path, `params/fc/kernel` and `state/bn1/mean`.
        tree: these paths, of parameters and state together, in one nested dict.
    """

    def __init__(self, net: Net, x: Any) -> None:
        with labeled_as("x"):
            check_input(x)
        self.net: Net = net
        self.x: Any = x
        self.params: Any
        self.state: Any
        self.params, self.state = jax.eval_shape(net.init, jax.random.key(0), x)
        self.specs: dict[str, Any] = flat(self.params, self.state)
        self.tree: dict[str, Any] = nested({path.partition("/")[2]: path for path in self.specs})

    @functools.cached_property
    def nets(self) -> list[Layer]:
        """All networks inside, with PyTorch's names."""
        return layers(self.net, self.tree)

    @functools.cached_property
    def layers(self) -> list[Layer]:
        """The layers that have parameters or state."""
        return [layer for layer in self.nets if layer.own]

    @functools.cached_property
    def orders(self) -> tuple[Orders, Orders]:
        """The order of features where channels come first, by path: on the first axis of arrays, and on the last."""
        convolved = frozenset(
            kernel
            for layer in self.layers
            if (kernel := layer.own.get("kernel", "")) and len(self.specs[kernel].shape) - layer.stacked > 2
        )
        return feature_orders(self.net, self.params, self.state, self.x, convolved)

    def matching(self, pattern: Pattern, label: str) -> set[str]:
        """Return the paths, prefixed by `params/` or `state/`, that match one of the patterns.

        Raises:
            NetError: for a pattern that matches nothing.
        """
        bare = {path.partition("/")[2] for path in self.specs}
        for each in [pattern] if isinstance(pattern, str) else pattern:
            if not any(matches(each, path) for path in bare):
                raise NetError(f"matches no path; paths are {shortened(sorted(bare))}", label=f"{label} {each!r}")
        return {path for path in self.specs if matches(pattern, path.partition("/")[2])}

    def draw(self, chosen: set[str], key: Key | None) -> dict[str, Any]:
        """Return the chosen arrays as `net.init` draws them, without computing the others.

        Raises:
            NetError: if an array is chosen and there is no key.
        """
        if not chosen:
            return {}
        if key is None:
            raise NetError("needs a key to initialize arrays, got none; pass key=jax.random.key(0)", label="fresh")

        def draw(key: Key) -> dict[str, Any]:
            return {path: leaf for path, leaf in flat(*self.net.init(key, self.x)).items() if path in chosen}

        return jax.jit(draw)(key)

    def trees(self, found: Mapping[str, Any], dtype: Any = None) -> tuple[Params, State]:
        """Return parameters and state from copies of arrays by path, with floating parameters in `dtype`."""
        leaves = []
        for path, spec in self.specs.items():
            cast = dtype is not None and path.startswith("params/") and jnp.issubdtype(spec.dtype, jnp.floating)
            # A copy by NumPy: JAX would compile a program for each shape.
            leaves.append(jnp.asarray(np.array(found[path], jnp.dtype(dtype) if cast else spec.dtype)))
        return jax.tree.unflatten(jax.tree.structure((self.params, self.state)), leaves)


def flat(params: Params, state: State) -> dict[str, Any]:
    """Return arrays by path, `params/fc/kernel` and `state/bn1/mean`."""
    return paths({"params": params, "state": state})


def nested(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays by path as nested dicts; the inverse of `paths`."""
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *inside, name = path.split("/")
        place = tree
        for each in inside:
            place = place.setdefault(each, {})
        place[name] = array
    return tree
