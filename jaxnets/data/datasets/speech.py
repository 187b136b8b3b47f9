"""Spoken words made by formant synthesis, and sound files."""

import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as, shown
from jaxnets.core.padded import Padded
from jaxnets.data.datasets.phonemes import PHONEMES, WORDS, Sound

RATE, FRAME = 8000, 40  # samples per second, samples per frame of the tracks


class Spoken(NamedTuple):
    """Clips of speech.

    Attributes:
        sound: samples `(clips, time)` float32 at 8 kHz, from -1 to 1, `Padded` with zeros.
        texts: what is said in each, lower-case words between single spaces.
        speakers: the number of each clip's speaker, `(clips,)` int32.
    """

    sound: Padded
    texts: list[str]
    speakers: np.ndarray


def spoken_words(
    clips: int,
    *,
    words: Sequence[str] = tuple(WORDS),
    count: tuple[int, int] = (1, 3),
    speakers: Sequence[int] = range(50),
    noise: Any = (15.0, 40.0),
    seed: int = 0,
) -> Spoken:
    """Return clips in which synthetic speakers say a few short words, such as "seven no left".

    The generator is a small formant synthesizer. Each word is a list of phonemes, and each phoneme one to three
    targets of three resonances (formants), the amplitudes of voice, breath and hiss, and the band of the hiss. Targets
    become tracks of a value every 5 ms, which moving averages of 45 ms (formants) and 15 ms (amplitudes) join, so that
    a phoneme depends on its neighbors. The voice is the sum of all harmonics k f₀(t) below 4 kHz, each with the gain of
    the resonances at its frequency; breath and hiss are white noise, filtered frame by frame.

    A speaker is a number, from which follow the pitch (85 to 255 Hz), the length of the vocal tract (formants up to
    25 % higher), an accent (each formant of each phoneme up to about 8 % off), the pace, the tilt of the spectrum and
    the breathiness. Clips of one speaker differ in pace, melody, loudness and pauses; words may follow without any. It
    is far simpler than real speech, so that what is learned here does not carry over to recordings.

    Args:
        clips: the number of clips, at least 1.
        words: the words to choose from; the default is all there are, ten digits and ten commands.
        count: the smallest and the largest number of words in a clip.
        speakers: the numbers of the speakers, at least one; other numbers for a test are other people.
        noise: how much louder the clip is than white noise that is added, in decibels, or a range from which it is
            drawn; `None` for no noise.
        seed: the same seed gives the same clips, up to rounding.

    Raises:
        NetError: for no clips, words or speakers, unknown words, or numbers out of range.

    After Klatt, "Software for a cascade/parallel formant synthesizer" (1980); formants of vowels from Peterson and
    Barney, "Control Methods Used in a Study of the Vowels" (1952).

    >>> sound, texts, speakers = spoken_words(3, speakers=[7, 8])
    >>> len(sound), len(texts), set(speakers.tolist()) <= {7, 8}, sound.values.dtype.name
    (3, 3, True, 'float32')
    """
    with labeled_as("spoken_words"):
        check_count("clips", clips)
        unknown = [words] if isinstance(words, str) else [word for word in words if word not in WORDS]
        if unknown or not len(words):
            raise NetError(f"expects words of {', '.join(WORDS)}, got {shown(unknown[0]) if unknown else 'none'}")
        for each in count:
            check_count("count", each)
        if count[0] > count[1]:
            raise NetError(f"expects for count the smallest and the largest number of words, got {count}")
        if not len(speakers) or min(speakers) < 0:
            raise NetError(f"expects numbers of speakers, 0 or more, got {shown(speakers)}")
    random = np.random.default_rng(seed)
    texts = [" ".join(random.choice(words, random.integers(count[0], count[1] + 1))) for _ in range(clips)]
    who = random.choice(np.asarray(speakers), clips).astype(np.int32)
    sounds = [
        _say(text.split(), int(speaker), noise, np.random.default_rng([seed, clip]))
        for clip, (text, speaker) in enumerate(zip(texts, who, strict=True))
    ]
    return Spoken(Padded.from_sequences(sounds), texts, who)


