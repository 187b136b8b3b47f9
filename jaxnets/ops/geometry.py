"""Window geometry: sizes of convolutions and pools, and the input under one element of a window."""

import itertools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

Sizes = tuple[int, ...]  # one number per spatial axis
Pairs = tuple[tuple[int, int], ...]  # padding before and after, per spatial axis


def out_sizes(spatial: Sizes, window: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes) -> Sizes:
    """Return how many windows fit along each spatial axis; zero or negative if none fit.

    >>> out_sizes((28, 28), (5, 5), (2, 1), ((0, 0), (2, 2)), (1, 1))
    (12, 28)
    """
    return tuple(
        (n + sum(pair) - d * (w - 1) - 1) // s + 1
        for n, w, s, pair, d in zip(spatial, window, stride, padding, dilation, strict=True)
    )


@dataclass(frozen=True)
class Geometry:
    """All shapes of a convolution except the batch size.

    y[i, o] = Σ_{j, c} x[i·stride + j·dilation − padding, c] w[j, c, o].

    Attributes:
        spatial: sizes of the input.
        window: sizes of the kernel.
        channels: number of channels of the input.
        features: number of features of the output.
        stride: steps between windows.
        padding: zeros before and after each axis.
        dilation: steps between the elements of a window.
        groups: number of groups that channels and features are split into.
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
        """Spatial sizes of the output."""
        return out_sizes(self.spatial, self.window, self.stride, self.padding, self.dilation)

    @property
    def reach(self) -> Sizes:
        """Extent of a dilated window along each axis."""
        return tuple(d * (w - 1) + 1 for w, d in zip(self.window, self.dilation))

    @property
    def kernel(self) -> Sizes:
        """Shape of the kernel."""
        return (*self.window, self.channels // self.groups, self.features)

    @property
    def unit_stride(self) -> bool:
        """Whether windows start at every position, in one group; the input gradient is then such a convolution too."""
        fits = all(low < reach and high < reach for (low, high), reach in zip(self.padding, self.reach))
        return set(self.stride) == {1} and fits and self.groups == 1

    def transposed(self) -> "Geometry":
        """Return the geometry of the input gradient if `unit_stride`: a convolution of `dy` with the flipped kernel."""
        padding = tuple((r - 1 - low, r - 1 - high) for (low, high), r in zip(self.padding, self.reach))
        return Geometry(self.out, self.window, self.features, self.channels, self.stride, padding, self.dilation)

    def products(self, batch: int) -> int:
        """Return the number of multiply-adds."""
        return batch * math.prod(self.out) * math.prod(self.kernel)


def padded(x: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the input with zeros around its spatial axes."""
    edges = [(low, high, 0) for low, high in geometry.padding]
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *edges, (0, 0, 0)))


def flipped(kernel: jax.Array) -> jax.Array:
    """Return the kernel of the input gradient: spatially flipped, `(*window, features, channels)`."""
    return jnp.swapaxes(jnp.flip(kernel, range(kernel.ndim - 2)), -2, -1)


def elements(window: Sizes) -> list[Sizes]:
    """Return the indices of a window's elements in row-major order."""
    return [*itertools.product(*map(range, window))]


def under(x: jax.Array, geometry: Geometry, element: Sizes) -> jax.Array:
    """Return the padded input under one element of all windows, along the first `len(element)` axes."""
    axes = zip(element, geometry.out, geometry.stride, geometry.dilation)
    for axis, (index, n, step, spread) in enumerate(axes, start=1):
        start = index * spread
        x = lax.slice_in_dim(x, start, start + (n - 1) * step + 1, step, axis)
    return x
