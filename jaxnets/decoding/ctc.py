"""Decoding of the outputs of a network that was trained by CTC: the best path, and a beam search over labels."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.compiled import computed
from jaxnets.core.dtypes import wide
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.packed import Packed
from jaxnets.core.padded import Padded
from jaxnets.decoding.greedy import Decoded


def ctc_greedy(outputs: Any) -> Decoded:
    """Decode by the most probable path: the best class of each step, without repeats, then without blanks.

    The labels of the most probable path need not be the most probable labels, see `ctc_beam_search`.

    Args:
        outputs: logits `(batch, time, classes)`, an array or `Padded`; class 0 is the blank.

    Returns:
        tokens `(batch, time)` int32, followed by zeros; lengths `(batch,)`; and the log-probability of the path
        `(batch,)`, in float32 or wider. Where a logit is NaN, the tokens are -1 and the log-probability is NaN.

    Raises:
        NetError: for outputs that are not floating, have another rank, or fewer than 2 classes.

    Graves and others, "Connectionist Temporal Classification" (2006), section 3.2.

    >>> import jax.numpy as jnp
    >>> best = jnp.array([[1, 1, 0, 1, 2, 2]])  # of three classes
    >>> decoded = ctc_greedy(9.0 * jax.nn.one_hot(best, 3))
    >>> print(decoded.tokens, decoded.lengths)
    [[1 1 2 0 0 0]] [3]
    """
    with labeled_as("ctc_greedy"):
        log_probs, lengths = _log_probabilities(outputs)
    return computed(_greedy, [], log_probs, lengths)


def _greedy(log_probs: jax.Array, lengths: jax.Array) -> Decoded:
    batch, time, _ = log_probs.shape
    # (batch, time)
    real = jnp.arange(time, dtype=jnp.int32)[None] < lengths[:, None]
    best = jnp.where(real, log_probs.argmax(axis=-1), 0).astype(jnp.int32)
    before = jnp.pad(best[:, :-1], ((0, 0), (1, 0)))
    kept = (best > 0) & (best != before)
    # Each label that is kept moves to the place that counts those before it; the others fall off the end.
    place = jnp.where(kept, jnp.cumsum(kept, axis=1, dtype=jnp.int32) - 1, time)
    rows = jnp.arange(batch, dtype=jnp.int32)[:, None]
    tokens = jnp.zeros((batch, time), jnp.int32).at[rows, place].set(best, mode="drop")
    score = jnp.where(real, log_probs.max(axis=-1), 0).sum(axis=-1)
    tokens = jnp.where(jnp.isnan(score)[:, None], -1, tokens)
    return Decoded(tokens, kept.sum(axis=1, dtype=jnp.int32), score)


def ctc_beam_search(outputs: Any, *, beam: int, max_length: int | None = None) -> Decoded:
    """Decode by keeping, at each step, the `beam` most probable labelings of what was read so far.

    The probability of a labeling is the sum over its paths, those that end in a blank and those that end in its last
    label apart. With a beam as large as the number of labelings it is exact: their log-probabilities are the negative
    values of `jn.losses.ctc`, and the first is the most probable. The loop is one compiled scan, a step of which takes
    time in beam² · max_length.

    Args:
        outputs: logits `(batch, time, classes)`, an array or `Padded`; class 0 is the blank.
        beam: the number of labelings, at least 1. A beam of 1 is not `ctc_greedy`: it adds up several paths.
        max_length: the most labels; the default is the number of steps, which is no limit.

    Returns:
        tokens `(batch, beam, max_length)` int32, best first, followed by zeros; lengths `(batch, beam)`; and
        log-probabilities `(batch, beam)` in float32 or wider, each of those paths that the beam held, so at most that
        of all. Empty places of the beam have log-probability −∞. Where a logit is NaN, all tokens are -1.

    Raises:
        NetError: as in `ctc_greedy`, and for a `beam` or `max_length` below 1.

    Graves, "Sequence Transduction with Recurrent Neural Networks" (2012), section 2.5; Hannun and others, "First-Pass
    Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs" (2014), algorithm 1, without a
    language model.

    >>> import jax.numpy as jnp
    >>> logits = jnp.log(jnp.array([[[0.6, 0.4], [0.6, 0.4]]]))  # two blanks are the best path: 0.36
    >>> decoded = ctc_beam_search(logits, beam=3)  # but one label is more probable: 1 − 0.36
    >>> print(ctc_greedy(logits).lengths, decoded.tokens[0, 0], jnp.exp(decoded.log_probabilities[0, 0]).round(2))
    [0] [1 0] 0.64
    """
    with labeled_as("ctc_beam_search"):
        check_count("beam", beam)
        log_probs, lengths = _log_probabilities(outputs)
        most = log_probs.shape[1] if max_length is None else max_length
        check_count("max_length", most)
    return computed(_beam_search, [beam, most], log_probs, lengths)


def _beam_search(beam: int, most: int, log_probs: jax.Array, lengths: jax.Array) -> Decoded:
    batch, time, classes = log_probs.shape
    nothing = jnp.asarray(-jnp.inf, log_probs.dtype)
    rows, places = jnp.arange(batch, dtype=jnp.int32)[:, None, None], jnp.arange(beam, dtype=jnp.int32)[None, :, None]

    # tokens (batch, beam, most); sizes, how many of them; blank and label, log-probabilities of the paths that end in
    # a blank and in the last label, all (batch, beam).
    def extend(loop: tuple[Any, ...], step: tuple[jax.Array, jax.Array]) -> tuple[tuple[Any, ...], None]:
        tokens, sizes, blank, label = loop
        log_p, place = step  # (batch, classes) and ()
        both = jnp.logaddexp(blank, label)
        ends = jnp.arange(most, dtype=jnp.int32)[None, None] == sizes[..., None] - 1
        last = jnp.where(ends, tokens, 0).sum(axis=-1, dtype=jnp.int32)
        of_last = jnp.take_along_axis(log_p, last, axis=1)

        # Labelings that stay: a blank follows, or the last label once more.
        stay_blank = both + log_p[:, :1]
        stay_label = jnp.where(sizes > 0, label + of_last, nothing)

        # Labelings with one more: (batch, beam, classes). A repeat needs a blank in between.
        repeats = jnp.arange(classes, dtype=jnp.int32)[None, None] == last[..., None]
        grown = jnp.where(repeats, blank[..., None], both[..., None]) + log_p[:, None]
        possible = (jnp.arange(classes, dtype=jnp.int32)[None, None] > 0) & (sizes[..., None] < most)
        grown = jnp.where(possible, grown, nothing)

        # Where labeling i with one more is labeling j of the beam, its probability goes there: (batch, i, j).
        shorter = jnp.where(ends, 0, tokens)
        same = (shorter[:, None] == tokens[:, :, None]).all(axis=-1)
        same &= (sizes[:, None] == sizes[..., None] + 1) & (both > nothing)[:, None]
        onto = jnp.broadcast_to(last[:, None], same.shape)
        moved = jnp.where(same, grown[rows, places, onto], nothing)
        stay_label = jnp.logaddexp(stay_label, jax.nn.logsumexp(moved, axis=1))
        grown = grown.at[rows, places, onto].min(jnp.where(same, nothing, -nothing))

        # The best of all; an index is a place of the beam, or beam + parent · classes + label. All (batch, beam).
        stay = jnp.logaddexp(stay_blank, stay_label)
        _, chosen = jax.lax.top_k(jnp.concatenate([stay, grown.reshape(batch, -1)], axis=1), beam)
        stays, index = chosen < beam, jnp.maximum(chosen - beam, 0)
        parents = jnp.where(stays, chosen, index // classes)
        new = jnp.where(stays, 0, index % classes).astype(jnp.int32)
        at = jnp.take_along_axis(sizes, parents, axis=1)
        here = (jnp.arange(most, dtype=jnp.int32)[None, None] == at[..., None]) & ~stays[..., None]
        longer = jnp.where(here, new[..., None], jnp.take_along_axis(tokens, parents[..., None], axis=1))
        gained = jnp.take_along_axis(grown.reshape(batch, -1), index, axis=1)
        after = (
            longer,
            at + (~stays).astype(jnp.int32),
            jnp.where(stays, jnp.take_along_axis(stay_blank, parents, axis=1), nothing),
            jnp.where(stays, jnp.take_along_axis(stay_label, parents, axis=1), gained),
        )
        # A clip that has ended stays as it is.
        real = place < lengths
        return jax.tree.map(
            lambda new, old: jnp.where(real.reshape((batch,) + (1,) * (old.ndim - 1)), new, old), after, loop
        ), None

    # The search starts from the empty labeling alone.
    blank = (
        jnp.where(jnp.arange(beam, dtype=jnp.int32) == 0, 0, -jnp.inf)
        .astype(log_probs.dtype)[None]
        .repeat(batch, axis=0)
    )
    sizes, label = jnp.zeros((batch, beam), jnp.int32), jnp.full_like(blank, -jnp.inf)
    first = (jnp.zeros((batch, beam, most), jnp.int32), sizes, blank, label)
    (tokens, sizes, blank, label), _ = jax.lax.scan(
        extend, first, (log_probs.swapaxes(0, 1), jnp.arange(time, dtype=jnp.int32))
    )
    scores = jnp.logaddexp(blank, label)
    real = jnp.arange(time, dtype=jnp.int32)[None] < lengths[:, None]
    broken = (jnp.isnan(log_probs).any(axis=-1) & real).any(axis=-1)[:, None]
    alive = scores > -jnp.inf
    tokens = jnp.where(broken[..., None], -1, jnp.where(alive[..., None], tokens, 0))
    return Decoded(tokens, jnp.where(alive, sizes, 0), jnp.where(broken, jnp.nan, scores))


def _log_probabilities(outputs: Any) -> tuple[jax.Array, jax.Array]:
    """Return log-probabilities `(batch, time, classes)`, and lengths `(batch,)`."""
    if isinstance(outputs, Packed):
        raise NetError("takes no Packed documents: a path runs along a row; pad them")
    padded = isinstance(outputs, Padded)
    logits = jnp.asarray(outputs.values if padded else outputs)
    if logits.ndim != 3 or logits.shape[2] < 2 or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise NetError(f"expects floating logits (batch, time, classes), got {logits.dtype} {logits.shape}")
    lengths = (
        jnp.asarray(outputs.lengths, jnp.int32) if padded else jnp.full(logits.shape[0], logits.shape[1], jnp.int32)
    )
    return jax.nn.log_softmax(wide(logits)), lengths