class _Voice(NamedTuple):
    pitch: float
    tract: float
    accent: dict[str, np.ndarray]
    pace: float
    tilt: float
    breath: float


def _voice(speaker: int) -> _Voice:
    random = np.random.default_rng([speaker, 1980])
    low, high, shortest, longest = (85, 150, 0.95, 1.08) if random.random() < 0.5 else (160, 255, 1.08, 1.25)
    along = random.random()
    tract = shortest + (longest - shortest) * np.clip(along + random.normal(0, 0.15), 0, 1)
    accent = {name: np.exp(random.normal(0, 0.03, 3).clip(-0.08, 0.08)) for name in PHONEMES}
    pace, tilt, breath = random.uniform(0.85, 1.2), random.uniform(0.6, 1.3), random.uniform(0, 0.06)
    return _Voice(low * (high / low) ** along, tract, accent, pace, tilt, breath)


def _say(words: list[str], speaker: int, noise: Any, random: np.random.Generator) -> np.ndarray:
    """Return one clip `(time,)`."""
    voice = _voice(speaker)
    pace = voice.pace * np.exp(random.normal(0, 0.06))
    quiet = Sound(0, (500, 1500, 2500))
    # Sounds with the accent of their phoneme, and pauses between words, of which every third is none at all.
    script = [(quiet._replace(time=random.uniform(0.06, 0.15)), np.ones(3))]
    for place, word in enumerate(words):
        if place:
            pause = 0.0 if random.random() < 1 / 3 else random.uniform(0.03, 0.15)
            script.append((quiet._replace(time=pause), np.ones(3)))
        script += [(sound, voice.accent[name]) for name in WORDS[word].split() for sound in PHONEMES[name]]
    script.append((quiet._replace(time=random.uniform(0.06, 0.15)), np.ones(3)))

    # Tracks with a row per frame: formants, voice, breath, hiss, its center and width.
    counts = [round(sound.time * pace * np.exp(random.normal(0, 0.1)) * RATE / FRAME) for sound, _ in script]
    rows = [
        [*(np.array(sound.formants) * accent * voice.tract), *sound[2:5], sound.center, sound.width]
        for sound, accent in script
    ]
    tracks = np.repeat(np.array(rows), counts, axis=0)
    formants = _smooth(tracks[:, :3], 9)
    loud = _smooth(tracks[:, 3:6], 3)
    sound = _voiced(formants, loud[:, 0], voice, random) + _noisy(formants, loud, tracks[:, 6:], voice, random)
    sound *= 0.06 * np.exp(random.normal(0, 0.3)) / np.sqrt(np.mean(sound**2))
    if noise is not None:
        decibels = random.uniform(*noise) if np.ndim(noise) else noise
        hiss = np.sqrt(np.mean(sound**2)) * 10 ** (-decibels / 20)
        sound = sound + hiss * random.standard_normal(len(sound))
    return np.clip(sound, -1, 1).astype(np.float32)


