"""Text from a language model: against a loop that reads all of it anew, and the limits of its options."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.decoding import sample
from tests.oracle import integers, variables

WORDS, STEPS, LENGTHS = 7, 4, np.array([3, 1, 2], np.int32)
TOKENS = integers(3, 3, high=WORDS)
PROMPTS = jn.Padded(TOKENS, LENGTHS)
KEY = jax.random.key(5)
Trained = tuple[Any, Any]  # parameters and state
NET = jn.models.language_model(WORDS, 4, cell=jn.rnn_cell, layers=2)


@pytest.fixture(scope="module")
def trained():
    """Return parameters large enough for probabilities that differ."""
    return variables(NET, TOKENS)


@pytest.fixture(scope="module")
def read(trained: Trained):
    """Return a function that gives the logits after a whole text, from its beginning."""
    whole = jax.jit(lambda text: NET.apply(*trained, text)[0])
    return lambda text: np.asarray(whole(np.asarray(text, np.int32)))


def by_hand(read, row, *, key=KEY, temperature=1.0, top_k=WORDS):
    """Continue one example token by token, over the text padded to one length (what stands behind can't matter)."""
    text = list(TOKENS[row, : LENGTHS[row]])
    for step in range(STEPS):
        logits = read([text + [0] * (7 - len(text))])[0, len(text) - 1]
        if temperature == 0:
            text.append(int(logits.argmax()))
            continue
        allowed = np.argsort(-logits, kind="stable")[:top_k]
        scaled = np.full(WORDS, -np.inf, np.float32)
        scaled[allowed] = (logits[allowed] - logits.max()) / np.float32(temperature)
        own = jax.random.fold_in(jax.random.fold_in(key, row), step)
        text.append(int(jax.random.categorical(own, scaled)))
    return text[-STEPS:]


KEYS = jax.random.split(KEY, 4000)


@functools.cache
def sampling(top_k: int | None = None) -> Any:
    """Return `sample`, mapped over keys and temperatures and compiled."""

    def draw(params: Any, state: Any, prompts: Any, key: Any, temperature: Any) -> jax.Array:
        return sample(NET, params, state, prompts, STEPS, key=key, temperature=temperature, top_k=top_k)

    return jax.jit(jax.vmap(draw, (None, None, None, 0, 0)))


def many(trained: Trained, *temperatures: float, prompts: jn.Padded = PROMPTS, top_k: int | None = None) -> np.ndarray:
    """Return what is drawn with 4,000 keys, each temperature with an equal share of them: (keys, examples, steps)."""
    each = np.repeat(np.array(temperatures, np.float32), len(KEYS) // len(temperatures))
    return np.asarray(sampling(top_k)(*trained, prompts, KEYS, each))


@pytest.mark.parametrize("options", [{}, {"temperature": 0.5, "top_k": 3}, {"temperature": 0}], ids=str)
def test_it_equals_a_loop_with_the_same_keys(trained: Trained, read, options):
    got = many(trained, options.get("temperature", 1.0), top_k=options.get("top_k"))
    assert got.dtype == np.int32
    assert got[7].tolist() == [by_hand(read, row, key=KEYS[7], **options) for row in range(3)]


def test_it_is_a_function_to_jit_and_map(trained: Trained):
    """Mapped over keys and temperatures, 0 among them, it draws what it draws one by one."""
    together, temperatures = many(trained, 0.0, 0.7, 1.0, 2.0), np.array([0.0, 0.7, 1.0, 2.0], np.float32)
    for temperature, place in zip(temperatures, range(0, 4000, 1000), strict=True):
        alone = sample(NET, *trained, PROMPTS, STEPS, key=KEYS[place], temperature=temperature)
        np.testing.assert_array_equal(together[place], alone)
    np.testing.assert_array_equal(together[0], sample(NET, *trained, PROMPTS, STEPS, temperature=0))


def test_an_example_does_not_depend_on_its_neighbors_or_on_padding(trained: Trained):
    together = many(trained, 1.0)
    others = jn.Padded(np.concatenate([TOKENS[:1], (TOKENS[1:] + 1) % WORDS]), np.array([3, 3, 1], np.int32))
    np.testing.assert_array_equal(many(trained, 1.0, prompts=others)[:, :1], together[:, :1])
    junk = np.where(np.arange(3)[None] < LENGTHS[:, None], TOKENS, -7)
    np.testing.assert_array_equal(many(trained, 1.0, prompts=jn.Padded(junk, LENGTHS)), together)


@pytest.mark.slow
def test_an_example_alone_is_what_it_is_among_others(trained: Trained):
    alone = many(trained, 1.0, prompts=jn.Padded(TOKENS[:1], LENGTHS[:1]))
    np.testing.assert_array_equal(alone, many(trained, 1.0)[:, :1])


def test_it_continues_from_a_carry(trained: Trained):
    @jax.jit
    def rest(params: Any, state: Any) -> Any:
        (_, carry), _ = NET.apply(params, state, (TOKENS[:, :2], None))
        return sample(NET, params, state, TOKENS[:, 2:], STEPS, key=KEYS[0], carry=carry)

    whole = many(trained, 1.0, prompts=jn.Padded(TOKENS, np.full(3, 3, np.int32)))
    np.testing.assert_array_equal(rest(*trained), whole[0])


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, 3), (3.0, 2)])
@pytest.mark.slow_cases("3.0-2")
def test_frequencies_are_the_probabilities(trained: Trained, read, temperature, top_k):
    """Within five standard deviations; nothing outside of the likeliest k, and each of these."""
    logits = read(TOKENS[:1])[0, -1].astype(np.float64) / temperature
    best = np.argsort(-logits)[:top_k]
    p = np.zeros(WORDS)
    p[best] = np.exp(logits[best] - logits.max()) / np.exp(logits[best] - logits.max()).sum()
    draws = many(trained, temperature, top_k=top_k)[:, 0, 0]
    seen = np.bincount(draws, minlength=WORDS) / len(draws)
    assert set(np.flatnonzero(seen)) <= set(best)
    np.testing.assert_array_less(np.abs(seen - p), 5 * np.sqrt(p * (1 - p) / len(draws)) + 1e-12)


