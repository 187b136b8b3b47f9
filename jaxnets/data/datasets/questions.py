"""Generated passages with facts about people, and questions whose answers stand in them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, check_count, check_fraction, labeled_as

NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Iris", "Jack", "Lena", "Max")
TABLE = {
    "city": ("Oslo", "Rome", "Lima", "Cairo", "Delhi", "Paris", "Quito", "Tunis", "New York", "Hong Kong"),
    "job": ("baker", "nurse", "pilot", "farmer", "singer", "judge", "tailor", "miner", "bus driver", "night guard"),
    "pet": ("dog", "cat", "horse", "parrot", "rabbit", "goat", "turtle", "pony", "gold fish", "guinea pig"),
}
FACTS = {
    "city": ("{name} lives in {value} .", "the home of {name} is in {value} ."),
    "job": ("{name} is a {value} .", "{name} works as a {value} ."),
    "pet": ("{name} has a {value} .", "the pet of {name} is a {value} ."),
}
ASKED = {"city": "where does {who} live ?", "job": "what is the job of {who} ?", "pet": "which pet does {who} have ?"}
NAMED = {"city": "who lives in {value} ?", "job": "who is the {value} ?", "pet": "who has the {value} ?"}
THE_ONE = {"city": "the person from {value}", "job": "the {value}", "pet": "the owner of the {value}"}
KINDS = ("value", "name", "two facts")


@dataclass(frozen=True)
class Question:
    """A passage, a question about it, and where the answer stands.

    Attributes:
        passage: sentences; their words and periods are separated by single spaces.
        question: ends with a question mark.
        answer: the text of the answer; "" if the passage has none.
        span: the answer is `passage[span[0] : span[1]]`; `(0, 0)` for none.
        kind: "value", "name", or "two facts".
    """

    passage: str
    question: str
    answer: str
    span: tuple[int, int]
    kind: str

    @property
    def word_span(self) -> tuple[int, int]:
        """The numbers of the first word of the answer in `passage.split()`, and of the one behind the last."""
        begin = self.passage[: self.span[0]].count(" ")
        return begin, begin + len(self.answer.split())


def table_questions(examples: int, *, people: int = 3, unanswerable: float = 0.0, seed: int = 0) -> list[Question]:
    """Generate passages of facts from a random table of people, and questions to be answered by a part of them.

    The table has a city, a job and a pet for each person, no two alike. The passage tells every fact in one of two
    ways, in random order. The kinds of questions are equally frequent:

    - "value": where does Anna live ?
    - "name": who has the dog ?
    - "two facts": where does the owner of the dog live ?

    A question without an answer asks for someone or something that the passage does not mention.

    Args:
        examples: the number of questions, each with a passage of its own.
        people: the number of people in a passage, from 1 to 9.
        unanswerable: the share of questions without an answer, in [0, 1).
        seed: the same seed gives the same questions on every machine.

    Returns:
        A list of `Question`.

    Raises:
        NetError: for fewer than 1 example, or an option out of range.

    After the tasks of Weston et al., "Towards AI-Complete Question Answering: A Set of Prerequisite Toy Tasks" (2015),
    with the spans of Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text" (2016).

    >>> for each in table_questions(3, people=1, seed=1):
    ...     print(each.passage)
    ...     print(each.question, each.answer, each.span)
    the home of Ben is in Rome . the pet of Ben is a turtle . Ben is a baker .
    what is the job of the person from Rome ? baker (67, 72)
    the pet of Felix is a goat . Felix works as a tailor . Felix lives in Delhi .
    what is the job of Felix ? tailor (46, 52)
    Ben works as a farmer . Ben lives in Tunis . the pet of Ben is a dog .
    what is the job of the owner of the dog ? farmer (15, 21)
    """
    with labeled_as("table_questions"):
        check_count("examples", examples)
        check_count("people", people)
        check_fraction("unanswerable", unanswerable)
        if people > 9:
            raise NetError(f"expects at most 9 people, got {people}; the table has {len(NAMES)} names, 10 values")
    random = np.random.default_rng(seed)
    return [_question(random, people, random.random() < unanswerable) for _ in range(examples)]


def _question(random: Any, people: int, unanswerable: bool) -> Question:
    names = _drawn(random, NAMES, people + 1)
    table = {of: _drawn(random, values, people + 1) for of, values in TABLE.items()}
    facts, places = [], {}
    for number in random.permutation(len(TABLE) * people):
        of, row = [*TABLE][number // people], int(number % people)
        facts.append((of, row, FACTS[of][random.integers(2)].format(name=names[row], value=table[of][row])))
    passage, begin = "", 0
    for of, row, text in facts:
        for key, value in (("value", table[of][row]), ("name", names[row])):
            place = begin + f" {text} ".index(f" {value} ")
            places[key, of, row] = place, place + len(value)
        passage += f"{text} "
        begin = len(passage)
    kind = KINDS[random.integers(3)]
    first, second = _drawn(random, tuple(TABLE), 2)
    row = people if unanswerable else int(random.integers(people))
    if kind == "value":
        question, span = ASKED[first].format(who=names[row]), places.get(("value", first, row))
    elif kind == "name":
        question, span = NAMED[first].format(value=table[first][row]), places.get(("name", first, row))
    else:
        who = THE_ONE[second].format(value=table[second][row])
        question, span = ASKED[first].format(who=who), places.get(("value", first, row))
    begin, end = span or (0, 0)
    return Question(passage.strip(), question, passage[begin:end], (begin, end), kind)


def _drawn(random: Any, values: tuple[str, ...], count: int) -> list[str]:
    return [values[place] for place in random.permutation(len(values))[:count]]
