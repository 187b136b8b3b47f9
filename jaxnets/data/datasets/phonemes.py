"""The sounds of spoken words: what the mouth does in each phoneme, and the words as phonemes."""

from typing import NamedTuple


class Sound(NamedTuple):
    """A piece of a phoneme, through which the mouth glides on to the next.

    Attributes:
        time: its duration in seconds, at a usual pace.
        formants: the lowest three resonances of the vocal tract in hertz, those of an adult man.
        voice: the amplitude of the voice.
        breath: the amplitude of noise at the glottis, which passes the same resonances.
        hiss: the amplitude of noise at a constriction of the mouth.
        center: the frequency at which that noise is loudest, in hertz.
        width: the width of its band, in hertz.
    """

    time: float
    formants: tuple[float, float, float]
    voice: float = 0.0
    breath: float = 0.0
    hiss: float = 0.0
    center: float = 3000.0
    width: float = 800.0


def _vowel(*formants: tuple[float, float, float], time: float = 0.12) -> tuple[Sound, ...]:
    return tuple(Sound(time / len(formants), each, 1.0) for each in formants)


def _stop(place: tuple[float, float, float], center: float, voice: float, *, breath: float) -> tuple[Sound, ...]:
    """Return a closure, the burst of its release, and what follows until the voice sets in."""
    closed = Sound(0.05, (200, place[1], place[2]), voice)
    return closed, Sound(0.015, place, 0, 0, 0.5, center, 700), Sound(0.02, place, voice, breath)


AA, IH, IY, EH = (730, 1090, 2440), (390, 1990, 2550), (270, 2290, 3010), (530, 1840, 2480)
AH, AO, UH, UW = (640, 1190, 2390), (570, 840, 2410), (440, 1020, 2240), (300, 870, 2240)
FRONT, BACK, LIPS = (320, 1800, 2600), (300, 1900, 2300), (300, 900, 2200)

PHONEMES: dict[str, tuple[Sound, ...]] = {
    "AA": _vowel(AA),
    "AH": _vowel(AH, time=0.1),
    "AO": _vowel(AO),
    "AW": _vowel(AA, AA, UH, time=0.18),
    "AY": _vowel(AA, AA, IH, time=0.18),
    "EH": _vowel(EH),
    "EY": _vowel((480, 1900, 2500), (330, 2200, 2800), time=0.16),
    "IH": _vowel(IH, time=0.09),
    "IY": _vowel(IY, time=0.14),
    "OW": _vowel((540, 900, 2400), (360, 800, 2300), time=0.16),
    "UW": _vowel(UW, time=0.14),
    "L": (Sound(0.07, (310, 1050, 2880), 0.6),),
    "R": (Sound(0.07, (330, 1060, 1450), 0.6),),
    "W": (Sound(0.07, (290, 610, 2150), 0.6),),
    "Y": (Sound(0.06, (260, 2070, 3020), 0.6),),
    "N": (Sound(0.08, (250, 1450, 2500), 0.4),),
    "F": (Sound(0.1, (300, 1100, 2100), 0, 0, 0.12, 2200, 2500),),
    "S": (Sound(0.11, (320, 1400, 2530), 0, 0, 0.5, 3700, 500),),
    "TH": (Sound(0.09, (320, 1300, 2540), 0, 0, 0.1, 3200, 1200),),
    "V": (Sound(0.07, (250, 1100, 2080), 0.35, 0, 0.06, 2200, 2500),),
    "Z": (Sound(0.09, (260, 1390, 2530), 0.3, 0, 0.3, 3700, 500),),
    "D": _stop(FRONT, 3000, 0.1, breath=0.0),
    "G": _stop(BACK, 1900, 0.1, breath=0.0),
    "K": _stop(BACK, 1800, 0.0, breath=0.25),
    "P": _stop(LIPS, 800, 0.0, breath=0.25),
    "T": _stop(FRONT, 3400, 0.0, breath=0.25),
}

WORDS = {
    **{"zero": "Z IH R OW", "one": "W AH N", "two": "T UW", "three": "TH R IY", "four": "F AO R"},
    **{"five": "F AY V", "six": "S IH K S", "seven": "S EH V AH N", "eight": "EY T", "nine": "N AY N"},
    **{"yes": "Y EH S", "no": "N OW", "go": "G OW", "stop": "S T AA P", "left": "L EH F T", "right": "R AY T"},
    **{"up": "AH P", "down": "D AW N", "on": "AA N", "off": "AO F"},
}
"""The phonemes of each word, in the alphabet of the CMU Pronouncing Dictionary without stress."""
