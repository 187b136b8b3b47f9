"""Attention against PyTorch's, in float64 and both whole and by blocks; every derivative against the plain formula."""

import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import NetError
from jaxnets.ops import attention, distance_slopes, rotate
from tests.oracle import floats, witness

module = importlib.import_module("jaxnets.ops.attention")

BATCH, TIME, SOURCE, HEADS, GROUPS, WIDTH = 2, 7, 9, 4, 2, 6
LENGTHS = np.array([4, 9], np.int32)
I, J = np.arange(TIME)[:, None] + SOURCE - TIME, np.arange(SOURCE)
BIAS = floats(HEADS, TIME, SOURCE, seed=4).astype(np.float64)
MASK = floats(BATCH, 1, TIME, SOURCE, seed=5) > -0.5
SLOPES = np.array([0.5, 0.3, 0.2, 0.1])
ROWS = np.array([[0, 0, 1, 1, 1, 4, 4], [2, 2, 2, 2, 5, 5, 5]], np.int32)
KEYS = np.array([[0, 0, 0, 1, 1, 4, 4, 4, 4], [2, 2, 5, 5, 5, 5, 5, 5, 5]], np.int32)
TOGETHER = (ROWS[:, :, None] == KEYS[:, None])[:, None]
# options, and the same as PyTorch's mask: booleans, or what is added
CASES = {
    "plain": ({}, None),
    "causal": ({"causal": True}, J <= I),
    "window": ({"window": 3}, abs(J - I + SOURCE - TIME) < 3),
    "causal_window": ({"causal": True, "window": 3}, (J <= I) & (J > I - 3)),
    "offset": ({"causal": True, "offset": 1}, J <= I - SOURCE + TIME + 1),
    "lengths": ({"lengths": LENGTHS}, LENGTHS[:, None, None, None] > J),
    "mask": ({"mask": MASK}, MASK),
    "bias": ({"bias": BIAS}, BIAS[None]),
    "bias_per_key": ({"bias": BIAS[:, :1]}, np.broadcast_to(BIAS[None, :, :1], (1, HEADS, TIME, SOURCE))),
    "slopes": (
        {"causal": True, "slopes": SLOPES},
        np.where(J <= I, -SLOPES[:, None, None] * abs(J - I), -np.inf)[None],
    ),
    "segments": ({"segments": (ROWS, KEYS)}, TOGETHER),
    "segments_window": ({"segments": (ROWS, KEYS), "window": 5}, TOGETHER & (abs(J - I + SOURCE - TIME) < 5)),
    "everything": (
        {"causal": True, "mask": MASK, "bias": BIAS, "scale": 0.3},
        np.where((J <= I) & MASK, BIAS, -np.inf),
    ),
}


@pytest.fixture(params=["whole", "parts", "blocks"])
def blocks(request, monkeypatch):
    """Compute all rows at once, each example for itself as on CPU, or two rows at a time."""
    monkeypatch.setattr(module, "PART_BYTES", 0 if request.param == "parts" else 2**40)
    if request.param == "blocks":
        monkeypatch.setattr(module, "BLOCK_BYTES", 2 * 4 * BATCH * HEADS * SOURCE)


def arrays(groups: int = GROUPS, dtype: Any = np.float64):
    shapes = ((TIME, HEADS), (SOURCE, groups), (SOURCE, groups))
    return [floats(BATCH, *shape, WIDTH, seed=seed).astype(dtype) for seed, shape in enumerate(shapes)]


