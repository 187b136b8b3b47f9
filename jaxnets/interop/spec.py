"""A network without its numbers: the arrays it wants, layer by layer, and trees made of what was found for them."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.net import Key, Net, Params, State, check_input
from jaxnets.core.paths import Pattern, matches, paths
from jaxnets.interop.tensors import shortened
from jaxnets.interop.torch_names import Layer, layers


class Skeleton:
    """What `net.init` would make for an input.

    Attributes:
        params: specs of the parameters.
        state: specs of the state.
        tree: both in one, nested dicts.
        specs: both by path, `params/fc/kernel` and `state/bn1/mean`.
    """

    def __init__(self, net: Net, x: Any) -> None:
        with labeled_as("x"):
            check_input(x)
        self.net, self.x = net, x
        self.params, self.state = jax.eval_shape(net.init, jax.random.key(0), x)
        self.tree = _merged(self.params, self.state)
        self.specs = flat(self.params, self.state)

    @functools.cached_property
    def every_layer(self) -> list[Layer]:
        """All layers, under PyTorch's names."""
        return layers(self.net, self.tree)

    @functools.cached_property
    def layers(self) -> list[Layer]:
        """Those that have parameters or state."""
        return [layer for layer in self.every_layer if not layer.bare]

    def own(self, layer: Layer) -> dict[str, str]:
        """Return the paths of a layer's arrays by name, in PyTorch's order: state last, biases behind the rest."""
        inside = f"{layer.path}/" if layer.path else ""
        rest = {
            path: path.removeprefix(tree + inside)
            for tree in ("params/", "state/")
            for path in self.specs
            if path.startswith(tree + inside)
        }
        own = sorted(rest.items(), key=lambda item: (item[0].startswith("state/"), "bias" in item[1]))
        return {name: path for path, name in own if "/" not in name}

    def matching(self, pattern: Pattern, label: str) -> set[str]:
        """Return the paths, with `params/` or `state/` before them, that match one of the patterns.

        Raises:
            NetError: for a pattern that matches nothing.
        """
        bare = {path.partition("/")[2] for path in self.specs}
        for each in [pattern] if isinstance(pattern, str) else pattern:
            if not any(matches(each, path) for path in bare):
                raise NetError(f"matches no path; there are: {shortened(sorted(bare))}", label=f"{label} {each!r}")
        return {path for path in self.specs if matches(pattern, path.partition("/")[2])}

    def draw(self, chosen: set[str], key: Key | None) -> dict[str, Any]:
        """Return the chosen arrays as `net.init` draws them, and compute no others.

        Raises:
            NetError: if there are some, and no key.
        """
        if not chosen:
            return {}
        if key is None:
            raise NetError("draws arrays anew and needs a key, got none; pass key=jax.random.key(0)", label="fresh")

        def draw(key: Key) -> dict[str, Any]:
            return {path: leaf for path, leaf in flat(*self.net.init(key, self.x)).items() if path in chosen}

        return jax.jit(draw)(key)

    def trees(self, found: Mapping[str, Any], dtype: Any = None) -> tuple[Params, State]:
        """Return parameters and state made of copies of the arrays found by path, floating parameters in `dtype`."""
        leaves = []
        for path, spec in self.specs.items():
            other = dtype is not None and path.startswith("params/") and jnp.issubdtype(spec.dtype, jnp.floating)
            own = np.array(found[path], jnp.dtype(dtype) if other else spec.dtype)  # a copy, and nothing compiled
            leaves.append(jnp.asarray(own))
        return jax.tree.unflatten(jax.tree.structure((self.params, self.state)), leaves)


def flat(params: Params, state: State) -> dict[str, Any]:
    """Return arrays by path, `params/fc/kernel` and `state/bn1/mean`."""
    return paths({"params": params, "state": state})


def _merged(params: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(params)
    for name, own in state.items():
        both = isinstance(own, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], own) if both else own
    return merged


def nested(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays by path as nested dicts."""
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *inside, name = path.split("/")
        place = tree
        for each in inside:
            place = place.setdefault(each, {})
        place[name] = array
    return tree
