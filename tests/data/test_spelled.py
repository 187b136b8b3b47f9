"""Dates and numbers in words, against babel, num2words and Python's calendar."""

import datetime
import sys
from collections import Counter

import pytest
from babel.dates import format_date
from num2words import num2words

import jaxnets as jn
from jaxnets.data.datasets.spelled import FORMS

LANGUAGES = ("en", "de", "fr", "es")
KNOWN, UNSEEN = jn.data.dates_and_numbers(3000), jn.data.dates_and_numbers(1000, held_out=True)


def test_digits_say_what_the_text_says():
    for text, digits, form in zip(*KNOWN):
        language, form = form.split()
        if form == "number":
            assert num2words(int(digits), lang=language) == text
            continue
        date = datetime.date.fromisoformat(digits)
        assert 1900 <= date.year <= 2099
        if form == "words":
            assert format_date(date, "MMMM", locale=language) in text.split()
            assert text.endswith(num2words(date.year, lang=language, to="year"))
        else:
            assert format_date(date, form, locale=language) == text
    english = [(text, digits) for text, digits, form in zip(*KNOWN) if form == "en full"]
    assert english
    for text, digits in english:
        assert datetime.datetime.strptime(text, "%A, %B %d, %Y").date().isoformat() == digits


def test_a_date_in_words_in_each_language():
    starts = {"en": "the fourteenth of ", "de": "der vierzehnte ", "fr": "le quatorze ", "es": "el catorce de "}
    firsts = {"en": "the first of ", "de": "der erste ", "fr": "le premier ", "es": "el uno de "}
    found = set()
    for text, digits, form in zip(*KNOWN):
        language, form = form.split()
        day = digits[-3:]
        if form == "words" and day in ("-14", "-01"):
            assert text.startswith((starts if day == "-14" else firsts)[language])
            found.add((language, day))
    assert len(found) == 8


def test_what_is_held_out_is_in_no_text_to_learn_from():
    def parts(rows: tuple[list[str], list[str], list[str]]) -> tuple[set[str], set[str]]:
        numbers = {digits[-3:] for digits, form in zip(rows[1], rows[2]) if form.endswith("number")}
        return {digits[5:] for digits in rows[1] if "-" in digits}, numbers

    (days, endings), (unseen_days, unseen_endings) = parts(KNOWN), parts(UNSEEN)
    assert not days & unseen_days
    assert not endings & unseen_endings
    assert len(days) > 320
    assert 30 < len(unseen_days) <= 36
    assert 60 < len(unseen_endings) <= 90


def test_languages_and_forms_are_equally_frequent():
    counts = Counter(KNOWN[2])
    assert {*counts} == {f"{language} {form}" for language in LANGUAGES for form in FORMS}
    assert max(counts.values()) < 1.6 * min(counts.values())
    assert {form.split()[0] for form in jn.data.dates_and_numbers(50, languages=["fr"])[2]} == {"fr"}
    assert jn.data.dates_and_numbers(50, seed=1) == jn.data.dates_and_numbers(50, seed=1)
    assert jn.data.dates_and_numbers(50, seed=1)[0] != KNOWN[0][:50]


def test_refused(monkeypatch: pytest.MonkeyPatch):
    for languages in (("xx",), "en", ()):
        with pytest.raises(jn.NetError, match="dates_and_numbers expects a list of languages among en, de, fr, es"):
            jn.data.dates_and_numbers(1, languages=languages)
    with pytest.raises(jn.NetError, match="expects examples ≥ 1, got 0"):
        jn.data.dates_and_numbers(0)
    monkeypatch.setitem(sys.modules, "num2words", None)
    with pytest.raises(ModuleNotFoundError, match=r"num2words: pip install 'jaxnets\[data\]'"):
        jn.data.dates_and_numbers(1)
