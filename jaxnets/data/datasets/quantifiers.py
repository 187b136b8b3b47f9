"""Generated pairs of sentences with quantifiers: does the one follow from the other?"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as

QUANTIFIERS = ("all", "some", "no", "not all")
NOUNS = ("dogs", "cats", "birds", "pets", "friends", "hunters")
ADJECTIVES = ("red", "big", "old", "fast", "loud", "calm")
LABELS = ("entailment", "neutral", "contradiction")

Phrase = frozenset[str]  # the words that all hold of what is named: {"red", "dogs"}
Statement = tuple[str, Phrase, Phrase]  # ("all", {"red", "dogs"}, {"pets"})
OPPOSITE = {"all": "not all", "not all": "all", "some": "no", "no": "some"}


def quantifier_pairs(
    examples: int, *, modifiers: tuple[int, int] = (0, 2), seed: int = 0
) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Generate pairs of sentences such as "all red dogs are pets", "some dogs are pets", and whether one follows.

    A sentence is `quantifier adjectives noun are adjectives noun`, with the quantifiers all (A ⊆ B), some (A ∩ B ≠ ∅),
    no (A ∩ B = ∅) and not all (A ⊄ B). A phrase names what each of its words holds of; nothing else is known of the
    words, except that the subjects of both sentences exist. The label is what follows from the first sentence: in every
    world where it is true the second is true (entailment, 0), in every one it is false (contradiction, 2), or neither
    (neutral, 1).

    The two phrases of the second sentence are those of the first, or have fewer or more adjectives, in any order, or
    another noun; they may have changed places, or their adjectives may. Each label has a third of the examples. The
    longest phrase of a pair has `modifiers[1]` adjectives at most and `modifiers[0]` at least, so that lengths can be
    held out.

    Args:
        examples: the number of pairs, at least 3.
        modifiers: the fewest and the most adjectives of the longest phrase, from 0 to 6.
        seed: the same seed gives the same pairs on every machine.

    Returns:
        A list of pairs `(premise, hypothesis)` of strings, and labels `(examples,)` int32.

    Raises:
        NetError: for fewer than 3 examples, or `modifiers` out of order or out of range.

    After Bowman, Potts and Manning, "Recursive Neural Networks Can Learn Logical Semantics" (2015), section 4; with
    the subjects' existence, as in MacCartney and Manning, "An extended model of natural logic" (2009).

    >>> pairs, labels = quantifier_pairs(3, modifiers=(0, 1), seed=0)
    >>> for pair, label in zip(pairs, labels):
    ...     print(*pair, LABELS[label], sep=" | ")
    some loud birds are old pets | no old pets are birds | contradiction
    no fast birds are cats | not all birds are cats | entailment
    some red hunters are pets | some fast hunters are red pets | neutral
    """
    with labeled_as("quantifier_pairs"):
        check_count("examples", examples)
        low, high = modifiers
        if examples < len(LABELS):
            raise NetError(f"expects at least 3 examples, one of each label, got {examples}")
        if not 0 <= low <= high <= len(ADJECTIVES):
            raise NetError(f"expects modifiers from 0 to {len(ADJECTIVES)}, the fewer first, got {modifiers}")
    random = np.random.default_rng(seed)
    wanted = random.permutation(np.arange(examples) % len(LABELS)).astype(np.int32)
    waiting: list[list[tuple[str, str]]] = [[] for _ in LABELS]
    pairs = []
    for label in wanted:
        while not waiting[label]:
            pair, found = _pair(random, low, high)
            if found is not None:
                waiting[found].append(pair)
        pairs.append(waiting[label].pop())
    return pairs, wanted


def read_statement(sentence: str) -> Statement:
    """Return the quantifier of a sentence and the words of its two phrases.

    >>> quantifier, a, b = read_statement("not all red dogs are old pets")
    >>> quantifier, sorted(a), sorted(b)
    ('not all', ['dogs', 'red'], ['old', 'pets'])
    """
    left, _, right = sentence.partition(" are ")
    quantifier = next(each for each in QUANTIFIERS if left.startswith(each + " "))
    return quantifier, frozenset(left[len(quantifier) :].split()), frozenset(right.split())


def relation(premise: Statement, hypothesis: Statement) -> int | None:
    """Return the number of the label of a pair: 0 entailment, 1 neutral, 2 contradiction; `None` if no world fits.

    Every statement says that a world has a thing of some kind, or that it has none: all A are B, there is no A that
    lacks one of B. A world fits if for each thing that must be there a thing with no more properties than needed is
    allowed; the properties are found as those of Horn clauses, "whatever is A is B" applied until nothing is new.
    """
    exist = [("some", a, a) for _, a, _ in (premise, hypothesis)]
    quantifier, a, b = hypothesis
    true = _fits([premise, hypothesis, *exist])
    false = _fits([premise, (OPPOSITE[quantifier], a, b), *exist])
    if not true and not false:
        return None
    return 1 if true and false else 0 if true else 2


def _fits(statements: Iterable[Statement]) -> bool:
    statements = list(statements)
    rules = [(a, b) for quantifier, a, b in statements if quantifier == "all"]
    never = [a | b for quantifier, a, b in statements if quantifier == "no"]

    def allowed(quantifier: str, a: Phrase, b: Phrase) -> bool:
        thing = a | b if quantifier == "some" else a
        while more := [y for x, y in rules if x <= thing and not y <= thing]:
            thing = thing.union(*more)
        return not any(each <= thing for each in never) and not (quantifier == "not all" and b <= thing)

    return all(allowed(*each) for each in statements if each[0] in ("some", "not all"))


def _pair(random: Any, low: int, high: int) -> tuple[tuple[str, str], int | None]:
    """Return a pair drawn at random, and its label; `None` if it is not of the lengths wanted."""
    nouns = random.permutation(NOUNS)[:2].tolist()
    phrases = [(_some_of(random, random.integers(0, high + 1)), noun) for noun in nouns]
    others = [_changed(random, *phrase, high) for phrase in phrases]
    move = random.random()
    if move < 0.35:
        others.reverse()
    elif move < 0.55:
        others = [(adjectives, noun) for (_, noun), (adjectives, _) in zip(others, others[::-1])]
    longest = max(len(adjectives) for adjectives, _ in phrases + others)
    first, second = (QUANTIFIERS[random.integers(4)] for _ in range(2))
    pair = _sentence(first, *phrases), _sentence(second, *others)
    if longest < low or others[0][1] == others[1][1]:
        return pair, None
    return pair, relation(read_statement(pair[0]), read_statement(pair[1]))


def _changed(random: Any, adjectives: list[str], noun: str, high: int) -> tuple[list[str], str]:
    """Return a phrase that names the same, more, less, or something else."""
    change = random.choice(4, p=[0.3, 0.3, 0.3, 0.1])
    if change == 1 and adjectives:
        adjectives = adjectives[: random.integers(len(adjectives))]
    elif change == 2 and len(adjectives) < high:
        free = [each for each in ADJECTIVES if each not in adjectives]
        more = int(random.integers(1, high - len(adjectives) + 1))
        adjectives = adjectives + random.permutation(free)[:more].tolist()
    elif change == 3:
        noun = NOUNS[random.integers(len(NOUNS))]
    return random.permutation(np.array(adjectives, dtype=object)).tolist(), noun


def _some_of(random: Any, count: int) -> list[str]:
    return random.permutation(ADJECTIVES)[:count].tolist()


def _sentence(quantifier: str, *phrases: tuple[list[str], str]) -> str:
    return f"{quantifier} " + " are ".join(" ".join([*adjectives, noun]) for adjectives, noun in phrases)