def _smooth(tracks: np.ndarray, frames: int) -> np.ndarray:
    """Return moving averages over an odd number of frames, `(frames, values)`."""
    padded = np.pad(tracks, ((frames // 2 + 1, frames // 2), (0, 0)), mode="edge").cumsum(axis=0)
    return (padded[frames:] - padded[:-frames]) / frames


def _gains(formants: np.ndarray, frequencies: np.ndarray, tract: float) -> np.ndarray:
    """Return the gain of five resonances at frequencies `(frames, k)`, given three of them `(frames, 3)`."""
    gain = np.ones_like(frequencies)
    higher = [np.full(len(formants), 3500 * tract), np.full(len(formants), 4500 * tract)]
    for resonance in [*formants.T, *higher]:
        f, width = resonance[:, None], 50 + 0.04 * resonance[:, None]
        gain *= f**2 / np.sqrt((f**2 - frequencies**2) ** 2 + (width * frequencies) ** 2)
    return gain


def _voiced(formants: np.ndarray, loud: np.ndarray, voice: _Voice, random: np.random.Generator) -> np.ndarray:
    """Return the voice `(frames · FRAME,)`, a sum of harmonics."""
    count = len(formants)
    along = np.linspace(0, 1, count)
    # The melody falls, and wavers slowly and a little.
    waver = _smooth(random.standard_normal((count, 1)), 21)[:, 0]
    pitch = voice.pitch * np.exp(0.12 * (0.5 - along) + random.normal(0, 0.05) + 0.08 * waver)
    order = np.arange(1, int(0.95 * RATE / 2 / pitch.min()) + 1)
    frequencies = pitch[:, None] * order[None]
    gain = _gains(formants, frequencies, voice.tract) * (frequencies / 100) ** -voice.tilt * loud[:, None]
    gain[frequencies > 0.95 * RATE / 2] = 0
    # Linear between frames: (harmonics, frames, FRAME)
    between = np.arange(FRAME, dtype=np.float32) / FRAME
    gain = gain.T.astype(np.float32)
    after = np.concatenate([gain[:, 1:], gain[:, -1:]], axis=1)
    phase = np.cumsum(np.repeat(pitch, FRAME)) * 2 * np.pi / RATE
    turn = np.exp(1j * phase).astype(np.complex64)
    wave_, total = turn.copy(), np.zeros(count * FRAME, np.float32)
    for now, then in zip(gain, after, strict=True):
        total += (now[:, None] + (then - now)[:, None] * between).ravel() * wave_.imag
        wave_ *= turn
    return total.astype(float)


def _noisy(
    formants: np.ndarray, loud: np.ndarray, bands: np.ndarray, voice: _Voice, random: np.random.Generator
) -> np.ndarray:
    """Return breath and hiss `(frames · FRAME,)`, noise filtered in overlapping frames."""
    frequencies = np.broadcast_to(np.arange(FRAME + 1) * RATE / 2 / FRAME, (len(formants), FRAME + 1))
    center, width = bands[:, :1], bands[:, 1:]
    hiss = loud[:, 2:3] * np.exp(-0.5 * ((frequencies - center) / width) ** 2)
    breath = (loud[:, 1:2] + voice.breath * loud[:, :1]) * _gains(formants, frequencies, voice.tract)
    white = np.fft.rfft(random.standard_normal((len(formants), 2 * FRAME)))
    frames = np.fft.irfft(white * (hiss + 0.3 * breath)) * np.sin(np.pi * np.arange(2 * FRAME) / (2 * FRAME)) ** 2
    total = frames[:, :FRAME].copy()
    total[1:] += frames[:-1, FRAME:]
    return total.ravel()


def write_wav(path: str | Path, sound: Any, rate: int = RATE) -> None:
    """Write a clip as a WAV file of 16 bits that every player reads.

    Args:
        path: the file to write.
        sound: samples `(time,)`, floating, from -1 to 1; what lies beyond is cut off.
        rate: samples per second, a positive integer; 8000 is that of `spoken_words`.

    Raises:
        NetError: for samples of another rank, that are not floating, or NaN.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "clip.wav"
    >>> write_wav(file, spoken_words(1).sound[0])
    >>> file.read_bytes()[:4]
    b'RIFF'
    """
    with labeled_as("write_wav"):
        check_count("rate", rate)
        values = np.asarray(sound)
        if values.ndim != 1 or values.dtype.kind != "f" or np.isnan(values).any():
            raise NetError(f"expects floating samples (time,) without NaN, got {shown(values)}")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(values, -1, 1) * 32767).round().astype("<i2").tobytes())
