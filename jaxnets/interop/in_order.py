"""Layers of two libraries, matched by kind, by the shapes of their arrays, and by the order in which data reach them.

Names that a library made up, such as `dense_1`, say little, and layers of equal shapes can be swapped without an error.
So layers that are alike correspond only if their order is known on both sides; otherwise the caller must name them.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError
from jaxnets.core.net import Net, Wiring
from jaxnets.core.paths import paths
from jaxnets.interop.channel_order import Orders
from jaxnets.interop.settings import Settings, ours_of
from jaxnets.interop.spec import Skeleton
from jaxnets.interop.tensors import renamed, shortened
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


def match(
    network: Network,
    theirs: Sequence[Theirs],
    order: Order,
    *,
    rename: Mapping[str, str],
    by_name: bool = False,
    drawn: Iterable[str] = (),
    read: Callable[[Theirs, str], Theirs] = lambda layer, kind: layer,
    hint: str = "map layers by rename=",
) -> list[tuple[Ours, Theirs]]:
    """Return which layers correspond.

    Args:
        network: our network.
        theirs: the other library's layers.
        order: what is known of their order.
        rename: their paths, or prefixes before a slash, and ours to use instead.
        by_name: whether layers of equal paths correspond.
        drawn: the paths of our arrays that need no counterpart.
        read: `(layer, kind) -> layer`, how to read a layer of unknown kind once its counterpart is known.
        hint: what to do about layers without a counterpart.

    Raises:
        NetError: for layers that are missing, unexpected or misshapen, that come in another order, or whose order is
            unknown although they are alike.
    """
    drawn = set(drawn)
    ours = {own.path: own for own in network.layers if own.own}
    named = renamed(((layer.path, layer) for layer in theirs), rename, "/")
    if lost := [f"{layer.path} to {new}" for new, layer in named.items() if new != layer.path and new not in ours]:
        raise NetError(
            f"expects layers of the network in rename=, got {shortened(lost)}; they are {shortened([*ours])}"
        )
    pairs = []
    for new, layer in list(named.items()):
        own_name = by_name and not any(step.isdigit() for step in new.split("/"))
        if new in ours and (own_name or new != layer.path):
            own = ours.pop(new)
            pairs.append((own, read(layer, own.kind) if not layer.kind else layer))
            del named[new]
    rest, others = list(ours.values()), list(named.values())
    fresh = {own.path for own in network.layers if own.own and drawn.issuperset(own.own.values())}
    # Of kinds that are partly drawn, as their shapes may differ.
    for kind in {own.kind for own in rest if own.path in fresh}:
        alike = [own for own in rest if own.kind == kind], [layer for layer in others if layer.kind == kind]
        sides = _in_order(alike[0], network.order), _in_order(alike[1], order)
        if len(alike[0]) != len(alike[1]) or None in sides:
            listed = shortened([layer.path for layer in alike[1]])
            raise NetError(
                f"can't tell which of {listed} need not be loaded; name the others by rename=", label="fresh"
            )
        for own, layer in zip(*sides):  # type: ignore[arg-type]  # neither is None
            if own.path in fresh:
                rest.remove(own)
                others.remove(layer)
    pairs = [(own, layer) for own, layer in pairs if own.path not in fresh]
    count = len(pairs)
    for key in dict.fromkeys(map(_key, rest)):
        alike = [own for own in rest if _key(own) == key], [layer for layer in others if _key(layer) == key]
        if len(alike[0]) != len(alike[1]):
            continue
        sides = _in_order(alike[0], network.order), _in_order(alike[1], order)
        for side, units, whose in zip(sides, alike, ("the network's", "the source's")):
            if side is None:
                both = " and ".join(shortened([each.path for each in units]) for units in reversed(alike))
                raise NetError(f"can't tell which of {both} correspond: {whose} order is unknown; {hint}")
        pairs += zip(*sides)  # type: ignore[arg-type]  # neither is None
        rest = [own for own in rest if own not in alike[0]]
        others = [layer for layer in others if layer not in alike[1]]
    _refuse(rest, others, [pair for pair in pairs if not _fits(*pair)], hint)
    places = {own.path: place for place, own in enumerate(network.layers)}
    alone = sorted(pairs[count:], key=lambda pair: places[pair[0].path])
    for k, (own, layer) in enumerate(alone):
        for later, other in alone[k + 1 :]:
            if _before(network.order, own.path, later.path) and _before(order, other.path, layer.path):
                named_ours, named_theirs = f"{own.path}, then {later.path}", f"{other.path}, then {layer.path}"
                raise NetError(f"runs {named_ours}, but the source {named_theirs}; build the same network, or {hint}")
    return pairs


def activations(network: Network, pairs: Iterable[tuple[Ours, Theirs]]) -> list[tuple[str, Net, Settings]]:
    """Return the layers after those whose counterpart has an activation of its own, each with the activation."""
    places = {own.path: place for place, own in enumerate(network.layers)}
    return [
        (after.path, after.net, layer.activation)
        for own, layer in pairs
        if layer.activation is not None
        for after in [[*network.layers[places[own.path] :], own][1]]
    ]


def unweighted(
    network: Network, theirs: Sequence[Settings], taken: Iterable[str] = (), *, pools: bool = True
) -> list[tuple[str, Net, Settings]]:
    """Return our layers without arrays, each with the settings of the other library's in the same place.

    Pools, dropouts and activations are counted, each by themselves; those of unequal numbers are left out.

    Args:
        network: our network.
        theirs: the settings of their layers without arrays, in the order in which they run.
        taken: the paths of our layers that have a counterpart.
        pools: whether all of their pools are known.

    Raises:
        NetError: for another number of pools.
    """
    found, taken = [], set(taken)
    own = {layer.path: layer for layer in network.layers if not layer.own and layer.path not in taken}
    kinds_of = {path: getattr(ours_of(layer.net, 2), "kind", "") for path, layer in own.items()}
    for kinds in (POOLS, {"dropout"}, ACTIVATIONS):
        ours = [own[path] for path, kind in kinds_of.items() if kind in kinds]
        alike = [each for each in theirs if each.kind in kinds]
        if len(ours) == len(alike):
            found += [(layer.path, layer.net, each) for layer, each in zip(ours, alike)]
        elif kinds is POOLS and pools:
            raise NetError(f"expects {len(alike)} pools, as the source has, got {len(ours)}; build the same network")
    return found


POOLS = {"max_pool", "avg_pool"}
ACTIVATIONS = {
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "swish", "mish", "tanh", "sigmoid", "softplus"),
    *("soft_sign", "hard_sigmoid", "hard_swish", "log_sigmoid"),
}


def _key(layer: Ours | Theirs) -> tuple[str, frozenset[tuple[str, tuple[int, ...]]]]:
    # One number may be an array of no axis, or of one.
    return layer.kind, frozenset((name, shape or (1,)) for name, shape in layer.shapes.items())


def _fits(own: Ours, layer: Theirs) -> bool:
    return _key(own) == _key(layer)


def _before(order: Order, a: str, b: str) -> bool:
    """Tell whether a is known to run before b."""
    first, second = a.split("/"), b.split("/")
    for depth, (one, other) in enumerate(zip(first, second)):
        if one != other:
            before = order.get("/".join(first[:depth]), {})
            # In a loop, each is before the other.
            return one in before.get(other, ()) and other not in before.get(one, ())
    return False


def _in_order(layers: Sequence[Any], order: Order) -> list[Any] | None:
    """Return layers in order; `None` if it is not fully known."""
    ranked = sorted(layers, key=lambda layer: sum(_before(order, other.path, layer.path) for other in layers))
    known = all(_before(order, a.path, b.path) for a, b in itertools.pairwise(ranked))
    return ranked if known else None


def _refuse(ours: list[Ours], theirs: list[Theirs], wrong: list[tuple[Ours, Theirs]], hint: str) -> None:
    """Raise an error for what is left without a counterpart."""
    kinds = {own.kind for own in ours} & {layer.kind for layer in theirs}
    for kind in kinds:
        alike = [own for own in ours if own.kind == kind], [layer for layer in theirs if layer.kind == kind]
        if len(alike[0]) == len(alike[1]):
            wrong = [*wrong, *zip(*alike)]
            ours = [own for own in ours if own not in alike[0]]
            theirs = [layer for layer in theirs if layer not in alike[1]]
    lists = {
        "missing": [f"{own.path or 'it'} ({own.kind})" for own in ours],
        "unexpected": [f"{layer.path or 'it'} ({layer.kind or 'unknown'}{_shown(layer)})" for layer in theirs],
        "misshapen": [
            f"{layer.path or 'it'}{_shown(layer)} for {own.path or 'it'}{_shown(own)}" for own, layer in wrong
        ],
    }
    if any(lists.values()):
        listed = "; ".join(f"{what} {shortened(names)}" for what, names in lists.items() if names)
        raise NetError(f"expects the network's layers, got others: {listed}; build the same network, or {hint}")


def _shown(layer: Ours | Theirs) -> str:
    return "".join(f" {name} {shape}" for name, shape in layer.shapes.items())
