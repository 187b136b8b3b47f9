"""Dates and numbers as people write them in several languages, to translate to digits."""

import calendar
import datetime
from collections.abc import Sequence

import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as, require

FORMS = ("full", "long", "medium", "words", "number")
# The day in words, the month's name, and the year in words.
_WORDS = {
    "en": "the {} of {} {}",
    "de": "der {} {} {}",
    "fr": "le {} {} {}",
    "es": "el {} de {} de {}",
}
_FIRST_YEAR, _LAST_YEAR, _DIGITS, _TENTH = 1900, 2099, 4, 10


def dates_and_numbers(
    examples: int, *, languages: Sequence[str] = ("en", "de", "fr", "es"), held_out: bool = False, seed: int = 0
) -> tuple[list[str], list[str], list[str]]:
    """Generate dates and numbers in several languages and forms, and what they are in digits.

    A text is a date from 1900 to 2099 in one of four forms, or a number below 10,000 in words:

    | form | text | in digits |
    | --- | --- | --- |
    | full | Wednesday, September 21, 1994 | 1994-09-21 |
    | long | 21. September 1994 | 1994-09-21 |
    | medium | 21 sept. 1994 | 1994-09-21 |
    | words | el veintiuno de septiembre de mil novecientos noventa y cuatro | 1994-09-21 |
    | number | neuf mille quatre-vingt-onze | 9091 |

    Languages and forms are equally frequent, days and years, too; numbers have 1 to 4 digits equally often. A tenth of
    the pairs of month and day, and a tenth of the last three digits from 100 to 999, are held out: they occur with
    `held_out=True` only, in all languages and forms. So what is tested is made of known words in new combinations.

    Args:
        examples: the number of texts, at least 1.
        languages: some of "en", "de", "fr" and "es".
        held_out: whether to return combinations that are held out, or the others.
        seed: the same seed gives the same examples, with one version of babel and num2words.

    Returns:
        The texts, what they are in digits (dates as in ISO 8601), and the form of each, "de words"; lists of strings.

    Raises:
        NetError: for `examples` < 1, or another language.
        ModuleNotFoundError: if babel or num2words is not installed.

    Dates are written by babel with the data of the Unicode Consortium, numbers by num2words.

    >>> texts, digits, forms = dates_and_numbers(4)
    >>> for row in zip(forms, texts, digits):
    ...     print(*row, sep=" | ")
    es words | el tres de julio de mil novecientos cincuenta y tres | 1953-07-03
    de full | Montag, 26. Januar 1903 | 1903-01-26
    en number | nine hundred and twenty-one | 921
    fr words | le vingt décembre deux mille quarante-cinq | 2045-12-20
    """
    with labeled_as("dates_and_numbers"):
        check_count("examples", examples)
        if isinstance(languages, str) or not languages or {*languages} - {*_WORDS}:
            raise NetError(f"expects a list of languages among {', '.join(_WORDS)}, got {languages!r}")
    in_words, format_date = require("num2words", "data").num2words, require("babel.dates", "data").format_date
    random, days, endings = np.random.default_rng([seed, held_out]), _days(held_out), _endings(held_out)

    def draw(language: str, form: str) -> tuple[str, str]:
        if form == "number":
            digits = int(random.integers(3 if held_out else 1, _DIGITS + 1))
            low, high = 10 ** (digits - 1) if digits > 1 else 0, 10**digits
            number = int(random.integers(low, high))
            while number % 1000 not in endings:
                number = int(random.integers(low, high))
            return in_words(number, lang=language), str(number)
        month, day = days[int(random.integers(len(days)))]
        year = int(random.integers(_FIRST_YEAR, _LAST_YEAR + 1))
        while (month, day) == (2, 29) and not calendar.isleap(year):
            year = int(random.integers(_FIRST_YEAR, _LAST_YEAR + 1))
        date = datetime.date(year, month, day)
        if form != "words":
            return format_date(date, form, locale=language), date.isoformat()
        # Germanic languages have ordinals, the others have cardinals, but "premier" in French.
        ordinal = language in ("en", "de") or (language == "fr" and day == 1)
        spelled = in_words(day, lang=language, to="ordinal" if ordinal else "cardinal")
        name = format_date(date, "MMMM", locale=language)
        return _WORDS[language].format(spelled, name, in_words(year, lang=language, to="year")), date.isoformat()

    texts, digits, forms = [], [], []
    for _ in range(examples):
        language, form = languages[int(random.integers(len(languages)))], FORMS[int(random.integers(len(FORMS)))]
        text, target = draw(language, form)
        texts.append(text)
        digits.append(target)
        forms.append(f"{language} {form}")
    return texts, digits, forms


def _days(held_out: bool) -> list[tuple[int, int]]:
    """Return the pairs of month and day that are held out, or the others."""
    year = datetime.date(2000, 1, 1)
    days = [year + datetime.timedelta(place) for place in range(366)]
    kept = np.random.default_rng(0).permutation(len(days)) >= len(days) // _TENTH
    return [(day.month, day.day) for day, keep in zip(days, kept) if keep != held_out]


def _endings(held_out: bool) -> set[int]:
    """Return the last three digits of numbers that are held out, or the others."""
    endings = set((100 + np.random.default_rng(0).permutation(900)[: 900 // _TENTH]).tolist())
    return endings if held_out else {*range(1000)} - endings
