"""Multi-head attention against PyTorch's, with itself and with another sequence; padding, grouped heads, positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.oracle import floats, variables, witness

BATCH, TIME, SOURCE, FEATURES, HEADS = 3, 5, 6, 8, 2
LENGTHS = np.array([6, 2, 4], np.int32)
X, MEMORY = floats(BATCH, TIME, FEATURES, seed=1), floats(BATCH, SOURCE, FEATURES, seed=2)
NAMES = ("query", "key", "value", "out")
# name: options, and whether PyTorch gets a causal mask, other keys, and their lengths
CASES = {
    "self": ({}, False, False, False),
    "causal": ({"causal": True}, True, False, False),
    "cross": ({"cross": True}, False, True, False),
    "padded": ({"cross": True}, False, True, True),
}


def parameters():
    shapes = {"kernel": (FEATURES, FEATURES), "bias": (FEATURES,)}
    return {
        name: {leaf: floats(*shape, seed=10 * place, scale=0.5) for leaf, shape in shapes.items()}
        for place, name in enumerate(NAMES, start=1)
    }


def by_torch(name):
    import torch

    _, causal, cross, padded = CASES[name]
    params = jax.tree.map(torch.tensor, parameters())
    layer = torch.nn.MultiheadAttention(FEATURES, HEADS, batch_first=True)
    with torch.no_grad():
        layer.in_proj_weight.copy_(torch.cat([params[each]["kernel"].T for each in NAMES[:3]]))
        layer.in_proj_bias.copy_(torch.cat([params[each]["bias"] for each in NAMES[:3]]))
        layer.out_proj.weight.copy_(params["out"]["kernel"].T)
        layer.out_proj.bias.copy_(params["out"]["bias"])
    x = torch.tensor(X, requires_grad=True)
    memory = torch.tensor(MEMORY, requires_grad=True) if cross else x
    mask = torch.triu(torch.ones(TIME, TIME, dtype=torch.bool), 1) if causal else None
    hidden = torch.tensor(np.arange(SOURCE) >= LENGTHS[:, None]) if padded else None
    y, _ = layer(x, memory, memory, attn_mask=mask, key_padding_mask=hidden, need_weights=False)
    (y * torch.tensor(floats(*y.shape, seed=3))).sum().backward()
    leaves = (layer.in_proj_weight, layer.out_proj.weight, layer.in_proj_bias, layer.out_proj.bias, x, memory)
    kernel, out_kernel, bias, out_bias, dx, dmemory = (torch.as_tensor(leaf.grad) for leaf in leaves)
    kernels, biases = zip(NAMES, [*kernel.chunk(3), out_kernel]), zip(NAMES, [*bias.chunk(3), out_bias])
    found = {"y": y.detach(), "x": dx} | ({"memory": dmemory} if cross else {})
    found |= {f"{each}/kernel": kernel.T for each, kernel in kernels} | {f"{each}/bias": bias for each, bias in biases}
    return {each: tensor.numpy() for each, tensor in found.items()}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_pytorchs(name):
    options, _, cross, padded = CASES[name]
    net = jn.attention(FEATURES, HEADS, **options)

    def loss(params, x, memory):
        memory = jn.Padded(memory, LENGTHS) if padded else memory
        y, _ = net.apply(params, {}, (x, memory) if cross else x)
        return (y * floats(*y.shape, seed=3)).sum(), y

    (_, y), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(parameters(), X, MEMORY)
    found = {"y": y, "x": gradients[1], "memory": gradients[2], **jn.paths.paths(gradients[0])}
    for each, value in witness(f"attention/{name}_layer", lambda: by_torch(name)).items():
        np.testing.assert_allclose(found[each], value, rtol=1e-4, atol=1e-5, err_msg=each)


@pytest.mark.parametrize("positions", [None, "rotary", "distance"])
@pytest.mark.parametrize("causal", [False, True])
def test_padding_changes_nothing(positions, causal):
    """Each sequence alone gives what it gives in the batch; padding may be NaN."""
    net = jn.attention(4, 2, positions=positions, causal=causal)
    lengths = np.array([5, 1, 3], np.int32)
    real = (np.arange(TIME)[None] < lengths[:, None])[..., None]
    params, state = variables(net, X)
    y, _ = jax.jit(net.apply)(params, state, jn.Padded(jnp.where(real, X, jnp.nan), lengths))
    assert jnp.isfinite(y.values).all()
    for place, length in enumerate(lengths):
        alone, _ = net.apply(params, state, X[place : place + 1, :length])
        np.testing.assert_allclose(y.values[place, :length], alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_grouped_heads_are_heads_with_equal_keys(kv_heads):
    heads, width = 4, 2
    grouped = jn.attention(8, heads, kv_heads=kv_heads, causal=True, positions="rotary")
    params, state = variables(grouped, X)

    def repeated(leaf):
        split = leaf.reshape(*leaf.shape[:-1], kv_heads, width)
        return np.repeat(split, heads // kv_heads, -2).reshape(*leaf.shape[:-1], heads * width)

    whole = params | {
        name: {leaf: repeated(value) for leaf, value in params[name].items()} for name in ("key", "value")
    }
    expected, _ = jn.attention(8, heads, causal=True, positions="rotary").apply(whole, state, X)
    np.testing.assert_allclose(grouped.apply(params, state, X)[0], expected, rtol=1e-5, atol=1e-5)


def test_positions_matter_as_they_should():
    """Without positions outputs follow a permutation of the input; with either kind they do not."""
    order = np.array([3, 0, 4, 1, 2])
    for positions in (None, "rotary", "distance"):
        net = jn.attention(8, 2, positions=positions)
        params, state = variables(net, X)
        y, permuted = (net.apply(params, state, x)[0] for x in (X, X[:, order]))
        assert np.allclose(y[:, order], permuted, atol=1e-5) == (positions is None), positions


def test_a_window_bounds_what_is_read():
    """A change of step 0 reaches the two steps of a window of 2, and with causality nothing before it."""
    net = jn.attention(8, 2, causal=True, window=2)
    params, state = variables(net, X)
    changed = X.copy()
    changed[:, 1] += 1
    differs = (net.apply(params, state, X)[0] != net.apply(params, state, changed)[0]).any((0, 2))
    assert differs.tolist() == [False, True, True, False, False]


def test_counts_are_exact():
    """Four projections of t · f² multiply-adds for each example, and two products of t² · f."""
    x = jax.ShapeDtypeStruct((1, 7, 12), jnp.float32)
    net = jn.attention(12, 3)
    assert jn.inspect.count_parameters(net, x) == 4 * (12 * 12 + 12)
    assert jn.inspect.multiply_adds(net, x) == 4 * 7 * 12**2 + 2 * 7**2 * 12


BAD = {
    "heads": (lambda: jn.attention(8, 3), "attention(8, 3) expects features divisible by 3 heads, got 8"),
    "kv_heads": (lambda: jn.attention(8, 4, kv_heads=3), "expects kv_heads that divide the 4 heads, got 3"),
    "positions": (
        lambda: jn.attention(8, 4, positions="learned"),  # pyright: ignore[reportArgumentType]  # what is tested
        "expects positions 'rotary', 'distance' or None, got 'learned'",
    ),
    "odd": (lambda: jn.attention(6, 2, positions="rotary"), "expects heads of even width to rotate, got 3"),
    "window": (lambda: jn.attention(8, 4, window=0), "expects window ≥ 1, got 0"),
    "no pair": (
        lambda: jn.serial(read=jn.attention(8, 4, cross=True)).init(jax.random.key(0), X),
        "read/x: first expects a pair (x, memory), the sequence that reads and the one that is read, got one input",
    ),
    "no time": (
        lambda: jn.serial(read=jn.attention(8, 4)).init(jax.random.key(0), X[:, 0]),
        "read/mix: expects x (batch, time, features), got projections (3, 8)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, message = BAD[name]
    with pytest.raises(jn.NetError) as raised:
        call()
    assert message in str(raised.value)
