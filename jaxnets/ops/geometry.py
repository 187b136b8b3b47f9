"""Where a convolution's windows lie, and the sizes that follow."""

import itertools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

Sizes = tuple[int, ...]  # one number per spatial axis
Pairs = tuple[tuple[int, int], ...]  # zeros before and after, per spatial axis


def out_sizes(spatial: Sizes, window: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes) -> Sizes:
    """Return how many windows fit in each spatial axis; zero or less where none does.

    >>> out_sizes((28, 28), (5, 5), (2, 1), ((0, 0), (2, 2)), (1, 1))
    (12, 28)
    """
    return tuple(
        (n + sum(pair) - d * (w - 1) - 1) // s + 1
        for n, w, s, pair, d in zip(spatial, window, stride, padding, dilation, strict=True)
    )


@dataclass(frozen=True)
class Geometry:
    """The shapes of a convolution but for the batch.

    y[i, o] = Σ_{j, c} x[i·stride + j·dilation − padding, c] w[j, c, o].

    Attributes:
        spatial: sizes of the input.
        kernel_size: sizes of the kernel.
        channels: of the input.
        features: of the output.
        stride: steps between windows.
        padding: zeros before and after each axis.
        dilation: steps between the elements of a window.
        groups: into how many groups channels and features are split.
    """

    spatial: Sizes
    window: Sizes
    channels: int
    features: int
    stride: Sizes
    padding: Pairs
    dilation: Sizes
    groups: int = 1

    @property
    def out(self) -> Sizes:
        """Sizes of the output."""
        return out_sizes(self.spatial, self.window, self.stride, self.padding, self.dilation)

    @property
    def reach(self) -> Sizes:
        """How far a window reaches along each axis."""
        return tuple(d * (w - 1) + 1 for w, d in zip(self.window, self.dilation))

    @property
    def kernel(self) -> Sizes:
        """Shape of the kernel."""
        return (*self.window, self.channels // self.groups, self.features)

    @property
    def gathered(self) -> bool:
        """Whether windows are at every place, so that the gradient by the input is a convolution of the same kind."""
        fits = all(low < reach and high < reach for (low, high), reach in zip(self.padding, self.reach))
        return set(self.stride) == {1} and fits and self.groups == 1

    def turned(self) -> "Geometry":
        """Return the geometry of the gradient by the input where `gathered`: a convolution, the kernel turned."""
        padding = tuple((r - 1 - low, r - 1 - high) for (low, high), r in zip(self.padding, self.reach))
        return Geometry(self.out, self.window, self.features, self.channels, self.stride, padding, self.dilation)

    def products(self, batch: int) -> int:
        """Return how many multiply-adds there are."""
        return batch * math.prod(self.out) * math.prod(self.kernel)


def padded(x: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the input between its zeros."""
    edges = [(low, high, 0) for low, high in geometry.padding]
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *edges, (0, 0, 0)))


def places(window: Sizes) -> list[Sizes]:
    """Return the elements of a window, the last axis fastest."""
    return [*itertools.product(*map(range, window))]


def under(x: jax.Array, geometry: Geometry, place: Sizes) -> jax.Array:
    """Return the padded input as far as it lies under one element of the window, along the first `len(place)` axes."""
    axes = zip(place, geometry.out, geometry.stride, geometry.dilation)
    for axis, (element, n, step, spread) in enumerate(axes, start=1):
        start = element * spread
        x = lax.slice_in_dim(x, start, start + (n - 1) * step + 1, step, axis)
    return x
