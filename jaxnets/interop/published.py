"""A network's tensors as a published model names them and lays them out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxnets.core.errors import NetError
from jaxnets.core.paths import matches
from jaxnets.interop.families import FAMILIES, Family
from jaxnets.interop.tensors import Tensors
from jaxnets.interop.torch_names import Layer, dotted, no_counterpart
from jaxnets.models import deit_tiny

PARTS = ("attention", "encoder_block", "decoder_block")
"""The kinds of network whose contents have other names in each family."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """A tensor of a published model.

    Attributes:
        parts: our names of the tensors that it holds, one after another along the outputs.
        shapes: their shapes, as in PyTorch.
        transposed: whether it is a matrix (in, out).
        batched: whether it has a first axis of length 1.
    """

    parts: tuple[str, ...]
    shapes: tuple[Shape, ...]
    transposed: bool
    batched: bool

    @property
    def shape(self) -> Shape:
        """The shape in the published model."""
        first = self.shapes[0]
        whole = first if len(self.parts) == 1 else (sum(shape[0] for shape in self.shapes), *first[1:])
        return (1,) * self.batched + (whole[::-1] if self.transposed else whole)

    def joined(self, ours: Tensors) -> np.ndarray:
        """Return the tensor that holds ours."""
        parts = [ours[name] for name in self.parts]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        whole = whole.T if self.transposed else whole
        return whole[None] if self.batched else whole

    def divided(self, whole: np.ndarray) -> Tensors:
        """Return ours, the inverse of `joined`."""
        whole = whole[0] if self.batched else whole
        whole = whole.T if self.transposed else whole
        ends = np.cumsum([shape[0] for shape in self.shapes])[:-1] if len(self.parts) > 1 else []
        return dict(zip(self.parts, np.split(whole, ends) if len(ends) else [whole], strict=True))


@dataclass(frozen=True)
class _Spelled:
    """A name in a family.

    Attributes:
        name: without the family's prefix.
        place: its place among those that are one tensor.
        based: whether the prefix stands before it.
        part: the attention or block that it is in.
    """

    name: str = ""
    place: int = 0
    based: bool = False
    part: Layer | None = None


class Published:
    """The tensors of a network in one family of names.

    Attributes:
        name: of the family.
        tensors: each by its name.
        copies: names of tensors that equal another, with the name of that.
    """

    def __init__(
        self, family: str, nets: Sequence[Layer], shapes: Mapping[str, Shape], given: Iterable[str] | None = None
    ) -> None:
        """Name the tensors of a network.

        Args:
            family: the name of the family.
            nets: the networks inside, by PyTorch's names.
            shapes: the shapes of its tensors, by PyTorch's names.
            given: the names in a source, which tell whether it has the prefix; default: as in the whole model.

        Raises:
            NetError: for a part of the network without a counterpart.
        """
        self.name: str = family
        self._family = FAMILIES[family]
        self._nets = {name: layer for layer in reversed(nets) for name in layer.names}
        groups: dict[str, list[tuple[_Spelled, str]]] = {}
        for name in shapes:
            spelled = self._spelled(name, strict=True)
            beside = groups.setdefault(spelled.name, [])
            if any(other.place == spelled.place for other, _ in beside):
                raise NetError(f"has two tensors of the name {spelled.name!r}; rename a child", label=repr(family))
            beside.append((spelled, name))
        headless = all(spelled.based for ((spelled, _), *_) in groups.values())
        tied = {
            copy: groups[name][0][0]
            for copy, (name, head) in self._family.tied.items()
            if copy not in groups and (head in groups if head else headless)
            if _is_model(self._family, self._nets.get(""))
        }
        if given is None:
            prefixed = bool(tied) or not headless
        else:
            prefixed = any(name.startswith(self._family.prefix) for name in given)
        self._prefix = self._family.prefix if prefixed else ""
        self.tensors: dict[str, Tensor] = {}
        for parts in groups.values():
            parts.sort(key=lambda part: part[0].place)
            self.tensors |= self._tensors(parts[0][0], {name: shapes[name] for _, name in parts})
        self.copies: dict[str, str] = {copy: self._shown(spelled) for copy, spelled in tied.items()}

    def module(self, name: str) -> str:
        """Return the name of the module that PyTorch's name stands for."""
        return self._shown(self._spelled(name))

    def read(self, given: Tensors) -> Tensors:
        """Return the tensors of a source under newer names, without copies and those that are not weights.

        Raises:
            NetError: for a copy that is not equal to the tensor that it repeats.
        """
        found = {
            name: tensor
            for name, tensor in renewed(self._family, given).items()
            if name in self.tensors or not matches(self._family.ignored, name.replace(".", "/"))
        }
        for copy, name in self.copies.items():
            tensor, other = found.pop(copy, None), found.get(name)
            if tensor is not None and other is not None and not np.array_equal(tensor, other):
                hint = "give the network an output of its own, or pass ignore="
                raise NetError(f"expects {copy} equal to {name}, as the network has one for both; {hint}")
        return found

    def ours(self, tensors: Tensors) -> Tensors:
        """Return ours by PyTorch's names, from tensors of this family."""
        return {own: each for name, whole in tensors.items() for own, each in self.tensors[name].divided(whole).items()}

    def theirs(self, ours: Tensors) -> Tensors:
        """Return the tensors of this family from ours, the inverse of `ours`."""
        found = {name: tensor.joined(ours) for name, tensor in self.tensors.items()}
        return found | {copy: found[name] for copy, name in self.copies.items()}

    def _shown(self, spelled: _Spelled) -> str:
        return (self._prefix if spelled.based else "") + spelled.name

    def _tensors(self, spelled: _Spelled, shapes: Mapping[str, Shape]) -> dict[str, Tensor]:
        """Return the tensor that holds ours, or one for each if their inputs differ in width."""
        name, sizes = self._shown(spelled), list(shapes.values())
        transposed = self._family.transposed and spelled.part is not None and len(sizes[0]) == 2
        if len(set(sizes)) == 1:
            # Also of a model inside another.
            batched = f".{spelled.name}".endswith(tuple(f".{each}" for each in self._family.batched))
            return {name: Tensor(tuple(shapes), tuple(sizes), transposed, batched)}
        module, _, last = name.rpartition(".")
        if last not in self._family.unfused or len({size[0] for size in sizes}) > 1:
            raise self._lacking(spelled.part)
        unfused = [dotted(module, each) for each in self._family.unfused[last]]
        return {name: Tensor((own,), (size,), transposed, False) for name, (own, size) in zip(unfused, shapes.items())}

    def _spelled(self, name: str, *, strict: bool = False) -> _Spelled:
        """Translate a name, piece by piece, by the table of the network that each piece is in.

        In a vision transformer, `encoder.layers.3` is in the table of the model, `attention` in that of the block, and
        `query.weight` in that of the attention.

        Raises:
            NetError: if `strict`, for a tensor of a part that is not in the part's table.
        """
        words, start, found = name.split(".") if name else [], 0, _Spelled()
        holder, table = None, {}
        for end in range(len(words) + 1):
            inner = self._nets.get(".".join(words[:end]))
            own = _table(self._family, inner)
            if own is None and end < len(words):
                continue
            piece, left = _translated(table, words[start:end])
            if strict and holder is not None and left > 1:
                raise self._lacking(holder)
            joined = dotted(found.name, piece.name)
            found = _Spelled(joined, piece.place, found.based or (piece.based and start == 0), holder or found.part)
            start, table, holder = end, own or {}, inner if inner is not None and inner.kind in PARTS else None
        return found

    def _lacking(self, part: Layer | None) -> NetError:
        path, label = (part.path, part.within.label) if part is not None else ("", "it")
        return no_counterpart(path, label, "pass another, such as names='jaxnets' for ours", f"names={self.name!r}")


