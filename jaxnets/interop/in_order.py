"""Layers of two libraries, and the order in which data reach them.

Names that a library made up, such as `dense_1`, say little, and layers of equal shapes can be swapped without an error.
So layers that are alike correspond only if their order is known on both sides; otherwise the caller must name them.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError
from jaxnets.core.net import Net, Wiring
from jaxnets.core.paths import paths
from jaxnets.interop.channel_order import Orders
from jaxnets.interop.settings import Settings
from jaxnets.interop.spec import Skeleton
from jaxnets.interop.torch_names import cell_of, slashed, unwrapped

Shapes = Mapping[str, tuple[int, ...]]
# For each container, by its path: the children that are known to run before each child.
Order = Mapping[str, Mapping[str, frozenset[str]]]

WHOLE = ("attention", "bidirectional")
"""Networks whose contents are one layer in other libraries."""


@dataclass(frozen=True, eq=False)
class Theirs:
    """A layer of another library.

    Attributes:
        path: where it is.
        kind: the constructor here that makes such a layer; "" if it is unknown.
        arrays: its arrays in our layout, by our names: `forward/kernel` inside a bidirectional layer.
        settings: those that arrays do not show, if they are known.
        activation: the settings of the function that it applies to its output, if it does.
        inside: the settings of its parts, by our names: `forward` of a bidirectional layer.
    """

    path: str
    kind: str
    arrays: Mapping[str, np.ndarray]
    settings: Settings | None = None
    activation: Settings | None = None
    inside: Mapping[str, Settings] = field(default_factory=dict)

    @property
    def shapes(self) -> Shapes:
        """The shapes of its arrays."""
        return {name: np.shape(array) for name, array in self.arrays.items()}


@dataclass(frozen=True, eq=False)
class Ours:
    """A layer of our network, or one copy of it if it is repeated.

    Attributes:
        path: where it is, in which the number of a copy is a step of its own, `h/3/up`.
        net: the network.
        own: the paths of its arrays by name, those of all copies.
        shapes: the shapes of its arrays, those of one copy.
        copy: the number of the copy; `None` if it is not repeated.
    """

    path: str
    net: Net
    own: Mapping[str, str]
    shapes: Shapes
    copy: int | None = None

    @property
    def kind(self) -> str:
        """The name of the constructor, that of the cell for a recurrent layer."""
        _, net = unwrapped(self.net)
        cell = cell_of(net)
        kind = getattr(cell.constructor, "__name__", "") if cell is not None else net.kind
        return "conv" if kind == "depthwise_conv" else kind


@dataclass
class Network:
    """Our network, as layers in the order of its children.

    Attributes:
        skeleton: its arrays.
        layers: the layers, also those without arrays.
        order: which children of each network inside run before which.
    """

    skeleton: Skeleton
    layers: list[Ours] = field(default_factory=list)
    order: dict[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._add(self.skeleton.net, self.skeleton.tree, "", None)

    def _add(self, net: Net, tree: Any, path: str, copy: int | None) -> None:
        _, within = unwrapped(net)
        if net.copies and copy is not None:
            raise NetError("is copied within copies; convert one at a time", label=net.label)
        if net.copies:
            if net.kind == "repeat":
                self.order[path] = in_turn(map(str, range(net.copies)))
            for k in range(net.copies):
                self._inside(net, within, tree, slashed(path, str(k)), k)
        else:
            self._inside(net, within, tree, path, copy)

    def _inside(self, net: Net, within: Net, tree: Any, path: str, copy: int | None) -> None:
        whole = within.kind in WHOLE and all(not name.isdigit() for name in within.children)
        if not net.children or whole:
            own = paths(tree)
            specs = self.skeleton.specs
            shapes = {name: specs[place].shape[copy is not None :] for name, place in own.items()}
            self.layers.append(Ours(path, net, own, shapes, copy))
            return
        if within.wiring is not None:
            self.order[path] = ancestors(_sources(within.wiring))
        elif within.kind in ("recurrent", "bidirectional"):
            self.order[path] = in_turn(within.children)
        for name, child in net.children.items():
            self._add(child, tree.get(name, {}), slashed(path, name), copy)

    def trees(
        self, pairs: Iterable[tuple[Ours, Theirs]], drawn: Mapping[str, Any], orders: tuple[Orders, Orders], dtype: Any
    ) -> tuple[Any, Any]:
        """Return parameters and state from matched layers and arrays that were drawn, in the order of our features."""
        found: dict[str, dict[int, np.ndarray]] = {}
        for own, theirs in pairs:
            for name, array in theirs.arrays.items():
                path = own.own[name]
                array = np.asarray(array).reshape(own.shapes[name])
                for order, axis in zip(orders, (0, -1)):
                    array = np.take(array, order[path], axis) if path in order else array
                found.setdefault(path, {})[own.copy or 0] = array
        arrays = {
            path: np.stack([copies[k] for k in sorted(copies)])
            if self.skeleton.specs[path].ndim > copies[0].ndim
            else copies[0]
            for path, copies in found.items()
        }
        return self.skeleton.trees({**arrays, **drawn}, dtype)


def _sources(wiring: Wiring) -> dict[str, tuple[str, ...]]:
    return {name: tuple(source for source in sources if source) for name, sources in wiring.sources.items()}


def in_turn(names: Iterable[str]) -> dict[str, frozenset[str]]:
    """Return what runs before each of children that run one after another."""
    names = list(names)
    return {name: frozenset(names[:place]) for place, name in enumerate(names)}


def numbered(names: Iterable[str]) -> dict[str, frozenset[str]]:
    """Return what runs before each of children that a library numbered by class, `dense`, `dense_1`, ….

    >>> numbered(["dense_1", "conv", "dense", "dense_10"])["dense_10"] == {"dense", "dense_1"}
    True
    """
    stems: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        stem, number = split_number(name)
        stems.setdefault(stem, []).append((number, name))
    return {name: before for alike in stems.values() for name, before in in_turn(n for _, n in sorted(alike)).items()}


def split_number(name: str) -> tuple[str, int]:
    """Return a name without its number, and the number, 0 if it has none: `("dense", 1)` for `dense_1`."""
    stem, _, number = name.rpartition("_")
    return (stem, int(number)) if stem and number.isdigit() else (name, 0)


def ancestors(sources: Mapping[str, Iterable[str]]) -> dict[str, frozenset[str]]:
    """Return what each child depends on, from the children that it reads."""
    found = {name: frozenset(each) & sources.keys() for name, each in sources.items()}
    while True:
        new = {name: before.union(*(found[each] for each in before)) for name, before in found.items()}
        if new == found:
            return found
        found = new


def is_before(order: Order, a: str, b: str) -> bool:
    """Tell whether a is known to run before b."""
    first, second = a.split("/"), b.split("/")
    for depth, (one, other) in enumerate(zip(first, second)):
        if one != other:
            before = order.get("/".join(first[:depth]), {})
            # In a loop, each is before the other.
            return one in before.get(other, ()) and other not in before.get(one, ())
    return False


def sorted_layers(layers: Sequence[Any], order: Order) -> list[Any] | None:
    """Return layers in order; `None` if it is not fully known."""
    ranked = sorted(layers, key=lambda layer: sum(is_before(order, other.path, layer.path) for other in layers))
    known = all(is_before(order, a.path, b.path) for a, b in itertools.pairwise(ranked))
    return ranked if known else None
