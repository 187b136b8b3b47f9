"""Features of sound against librosa, and their gradients against PyTorch."""

import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets import ops
from tests.oracle import floats, witness

LIBROSA = importlib.util.find_spec("librosa") is not None
RATE = 8000
SHAPES: dict[str, Any] = {"window": 200, "hop": 70, "size": 256}
THEIRS: dict[str, Any] = {"win_length": 200, "hop_length": 70, "n_fft": 256}
SOUND = (0.1 * floats(2, 601) + np.sin(0.3 * np.arange(601))).astype(np.float64)
LENGTHS = np.array([601, 333], np.int32)


def by_librosa() -> dict[str, np.ndarray]:
    import librosa  # pyright: ignore[reportMissingImports]

    found = {}
    for center in (True, False):
        spectrum = librosa.stft(SOUND, **THEIRS, center=center, pad_mode="constant").swapaxes(-1, -2)
        found |= {f"real {center}": spectrum.real, f"imag {center}": spectrum.imag}
        found[f"inverse {center}"] = librosa.istft(
            (spectrum * np.hanning(spectrum.shape[-1])).swapaxes(-1, -2), **THEIRS,
            center=center, length=550,
        )  # fmt: skip
    power = np.abs(librosa.stft(SOUND, **THEIRS, pad_mode="constant")) ** 2
    for htk in (True, False):
        for norm in (None, "slaney"):
            found[f"filters {htk} {norm}"] = librosa.filters.mel(
                sr=RATE, n_fft=256, n_mels=20, fmin=60, fmax=3500, htk=htk, norm=norm, dtype=np.float64
            ).T
    mel = librosa.feature.melspectrogram(S=power, sr=RATE, n_mels=20)
    found["log"] = librosa.power_to_db(mel, top_db=None).swapaxes(-1, -2) * np.log(10) / 10
    one = [librosa.feature.mfcc(S=librosa.power_to_db(each, top_db=30.0), n_mfcc=9).T for each in mel]
    return found | {"mfcc": np.stack(one)}


def all_of_ours(sound):
    found = {}
    for center in (True, False):
        spectrum = ops.stft(sound, **SHAPES, center=center)
        found |= {f"real {center}": spectrum.real, f"imag {center}": spectrum.imag}
        shaped = spectrum * jnp.asarray(np.hanning(spectrum.shape[-1]), spectrum.dtype)[None, None]
        found[f"inverse {center}"] = ops.istft(shaped, 550, **SHAPES, center=center)
    found["log"] = ops.log_mel(sound, RATE, mels=20, **SHAPES)
    return found | {"mfcc": ops.mfcc(sound, RATE, 9, mels=20, range=30.0, **SHAPES)}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_equals_librosa(dtype):
    want = witness("ops/spectrogram", by_librosa, installed=LIBROSA)
    with jax.enable_x64(True):
        found = jax.jit(all_of_ours)(jnp.asarray(SOUND, dtype))
    for name, values in found.items():
        assert values.dtype == dtype
        size = np.abs(want[name]).max()
        # librosa's filters in float32 are part of the logarithms; at its ends the inverse divides by next to nothing.
        tolerance = 1e-5 if dtype == "float32" else 2e-8 if name in ("log", "mfcc") else 1e-11
        inner = slice(60, 480) if name == "inverse False" else slice(None)
        np.testing.assert_allclose(values[:, inner], want[name][:, inner], atol=size * tolerance, rtol=0, err_msg=name)
    for htk in (True, False):
        for norm in (None, "slaney"):
            filters = ops.mel_filters(RATE, 256, 20, low=60, high=3500, htk=htk, normalize=norm is not None)
            np.testing.assert_allclose(filters, want[f"filters {htk} {norm}"], atol=1e-12)


def by_torch() -> dict[str, np.ndarray]:
    import torch

    x = torch.tensor(SOUND, requires_grad=True)
    window = torch.hann_window(200, dtype=torch.float64)
    spectrum = torch.stft(x, 256, 70, 200, window, center=True, pad_mode="constant", return_complex=True)
    value = torch.log(spectrum.abs() ** 2 + 1e-3).sum()
    value.backward()
    gradient = x.grad
    assert gradient is not None
    return {"value": value.detach().numpy(), "gradient": gradient.numpy()}