def _translated(table: Mapping[str, _Spelled], words: list[str]) -> tuple[_Spelled, int]:
    """Return a name by the longest key that it begins with, and how many words of it are in no key."""
    for count in range(len(words), 0, -1):
        if found := table.get(".".join(words[:count])):
            rest = ".".join(words[count:])
            name = found.name + rest if found.name.endswith("_") else dotted(found.name, rest)
            return replace(found, name=name), len(words) - count
    # A tensor of no key has at least two words too many.
    return _Spelled(".".join(words)), 2 * len(words)


def _table(family: Family, net: Layer | None) -> dict[str, _Spelled] | None:
    """Return the table for what is directly in a network; `None` if it has none."""
    if net is not None and net.kind in PARTS and family.parts:
        return _rows(family.parts.get(net.kind, {}), False)
    if _is_model(family, net):
        return _rows(family.base, True) | _rows(family.heads, False)
    return None


def _rows(names: Mapping[str, str], based: bool) -> dict[str, _Spelled]:
    return {
        ours: _Spelled(theirs, place, based)
        for keys, theirs in names.items()
        for place, ours in enumerate(keys.split())
    }


def _is_model(family: Family, net: Layer | None) -> bool:
    """Tell whether a network is the whole model of a family."""
    return net is not None and bool(family.tree) and net.within.children.keys() >= set(family.tree)


def renewed(family: Family, given: Tensors) -> Tensors:
    """Return tensors under the newer of a family's names."""
    found: Tensors = {}
    for name, tensor in given.items():
        for old, new in family.older.items():
            name = name.replace(old, new)
        found[name] = tensor
    return found


def usual(nets: Sequence[Layer]) -> str:
    """Return the family in which a network's weights are usually published."""
    if any(layer.within.constructor is deit_tiny for layer in nets):
        return "timm"
    models = (name for layer in nets for name, family in FAMILIES.items() if _is_model(family, layer))
    return next(models, "torch")


def detected(nets: Sequence[Layer], shapes: Mapping[str, Shape], given: Tensors) -> Published:
    """Return the tensors of a network in the family that most names of a source belong to."""
    found: list[Published] = []
    for family in dict.fromkeys([usual(nets), *FAMILIES]):
        try:
            found.append(Published(family, nets, shapes, renewed(FAMILIES[family], given)))
        except NetError:
            # Without a counterpart in this family.
            continue
    return max(found, key=lambda each: len(each.tensors.keys() & renewed(FAMILIES[each.name], given).keys()))
