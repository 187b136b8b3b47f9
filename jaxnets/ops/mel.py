"""Features of sound on the mel scale, which is spaced as people hear: filter bank, logarithm, cepstrum."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnets.core.dtypes import wide
from jaxnets.core.errors import NetError, check_count, check_positive, concrete, labeled_as
from jaxnets.core.padded import Padded
from jaxnets.ops.spectrogram import check_window, spectrogram


def mel_filters(
    rate: float,
    size: int,
    mels: int = 40,
    *,
    low: float = 0.0,
    high: float | None = None,
    htk: bool = False,
    normalize: bool = True,
) -> np.ndarray:
    """Return triangular filters that are spaced evenly on the mel scale.

    Filter m rises linearly in frequency from the center of filter m − 1 to its own, and falls to that of m + 1.
    Slaney's scale is 3 f / 200 below 1 kHz and 15 + 27 log(f / 1000) / log 6.4 above; HTK's is 2595 log₁₀(1 + f / 700).

    Args:
        rate: samples per second, positive.
        size: the length of the Fourier transform.
        mels: the number of filters, at least 1.
        low: the lowest frequency in hertz, at least 0.
        high: the highest frequency in hertz; the default is rate / 2, which is the largest.
        htk: whether to take HTK's scale instead of Slaney's.
        normalize: whether the area under each filter is 1 (in hertz), otherwise its height is.

    Returns:
        `(size // 2 + 1, mels)` float64, so that `spectrogram @ filters` are the energies in each band.

    Raises:
        NetError: for settings out of range, or more filters than the transform can tell apart, so that one is empty.

    Slaney, "Auditory Toolbox" (1998); Young et al., "The HTK Book"; values as the transpose of `librosa.filters.mel`.

    >>> filters = mel_filters(8000, 256, 24)
    >>> filters.shape, (filters.sum(0) * 8000 / 256).round(1).tolist()[-1]
    ((129, 24), 1.0)
    """
    with labeled_as("mel_filters"):
        check_positive("rate", rate)
        check_count("size", size)
        check_count("mels", mels)
        high = rate / 2 if high is None else high
        if not 0 <= low < high <= rate / 2:
            raise NetError(f"expects 0 ≤ low < high ≤ rate / 2 = {rate / 2:g}, got low {low:g} and high {high:g}")
        # Edges and centers of the triangles, (mels + 2,)
        corners = _hertz(np.linspace(_mel(low, htk), _mel(high, htk), mels + 2), htk)
        frequencies = rate / size * np.arange(size // 2 + 1)[:, None]
        rising = (frequencies - corners[None, :-2]) / np.diff(corners)[None, :-1]
        falling = (corners[None, 2:] - frequencies) / np.diff(corners)[None, 1:]
        filters = np.maximum(0, np.minimum(rising, falling))
        if (empty := filters.max(axis=0) == 0).any():
            raise NetError(
                f"has no frequency in filter {empty.argmax()} of {mels}: a transform of size {size} at {rate:g} Hz has "
                f"one per {rate / size:g} Hz; take fewer mels or a larger size"
            )
        return filters * 2 / (corners[2:] - corners[:-2])[None] if normalize else filters


def _mel(hertz: Any, htk: bool) -> Any:
    if htk:
        return 2595 * np.log10(1 + hertz / 700)
    return np.where(hertz < 1000, 3 * hertz / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4))


def _hertz(mel: np.ndarray, htk: bool) -> np.ndarray:
    if htk:
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp(np.log(6.4) * (mel - 15) / 27))


def log_mel(
    sound: Any,
    rate: float,
    *,
    mels: int = 40,
    window: int = 400,
    hop: int = 160,
    size: int | None = None,
    center: bool = True,
    low: float = 0.0,
    high: float | None = None,
    htk: bool = False,
    floor: Any = 1e-10,
) -> Any:
    """Return the logarithm of the energies in mel bands, log max(floor, |X|² M).

    X is `stft(sound)` and M is `mel_filters(rate, size, mels)`.

    Args:
        sound: as for `stft`.
        rate: samples per second, positive.
        mels: the number of bands.
        window: as for `stft`.
        hop: see there.
        size: see there.
        center: see there.
        low: the lowest frequency, as for `mel_filters`.
        high: see there.
        htk: see there.
        floor: the smallest energy, positive. May be traced.

    Returns:
        `(..., frames, mels)`, float32 or float64; `Padded` for `Padded` sound, with zeros for padding.

    Raises:
        NetError: as in `stft` and `mel_filters`, and for a floor that is not positive.

    Values as `librosa.power_to_db(librosa.feature.melspectrogram(...), top_db=None)`, times log(10) / 10.

    >>> import jax.numpy as jnp
    >>> log_mel(jnp.sin(jnp.arange(8000.0)), 8000, mels=24, window=200, hop=100, size=256).shape
    (81, 24)
    """
    with labeled_as("log_mel"):
        check_positive("floor", floor)
        filters = mel_filters(rate, check_window(window, hop, size), mels, low=low, high=high, htk=htk)
    powers = spectrogram(sound, window=window, hop=hop, size=size, center=center)
    values = powers.values if isinstance(powers, Padded) else powers
    energies = jnp.matmul(values, jnp.asarray(filters, values.dtype), precision="highest")
    logs = jnp.log(jnp.maximum(energies, jnp.asarray(floor, values.dtype)))
    if not isinstance(powers, Padded):
        return logs
    framed = powers.with_values(logs)
    return framed.with_values(framed.zeroed())


def mfcc(
    sound: Any,
    rate: float,
    coefficients: int = 13,
    *,
    mels: int = 40,
    range: float | None = 80.0,
    **options: Any,
) -> Any:
    """Return mel-frequency cepstral coefficients: the orthonormal cosine transform (DCT-II) of mel bands in decibels.

    c_k = s_k Σ_m d_m cos(π k (m + ½) / mels), d = 10 log₁₀ of the energies, s_0 = √(1 / mels) and s_k = √(2 / mels)
    for other k.

    Args:
        sound: as for `stft`.
        rate: samples per second, positive.
        coefficients: how many to return, from 1 to `mels`.
        mels: the number of bands.
        range: bands more than this many decibels below the loudest of the clip are raised to that level; `None` for no
            limit.
        **options: other options of `log_mel`.

    Returns:
        `(..., frames, coefficients)`, float32 or float64; `Padded` for `Padded` sound, with zeros for padding.

    Raises:
        NetError: as in `log_mel`; for more coefficients than bands, or a range that is not positive.

    Davis and Mermelstein, "Comparison of Parametric Representations for Monosyllabic Word Recognition in Continuously
    Spoken Sentences" (1980); values as `librosa.feature.mfcc` of one clip.

    >>> import jax.numpy as jnp
    >>> mfcc(jnp.sin(jnp.arange(8000.0)), 8000, mels=24, window=200, hop=100, size=256).shape
    (81, 13)
    """
    with labeled_as("mfcc"):
        check_count("coefficients", coefficients)
        check_count("mels", mels)
        if coefficients > mels:
            raise NetError(f"expects at most {mels} coefficients, one per mel band, got {coefficients}")
        if range is not None:
            check_positive("range", concrete(range, "range"))
    logs = log_mel(sound, rate, mels=mels, **options)
    values = logs.values if isinstance(logs, Padded) else logs
    decibels = values * (10 / np.log(10).item())
    if range is not None:
        real = logs.mask[..., None] if isinstance(logs, Padded) else True
        loudest = jnp.max(decibels, axis=(-2, -1), keepdims=True, initial=-jnp.inf, where=real)
        decibels = jnp.maximum(decibels, loudest - range)
    k, m = np.arange(coefficients), np.arange(mels)
    cosines = np.cos(np.pi * k[None] * (m[:, None] + 0.5) / mels) * np.sqrt(np.where(k == 0, 1, 2) / mels)[None]
    values = jnp.matmul(wide(decibels), jnp.asarray(cosines, decibels.dtype), precision="highest")
    if not isinstance(logs, Padded):
        return values
    framed = logs.with_values(values)
    return framed.with_values(framed.zeroed())
