"""Decoding: against all targets there are, against plain Python over lists, and a network that learns to reverse."""

import functools
import itertools
from typing import Any

import jax
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.decoding import beam_search, greedy
from tests.oracle import integers, variables

START, END, WORDS, LONGEST, BATCH = 0, 1, 4, 3, 3
LIMITS = {"max_length": LONGEST, "start": START, "end": END}
SOURCE = jn.Padded(integers(BATCH, 3, high=5), np.array([3, 1, 2], np.int32))
NET = jn.models.encoder_decoder(5, WORDS, 4)
Trained = tuple[Any, Any]  # parameters and state
# Every target: those with an end, and those cut off.
ALL = [
    target
    for length in range(1, LONGEST + 1)
    for target in itertools.product(range(WORDS), repeat=length)
    if END not in target[:-1] and (target[-1] == END or length == LONGEST)
]


@pytest.fixture(scope="module")
def trained():
    """Return parameters large enough for probabilities that differ, and for targets of several lengths."""
    return variables(NET, (SOURCE, np.zeros((BATCH, LONGEST), np.int32)), seed=7)


@pytest.fixture(scope="module")
def table(trained: Trained) -> list[dict[tuple[int, ...], float]]:
    return tabulated(NET, trained)


def tabulated(net: jn.Net, trained: Trained) -> list[dict[tuple[int, ...], float]]:
    """Return log p of every target and of every beginning of one, an example each, by teacher forcing."""
    targets = np.array(list(itertools.product(range(WORDS), repeat=LONGEST)), np.int32)
    target_in = np.concatenate([np.full((len(targets), 1), START, np.int32), targets[:, :-1]], 1)
    found, logits = [], jax.jit(lambda *given: net.apply(*given)[0])
    for row in range(BATCH):
        source = jn.Padded(*(np.repeat(leaf[row : row + 1], len(targets), 0) for leaf in jax.tree.leaves(SOURCE)))
        steps = np.asarray(logits(*trained, (source, target_in)), np.float64)
        steps -= np.log(np.exp(steps).sum(-1, keepdims=True))
        sums = np.cumsum(np.take_along_axis(steps, targets[..., None], 2)[..., 0], 1)
        found.append({tuple(t[:n]): s[n - 1] for t, s in zip(targets.tolist(), sums) for n in range(1, LONGEST + 1)})
    return found


def written(decoded: Any, *place: int) -> tuple[tuple[int, ...], float]:
    """Return one decoded target, its end token included, and its log-probability."""
    tokens, length = decoded.tokens[place].tolist(), int(decoded.lengths[place])
    assert tokens[length:] == [END] * (LONGEST - length)
    return tuple(tokens[: length + 1]), float(decoded.log_probabilities[place])


@functools.cache
def searching(beam: int) -> Any:
    """Return a search as one compiled function of parameters, state, source and length penalty."""

    def search(params: Any, state: Any, source: Any, alpha: Any) -> Any:
        return beam_search(NET, params, state, source, beam=beam, length_penalty=alpha, **LIMITS)

    return jax.jit(search)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_beam_of_everything_finds_and_ranks_every_target(trained: Trained, table: Any, alpha: float):
    decoded = jax.device_get(searching(len(ALL) + 5)(*trained, SOURCE, alpha))
    for row in range(BATCH):
        ranked = sorted(ALL, key=lambda target, row=row: -table[row][target] / len(target) ** alpha)
        got = [written(decoded, row, place) for place in range(len(ALL))]
        assert [target for target, _ in got] == ranked
        np.testing.assert_allclose([value for _, value in got], [table[row][t] for t in ranked], rtol=1e-5, atol=1e-5)
        assert abs(np.exp([value for _, value in got]).sum() - 1) < 1e-5  # targets exclude one another
        assert (decoded.log_probabilities[row, len(ALL) :] == -np.inf).all()
        assert (decoded.lengths[row, len(ALL) :] == 0).all()


def by_hand(table: dict[tuple[int, ...], float], beam: int, alpha: float) -> list[tuple[int, ...]]:
    """Search over lists, as Sutskever et al. describe it."""
    living: list[tuple[int, ...]] = [()]
    complete: list[tuple[int, ...]] = []
    for _ in range(LONGEST):
        onward = sorted(((*h, token) for h in living for token in range(WORDS)), key=lambda h: -table[h])
        onward = onward[: beam - len(complete)]
        complete += [h for h in onward if h[-1] == END]
        living = [h for h in onward if h[-1] != END]
    return sorted(complete + living, key=lambda h: -table[h] / len(h) ** alpha)


@pytest.mark.parametrize(("beam", "alpha"), [(2, 0.0), (3, 0.0), (3, 1.0)])
@pytest.mark.slow_cases("3-0.0", "3-1.0")
def test_a_narrow_beam_equals_a_search_over_lists(trained: Trained, table: Any, beam: int, alpha: float):
    decoded = jax.device_get(searching(beam)(*trained, SOURCE, alpha))
    for row in range(BATCH):
        expected = by_hand(table[row], beam, alpha)
        assert [written(decoded, row, place)[0] for place in range(beam)] == expected


