"""Tables of football matches as rows of words, and a headline for each, to learn summaries."""

import numpy as np

from jaxnets.core.errors import check_count, labeled_as

_SYLLABLES = [first + vowel for first in "b d f g k l m n p r s t v".split() for vowel in "aeiou"]  # noqa: SIM905
_KNOWN = 60
"""Names of each kind that examples to learn from have."""


def headlines(examples: int, *, unseen_names: bool = False, seed: int = 0) -> tuple[list[str], list[str]]:
    """Generate records of football matches, and the headline of each.

    A record has eight fields in random order, each a name and its value: the two clubs and their goals, a player, the
    minute of the player's goal, the place and the day. The headline names the winner first, with a verb that says by
    how much it won, and the player's goal if it is late:

    | result | headline |
    | --- | --- |
    | one goal more | `Lumeka edge Bodira 2 1` |
    | two goals more | `Lumeka beat Bodira 3 1` |
    | three or more | `Lumeka crush Bodira 4 1` |
    | equal | `Lumeka and Bodira draw 1 1`, the home club first |
    | a goal after minute 70 | `... after late goal by Tavo` |

    So most of a record does not matter, and names are to be copied from the right places. Clubs, players and places are
    of two or three random syllables; the k-th name of each kind, k = 1 … 60, has a share proportional to 1 / (k + 4).

    Args:
        examples: the number of records, at least 1.
        unseen_names: whether all names are new, not among the 60 of each kind that other records have.
        seed: the same seed gives the same examples on every machine.

    Returns:
        Records and headlines, lists of strings whose words stand between spaces.

    Raises:
        NetError: for `examples` < 1.

    >>> records, titles = headlines(2)
    >>> print(records[1])
    home-goals 0 player Pimu minute 78 away-goals 4 day Friday place Gamano home Mopa away Pemogi
    >>> print(titles[1])
    Pemogi crush Mopa 4 0 after late goal by Pimu
    """
    with labeled_as("headlines"):
        check_count("examples", examples)
    clubs, players, places = _names(unseen_names)
    random, share = np.random.default_rng([seed, unseen_names]), 1 / np.arange(5, 5 + _KNOWN)
    share = share / share.sum()
    records, titles = [], []
    for _ in range(examples):
        home, away = (clubs[rank] for rank in random.choice(_KNOWN, 2, replace=False, p=share).tolist())
        player, place = (names[int(random.choice(_KNOWN, p=share))] for names in (players, places))
        goals, other = divmod(int(random.integers(1, 36)), 6)
        minute = int(random.integers(1, 91))
        day = ("Friday", "Saturday", "Sunday")[int(random.integers(3))]
        fields = [
            f"home {home}", f"away {away}", f"home-goals {goals}", f"away-goals {other}", f"player {player}",
            f"minute {minute}", f"place {place}", f"day {day}",
        ]  # fmt: skip
        records.append(" ".join(fields[place] for place in random.permutation(len(fields))))
        if other > goals:
            home, away, goals, other = away, home, other, goals
        verb = ("edge", "beat")[goals - other - 1] if 0 < goals - other < 3 else "crush"
        title = f"{home} {verb} {away}" if goals > other else f"{home} and {away} draw"
        late = f" after late goal by {player}" if minute > 70 else ""
        titles.append(f"{title} {goals} {other}{late}")
    return records, titles


def _names(unseen: bool) -> list[list[str]]:
    """Return names of clubs, players and places: those that are unseen, or the others."""
    random, count = np.random.default_rng(0), 2 * 3 * _KNOWN
    names: dict[str, None] = {}  # in the order in which they are drawn
    while len(names) < count:
        names["".join(random.choice(_SYLLABLES, int(random.integers(2, 4)))).capitalize()] = None
    half = [*names][count // 2 :] if unseen else [*names][: count // 2]
    return [half[kind * _KNOWN : (kind + 1) * _KNOWN] for kind in range(3)]
