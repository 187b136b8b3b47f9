"""Headlines say what the records say."""

from collections import Counter

import pytest

import jaxnets as jn

VERBS = {0: "draw", 1: "edge", 2: "beat"}


def names(records: list[str]) -> set[str]:
    return {word for record in records for word in record.split() if word[0].isupper() and not word.endswith("day")}


def test_headlines_follow_from_the_records():
    for unseen in (False, True):
        for record, title in zip(*jn.data.headlines(500, unseen_names=unseen), strict=True):
            words = record.split()
            field = dict(zip(words[::2], words[1::2], strict=True))
            goals = {field["home"]: int(field["home-goals"]), field["away"]: int(field["away-goals"])}
            assert len(field) == 8
            assert len(goals) == 2
            winner, loser = sorted(goals, key=lambda club: -goals[club])  # the home club first, if equal
            margin = goals[winner] - goals[loser]
            verb = VERBS.get(margin, "crush")
            start = f"{winner} and {loser} draw" if margin == 0 else f"{winner} {verb} {loser}"
            late = f" after late goal by {field['player']}" if int(field["minute"]) > 70 else ""
            assert title == f"{start} {goals[winner]} {goals[loser]}{late}"
            assert sum(goals.values()) > 0


def test_unseen_names_are_new_and_others_are_not():
    known, more, unseen = (jn.data.headlines(1000, seed=seed, unseen_names=new)[0] for seed, new in
                           ((0, False), (1, False), (0, True)))  # fmt: skip
    assert not names(known) & names(unseen)
    assert len(names(known) | names(more)) == 180
    assert known != more
    assert known == jn.data.headlines(1000)[0]
    starts = Counter(record.split("minute ")[1].split()[0] for record in known)
    assert len(starts) == 90


def test_refused():
    with pytest.raises(jn.NetError, match="headlines expects examples ≥ 1, got 0"):
        jn.data.headlines(0)
