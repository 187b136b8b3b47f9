"""Generated sentences that praise or blame, with negations and clauses that outweigh others."""

from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as

THINGS = ("food", "service", "room", "music", "film", "story", "ending", "acting", "staff", "view", "price", "place")
GOOD = ("good", "great", "lovely", "charming", "pleasant", "superb", "clever", "fresh", "warm", "moving")
BAD = ("bad", "awful", "dull", "rude", "boring", "dirty", "stale", "noisy", "clumsy", "cold")
STRENGTH = ("very", "really", "quite", "truly", "rather")
NOT = ("was not", "was never", "was hardly", "was far from")
FORMS = ("plain", "negated", "but", "although")


def opinions(examples: int, *, forms: tuple[str, ...] = FORMS, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Generate sentences such as "the food was not very good" with their sentiment, positive or negative.

    The sentences come from templates; they are not what people wrote. They test whether a network composes words:

    | form | template | sentiment |
    | --- | --- | --- |
    | "plain" | the food was good | of the adjective |
    | "negated" | the food was not good; never, hardly, far from | the opposite |
    | "but" | A, but B | of B; A has the other one |
    | "although" | although A, B | of B; A has the other one |

    A and B are plain or negated, in equal parts. An adverb such as "very" stands before half of the adjectives, and
    changes nothing. Forms and sentiments are equally frequent.

    Args:
        examples: the number of sentences.
        forms: the forms to draw from.
        seed: the same seed gives the same sentences on every machine.

    Returns:
        A list of strings, words and commas separated by single spaces, and labels `(examples,)` int32: 1 for positive,
        0 for negative.

    Raises:
        NetError: for fewer than 1 example, no forms, or others than these.

    After the phenomena that Socher et al., "Recursive Deep Models for Semantic Compositionality Over a Sentiment
    Treebank" (2013), section 5, test: contrast by "but", and negation.

    >>> for each, label in zip(*opinions(4, seed=1)):
    ...     print(label, each)
    0 the room was awful
    1 the story was never clumsy
    1 the price was far from quite stale
    1 although the service was never superb , the price was not very cold
    """
    with labeled_as("opinions"):
        check_count("examples", examples)
        if not forms or {*forms} - {*FORMS}:
            raise NetError(f"expects forms among {', '.join(FORMS)}, got {forms!r}")
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, examples).astype(np.int32)
    return [_sentence(random, forms[random.integers(len(forms))], bool(label)) for label in labels], labels


def _sentence(random: Any, form: str, positive: bool) -> str:
    if form in ("plain", "negated"):
        return _clause(random, positive, form == "negated")
    one, other = (_clause(random, each, random.random() < 0.5) for each in (not positive, positive))
    return f"{one} , but {other}" if form == "but" else f"although {one} , {other}"


def _clause(random: Any, positive: bool, negated: bool) -> str:
    adjective = _one(random, GOOD if positive != negated else BAD)
    adverb = f"{_one(random, STRENGTH)} " if random.random() < 0.5 else ""
    return f"the {_one(random, THINGS)} {_one(random, NOT) if negated else 'was'} {adverb}{adjective}"


def _one(random: Any, words: tuple[str, ...]) -> str:
    return words[random.integers(len(words))]
