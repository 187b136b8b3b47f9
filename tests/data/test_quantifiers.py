"""Sentences with quantifiers: labels against all worlds, and against truth tables."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

import jaxnets as jn
from jaxnets.data.datasets.quantifiers import ADJECTIVES, LABELS, QUANTIFIERS, read_statement

PAIRS, FOUND = jn.data.quantifier_pairs(300, modifiers=(0, 1), seed=3)


def all_worlds(pair: tuple[str, str]) -> int:
    """Return the label by going through every world: every set of kinds of things, of all combinations of words."""
    statements = [read_statement(each) for each in pair]
    words = sorted(set().union(*(a | b for _, a, b in statements)))
    kinds = [dict(zip(words, each)) for each in product([False, True], repeat=len(words))]
    worlds = np.array(list(product([False, True], repeat=len(kinds))))  # (worlds, kinds)

    def some(of):
        return worlds[:, [of(kind) for kind in kinds]].any(1)

    def true(statement):
        quantifier, a, b = statement
        both = some(lambda kind: all(kind[word] for word in a | b))
        apart = some(lambda kind: all(kind[word] for word in a) and not all(kind[word] for word in b))
        return {"all": ~apart, "some": both, "no": ~both, "not all": apart}[quantifier]

    possible = true(statements[0])
    for _, a, _ in statements:
        possible &= some(lambda kind, a=a: all(kind[word] for word in a))
    follows = np.asarray(true(statements[1]))[possible]
    assert len(follows)
    return 0 if follows.all() else 2 if not follows.any() else 1


def few(pair: tuple[str, str]) -> bool:
    return len(set().union(*(a | b for _, a, b in map(read_statement, pair)))) <= 4


def test_labels_are_those_of_all_worlds():
    chosen = [k for k, pair in enumerate(PAIRS) if few(pair)][:30]  # 65,536 worlds each
    assert {*FOUND[chosen]} == {0, 1, 2}
    assert {read_statement(PAIRS[k][0])[0] for k in chosen} == {*QUANTIFIERS}
    assert [all_worlds(PAIRS[k]) for k in chosen] == FOUND[chosen].tolist()


def by_kinds(pair: tuple[str, str]) -> int:
    """Return the label by truth tables: a world fits if each thing that must be there may be of some allowed kind."""
    statements = [read_statement(each) for each in pair]
    words = sorted(set().union(*(a | b for _, a, b in statements)))
    kinds = np.array(list(product([False, True], repeat=len(words))))

    def holds(phrase):
        return kinds[:, [words.index(word) for word in phrase]].all(1)

    def fits(statements):
        allowed, needed = np.ones(len(kinds), bool), [holds(a) for _, a, _ in statements]
        for quantifier, a, b in statements:
            both, apart = holds(a) & holds(b), holds(a) & ~holds(b)
            if quantifier in ("all", "no"):
                allowed &= ~(apart if quantifier == "all" else both)
            else:
                needed.append(both if quantifier == "some" else apart)
        return all((each & allowed).any() for each in needed)

    premise, (quantifier, a, b) = statements
    denied = {"all": "not all", "not all": "all", "some": "no", "no": "some"}[quantifier]
    true, false = fits(statements), fits([premise, (denied, a, b)])
    return 1 if true and false else 0 if true else 2


def test_labels_of_longer_sentences_are_those_of_truth_tables():
    pairs, labels = jn.data.quantifier_pairs(150, modifiers=(2, 4), seed=4)
    assert [by_kinds(pair) for pair in pairs] == labels.tolist()


def test_lengths_labels_and_seeds():
    pairs, labels = jn.data.quantifier_pairs(30, modifiers=(3, 4), seed=1)
    assert Counter(labels.tolist()) == {0: 10, 1: 10, 2: 10}
    assert labels.dtype == np.int32
    assert len(LABELS) == 3
    longest = [
        max(len(phrase & {*ADJECTIVES}) for each in pair for phrase in read_statement(each)[1:]) for pair in pairs
    ]
    assert {*longest} == {3, 4}
    again = jn.data.quantifier_pairs(30, modifiers=(3, 4), seed=1)
    assert pairs == again[0]
    assert pairs != jn.data.quantifier_pairs(30, modifiers=(3, 4), seed=2)[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": 2}, "at least 3 examples, one of each label, got 2"),
        ({"modifiers": (2, 1)}, "modifiers from 0 to 6, the fewer first, got"),
        ({"modifiers": (0, 7)}, "modifiers from 0 to 6, the fewer first, got"),
    ],
)
def test_mistakes_are_told(options, message):
    with pytest.raises(jn.NetError, match=message):
        jn.data.quantifier_pairs(**{"examples": 9, **options})
