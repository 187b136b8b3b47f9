"""Next words and masked words: what is predicted, by how much chance, and that training on them works."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn

KEY = jax.random.key(0)
SIZES = st.lists(st.integers(1, 8), min_size=1, max_size=8)


def documents_of(sizes):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 50, size).astype(np.int32) for size in sizes]


@given(SIZES)
def test_next_tokens_of_packed_rows_are_those_of_each_document(sizes):
    documents = documents_of(sizes)
    rows = jn.data.pack(documents, 8 if max(sizes) > 1 else 2)
    inputs, targets = jn.data.next_tokens(rows)
    for found, cut in ((inputs, slice(None, -1)), (targets, slice(1, None))):
        assert isinstance(found, jn.Packed)
        assert isinstance(found.values, np.ndarray)
        wanted = [document[cut] for document in documents if len(document) > 1]
        for each, want in zip(jn.data.unpack(found), wanted, strict=True):
            np.testing.assert_array_equal(each, want)
    np.testing.assert_array_equal(inputs.segments, targets.segments)
    np.testing.assert_array_equal(inputs.lengths, targets.lengths)


def test_next_tokens_are_the_same_when_traced():
    rows = jn.data.pack(documents_of([3, 1, 5, 2, 2]), 6)
    for tokens in (rows, jn.Padded(rows.values, rows.lengths), rows.values):
        for found, want in zip(
            jax.tree.leaves(jax.jit(jn.data.next_tokens)(tokens)),
            jax.tree.leaves(jn.data.next_tokens(tokens)),
            strict=True,
        ):
            np.testing.assert_array_equal(found, want)


def test_next_tokens_of_padded_sequences_and_arrays():
    tokens = jn.Padded(np.array([[1, 2, 3], [4, 0, 0], [0, 0, 0]]), np.array([3, 1, 0], np.uint8))
    inputs, targets = jn.data.next_tokens(tokens)
    assert inputs.values.tolist() == [[1, 2], [4, 0], [0, 0]]
    assert targets.values.tolist() == [[2, 3], [0, 0], [0, 0]]
    assert inputs.lengths.tolist() == targets.lengths.tolist() == [2, 0, 0]
    x, y = jn.data.next_tokens(tokens.values)
    np.testing.assert_array_equal(y[:, 0], x[:, 1])


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.ones((2, 3)), r"integers \(batch, time\), got ndarray \(2, 3\) float64"),
        (np.ones(3, int), r"got ndarray \(3,\) int64; add a batch axis, tokens\[None\]"),
        (np.ones((2, 1), int), "at least 2 steps"),
        ([[1, 2]], "got list"),
    ],
)
def test_wrong_tokens_are_named(tokens, message):
    with pytest.raises(jn.NetError, match=f"^next_tokens expects .*{message}"):
        jn.data.next_tokens(tokens)


def test_masks_have_the_given_shares_and_spare_special_tokens():
    vocabulary, mask, special = 20, 3, (0, 1, 19)
    tokens = jax.random.randint(KEY, (400, 500), 0, vocabulary)
    tokens = jn.Padded(tokens, jnp.full(400, 450))
    draw = jax.jit(partial(jn.data.mask_tokens, mask=mask, vocabulary=vocabulary, special=special))
    inputs, targets, weights = draw(jax.random.key(1), tokens)
    np.testing.assert_array_equal(targets.values, tokens.values)
    values, found, chosen = np.asarray(tokens.values), np.asarray(inputs.values), np.asarray(weights) > 0
    word = ~np.isin(values, [mask, *special])
    word[:, 450:] = False
    assert not chosen[~word].any()
    np.testing.assert_array_equal(found[~chosen], values[~chosen])

    def near(share, expected, count):
        # Four standard deviations of a mean of `count` draws.
        assert abs(share - expected) < 4 * (expected * (1 - expected) / count) ** 0.5

    near(chosen[word].mean(), 0.15, word.sum())
    hidden, count = found[chosen] == mask, chosen.sum()
    near(hidden.mean(), 0.8, count)
    # A random word is the same word once in 16.
    other = found[chosen] != values[chosen]
    near((other & ~hidden).mean(), 0.1 * 15 / 16, count)
    near((~other).mean(), 0.1 + 0.1 / 16, count)
    drawn = found[chosen][other & ~hidden]
    assert set(drawn.tolist()) == set(range(vocabulary)) - {mask, *special}
    for token in set(drawn.tolist()):
        near((drawn == token).mean(), 1 / 16, len(drawn))
    again, _, others = draw(jax.random.key(2), tokens)
    assert (np.asarray(others) != weights).any()
    assert again.values.dtype == tokens.values.dtype


@pytest.mark.parametrize(("keep", "random"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_shares_of_zero_and_one(keep, random):
    tokens = jnp.full((3, 50), 5)
    inputs, _, weights = jn.data.mask_tokens(
        KEY, tokens, rate=1.0, mask=0, vocabulary=7, keep=keep, random=random, special=(5,) if keep else ()
    )
    assert (weights == (0 if keep else 1)).all()
    assert (inputs == 0).all() == (random == keep == 0.0)
    assert (inputs == 5).all() == (keep == 1.0)


WRONG = {
    "rate": ({"rate": 15}, "rate in [0, 1], got 15; 15 % is 0.15"),
    "shares": ({"keep": 0.6, "random": 0.5}, "keep + random of at most 1, got 0.6 + 0.5"),
    "mask": ({"mask": 9}, "mask and special tokens in [0, 9), got 9"),
    "special": ({"special": (-1,)}, "mask and special tokens in [0, 9), got -1"),
    "no word": ({"special": tuple(range(9))}, "words besides the special tokens"),
    "vocabulary": ({"vocabulary": 4}, "tokens in [0, 4), got 4"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_masks_are_named(name):
    options, message = WRONG[name]
    given = {"mask": 1, "vocabulary": 9} | options
    with pytest.raises(jn.NetError) as raised:
        jn.data.mask_tokens(KEY, np.arange(8)[None], **given)
    assert str(raised.value).startswith("mask_tokens expects ")
    assert message in str(raised.value)


def test_a_pair_of_targets_and_weights_is_a_sequence_loss_with_weights():
    logits, targets = jax.random.normal(KEY, (2, 4, 3)), jnp.array([[0, 1, 2, 0], [1, 1, 0, 2]])
    weights, loss = jnp.array([[1.0, 0, 0, 1], [0, 0, 0, 0]]), jn.losses.sequence(jn.losses.cross_entropy)
    padded = jn.Padded(logits, jnp.array([3, 4]))
    np.testing.assert_array_equal(loss(logits, (targets, weights)), loss(logits, targets, weights))
    np.testing.assert_array_equal(loss(padded, (targets, weights)), loss(padded, targets, weights))
    steps = jn.losses.cross_entropy(logits.reshape(8, 3), targets.ravel()).reshape(2, 4)
    np.testing.assert_allclose(loss(padded, (targets, weights)), np.array([steps[0, 0], 0]), rtol=1e-6)


WORDS = jn.data.decode_text(jn.data.text()[:4000]).split(" ")
DOCUMENTS = [jn.data.encode_text(" ".join(WORDS[begin : begin + 7])) for begin in range(0, len(WORDS), 7)]


def transformer(symbols, **options):
    return jn.serial(
        embed=jn.embed(symbols, 32),
        positions=jn.learned_positions(128),
        block=jn.encoder_block(32, 2, **options),
        out=jn.dense(symbols),
    )


@pytest.mark.promotes
def test_a_causal_transformer_learns_the_next_letter_of_packed_text():
    """Uniform predictions cost log 27 = 3.3, letters by their frequency 2.8."""
    data = jn.data.next_tokens(jn.data.pack(DOCUMENTS, 128, cut=True))
    rate = jn.train.inverse_square_root_schedule(1e-2, 20)
    optimizer = optax.adamw(rate, weight_decay=0.01, mask=jn.paths.mask("**/kernel"))
    loss = jn.losses.sequence(partial(jn.losses.cross_entropy, label_smoothing=0.05))
    state, history = jn.fit(
        *(transformer(27, causal=True), loss, optimizer, data),
        **{"epochs": 12, "batch_size": 8, "key": KEY, "metrics": [jn.metrics.perplexity]},
    )
    assert history["loss"][-1] < 2.8 < history["loss"][0]
    assert history["perplexity"][-1] < np.exp(2.6)
    outputs = jn.predict(transformer(27, causal=True), state, data[0])
    assert isinstance(outputs, jn.Packed)


@pytest.mark.promotes
def test_a_transformer_learns_masked_letters():
    rows = jn.data.pack(DOCUMENTS, 128, cut=True)
    seen = []

    def hide(key, x, y, weights):
        inputs, targets, chosen = jn.data.mask_tokens(key, x, mask=27, vocabulary=28)
        jax.debug.callback(lambda each: seen.append(np.asarray(each)), inputs.values)
        return inputs, (targets, chosen), weights

    loss = jn.losses.sequence(jn.losses.cross_entropy)
    given = {"epochs": 12, "batch_size": 8, "key": KEY, "batch_augment": hide}
    _, history = jn.fit(transformer(28), loss, optax.adam(1e-2), (rows, rows), **given)
    assert history["loss"][-1] < history["loss"][0] - 0.3
    # Every step hides other letters.
    jax.effects_barrier()
    assert len(seen) >= 12
    assert len({each.tobytes() for each in seen}) == len(seen)
