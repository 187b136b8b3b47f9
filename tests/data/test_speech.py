"""Synthetic speech: reproducible, audible as what it claims to be, and written as sound files."""

import wave
from pathlib import Path

import numpy as np
import pytest

import jaxnets as jn
from jaxnets.data import spoken_words, write_wav
from jaxnets.data.datasets.phonemes import PHONEMES, WORDS


def test_clips_are_reproducible_and_in_range():
    sound, texts, speakers = spoken_words(12, speakers=[3, 4, 900], count=(1, 3), seed=5)
    again = spoken_words(12, speakers=[3, 4, 900], count=(1, 3), seed=5)
    np.testing.assert_array_equal(sound.values, again.sound.values)
    assert texts == again.texts
    assert not np.array_equal(sound.values[:, :2000], spoken_words(12, seed=6).sound.values[:, :2000])
    assert set(speakers.tolist()) <= {3, 4, 900}
    assert {len(text.split()) for text in texts} == {1, 2, 3}
    assert set(" ".join(texts).split()) <= set(WORDS)
    assert sound.values.dtype == np.float32
    assert np.abs(sound.values).max() <= 1
    assert np.isfinite(sound.values).all()
    assert set(" ".join(WORDS.values()).split()) <= set(PHONEMES)


def spectrum(words, speaker, start, end):
    """Return the mean spectrum of a part of three clips, given as shares of them; 129 bins of 31.25 Hz."""
    found = []
    for seed in range(3):
        clip = spoken_words(1, words=words, count=(1, 1), speakers=[speaker], noise=None, seed=seed).sound[0]
        middle = int((start + end) / 2 * len(clip))
        found.append(np.abs(np.fft.rfft(clip[middle - 128 : middle + 128] * np.hanning(256))) ** 2)
    return np.mean(found, 0)


def test_sounds_have_the_spectra_of_their_phonemes():
    """Vowels by their formants: AA of "on" has its energy in F1 about 730 Hz, UW of "two" about 300 Hz; S is high."""
    frequencies = np.arange(129) * 31.25
    center = {}
    for word, start, end in (("on", 0.25, 0.5), ("two", 0.5, 0.75), ("six", 0.15, 0.3)):
        powers = np.mean([spectrum([word], speaker, start, end) for speaker in range(6)], 0)
        center[word] = (powers * frequencies).sum() / powers.sum()
    assert center["two"] < 500 < center["on"] < 1200 < 2500 < center["six"]


def test_noise_is_as_loud_as_asked_for():
    clean, noisy = (spoken_words(4, noise=noise).sound for noise in (None, 10.0))
    for a, b in zip((clean[k] for k in range(4)), (noisy[k] for k in range(4)), strict=True):
        found = 10 * np.log10(np.mean(a.astype(float) ** 2) / np.mean((b.astype(float) - a) ** 2))
        np.testing.assert_allclose(found, 10, atol=0.3)


def test_a_clip_is_written_as_wav(tmp_path: Path):
    clip = spoken_words(1).sound[0]
    write_wav(tmp_path / "clip.wav", clip)
    with wave.open(str(tmp_path / "clip.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (8000, 1, len(clip))
        read = np.frombuffer(file.readframes(len(clip)), "<i2") / 32767
    np.testing.assert_allclose(read, clip, atol=2e-5)


def test_mistakes_are_told(tmp_path: Path):
    for options, message in (
        ({"clips": 0}, "spoken_words expects clips ≥ 1, got 0"),
        ({"words": ["one", "eleven"]}, "expects words of zero, one, .* got str 'eleven'"),
        ({"words": "one"}, "expects words of .*, got str 'one'"),
        ({"count": (2, 1)}, r"the smallest and the largest number of words, got \(2, 1\)"),
        ({"speakers": []}, "expects numbers of speakers, 0 or more"),
    ):
        with pytest.raises(jn.NetError, match=message):
            spoken_words(**{"clips": 2, **options})
    with pytest.raises(jn.NetError, match=r"floating samples \(time,\) without NaN"):
        write_wav(tmp_path / "a.wav", np.array([0.0, np.nan]))
