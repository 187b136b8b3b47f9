"""Short-time Fourier transform of sound: complex spectra of overlapping windows, their powers, and the inverse."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import refuse
from jaxnets.core.dtypes import wide
from jaxnets.core.errors import NetError, check_count, known, labeled_as
from jaxnets.core.packed import Packed
from jaxnets.core.padded import Padded


def hann(window: int) -> np.ndarray:
    """Return the periodic Hann window sin²(π n / window), `(window,)` float64."""
    return np.sin(np.pi * np.arange(window) / window) ** 2


def stft(sound: Any, *, window: int = 400, hop: int = 160, size: int | None = None, center: bool = True) -> Any:
    """Return the short-time Fourier transform X[t, k] = Σ_n w[n] x[t hop + n] exp(−2πi k n / size).

    w is the periodic Hann window, with zeros on both sides up to `size`. With `center`, `size` / 2 zeros are put before
    and after the sound, so that frame t is centered at sample t · hop.

    Args:
        sound: samples `(..., time)`, floating; or `Padded` clips `(batch, time)`, each of which is transformed as if it
            were alone.
        window: the length of the window in samples, at least 1.
        hop: samples from one frame to the next, at least 1.
        size: the length of the transform, at least `window`, which is the default.
        center: whether frames are centered at their sample; otherwise they start there.

    Returns:
        `(..., frames, size // 2 + 1)`, complex64, or complex128 for float64. There are 1 + ⌊time / hop⌋ frames, without
        `center` 1 + ⌊(time − size) / hop⌋. `Padded` for `Padded` sound, with zeros for padding.

    Raises:
        NetError: for sound that is not floating or is not finite (where its values are known), a clip shorter than the
            window (without `center`, than `size`), or settings out of range. A clip whose length is traced and too
            small has no frames.

    Allen and Rabiner, "A Unified Approach to Short-Time Fourier Analysis and Synthesis" (1977); values as
    `librosa.stft` with time and frequency swapped, and as `torch.stft` with `pad_mode="constant"`.

    >>> import jax, jax.numpy as jnp
    >>> tone = jnp.sin(2 * jnp.pi * 1000 * jnp.arange(8000) / 8000)  # 1 kHz at 8 kHz
    >>> spectrum = jax.jit(lambda x: stft(x, window=256, hop=80))(tone)
    >>> spectrum.shape, abs(spectrum[50]).argmax().item() * 8000 / 256
    ((101, 129), 1000.0)
    """
    with labeled_as("stft"):
        size = check_window(window, hop, size)
        values, lengths = _samples(sound)
        least = window if center else size
        for shortest in (values.shape[-1], _shortest(lengths)):
            if shortest < least:
                raise NetError(
                    f"expects clips of at least {least} samples, the length of a window, got one of {shortest}; "
                    f"pad it with zeros, or take a shorter window"
                )
        if center:
            values = jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(size // 2, size // 2)])
        before = (size - window) // 2
        count = 1 + (values.shape[-1] - size) // hop
        # Samples under the window in each frame: (frames, window)
        index = hop * np.arange(count)[:, None] + before + np.arange(window)
        weights = jnp.asarray(hann(window), values.dtype).reshape((1,) * values.ndim + (window,))
        frames = values[..., index] * weights
        # Samples out of the window only turn the phases: the transform starts at the window's first sample.
        edges = [(0, 0)] * (frames.ndim - 1) + [(before, size - window - before)]
        spectrum = jnp.fft.rfft(jnp.pad(frames, edges))
        if lengths is None:
            return spectrum
        counts = 1 + (jnp.asarray(lengths) - (0 if center else size)) // hop
        counts = jnp.where(jnp.asarray(lengths) < least, 0, counts).astype(jnp.int32)
        framed = Padded(spectrum, counts)
        return framed.with_values(framed.zeroed())


def istft(
    spectrum: Any, length: int, *, window: int = 400, hop: int = 160, size: int | None = None, center: bool = True
) -> jax.Array:
    """Return the sound whose transform is nearest to a spectrum: x[n] = Σ_t w[n − t hop] y_t[n − t hop] / Σ_t w²[…].

    y_t is the inverse Fourier transform of frame t. It is the inverse of `stft` of the same settings, except where all
    windows are zero or there are none: those samples are zero.

    Args:
        spectrum: `(..., frames, size // 2 + 1)`, complex.
        length: the number of samples to return, at least 1.
        window: as for `stft`, like all that follow.
        hop: see there.
        size: see there.
        center: see there.

    Returns:
        `(..., length)`, float32, or float64 for complex128.

    Raises:
        NetError: for a spectrum that is not complex or has another number of frequencies, or settings out of range.

    Griffin and Lim, "Signal Estimation from Modified Short-Time Fourier Transform" (1984), equation 6; values as
    `librosa.istft`.

    >>> import jax.numpy as jnp
    >>> sound = jnp.sin(jnp.arange(1000.0))
    >>> bool(jnp.allclose(istft(stft(sound, window=64, hop=16), 1000, window=64, hop=16), sound, atol=1e-5))
    True
    """
    with labeled_as("istft"):
        size = check_window(window, hop, size)
        check_count("length", length)
        spectrum = jnp.asarray(spectrum)
        if not jnp.iscomplexobj(spectrum) or spectrum.ndim < 2 or spectrum.shape[-1] != size // 2 + 1:
            raise NetError(
                f"expects a complex spectrum (..., frames, {size // 2 + 1}), got {spectrum.dtype} {spectrum.shape}"
            )
        count, before = spectrum.shape[-2], (size - window) // 2
        frames = jnp.fft.irfft(spectrum, size)[..., before : before + window]
        weights = hann(window)
        frames = frames * jnp.asarray(weights, frames.dtype).reshape((1,) * (frames.ndim - 1) + (window,))
        start, total = size // 2 if center else 0, hop * (count - 1) + size
        index = hop * np.arange(count)[:, None] + before + np.arange(window)
        energy = np.bincount(index.ravel(), np.tile(weights**2, count), max(total, start + length))
        mixed = jnp.zeros((*frames.shape[:-2], len(energy)), frames.dtype).at[..., index].add(frames)
        # Where the sum of windows is next to zero only rounding errors are left.
        tiny = energy <= np.finfo(frames.dtype).tiny
        scale = jnp.asarray(np.where(tiny, 0, 1 / np.where(tiny, 1, energy)), frames.dtype)
        mixed = mixed * scale.reshape((1,) * (mixed.ndim - 1) + (-1,))
        return mixed[..., start : start + length]


def spectrogram(
    sound: Any,
    *,
    window: int = 400,
    hop: int = 160,
    size: int | None = None,
    center: bool = True,
) -> Any:
    """Return the power spectrogram |X|² of the short-time Fourier transform.

    Args:
        sound: as for `stft`, like all that follow.
        window: see there.
        hop: see there.
        size: see there.
        center: see there.

    Returns:
        `(..., frames, size // 2 + 1)`, float32 or float64; `Padded` for `Padded` sound.

    Raises:
        NetError: as in `stft`.

    >>> import jax.numpy as jnp
    >>> spectrogram(jnp.ones((2, 800))).shape
    (2, 6, 201)
    """
    spectrum = stft(sound, window=window, hop=hop, size=size, center=center)
    values = spectrum.values if isinstance(spectrum, Padded) else spectrum
    powers = jnp.square(values.real) + jnp.square(values.imag)
    return spectrum.with_values(powers) if isinstance(spectrum, Padded) else powers


def check_window(window: int, hop: int, size: int | None) -> int:
    """Check the settings of a transform, and return its size."""
    size = window if size is None else size
    for name, value in (("window", window), ("hop", hop), ("size", size)):
        check_count(name, value)
    if size < window:
        raise NetError(f"expects size ≥ window, got {size} and {window}")
    return size


def _samples(sound: Any) -> tuple[jax.Array, Any]:
    """Return samples `(..., time)` with zeros for padding, and the lengths of `Padded` clips, otherwise `None`."""
    if isinstance(sound, Packed):
        raise NetError("takes no Packed documents: windows would cross their borders; pad them")
    padded = isinstance(sound, Padded)
    values = jnp.asarray(sound.zeroed() if padded else sound)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise NetError(
            f"expects floating samples, got {values.dtype} {values.shape}; convert 16-bit integers by "
            f"x.astype(jnp.float32) / 32768"
        )
    if values.ndim < 1 + padded or (padded and values.ndim != 2):
        wanted = "Padded clips (batch, time)" if padded else "samples (..., time)"
        raise NetError(f"expects {wanted}, got {values.shape}")
    refuse(values, lambda x: ~np.isfinite(x), "expects finite samples, got {}")
    return wide(values), sound.lengths if padded else None


def _shortest(lengths: Any) -> float:
    """Return the length of the shortest clip, ∞ if unknown."""
    numbers = None if lengths is None else known(lengths)
    return np.inf if numbers is None or not numbers.size else numbers.min()
