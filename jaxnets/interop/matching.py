"""Which layers of two libraries correspond: those of one kind and equal shapes, in their order."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from jaxnets.core.errors import NetError
from jaxnets.core.net import Net
from jaxnets.interop.in_order import Network, Order, Ours, Theirs, is_before, sorted_layers
from jaxnets.interop.settings import Settings, ours_of
from jaxnets.interop.tensors import renamed, shortened


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
        own_name = own_name and new in ours and layer.kind in ("", ours[new].kind)
        if new in ours and (own_name or new != layer.path):
            own = ours.pop(new)
            pairs.append((own, read(layer, own.kind) if not layer.kind else layer))
            del named[new]
    rest, others = list(ours.values()), list(named.values())
    fresh = {own.path for own in network.layers if own.own and drawn.issuperset(own.own.values())}
    # Of kinds that are partly drawn, as their shapes may differ.
    for kind in {own.kind for own in rest if own.path in fresh}:
        alike = [own for own in rest if own.kind == kind], [layer for layer in others if layer.kind == kind]
        sides = sorted_layers(alike[0], network.order), sorted_layers(alike[1], order)
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
        sides = sorted_layers(alike[0], network.order), sorted_layers(alike[1], order)
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
            if is_before(network.order, own.path, later.path) and is_before(order, other.path, layer.path):
                what = f"runs {own.path} before {later.path}, but the source {layer.path} after {other.path}"
                raise NetError(f"{what}; build the same network, or {hint}")
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
