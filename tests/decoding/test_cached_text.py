"""Text from transformers with caches: against networks that read all of it anew, token for token."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.decoding import beam_search, greedy, prefill, sample, sampling, step, stream
from tests.decoding.test_greedy_and_beam import ALL, BATCH, LIMITS, LONGEST, SOURCE, WORDS, by_hand, tabulated, written
from tests.oracle import integers, variables

VOCABULARY, LENGTHS, STEPS = 13, np.array([3, 1, 4], np.int32), 6
TOKENS = integers(3, 4, high=VOCABULARY)
PROMPTS = jn.Padded(TOKENS, LENGTHS)
KEY = jax.random.key(3)
NETS = {
    "gpt2": partial(jn.models.gpt2, vocabulary=VOCABULARY, length=10, layers=2, heads=2, features=8),
    "gpt2_scan": partial(jn.models.gpt2, vocabulary=VOCABULARY, length=10, layers=2, heads=2, features=8, scan=True),
    "llama": partial(jn.models.llama, VOCABULARY, 8, 2, 4, kv_heads=2, hidden=12),
    "mistral": partial(jn.models.llama, VOCABULARY, 8, 2, 2, window=3, hidden=12, tie_weights=True),
}


def made(name):
    net = NETS[name]()
    # Large enough, and without biases, for texts that do not repeat one token.
    return net, jax.tree.map_with_path(
        lambda path, leaf: 0 * leaf if path[-1].key == "bias" else leaf, variables(net, TOKENS, seed=1)[0]
    )


def anew(net, params, row, steps=STEPS):
    """The most probable continuation of one example, by reading all of the text at each step."""
    read = jax.jit(lambda params, text: net.apply(params, {}, text)[0])
    text = [*TOKENS[row, : LENGTHS[row]]]
    for _ in range(steps):
        # What stands behind can't matter.
        padded = np.array([text + [0] * (10 - len(text))], np.int32)
        text.append(int(read(params, padded)[0, len(text) - 1].argmax()))
    return text[LENGTHS[row] :]


@pytest.mark.parametrize("name", NETS)
def test_the_likeliest_text_is_that_of_a_network_without_a_cache(name):
    net, params = made(name)
    text = sample(net, params, {}, PROMPTS, STEPS, temperature=0)
    wanted = [anew(net, params, row) for row in range(3)]
    assert text.tolist() == wanted
    assert len({token for row in wanted for token in row}) > 2, "the example should have several tokens"
    alone = [sample(net, params, {}, TOKENS[row : row + 1, :n], STEPS, temperature=0) for row, n in enumerate(LENGTHS)]
    assert np.concatenate(alone).tolist() == wanted


@pytest.mark.parametrize(
    "options", [{}, {"top_p": 0.8, "repetition_penalty": 1.5}, {"min_p": 0.1, "top_k": 5}], ids=str
)
def test_a_stream_yields_what_is_sampled(options, monkeypatch):
    monkeypatch.setattr(sampling, "ROOM", 2)  # so that the carry is doubled twice
    net, params = made("llama")
    text = sample(net, params, {}, PROMPTS, STEPS, key=KEY, **options)
    tokens = [*stream(net, params, {}, PROMPTS, STEPS, key=KEY, **options)]
    assert np.stack(tokens, 1).tolist() == text.tolist()
    endless = stream(net, params, {}, PROMPTS, key=KEY, **options)
    assert [next(endless).tolist() for _ in range(STEPS)] == text.T.tolist()


def test_several_networks_write_at_once():
    net = NETS["llama"]()
    several = [variables(net, TOKENS, seed=seed, scale=0.7)[0] for seed in (1, 2)]
    write = partial(sample, net, state={}, prompts=PROMPTS, steps=STEPS, key=KEY)
    together = jax.jit(jax.vmap(lambda params: write(params=params)))(jax.tree.map(lambda *x: jnp.stack(x), *several))
    assert together.tolist() == [write(params=params).tolist() for params in several]


@pytest.mark.parametrize("several", [False, True])
def test_a_stop_token_ends_an_example(several):
    net, params = made("gpt2")
    text = np.asarray(sample(net, params, {}, PROMPTS, STEPS, key=KEY))
    stops = (int(text[0, 1]), int(text[1, 3])) if several else (int(text[0, 1]),)
    cut = np.asarray(sample(net, params, {}, PROMPTS, STEPS, key=KEY, stop=stops if several else stops[0]))
    for row in range(3):
        ends = np.flatnonzero(np.isin(text[row], stops))
        wanted = text[row].copy()
        if len(ends):
            wanted[ends[0] :] = text[row, ends[0]]
        assert cut[row].tolist() == wanted.tolist()
    tokens = np.stack([*stream(net, params, {}, PROMPTS, STEPS, key=KEY, stop=stops)], 1)
    assert tokens.tolist() == cut[:, : tokens.shape[1]].tolist()


def test_prefill_and_step_give_the_logits_of_the_whole():
    net, params = made("llama")
    whole = np.asarray(net.apply(params, {}, TOKENS)[0])
    logits, carry = prefill(net, params, {}, TOKENS[:, :2], steps=2)
    np.testing.assert_allclose(logits, whole[:, 1], rtol=1e-5, atol=1e-5)
    for place in (2, 3):
        logits, carry = step(net, params, {}, jnp.asarray(TOKENS[:, place]), carry)
        np.testing.assert_allclose(logits, whole[:, place], rtol=1e-5, atol=1e-5)


def test_it_continues_from_a_carry():
    net, params = made("llama")
    whole = sample(net, params, {}, TOKENS, STEPS, key=KEY)
    _, carry = prefill(net, params, {}, TOKENS[:, :2], steps=2)
    assert sample(net, params, {}, TOKENS[:, 2:], STEPS, key=KEY, carry=carry).tolist() == whole.tolist()


TRANSLATORS = {
    name: partial(jn.models.transformer, 5, WORDS, features=4, layers=2, heads=2, dropout=0.0, **options)
    for name, options in {"base": {}, "scan": {"scan": True, "norm_first": True}}.items()
}


@pytest.mark.parametrize("name", TRANSLATORS)
def test_a_translator_finds_and_ranks_every_target(name):
    net = TRANSLATORS[name]()
    trained: tuple[Any, Any] = variables(net, (SOURCE, np.zeros((BATCH, LONGEST), np.int32)), seed=3)
    table = tabulated(net, trained)
    every = jax.device_get(beam_search(net, *trained, SOURCE, beam=len(ALL), **LIMITS))
    narrow = jax.device_get(beam_search(net, *trained, SOURCE, beam=2, **LIMITS))
    likeliest = jax.device_get(greedy(net, *trained, SOURCE, **LIMITS))
    for row in range(BATCH):
        got = [written(every, row, place) for place in range(len(ALL))]
        assert [target for target, _ in got] == sorted(ALL, key=lambda target: -table[row][target])
        np.testing.assert_allclose([value for _, value in got], [table[row][target] for target, _ in got], atol=2e-5)
        assert [written(narrow, row, place)[0] for place in range(2)] == by_hand(table[row], 2, 0.0)
        assert written(likeliest, row)[0] == by_hand(table[row], 1, 0.0)[0]


def test_a_translator_that_shares_its_vocabulary():
    net = jn.models.transformer(WORDS, features=4, layers=1, heads=2, dropout=0.0)
    source = jn.Padded(SOURCE.values % WORDS, SOURCE.lengths)
    trained: tuple[Any, Any] = variables(net, (source, np.zeros((BATCH, LONGEST), np.int32)))
    assert "embedding" not in trained[0]["decoder"]
    shared = jn.models.transformer(WORDS, WORDS, features=4, layers=1, heads=2, dropout=0.0)
    table = trained[0]["encoder"]["embedding"]["embedding"]
    own = {**trained[0]["decoder"], "embedding": {"embedding": table}, "fc": {"kernel": table.T}}
    one = greedy(net, *trained, source, **LIMITS)
    other = greedy(shared, {**trained[0], "decoder": own}, {}, source, **LIMITS)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_what_is_too_long_is_told():
    net, params = made("gpt2")
    with pytest.raises(jn.NetError, match=r"wpe: learned_positions\(10\) expects at most 10 steps, got 11"):
        sample(net, params, {}, PROMPTS, 7, temperature=0)
    _, carry = prefill(net, params, {}, TOKENS)
    # A text that goes on from a carry can't be checked: its tokens are -1 from where the network ends.
    rest = np.asarray(sample(net, params, {}, TOKENS[:, :1], 9, temperature=0, carry=carry))
    assert (rest[:, :6] >= 0).all()
    assert (rest[:, 6:] == -1).all()
    with pytest.raises(jn.NetError, match="expects texts of at most 10 steps, got position 10"):
        prefill(net, params, {}, np.tile(TOKENS, (1, 2)), carry=carry)
    with pytest.raises(jn.NetError, match="stream can't draw token 8: its logits are NaN; the text may be too long"):
        list(stream(net, params, {}, TOKENS, temperature=0))


def test_a_traced_prompt_without_a_token_gives_no_text():
    net, params = made("gpt2")
    text = jax.jit(lambda lengths: sample(net, params, {}, jn.Padded(TOKENS, lengths), 2, key=KEY))(np.array([0, 1, 4]))
    assert (text[0] == -1).all()
    assert (text[1:] >= 0).all()


MISTAKES = {
    "expects prompts as an array .* or Padded, got list .*; use jnp.asarray": {"prompts": [[1, 2]]},
    r"wte: .*expects indices in \[0, 13\), got 99": {"prompts": np.array([[1, 99]])},
    r"expects prompts \(batch, time\) of at least one token": {"prompts": TOKENS[:, :0]},
    r"expects top_p in \[0, 1\], got 1.5": {"top_p": 1.5},
    r"expects min_p in \[0, 1\], got -1": {"min_p": -1},
    "expects repetition_penalty > 0, got 0": {"repetition_penalty": 0.0},
    "expects tokens ≥ 0 for stop, integers, got 'end'": {"stop": "end"},
    r"expects tokens in \[0, 13\) for stop, got 13": {"stop": [2, 13]},
    "expects top_k ≤ 13, the vocabulary, got 14": {"top_k": 14},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told(message):
    net, params = made("gpt2")
    given = {"prompts": PROMPTS, "key": KEY} | MISTAKES[message]
    with pytest.raises(jn.NetError, match=message):
        sample(net, params, {}, given.pop("prompts"), 2, **given)


def test_targets_of_nan_are_no_tokens():
    net = TRANSLATORS["base"]()
    params, _ = variables(net, (SOURCE, np.zeros((BATCH, LONGEST), np.int32)))
    broken = {
        **params,
        "decoder": {**params["decoder"], "fc": jax.tree.map(lambda x: x * np.nan, params["decoder"]["fc"])},
    }
    one = greedy(net, broken, {}, SOURCE, **LIMITS)
    several = beam_search(net, broken, {}, SOURCE, beam=2, **LIMITS)
    for found in (one, several):
        assert (found.tokens == -1).all()
        assert jnp.isnan(found.log_probabilities).all()


def test_a_step_takes_one_token_of_each_example():
    net, params = made("llama")
    _, carry = prefill(net, params, {}, TOKENS, steps=1)
    with pytest.raises(jn.NetError, match=r"step expects tokens \(batch,\), one for each example, got \(3, 1\)"):
        step(net, params, {}, jnp.zeros((3, 1), jnp.int32), carry)