def test_the_limits_of_temperature(trained: Trained, read):
    best = read(TOKENS[:1])[0, -1].argmax()
    assert set(many(trained, 1e-40, 1e-6)[:, 0, 0]) == {best}  # logits over 1e-40 overflow
    uniform = np.bincount(many(trained, 1e6)[:, 0, 0], minlength=WORDS) / 4000
    assert np.abs(uniform - 1 / WORDS).max() < 5 * np.sqrt(1 / WORDS / 4000)


@pytest.mark.parametrize("top_k", [1, WORDS])
@pytest.mark.slow_cases("1")
def test_the_limits_of_a_restriction(trained: Trained, top_k: int):
    """One token is the likeliest, and all of the vocabulary is no restriction."""
    np.testing.assert_array_equal(many(trained, 1.0, top_k=top_k), many(trained, 0.0 if top_k == 1 else 1.0))


MISTAKES = {
    "expects prompts of 1 to 3 tokens, got 0": {"prompts": jn.Padded(TOKENS, np.array([3, 0, 1]))},
    r"expects prompts \(batch, time\) of at least one token, got \(3, 0\)": {"prompts": TOKENS[:, :0]},
    r"expects prompts \(batch, time\) .* got \(3,\)": {"prompts": TOKENS[0]},
    r"embedding: .*expects indices in \[0, 7\), got 9": {"prompts": np.array([[1, 9]])},
    "expects top_k ≤ 7, the vocabulary, got 8": {"top_k": 8},
    "expects top_k ≥ 1, got 0": {"top_k": 0},
    "expects temperature ≥ 0, got -1": {"temperature": -1.0},
    "expects steps ≥ 1, got 0": {"steps": 0},
    "draws tokens and needs a key, got none": {"key": None},
    "expects a key such as": {"key": 3},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told(trained: Trained, message):
    given = {"prompts": PROMPTS, "steps": STEPS, "key": KEY} | MISTAKES[message]
    with pytest.raises(jn.NetError, match=message):
        sample(NET, *trained, given.pop("prompts"), given.pop("steps"), **given)


def test_another_kind_of_network_is_told():
    net = jn.as_net(lambda x: jax.nn.one_hot(x[0], 3))
    with pytest.raises(jn.NetError, match=r"sample expects a network from \(tokens, carry\) to \(logits, carry\)"):
        sample(net, {}, {}, TOKENS, 2, key=KEY)


@pytest.mark.slow
def test_a_tiny_model_learns_a_sentence_and_says_it():
    """The loss of `jn.losses` fits the outputs as they come; from the first letter the rest follows."""
    import optax

    sentence = "the cat sat on the mat."
    letters = sorted(set(sentence))
    text = jnp.asarray([[letters.index(letter) for letter in sentence]], jnp.int32)
    net = jn.models.language_model(len(letters), 24)
    objective = jn.objective(jn.losses.sequence(jn.losses.cross_entropy))
    data = text[:, :-1], text[:, 1:]
    program = jn.train.program(net, objective, optax.adam(0.02), data, epochs=120, batch_size=None)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # Optax's own code
        train_state, history = jax.jit(lambda program, key: program(key))(program, jax.random.key(0))
    assert history["loss"][0] > 2.0 > 0.1 > history["loss"][-1]
    rest = sample(net, train_state.params, train_state.state, text[:, :1], len(sentence) - 1, temperature=0)
    assert "".join(letters[token] for token in rest[0]) == sentence[1:]
