"""What convolution and pooling ask of a window, its stride, padding and dilation, and of the input they slide over."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from jaxnets.core.checks import check_floating
from jaxnets.core.errors import NetError
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.padded import Padded
from jaxnets.ops.geometry import Pairs, Sizes, out_sizes

Ints = int | Sequence[int]
Padding = str | int | Sequence[int] | Sequence[tuple[int, int]]

AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


class Grid(NamedTuple):
    """A window as it slides over one input: a number, or a pair of them, for each spatial axis."""

    size: Sizes
    stride: Sizes
    padding: Pairs
    dilation: Sizes


@dataclass(frozen=True)
class Windows:
    """A sliding window as the user wrote it, checked when it is made.

    Attributes:
        size: one number for every spatial axis, or one for each.
        stride: steps between windows, likewise.
        padding: "VALID" (none), "SAME" (⌈n / stride⌉ windows, an odd place of padding at the end), places on both
            sides of every axis, of each axis, or (before, after) for each axis.
        dilation: steps between the elements of a window.

    Raises:
        NetError: for numbers out of range, of the wrong type, or for unequal numbers of axes.

    >>> import jax.numpy as jnp
    >>> Windows(3, stride=2, padding="SAME").over(jnp.ones((1, 8, 9, 3))).padding
    ((0, 1), (1, 1))
    """

    size: Ints
    stride: Ints = 1
    padding: Padding = "VALID"
    dilation: Ints = 1

    def __post_init__(self) -> None:
        for name, value in (("kernel_size", self.size), ("stride", self.stride), ("dilation", self.dilation)):
            check_ints(name, value)
        _check_padding(self.padding)
        self.rank  # noqa: B018  # raises where the numbers of axes differ

    @property
    def rank(self) -> int | None:
        """How many spatial axes the input has, `None` where that is open."""
        return common_rank(kernel_size=self.size, stride=self.stride, padding=self.padding, dilation=self.dilation)

    def over(self, x: Any, *, ceil: bool = False, transposed: bool = False) -> Grid:
        """Return the numbers for each spatial axis of an input.

        Args:
            x: an array or its spec, `(batch, *spatial, channels)`.
            ceil: whether a last window may reach over the end, if it starts before it: PyTorch's `ceil_mode`.
                The padding at the end grows as needed.
            transposed: whether the window slides over the output: any input is large enough, and
                "SAME" means n · stride.

        Raises:
            NetError: for an input of another rank, of integers, or smaller than the window.
        """
        rank = check_spatial(x, self.rank)
        spatial = tuple(x.shape[1:-1])
        size, stride, dilation = (spread(each, rank) for each in (self.size, self.stride, self.dilation))
        reach = tuple(d * (w - 1) + 1 for w, d in zip(size, dilation))
        padding = self.padding
        if padding == "VALID":
            pairs = ((0, 0),) * rank
        elif padding == "SAME":
            sizes = [n * s for n, s in zip(spatial, stride)] if transposed else spatial
            short = (max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(sizes, stride, reach))
            pairs = tuple((p // 2, p - p // 2) for p in short)
        else:
            pairs = tuple(_pair(each) for each in spread(padding, rank))
        if ceil:
            pairs = tuple(map(_reach_over, spatial, reach, stride, pairs))
        grid = Grid(size, stride, pairs, dilation)
        if not transposed:
            _check_fit(spatial, grid)
        return grid


def check_ints(name: str, value: Any, *, least: int = 1) -> None:
    """Check that a value is an integer of at least `least`, or one to three of them.

    Raises:
        NetError: if it is not.
    """
    if isinstance(value, Sequence) and len(value) not in AXES:
        raise NetError(f"expects {name} for 1 to 3 spatial axes, got {value!r}")
    for each in spread(value, 1):
        if isinstance(each, bool) or not hasattr(each, "__index__"):
            raise NetError(f"expects {name} as an integer or a tuple of integers, got {value!r}")
        if each < least:
            raise NetError(f"expects {name} ≥ {least}, got {value!r}")


def common_rank(**settings: Any) -> int | None:
    """Return how many spatial axes settings are written for, `None` where all hold for any number.

    Raises:
        NetError: if two of them differ.
    """
    lengths = {
        name: len(value)
        for name, value in settings.items()
        if isinstance(value, Sequence) and not isinstance(value, str)
    }
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {settings[name]!r}" for name in lengths)
        raise NetError(f"expects settings for one number of spatial axes, got {listed}")
    return next(iter(lengths.values()), None)


def spread(value: Any, rank: int) -> tuple:
    """Return a value for each of `rank` axes."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * rank


