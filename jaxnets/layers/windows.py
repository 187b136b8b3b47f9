"""Sliding windows of convolutions and pools: checks of their settings, and their geometry over an input."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxnets.core.checks import check_floating
from jaxnets.core.errors import NetError
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.padded import Padded
from jaxnets.layers.inputs import refuse_packed
from jaxnets.ops.geometry import Sizes
from jaxnets.ops.windows import Windows as Grid

Ints = int | Sequence[int]
Padding = str | int | Sequence[int] | Sequence[tuple[int, int]]

AXES: dict[int, tuple[str, ...]] = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


@dataclass(frozen=True)
class Windows:
    """The checked settings of a sliding window, as written by the user.

    Attributes:
        kernel_size: an integer for all spatial axes, or one for each.
        stride: the step between windows, an integer or one for each axis.
        padding: "VALID" (none); "SAME" (⌈n / stride⌉ windows, odd padding at the end); an integer for both sides of
            every axis; or for each axis an integer or (before, after).
        dilation: the step between elements of a window, an integer or one for each axis.

    Raises:
        NetError: for numbers out of range or of the wrong type, or for different numbers of axes.

    >>> import jax.numpy as jnp
    >>> Windows(3, stride=2, padding="SAME").over(jnp.ones((1, 8, 9, 3))).padding
    ((0, 1), (1, 1))
    """

    kernel_size: Ints
    stride: Ints = 1
    padding: Padding = "VALID"
    dilation: Ints = 1

    def __post_init__(self) -> None:
        for name, value in (("kernel_size", self.kernel_size), ("stride", self.stride), ("dilation", self.dilation)):
            check_ints(name, value)
        _check_padding(self.padding)
        self.rank  # noqa: B018  # raises where the numbers of axes differ

    @property
    def rank(self) -> int | None:
        """How many spatial axes the input must have, `None` for any number."""
        return common_rank(
            kernel_size=self.kernel_size, stride=self.stride, padding=self.padding, dilation=self.dilation
        )

    def over(self, x: Any, *, ceil: bool = False, transposed: bool = False) -> Grid:
        """Return the window over an input, with numbers for each of its spatial axes.

        Args:
            x: an array or its spec, `(batch, *spatial, channels)`.
            ceil: PyTorch's `ceil_mode`: whether the last window may extend past the end, if it starts before the end.
                The padding at the end grows as needed.
            transposed: whether the window slides over the output. Any input is then large enough, and "SAME" means an
                output of n · stride.

        Raises:
            NetError: for an input of another rank, of integers, or smaller than the window.
        """
        rank = check_spatial(x, self.rank)
        spatial = tuple(x.shape[1:-1])
        kernel_size, stride, dilation = (spread(each, rank) for each in (self.kernel_size, self.stride, self.dilation))
        # How many positions a window extends over, including dilation.
        extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel_size, dilation))
        padding = self.padding
        if padding == "VALID":
            pairs = ((0, 0),) * rank
        elif padding == "SAME":
            sizes = [n * s for n, s in zip(spatial, stride)] if transposed else spatial
            # The last of ⌈n / s⌉ windows starts at (⌈n / s⌉ - 1) s and must fit.
            missing = (max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(sizes, stride, extent))
            pairs = tuple((p // 2, p - p // 2) for p in missing)
        else:
            pairs = tuple(_pair(each) for each in spread(padding, rank))
        if ceil:
            pairs = tuple(map(_extend_end, spatial, extent, stride, pairs))
        grid = Grid(kernel_size, stride, pairs, dilation)
        if not transposed:
            _check_fit(spatial, grid)
        return grid


def check_ints(name: str, value: Any, *, least: int = 1) -> None:
    """Check that a value is an integer ≥ `least`, or a sequence of one to three of them.

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
    """Return the number of spatial axes of some settings, or `None` if they fit any number.

    Raises:
        NetError: if two settings differ.
    """
    lengths = {
        name: len(value)
        for name, value in settings.items()
        if isinstance(value, Sequence) and not isinstance(value, str)
    }
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {settings[name]!r}" for name in lengths)
        raise NetError(f"expects settings for the same number of spatial axes, got {listed}")
    return next(iter(lengths.values()), None)


def spread(value: Any, rank: int) -> tuple[Any, ...]:
    """Return a tuple with one value for each of `rank` axes."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * rank


def check_spatial(x: Any, rank: int | None = None) -> int:
    """Check that an input is floating `(batch, *spatial, channels)`; return its number of spatial axes.

    Raises:
        NetError: for integers, or another number of axes, with the accepted forms.
    """
    check_floating(x)
    shape = tuple(x.shape)
    if len(shape) - 2 in (AXES if rank is None else (rank,)):
        return len(shape) - 2
    forms = [f"(batch, {', '.join(names)}, channels)" for n, names in AXES.items() if rank in (None, n)]
    listed = " or ".join([", ".join(forms[:-1]), forms[-1]]) if len(forms) > 1 else forms[0]
    if len(shape) == 2:
        axes = ", ".join(AXES[rank or 2])
        hint = f"; restore the axes of flat rows, x.reshape(len(x), {axes}, channels), or use jn.dense"
    elif len(shape) - 1 == rank:
        hint = "; add the missing axis, x[None] for the batch or x[..., None] for the channels"
    else:
        hint = "; a setting given as a tuple fixes the number of spatial axes" if rank else ""
    raise NetError(f"expects {listed}, got {shape}{hint}")


def refuse_padded(net: Net) -> Net:
    """Return a layer that raises an error for `Padded` sequences, since it would mix padding into its output."""

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        if isinstance(x, Padded):
            raise NetError("takes no Padded sequences: its windows would mix in the padding")
        return net.apply(params, state, x, key=key, train=train)

    return replace(net, apply=apply)


def keep_documents_apart(net: Net) -> Net:
    """Return a layer that raises an error for `Packed` documents, since its windows would mix them."""

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        refuse_packed(x, "its windows would mix them")
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
    """Return (before, after) for an integer or a pair."""
    return tuple(value) if isinstance(value, Sequence) else (value, value)


def _check_fit(spatial: Sizes, grid: Grid) -> None:
    """Check that at least one window fits into the padded input on every axis."""
    for axis, out in enumerate(grid.out(spatial)):
        if out < 1:
            kernel_size, dilation, padding = grid.size[axis], grid.dilation[axis], sum(grid.padding[axis])
            extent = f" ({dilation * (kernel_size - 1) + 1} with dilation {dilation})" if dilation > 1 else ""
            padded = f" and {padding} of padding" if padding else ""
            size = f"{AXES[len(spatial)][axis]} {spatial[axis]}{padded}"
            raise NetError(
                f"expects an input at least as large as the kernel, got {size} "
                f'for kernel_size {kernel_size}{extent}; use padding="SAME", a larger input or a smaller kernel_size'
            )


def _extend_end(n: int, extent: int, stride: int, pair: tuple[int, int]) -> tuple[int, int]:
    """Return the padding of an axis, including what `ceil_mode` adds at the end."""
    low, high = pair
    out = -((extent - n - low - high) // stride) + 1
    if (out - 1) * stride >= n + low:  # the last window would start past the end of the input
        out -= 1
    return low, max(high, (out - 1) * stride + extent - n - low)