def formula(q, k, v, allowed=None, bias=None):
    """The definition, one line for each step."""
    k, v = (jnp.repeat(each, q.shape[2] // each.shape[2], 2) for each in (k, v))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    scores = scores if bias is None else scores + bias[None]
    scores = scores if allowed is None else jnp.where(allowed[None, None], scores, -jnp.inf)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)


def by_torch(name):
    import torch

    options, mask = CASES[name]
    q, k, v = (torch.tensor(each).transpose(1, 2).requires_grad_() for each in arrays())
    shared = [each.repeat_interleave(HEADS // GROUPS, 1) for each in (k, v)]
    mask = None if mask is None else torch.tensor(mask)
    y = torch.nn.functional.scaled_dot_product_attention(q, *shared, attn_mask=mask, scale=options.get("scale"))
    (y * torch.tensor(floats(BATCH, TIME, HEADS, WIDTH, seed=9)).transpose(1, 2)).sum().backward()
    return {
        each: tensor.detach().transpose(1, 2).numpy()
        for each, tensor in {"y": y, "query": q.grad, "key": k.grad, "value": v.grad}.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_pytorchs(name, blocks):
    expected = witness(f"attention/{name}", lambda: by_torch(name))
    weigh = floats(BATCH, TIME, HEADS, WIDTH, seed=9).astype(np.float64)
    with jax.enable_x64(True):
        y, pullback = jax.vjp(jax.jit(functools.partial(attention, **CASES[name][0])), *map(jnp.asarray, arrays()))
        found = {"y": y, **dict(zip(("query", "key", "value"), pullback(jnp.asarray(weigh))))}
    for each, value in expected.items():
        np.testing.assert_allclose(found[each], value, rtol=1e-10, atol=1e-12, err_msg=each)


def test_forward_mode_hessian_and_vmap_are_the_formulas(blocks):
    with jax.enable_x64(True):
        given = [jnp.asarray(each) for each in arrays()]
        tangents = [jnp.asarray(floats(*each.shape, seed=20).astype(np.float64)) for each in given]
        ours = functools.partial(attention, causal=True, bias=jnp.asarray(BIAS))
        plain = functools.partial(formula, allowed=J <= I, bias=jnp.asarray(BIAS))

        def derivatives(function):
            def along(k):
                return jax.jvp(lambda k: (function(given[0], k, given[2]) ** 2).sum(), (k,), (tangents[1],))[1]

            _, forward = jax.jvp(function, given, tangents)
            stacked = [jnp.stack([each, each[::-1]]) for each in given]
            return forward, jax.grad(along)(given[1]), jax.vmap(function, (0, 0, None))(*stacked[:2], given[2])

        for found, expected in zip(jax.jit(derivatives, static_argnums=0)(ours), derivatives(plain)):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.slow_cases("blocks")
def test_rows_with_nothing_to_attend_to_are_zero(blocks):
    """Without keys, with all masked, with a bias of -∞, and before the first key: 0, and gradients that are 0."""
    q, k, v = (jnp.asarray(each, jnp.float32) for each in arrays())
    nothing = {
        "lengths": ({"lengths": jnp.array([0, SOURCE])}, np.s_[0]),
        "mask": ({"mask": jnp.broadcast_to(jnp.arange(TIME)[:, None] > 0, (TIME, SOURCE))}, np.s_[:, 0]),
        "bias": ({"bias": jnp.where(jnp.arange(TIME)[:, None] == 2, -jnp.inf, jnp.zeros((TIME, SOURCE)))}, np.s_[:, 2]),
        "position": ({"causal": True, "offset": -3}, np.s_[:, :3]),
    }
    for name, (options, where) in nothing.items():
        run = jax.jit(jax.value_and_grad(lambda *a, o=options: (attention(*a, **o) ** 2).sum(), (0, 1, 2)))
        y = attention(q, k, v, **options)
        assert not y[where].any(), name
        assert jnp.isfinite(y).all(), name
        _, gradients = run(q, k, v)
        assert all(jnp.isfinite(each).all() for each in gradients), name
        assert not gradients[0][where].any(), name
    empty = attention(q, k[:, :0], v[:, :0])
    assert empty.shape == q.shape
    assert not empty.any()


def test_one_array_of_segments_is_that_of_queries_and_keys(blocks):
    """A causal window within segments, and a segment without keys for the last queries."""
    q, k, v = (jnp.asarray(each, jnp.float32)[:, :TIME] for each in arrays())
    i, j = np.arange(TIME)[:, None], np.arange(TIME)
    mask = (ROWS[:, :, None] == ROWS[:, None])[:, None] & (j <= i) & (j > i - 2)
    y = jax.jit(functools.partial(attention, causal=True, window=2, segments=ROWS))(q, k, v)
    np.testing.assert_allclose(y, attention(q, k, v, mask=mask), rtol=1e-6, atol=1e-6)
    lonely = np.where(i[:, 0] < 5, ROWS, 9)
    y, gradients = jax.value_and_grad(lambda q: (attention(q, k, v, segments=(lonely, ROWS)) ** 2).sum())(q)
    assert jnp.isfinite(gradients).all()
    assert not gradients[:, 5:].any()
    assert not attention(q, k, v, segments=(lonely, ROWS))[:, 5:].any()


def test_what_is_masked_has_no_influence(blocks):
    """Huge values and keys beyond an example's length change no bit."""
    q, k, v = (jnp.asarray(each, jnp.float32) for each in arrays())
    beyond = (jnp.arange(SOURCE)[None] >= LENGTHS[:, None])[..., None, None]
    y = attention(q, k, v, lengths=LENGTHS)
    assert (attention(q, jnp.where(beyond, 1e30, k), jnp.where(beyond, -1e30, v), lengths=LENGTHS) == y).all()


def test_steps_with_a_cache_are_the_whole():
    """The last rows alone, aligned to the end; and each row with the keys so far in a cache of full size."""
    k, v = (jnp.asarray(each, jnp.float32) for each in arrays()[1:])
    q = jnp.asarray(floats(BATCH, SOURCE, HEADS, WIDTH))
    whole = attention(q, k, v, causal=True)
    np.testing.assert_allclose(attention(q[:, -3:], k, v, causal=True), whole[:, -3:], rtol=1e-5, atol=1e-6)
    step = jax.jit(lambda q, at: attention(q, k, v, causal=True, offset=at))
    for place in range(SOURCE):
        # The two examples are at positions of their own.
        places = jnp.array([place, SOURCE - 1 - place])
        y = step(jnp.stack([q[0, place], q[1, SOURCE - 1 - place]])[:, None], places)
        expected = jnp.stack([whole[0, place], whole[1, SOURCE - 1 - place]])
        np.testing.assert_allclose(y[:, 0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow_cases("blocks-bfloat16", "blocks-float16")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_has_a_softmax_in_float32(dtype, blocks):
    """2,048 equal weights are each below float16's and bfloat16's resolution of their sum."""
    keys = 2048
    q, k = jnp.zeros((1, 3, 1, 2), dtype), jnp.ones((1, keys, 1, 2), dtype)
    v = jnp.full((1, keys, 1, 1), 3, dtype)
    y = attention(q, k, v)
    assert y.dtype == dtype
    np.testing.assert_allclose(y.astype(np.float32), 3, rtol=1e-2)
    given = arrays(dtype=np.float32)
    near = attention(*(jnp.asarray(each, dtype) for each in given), causal=True)
    np.testing.assert_allclose(near.astype(np.float32), attention(*given, causal=True), atol=0.05)


def test_memory_grows_linearly_with_time():
    """The gradient over 8,192 steps, 8 heads of 64, in an eighth of the plain formula's memory; 32,768 in 2 GiB."""

    def temporary(function, time, *more):
        x = jax.ShapeDtypeStruct((1, time, 8, 64), jnp.float32)
        gradient = jax.jit(jax.grad(lambda *a: (function(*a) ** 2).sum(), (0, 1, 2)))
        memory = gradient.lower(x, x, x, *more).compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    ours = functools.partial(attention, causal=True)
    assert temporary(ours, 8192) <= temporary(formula, 8192) / 8
    assert temporary(ours, 32768) < 2**31

    def packed(q, k, v, segments):
        return ours(q, k, v, segments=segments)

    segments = jax.ShapeDtypeStruct((1, 8192), jnp.int32)
    assert temporary(packed, 8192, segments) < 1.1 * temporary(ours, 8192)


def test_causal_blocks_skip_later_keys():
    """Of 4,096 × 4,096 scores, those of the last quarter of keys are computed for the last quarter of rows alone."""
    x = jax.ShapeDtypeStruct((1, 4096, 8, 8), jnp.float32)

    def flops(causal):
        costs = jax.jit(functools.partial(attention, causal=causal)).lower(x, x, x).cost_analysis()
        assert costs is not None
        return costs["flops"]

    assert flops(True) < 0.75 * flops(False)


def test_export_with_a_free_batch():
    q, k, v = (jnp.asarray(each, jnp.float32) for each in arrays())
    ours = jax.jit(functools.partial(attention, causal=True))
    (batch,) = jax.export.symbolic_shape("batch")
    given = [jax.ShapeDtypeStruct((batch, *each.shape[1:]), each.dtype) for each in (q, k, v)]
    np.testing.assert_allclose(jax.export.export(ours)(*given).call(q, k, v), ours(q, k, v), rtol=1e-6)


def test_rotation_is_multiplication_by_a_complex_number():
    x, positions = floats(2, 5, 3, 8), np.array([[0, 1, 2, 3, 4], [7, 9, 30, 31, 500]])
    turns = np.exp(1j * positions[..., None, None] * 100.0 ** (-np.arange(4) / 4))
    halves = (x[..., :4] + 1j * x[..., 4:]) * turns
    pairs = (x[..., ::2] + 1j * x[..., 1::2]) * turns
    found = rotate(jnp.asarray(x), positions, period=100.0)
    np.testing.assert_allclose(found, np.concatenate([halves.real, halves.imag], -1), atol=1e-4)
    found = rotate(jnp.asarray(x), positions, period=100.0, interleaved=True)
    np.testing.assert_allclose(found, np.stack([pairs.real, pairs.imag], -1).reshape(x.shape), atol=1e-4)


def test_rotated_scores_depend_on_distance_alone():
    q, k, _ = (jnp.asarray(each, jnp.float32) for each in arrays(HEADS))
    q, k = q[:, :5], k[:, :5]

    def scores(shift):
        turned = [rotate(each, shift + jnp.arange(5)) for each in (q, k)]
        return jnp.einsum("bqhd,bkhd->bhqk", *turned)

    np.testing.assert_allclose(scores(0), scores(100), atol=1e-4)


def test_slopes_of_distance_are_the_papers():
    """The sequence of section 3 for 8 heads, and that of the authors' code for 12."""
    np.testing.assert_allclose(distance_slopes(8), 2.0 ** -np.arange(1, 9))
    others = [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
    np.testing.assert_allclose(distance_slopes(12), [*2.0 ** -np.arange(1, 9), *others], rtol=1e-6)


Q, K = jnp.zeros((2, 3, 4, 6)), jnp.zeros((2, 5, 2, 6))
BAD = {
    "rank": (lambda: attention(Q[0], K, K), "expects for query the axes (batch, time, heads, width), got (3, 4, 6)"),
    "integers": (
        lambda: attention(Q, K.astype(int), K),
        "expects for key a floating array (batch, time, heads, width), got ArrayImpl (2, 5, 2, 6) int32",
    ),
    "width": (
        lambda: attention(Q, K[..., :5], K),
        "expects keys (2, source, kv_heads, 6) for queries (2, 3, 4, 6), got (2, 5, 2, 5)",
    ),
    "values": (
        lambda: attention(Q, K, K[:, :4]),
        "expects values (2, 5, 2) with any number of features for keys (2, 5, 2, 6), got (2, 4, 2, 6)",
    ),
    "heads": (
        lambda: attention(Q[:, :, :3], K, K),
        "expects as many heads of the query as kv_heads or a multiple, got 3 and 2",
    ),
    "mask dtype": (
        lambda: attention(Q, K, K, mask=jnp.ones((3, 5))),
        "expects for mask booleans, got float32 (3, 5); use mask > 0, or add scores by bias=",
    ),
    "bias dtype": (
        lambda: attention(Q, K, K, bias=jnp.ones((3, 5), bool)),
        "expects for bias a floating array, got bool (3, 5); use mask= for booleans",
    ),
    "mask shape": (
        lambda: attention(Q, K, K, mask=jnp.ones((3, 4), bool)),
        "expects a mask that broadcasts to (batch, heads, time, source) = (2, 4, 3, 5), got (3, 4)",
    ),
    "lengths": (lambda: attention(Q, K, K, lengths=jnp.ones(3)), "expects lengths as integers (2,), got float32 (3,)"),
    "offset": (
        lambda: attention(Q, K, K, causal=True, offset=jnp.arange(3)),
        "expects for offset an integer or integers (2,), got ArrayImpl (3,) int32",
    ),
    "segments": (
        lambda: attention(Q, K, K, segments=jnp.zeros((2, 3), int)),
        "expects for segments integers (2, 3) of queries and (2, 5) of keys, got int32 (2, 3), int32 (2, 3)",
    ),
    "segments dtype": (
        lambda: attention(Q, K, K, segments=(jnp.zeros((2, 3)), jnp.zeros((2, 5)))),
        "got float32 (2, 3), float32 (2, 5)",
    ),
    "window": (lambda: attention(Q, K, K, window=0), "expects window ≥ 1, got 0"),
    "slopes": (
        lambda: attention(Q, K, K, slopes=jnp.ones(2)),
        "expects for slopes one number for each of the 4 heads, got ArrayImpl (2,) float32",
    ),
    "odd width": (lambda: rotate(Q[..., :5], jnp.arange(3)), "expects heads of even width to rotate, got 5"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, message = BAD[name]
    with pytest.raises(NetError) as raised:
        call()
    assert message in str(raised.value)


@pytest.mark.parametrize("blocked", [False, True])
def test_dropout_scales_what_survives(monkeypatch, blocked):
    """With the unit matrix as values, outputs are the weights: a mask at the rate, and a gradient through it alone."""
    if blocked:
        monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 2 * 3 * 40 * 5)  # five rows
    q, k = floats(2, 40, 3, 4, seed=1), floats(2, 40, 3, 4, seed=2)
    v = np.broadcast_to(np.eye(40, dtype=np.float32)[None, :, None], (2, 40, 3, 40))
    weigh = floats(2, 40, 3, 40, seed=3)

    def loss(q, k, rate):
        y = attention(q, k, v, causal=True, dropout=rate, dropout_key=jax.random.key(4))
        return (y * weigh).sum(), y

    (_, y), found = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(q, k, 0.25)
    scores = np.where(np.tri(40, dtype=bool), np.einsum("bqhd,bkhd->bhqk", q, k) / 2, -np.inf)
    whole = np.asarray(jax.nn.softmax(scores)).swapaxes(1, 2)  # (batch, time, heads, source)
    kept = np.asarray(y) != 0
    np.testing.assert_allclose(y, np.where(kept, whole / 0.75, 0), rtol=2e-5, atol=1e-7)
    share, n = kept[whole > 0].mean(), (whole > 0).sum()
    assert abs(share - 0.75) < 5 * (0.25 * 0.75 / n) ** 0.5
    # Each row of each head has a mask of its own.
    assert len({row.tobytes() for row in kept[:, -1].reshape(6, -1)}) == 6

    def plain(q, k):
        scores = jnp.where(np.tri(40, dtype=bool)[None, None], jnp.einsum("bqhd,bkhd->bhqk", q, k) / 2, -jnp.inf)
        return (jnp.where(kept, jax.nn.softmax(scores).swapaxes(1, 2) / 0.75, 0) * weigh).sum()

    for one, other in zip(found, jax.grad(plain, (0, 1))(q, k), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_dropout_needs_a_rate_and_a_key():
    q = floats(1, 2, 1, 4)
    with pytest.raises(NetError, match=r"expects dropout in \[0, 1\), got 1"):
        attention(q, q, q, dropout=1.0, dropout_key=jax.random.key(0))
    with pytest.raises(NetError, match="drops values at random and needs a key, got none; pass dropout_key="):
        attention(q, q, q, dropout=0.5)