def check_spatial(x: Any, rank: int | None = None) -> int:
    """Check that an input is floating `(batch, *spatial, channels)`; return its number of spatial axes.

    Raises:
        NetError: for integers, or another number of axes; the accepted forms are listed.
    """
    check_floating(x)
    shape = tuple(x.shape)
    if len(shape) - 2 in (AXES if rank is None else (rank,)):
        return len(shape) - 2
    forms = [f"(batch, {', '.join(names)}, channels)" for n, names in AXES.items() if rank in (None, n)]
    listed = " or ".join([", ".join(forms[:-1]), forms[-1]]) if len(forms) > 1 else forms[0]
    if len(shape) == 2:
        axes = ", ".join(AXES[rank or 2])
        hint = f"; give flat rows their axes back, x.reshape(len(x), {axes}, channels), or use jn.dense"
    elif len(shape) - 1 == rank:
        hint = "; add the axis that is missing, x[None] for the batch or x[..., None] for the channels"
    else:
        hint = "; a window given as a tuple fixes the number of spatial axes" if rank else ""
    raise NetError(f"expects {listed}, got {shape}{hint}")


def zero_behind(net: Net) -> Net:
    """Return a layer that sees zeros behind the end of each `Padded` sequence, whatever stood there."""

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        x = Padded(x.zeroed(), x.lengths) if isinstance(x, Padded) else x
        return net.apply(params, state, x, key=key, train=train)

    return replace(net, apply=apply)


def refuse_padded(net: Net) -> Net:
    """Return a layer that takes no `Padded` sequences, since it would mix what stands behind their ends."""

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        if isinstance(x, Padded):
            raise NetError("takes no Padded sequences: a window would mix in what stands behind their ends")
        return net.apply(params, state, x, key=key, train=train)

    return replace(net, apply=apply)


def _check_padding(padding: Any) -> None:
    if padding in ("SAME", "VALID"):
        return
    forms = 'expects padding "SAME", "VALID", an integer ≥ 0, one for each axis, or (before, after) for each axis'
    if isinstance(padding, str):
        hint = f'; write "{padding.upper()}"' if padding.upper() in ("SAME", "VALID") else ""
        raise NetError(f"{forms}, got {padding!r}{hint}")
    pairs = [_pair(each) for each in padding] if isinstance(padding, Sequence) else [_pair(padding)]
    whole = all(hasattr(p, "__index__") and not isinstance(p, bool) and p >= 0 for pair in pairs for p in pair)
    if not whole or len(pairs) not in AXES or any(len(pair) != 2 for pair in pairs):
        raise NetError(f"{forms}, got {padding!r}")


def _pair(value: Any) -> tuple:
    return tuple(value) if isinstance(value, Sequence) else (value, value)


def _check_fit(spatial: Sizes, grid: Grid) -> None:
    for axis, out in enumerate(out_sizes(spatial, *grid)):
        if out < 1:
            size, dilation, padding = grid.size[axis], grid.dilation[axis], sum(grid.padding[axis])
            reach = f" ({dilation * (size - 1) + 1} with dilation {dilation})" if dilation > 1 else ""
            room = f" and {padding} of padding" if padding else ""
            raise NetError(
                f"expects an input no smaller than its window, got {AXES[len(spatial)][axis]} {spatial[axis]}"
                f'{room} for a window of {size}{reach}; give it padding="SAME", more input or a smaller window'
            )


def _reach_over(n: int, reach: int, stride: int, pair: tuple[int, int]) -> tuple[int, int]:
    low, high = pair
    out = -((reach - n - low - high) // stride) + 1
    if (out - 1) * stride >= n + low:  # it would start behind the input's end
        out -= 1
    return low, max(high, (out - 1) * stride + reach - n - low)
