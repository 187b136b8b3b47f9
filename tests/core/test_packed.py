"""`Packed`: each document in a row gives what it gives alone, and what would mix documents is refused."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.oracle import floats, variables

WORDS, FEATURES, LENGTH = 11, 8, 12
DOCUMENTS = [np.random.default_rng(size).integers(0, WORDS, size).astype(np.int32) for size in (3, 7, 1, 4, 9)]
WEIGHTS = [floats(len(document), WORDS, seed=place).astype(np.float64) for place, document in enumerate(DOCUMENTS)]
ROWS = jn.data.pack(DOCUMENTS, LENGTH, fill=WORDS + 50)
STEPS = ROWS.with_values(floats(*ROWS.values.shape, FEATURES))
attention_module = importlib.import_module("jaxnets.ops.attention")


def transformer(place=None, **options):
    places = {} if place is None else {"positions": place}
    block = jn.encoder_block(FEATURES, 2, **options)
    return jn.serial(embed=jn.embed(WORDS, FEATURES), **places, block=block, out=jn.dense(WORDS))


NETS = {
    # A table of only the longest document: rows may be longer.
    "learned": lambda: transformer(jn.learned_positions(9), causal=True),
    "sinusoidal": lambda: transformer(jn.sinusoidal_positions(), norm_first=False),
    "rotary": lambda: transformer(causal=True, positions="rotary", kv_heads=1),
    "distance": lambda: transformer(causal=True, positions="distance", window=3),
    "both_ways": lambda: transformer(positions="rotary", norm=jn.rms_norm, gated=True),
}


@pytest.fixture(params=["whole", "blocks"])
def blocks(request, monkeypatch):
    """Compute all rows of scores at once, or two at a time."""
    if request.param == "blocks":
        monkeypatch.setattr(attention_module, "BLOCK_BYTES", 2 * 4 * len(ROWS.lengths) * 2 * LENGTH)


@functools.cache
def expected(name):
    """Return the logits of each document in a row of its own, and the gradient of a weighted sum of them.

    (Padding changes nothing: `tests/combinators/test_attention.py`.)
    """
    net = NETS[name]()
    params, state = variables(net, ROWS)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    alone, weigh = jn.Padded.from_sequences(DOCUMENTS), jn.Padded.from_sequences(WEIGHTS).values

    @jax.jit
    def run(params):
        y, _ = net.apply(params, state, alone)
        return (y.zeroed() * weigh).sum(), y.values

    with jax.enable_x64(True):
        (_, y), gradients = jax.value_and_grad(run, has_aux=True)(params)
    return params, state, [row[: len(document)] for row, document in zip(y, DOCUMENTS)], gradients


@pytest.mark.parametrize("name", NETS)
def test_documents_give_what_they_give_alone(name, blocks):
    """Logits, and the gradients of a weighted sum of all of them, with respect to parameters."""
    net = NETS[name]()
    params, state, outputs, gradients = expected(name)
    weigh = jn.data.pack(WEIGHTS, LENGTH).values

    @jax.jit
    def run(params, rows):
        y, _ = net.apply(params, state, rows)
        return (y.zeroed() * weigh).sum(), y

    with jax.enable_x64(True):
        (_, y), found = jax.value_and_grad(run, has_aux=True)(params, ROWS)
    assert isinstance(y, jn.Packed)
    for each, want in zip(jn.data.unpack(y), outputs, strict=True):
        assert each.dtype == np.float64
        np.testing.assert_allclose(each, want, rtol=1e-10, atol=1e-10)
    for path, want in jn.paths.paths(gradients).items():
        np.testing.assert_allclose(jn.paths.paths(found)[path], want, rtol=1e-9, atol=1e-10, err_msg=path)


def test_a_document_alone_is_an_array():
    params, state, outputs, _ = expected("learned")
    with jax.enable_x64(True):
        y, _ = NETS["learned"]().apply(params, state, DOCUMENTS[1][None])
    np.testing.assert_allclose(y[0], outputs[1], rtol=1e-10, atol=1e-10)


def test_documents_read_nothing_else(blocks):
    """Another document in the row changes no bit, and no gradient flows into it or into padding, even if it is NaN."""
    net = jn.encoder_block(FEATURES, 2, positions="rotary")
    params, state = variables(net, STEPS)
    first = np.asarray((ROWS.segments == ROWS.segments[:, :1]) & ROWS.mask)[..., None]

    @jax.jit
    def run(values):
        y, _ = net.apply(params, state, STEPS.with_values(values))
        return jnp.where(first, y.values, 0)

    real = np.asarray(ROWS.mask)[..., None]
    changed = np.where(first, STEPS.values, np.where(real, 7 * STEPS.values + 1, np.nan)).astype(np.float32)
    np.testing.assert_array_equal(run(changed), run(STEPS.values))
    gradient = jax.grad(lambda values: run(values).sum())(STEPS.values)
    assert not np.where(first, 0, gradient).any()
    assert np.where(first, gradient, 0).any()


def test_vmap_and_scan_over_rows():
    net = NETS["learned"]()
    params, state = variables(net, ROWS)
    stacked = jax.tree.map(lambda leaf: np.stack([leaf, leaf[::-1]]), ROWS)
    assert isinstance(stacked, jn.Packed)
    y = jax.vmap(lambda rows: net.apply(params, state, rows)[0])(stacked)
    expected = net.apply(params, state, ROWS)[0]
    np.testing.assert_allclose(y.values[0], expected.values, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(y.values[1], expected.values[::-1], rtol=1e-5, atol=1e-5)
    _, y = jax.lax.scan(lambda _, rows: (None, net.apply(params, state, rows)[0]), None, stacked)
    np.testing.assert_allclose(y.values[0], expected.values, rtol=1e-5, atol=1e-5)
    several = jax.vmap(lambda p: net.apply(p, state, ROWS)[0].values)(jax.tree.map(lambda leaf: leaf[None], params))
    np.testing.assert_allclose(several[0], expected.values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", [None, "rotary"])
def test_a_document_reads_the_memory_of_its_number(positions):
    net = jn.attention(FEATURES, 2, cross=True, positions=positions)
    sources = [floats(size + 1, 5, seed=size) for size in range(len(DOCUMENTS))]
    # In the same rows as the documents that read them.
    memory = [[sources[number] for number in dict.fromkeys(row) if number >= 0] for row in ROWS.segments.tolist()]
    length = max(sum(map(len, row)) for row in memory)
    values, segments = np.zeros((len(memory), length, 5), np.float32), np.full((len(memory), length), 99, np.int32)
    for place, (row, numbers) in enumerate(zip(memory, ROWS.segments.tolist())):
        ends = sum(map(len, row))
        values[place, :ends] = np.concatenate(row)
        segments[place, :ends] = np.repeat([n for n in dict.fromkeys(numbers) if n >= 0], [len(each) for each in row])
    pair = STEPS, jn.Packed(values, np.array([sum(map(len, row)) for row in memory]), segments)
    params, state = variables(net, pair)
    y, _ = jax.jit(net.apply)(params, state, pair)
    for found, x, source in zip(jn.data.unpack(y), jn.data.unpack(STEPS), sources, strict=True):
        np.testing.assert_allclose(found, net.apply(params, state, (x[None], source[None]))[0][0], rtol=1e-5, atol=1e-5)
    decoder = jn.decoder_block(FEATURES, 2)
    params, state = variables(decoder, pair)
    (y, _), _ = decoder.apply(params, state, pair)
    assert isinstance(y, jn.Packed)


def test_every_layer_of_single_steps_keeps_the_documents():
    layers = {
        "dense": jn.dense(FEATURES),
        "function": jax.nn.gelu,
        "norm": jn.layer_norm(),
        "batch_norm": jn.batch_norm(),
        "drop": jn.dropout(0.1),
        "noise": jn.gaussian_noise(0.1),
        "shortcut": jn.residual(jn.dense(FEATURES), activation=jnp.tanh),
        "prelu": jn.prelu(),
        "normalized": lambda h: (h - h.mean(-1, keepdims=True)) / h.std(-1, keepdims=True),
    }
    net = jn.serial(**layers)
    params, state = net.init(jax.random.key(0), STEPS)
    y, _ = jax.jit(net.apply, static_argnames="train")(params, state, STEPS, key=jax.random.key(1), train=True)
    assert isinstance(y, jn.Packed)
    np.testing.assert_array_equal(y.segments, ROWS.segments)
    scaled = jn.data.standardize(STEPS)(STEPS)
    assert isinstance(scaled, jn.Packed)


REFUSED = {
    "recurrent": lambda: jn.recurrent(jn.gru_cell(3)),
    "bidirectional": lambda: jn.bidirectional(jn.gru_cell(3)),
    "conv": lambda: jn.conv(3, 3, padding="SAME"),
    "depthwise_conv": lambda: jn.depthwise_conv(3, padding="SAME"),
    "conv_transpose": lambda: jn.conv_transpose(3, 3, padding="SAME"),
    "class_token": jn.class_token,
    "group_norm": lambda: jn.group_norm(2),
    "max_pool": lambda: jn.max_pool(3, stride=1, padding="SAME"),
    "avg_pool": lambda: jn.avg_pool(2),
    "global_avg_pool": lambda: jn.global_avg_pool,
    "global_max_pool": lambda: jn.global_max_pool,
    "flatten": lambda: jn.flatten,
    "a running sum": lambda: lambda h: jnp.cumsum(h, 1),
    "a causal window": lambda: lambda h: h + jnp.pad(h, ((0, 0), (1, 0), (0, 0)))[:, :-1],
    "a softmax over time": lambda: lambda h: jax.nn.softmax(h, 1),
    "a mean over the batch": lambda: lambda h: h - h.mean(0, keepdims=True),
    "what can't be analyzed": lambda: lambda h: jax.lax.while_loop(lambda h: h.max() > 1, lambda h: h / 2, h),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_mixes_documents_is_refused(name):
    net = jn.serial(layer=REFUSED[name]())
    with pytest.raises(jn.NetError, match=r"^layer"):
        jax.eval_shape(lambda x: net.apply(*net.init(jax.random.key(0), STEPS.values), x)[0], STEPS)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a running sum", "steps"),
        ("a mean over the batch", "the sequences of a batch"),
        ("what can't be analyzed", r"steps, as far as can be seen \(while\)"),
    ],
)
def test_a_function_that_mixes_is_told_what_to_write(name, what):
    said = (
        rf"<?lambda>? expects a function of single steps for Packed values \(\d+, 12, 8\), got one that mixes {what}: "
    )
    with pytest.raises(jn.NetError, match=f"^layer: {said}documents would read each other; write jn.Net"):
        jn.serial(layer=REFUSED[name]()).apply({}, {}, STEPS)
    # Padded sequences, which only later steps must not reach, still pass.
    if name == "a running sum":
        jn.serial(layer=REFUSED[name]()).apply({}, {}, jn.Padded(STEPS.values, STEPS.lengths))


def test_a_network_that_drops_the_documents_is_told_so():
    def apply(params, state, x, *, key=None, train=False):
        return jn.Padded(x.values, x.lengths), state

    net = jn.serial(mine=jn.Net(lambda key, x: ({}, {}), apply, "mine"))
    with pytest.raises(jn.NetError, match=r"^mine: mine expects apply .* Packed for Packed.*x\.with_values\(values\)"):
        net.apply({}, {}, STEPS)


def test_losses_and_decoding_of_whole_sequences_are_refused():
    with pytest.raises(jn.NetError, match=r"^ctc takes no Packed documents"):
        jn.losses.ctc(STEPS, ROWS)
    net = jn.models.language_model(WORDS, 4)
    with pytest.raises(jn.NetError, match=r"^sample takes no Packed documents"):
        jn.decoding.sample(net, {}, {}, ROWS, 2, temperature=0)
    with pytest.raises(jn.NetError, match="expects both sequences Packed or neither"):
        jn.attention(8, 2, cross=True).init(jax.random.key(0), (STEPS, STEPS.values))
    relative: list[dict] = [{"causal": True}, {"window": 2}, {"positions": "distance"}]
    for options in relative:
        with pytest.raises(jn.NetError, match="takes no pair of Packed with causal, window or distances"):
            jn.attention(8, 2, cross=True, **options).init(jax.random.key(0), (STEPS, STEPS))


def test_a_sequence_loss_is_the_mean_over_the_steps_of_a_row():
    logits, targets = floats(*ROWS.values.shape, WORDS), ROWS.with_values(ROWS.values % WORDS)
    padded = jn.Padded(logits, ROWS.lengths), jn.Padded(targets.values, ROWS.lengths)
    loss = jn.losses.sequence(jn.losses.cross_entropy)
    np.testing.assert_array_equal(loss(ROWS.with_values(logits), targets), loss(*padded))


def test_positions_restart_at_each_document():
    for row, length, found in zip(ROWS.segments, ROWS.lengths, np.asarray(ROWS.positions)):
        counts = {}
        for step, number in enumerate(row.tolist()):
            assert found[step] == (counts.get(number, 0) if step < length else 0)
            counts[number] = counts.get(number, 0) + 1


def test_too_long_a_document_for_learned_positions_is_refused_or_nan():
    net = jn.learned_positions(8)
    params, state = variables(net, STEPS)
    with pytest.raises(jn.NetError, match="expects texts of at most 8 steps, got position 8"):
        net.apply(params, state, STEPS)
    y, _ = jax.jit(net.apply)(params, state, STEPS)
    late = np.asarray(ROWS.positions) >= 8
    assert np.isnan(y.values[late]).all()
    assert np.isfinite(y.values[~late]).all()


VALUES, LENGTHS = np.zeros((2, 3)), np.array([3, 2])
WRONG = {
    "shape": ((VALUES, LENGTHS, np.zeros((2, 2), int)), r"expects integer segments \(2, 3\), one for each step, got"),
    "kind": ((VALUES, LENGTHS, 0), r"expects integer segments \(2, 3\), one for each step, got int 0"),
    "dtype": ((VALUES, LENGTHS, np.zeros((2, 3))), r"expects integer segments, got float64 \(2, 3\)"),
    "order": ((VALUES, LENGTHS, [[0, 1, 1], [3, 2, 5]]), r"do not fall along a row, got \[3, 2, 5\] in row 1"),
    "lengths": ((VALUES, np.array([4, 0]), np.zeros((2, 3), int)), "expects lengths from 0 to 3"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_segments_are_named(name):
    given, message = WRONG[name]
    with pytest.raises(jn.NetError, match=f"^Pa[a-z]+ .*{message}"):
        jn.Packed(*given)


def test_segments_of_padding_may_be_anything():
    rows = jn.Packed(VALUES, LENGTHS, np.array([[0, 1, 1], [2, 2, -1]]))
    assert jax.tree.map(np.shape, rows).segments == (2, 3)
    pairs, _ = jax.tree_util.tree_flatten_with_path(rows)
    assert [jax.tree_util.keystr(path) for path, _ in pairs] == [".values", ".lengths", ".segments"]
    assert jax.vmap(lambda x: x.positions, in_axes=(jn.Packed(0, 0, 0),))(jax.tree.map(lambda a: a[None], rows)).shape
