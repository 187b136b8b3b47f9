"""Generated questions: spans, kinds, and answers found again from the passage."""

import re
from collections import Counter
from typing import Any

import pytest

import jaxnets as jn
from jaxnets.data.datasets.questions import KINDS, NAMES, TABLE

QUESTIONS = jn.data.table_questions(300, people=3, unanswerable=0.2, seed=2)
VALUE_OF = {value: key for key, values in TABLE.items() for value in values}


def answered(each: jn.data.Question) -> str:
    """Return the answer by reading the passage into a table: every sentence names a person and a value."""
    table = {}
    for sentence in each.passage.split(" ."):
        if sentence.strip():
            (name,) = (name for name in NAMES if re.search(rf"\b{name}\b", sentence))
            (value,) = (value for value in VALUE_OF if re.search(rf"\b{value}\b", sentence))
            table[name, VALUE_OF[value]] = value
    asked = {"where": "city", "what": "job", "which": "pet"}.get(each.question.split()[0])
    values = [value for value in VALUE_OF if re.search(rf"\b{value}\b", each.question)]
    name = next((name for name in NAMES if name in each.question.split()), None)
    if values:
        name = next((name for (name, _), value in table.items() if value == values[0]), None)
    if asked is None:
        return name or ""
    return table.get((name, asked), "")


def test_answers_are_those_of_the_facts():
    assert [answered(each) for each in QUESTIONS] == [each.answer for each in QUESTIONS]


def test_spans_are_the_answers():
    for each in QUESTIONS:
        assert each.passage[slice(*each.span)] == each.answer
        assert " ".join(each.passage.split()[slice(*each.word_span)]) == each.answer
    assert any(" " in each.answer for each in QUESTIONS)  # of two words, too
    kinds = Counter(each.kind for each in QUESTIONS)
    assert all(70 < kinds[kind] < 130 for kind in KINDS)
    assert 40 < sum(not each.answer for each in QUESTIONS) < 80


def test_the_answer_to_a_name_is_marked_in_the_sentence_that_tells_it():
    for each in (each for each in QUESTIONS if each.kind == "name" and each.answer):
        (value,) = (value for value in VALUE_OF if re.search(rf"\b{value}\b", each.question))
        begin = each.passage.rfind(" . ", 0, each.span[0]) + 1
        assert value in each.passage[begin : each.passage.index(" .", each.span[1])]


def test_seeds_and_mistakes():
    assert QUESTIONS[:50] == jn.data.table_questions(300, people=3, unanswerable=0.2, seed=2)[:50]
    assert QUESTIONS[0] != jn.data.table_questions(1, people=3, unanswerable=0.2, seed=3)[0]
    mistakes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"people": 10}, "expects at most 9 people, got 10"),
        ({"people": 0}, "people"),
        ({"unanswerable": 1.0}, "unanswerable"),
    )
    for options, message in mistakes:
        with pytest.raises(jn.NetError, match=message):
            jn.data.table_questions(2, **options)