def test_greedy_takes_the_likeliest_token_each_time_and_is_a_beam_of_one(trained: Trained, table: Any):
    likeliest = jax.device_get(greedy(NET, *trained, SOURCE, **LIMITS))
    narrow = jax.device_get(beam_search(NET, *trained, SOURCE, beam=1, length_penalty=1.0, **LIMITS))
    for row in range(BATCH):
        target: tuple[int, ...] = ()
        while len(target) < LONGEST and END not in target:
            target = max([(*target, token) for token in range(WORDS)], key=table[row].__getitem__)
        assert written(likeliest, row)[0] == written(narrow, row, 0)[0] == target
        np.testing.assert_allclose(
            [written(likeliest, row)[1], written(narrow, row, 0)[1]], table[row][target], rtol=1e-5, atol=1e-5
        )
    ends = set(likeliest.lengths.tolist())
    assert len(ends) > 1, "the example should have targets of several lengths"


def both(params: Any, state: Any, source: Any, alpha: Any) -> Any:
    """Decode in both ways."""
    return greedy(NET, params, state, source, **LIMITS), searching(3)(params, state, source, alpha)


def test_an_example_does_not_depend_on_its_neighbors_or_on_padding(trained: Trained):
    junk, decode = jn.Padded(np.where(SOURCE.mask, SOURCE.values, -7), SOURCE.lengths), jax.jit(both)
    whole = decode(*trained, junk, 0.0)
    alone = decode(*trained, np.asarray(SOURCE.values[2:, : SOURCE.lengths[2]]), 0.0)
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(np.asarray(one)[0], np.asarray(other)[2], atol=1e-5)


def test_both_are_functions_to_jit_and_map(trained: Trained):
    """Mapped over two networks' parameters and their length penalties."""
    params, state = trained
    networks, alphas = jax.tree.map(lambda leaf: np.stack([leaf, leaf / 2]), params), np.array([0, 1], np.float32)
    together = jax.jit(jax.vmap(both, (0, None, None, 0)))(networks, state, SOURCE, alphas)
    for k in range(2):
        own = jax.tree.map(lambda leaf, k=k: leaf[k], networks)
        alone = (
            greedy(NET, own, state, SOURCE, **LIMITS),
            beam_search(NET, own, state, SOURCE, beam=3, length_penalty=float(alphas[k]), **LIMITS),
        )
        for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(one, np.asarray(other)[k], atol=1e-5)


MISTAKES = {
    "expects max_length ≥ 1, got 0": {"max_length": 0},
    "expects end from 0 to 3, got 4": {"end": 4},
    "expects start from 0 to 3, got -1": {"start": -1},
    "expects a token, an integer, for end, got float": {"end": 1.0},
    r"encoder/embedding: .*expects indices in \[0, 5\), got 8": {"source": np.array([[8]])},
    r"encoder/rnn: .*expects \(batch, time, features\)": {"source": np.array([3])},
    "expects a network with the children encoder and decoder, got dense": {"net": jn.dense(3)},
}


@pytest.mark.parametrize("decode", [greedy, lambda *args, **kw: beam_search(*args, beam=2, **kw)])
@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told(trained: Trained, decode: Any, message: str):
    given = {"net": NET, "source": SOURCE} | LIMITS | MISTAKES[message]
    with pytest.raises(jn.NetError, match=message):
        decode(given.pop("net"), *trained, given.pop("source"), **given)


def test_mistakes_of_the_beam_are_told(trained: Trained):
    with pytest.raises(jn.NetError, match="beam_search expects beam ≥ 1, got 0"):
        beam_search(NET, *trained, SOURCE, beam=0, **LIMITS)
    with pytest.raises(jn.NetError, match="beam_search expects length_penalty ≥ 0, got -1"):
        beam_search(NET, *trained, SOURCE, beam=2, length_penalty=-1.0, **LIMITS)


@pytest.mark.slow
def test_an_encoder_decoder_learns_to_reverse():
    """Sequences of 1 to 4 letters of 3: from 100 of the 120 it learns what to do with the other 20."""
    import optax

    letters = [t for n in range(1, 5) for t in itertools.product((2, 3, 4), repeat=n)]
    letters = [letters[k] for k in np.random.default_rng(0).permutation(len(letters))]
    lengths = np.array([len(t) for t in letters], np.int32)
    sources = np.array([(*t, *[START] * (4 - len(t))) for t in letters], np.int32)
    targets = np.array([(*t[::-1], *[END] * (5 - len(t))) for t in letters], np.int32)
    late = np.concatenate([np.full((len(letters), 1), START, np.int32), targets[:, :-1]], 1)
    inputs = jn.Padded(sources, lengths), jn.Padded(late, lengths + 1)
    net = jn.models.encoder_decoder(5, 5, 32, cell=jn.gru_cell, embedding=8)
    objective = jn.objective(jn.losses.sequence(jn.losses.cross_entropy))
    data = jax.tree.map(lambda leaf: leaf[:100], (inputs, targets))
    program = jn.train.program(net, objective, optax.adam(0.01), data, epochs=60, batch_size=50)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # Optax's own code
        run, history = jax.jit(lambda program, key: program(key))(program, jax.random.key(1))
    assert history["loss"][0] > 1.0 > 0.05 > history["loss"][-1]
    held_out = jn.Padded(sources[100:], lengths[100:])
    limits = {"max_length": 5, "start": START, "end": END}
    for decoded in (
        greedy(net, run.params, run.state, held_out, **limits),
        jax.tree.map(lambda leaf: leaf[:, 0], beam_search(net, run.params, run.state, held_out, beam=3, **limits)),
    ):
        right = (np.asarray(decoded.tokens) == targets[100:]).all(1) & (np.asarray(decoded.lengths) == lengths[100:])
        assert right.mean() >= 0.8