def test_gradient_equals_torch():
    want = witness("ops/spectrogram_gradient", by_torch)
    with jax.enable_x64(True):
        value, gradient = jax.jit(
            jax.value_and_grad(lambda x: jnp.log(ops.spectrogram(x, **SHAPES) + jnp.float64(1e-3)).sum())
        )(jnp.asarray(SOUND))
    np.testing.assert_allclose(value, want["value"], rtol=1e-10)
    np.testing.assert_allclose(gradient, want["gradient"], atol=1e-9 * np.abs(want["gradient"]).max())


def test_padded_clips_are_as_alone_and_the_inverse_restores():
    spoiled = SOUND.astype(np.float32)
    spoiled[1, LENGTHS[1] :] = np.nan
    padded = jn.Padded(jnp.asarray(spoiled), jnp.asarray(LENGTHS))
    clip = jnp.asarray(spoiled[1:, : LENGTHS[1]])

    @jax.jit
    def program(padded, clip):
        framed = ops.stft(padded, **SHAPES), ops.stft(padded, **SHAPES, center=False)
        alone = ops.stft(clip, **SHAPES), ops.stft(clip, **SHAPES, center=False)
        cepstra = ops.mfcc(padded, RATE, mels=20, **SHAPES), ops.mfcc(clip, RATE, mels=20, **SHAPES)
        return framed, alone, cepstra, ops.istft(alone[0], clip.shape[1], **SHAPES)

    framed, alone, cepstra, back = program(padded, clip)
    for whole, one in zip((*framed, cepstra[0]), (*alone, cepstra[1]), strict=True):
        count = int(whole.lengths[1])
        assert count == one.shape[1]
        np.testing.assert_allclose(whole.values[1, :count], one[0], atol=1e-4)
        assert not whole.values[1, count:].any()
    np.testing.assert_allclose(back, clip, atol=1e-5)


def test_mistakes_are_told():
    with pytest.raises(jn.NetError, match=r"stft expects clips of at least 400 samples.* got one of 399"):
        ops.stft(jnp.zeros(399))
    with pytest.raises(jn.NetError, match=r"at least 512 samples.* got one of 500"):
        ops.stft(jnp.zeros(500), size=512, center=False)
    with pytest.raises(jn.NetError, match=r"at least 400 samples.* got one of 3"):
        ops.log_mel(jn.Padded(jnp.zeros((2, 900)), jnp.array([900, 3])), RATE)
    with pytest.raises(jn.NetError, match="expects finite samples, got nan"):
        ops.mfcc(jnp.zeros(900).at[7].set(jnp.nan), RATE)
    with pytest.raises(jn.NetError, match=r"16-bit integers by x.astype"):
        ops.stft(jnp.zeros(900, jnp.int16))
    with pytest.raises(jn.NetError, match="expects size ≥ window, got 100 and 200"):
        ops.stft(jnp.zeros(900), window=200, size=100)
    with pytest.raises(jn.NetError, match="has no frequency in filter 0 of 200"):
        ops.mel_filters(RATE, 256, 200)
    with pytest.raises(jn.NetError, match="high ≤ rate / 2 = 4000, got low 0 and high 5000"):
        ops.mel_filters(RATE, 256, 20, high=5000)
    with pytest.raises(jn.NetError, match="at most 20 coefficients"):
        ops.mfcc(jnp.zeros(900), RATE, 30, mels=20)
    with pytest.raises(jn.NetError, match=r"istft expects a complex spectrum \(..., frames, 201\)"):
        ops.istft(jnp.zeros((4, 100), jnp.complex64), 100)


def test_a_clip_of_traced_length_that_is_too_short_has_no_frames():
    lengths = jax.jit(lambda n: ops.stft(jn.Padded(jnp.ones((2, 900)), n)).lengths)(jnp.array([900, 3]))
    np.testing.assert_array_equal(lengths, [6, 0])
