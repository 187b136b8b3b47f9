"""Convolution and pooling as loops over positions in NumPy: reference values for the array functions."""

from collections.abc import Iterator

import numpy as np


def conv(x, kernel, stride, padding, dilation, groups=1):
    """Convolve by the definition."""
    window, features = kernel.shape[:-2], kernel.shape[-1]
    x = np.pad(x, [(0, 0), *padding, (0, 0)])
    out = _sizes(x, window, stride, dilation)
    y = np.zeros((x.shape[0], *out, features))
    for place in np.ndindex(*out):
        for element in np.ndindex(*window):
            at = (slice(None), *(p * s + e * d for p, s, e, d in zip(place, stride, element, dilation)))
            for own_in, own_out in _groups(x.shape[-1], features, groups):
                y[(slice(None), *place)][:, own_out] += x[at][:, own_in] @ kernel[element][:, own_out]
    return y


def conv_transpose(x, kernel, stride, padding, output_padding, dilation, groups=1):
    """Add every input, times the kernel, to its window of the output."""
    window, channels = kernel.shape[:-2], kernel.shape[-2]
    features = kernel.shape[-1] * groups
    full = [
        (n - 1) * s + d * (w - 1) + 1 + more
        for n, s, w, d, more in zip(x.shape[1:-1], stride, window, dilation, output_padding)
    ]
    y = np.zeros((x.shape[0], *full, features))
    for place in np.ndindex(*x.shape[1:-1]):
        for element in np.ndindex(*window):
            at = (slice(None), *(p * s + e * d for p, s, e, d in zip(place, stride, element, dilation)))
            for own_in, own_out in _groups(channels, features, groups):
                y[at][:, own_out] += x[(slice(None), *place)][:, own_in] @ kernel[element][own_in]
    return y[(slice(None), *(slice(low, n - high) for n, (low, high) in zip(full, padding)))]


def max_pool(x, window, stride, padding, dilation, g):
    """Return the maxima, and the gradient of Σ g·y: which goes to the first maximum of each window."""
    padded = np.pad(x, [(0, 0), *padding, (0, 0)], constant_values=-np.inf)
    out = _sizes(padded, window, stride, dilation)
    y, dx = np.empty((x.shape[0], *out, x.shape[-1])), np.zeros_like(padded)
    for place in np.ndindex(*y.shape):
        best = -1
        for element in np.ndindex(*window):
            spatial = tuple(p * s + e * d for p, s, e, d in zip(place[1:-1], stride, element, dilation))
            at = (place[0], *spatial, place[-1])
            if best == -1 or padded[at] > padded[best]:
                best = at
        y[place] = padded[best]
        dx[best] += g[place]
    return y, _crop(dx, padding)


def avg_pool(x, window, stride, padding, dilation, counted, g):
    """Return the means over the positions that count, and the gradient of Σ g·y."""
    padded = np.pad(x, [(0, 0), *padding, (0, 0)])
    counts = np.pad(np.ones(x.shape[1:-1]), counted, constant_values=1.0)
    counts = np.pad(counts, [(p - c, q - d) for (p, q), (c, d) in zip(padding, counted)])
    out = _sizes(padded, window, stride, dilation)
    y, dx = np.empty((x.shape[0], *out, x.shape[-1])), np.zeros_like(padded)
    for place in np.ndindex(*out):
        at = tuple(slice(p * s, p * s + d * (w - 1) + 1, d) for p, s, w, d in zip(place, stride, window, dilation))
        whole, many = (slice(None), *at), counts[at].sum()
        y[(slice(None), *place)] = padded[whole].sum(tuple(range(1, 1 + len(out)))) / many
        share = g[(slice(None), *place)] / many
        dx[whole] += share.reshape(x.shape[0], *(1,) * len(out), x.shape[-1])
    return y, _crop(dx, padding)


def _sizes(padded, window, stride, dilation) -> list[int]:
    reach = [d * (w - 1) + 1 for w, d in zip(window, dilation)]
    return [(n - r) // s + 1 for n, r, s in zip(padded.shape[1:-1], reach, stride)]


def _groups(channels: int, features: int, groups: int) -> Iterator[tuple[slice, slice]]:
    for g in range(groups):
        a, b = channels // groups, features // groups
        yield slice(g * a, (g + 1) * a), slice(g * b, (g + 1) * b)


def _crop(padded, padding):
    return padded[(slice(None), *(slice(low, n - high) for n, (low, high) in zip(padded.shape[1:-1], padding)))]
