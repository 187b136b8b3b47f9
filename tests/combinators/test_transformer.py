"""The blocks of a transformer against PyTorch's, norms first and last; their order of steps, dropout, and stacks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.oracle import floats, variables, witness

BATCH, TIME, SOURCE, FEATURES, HEADS, HIDDEN = 2, 5, 4, 8, 2, 12
X, MEMORY = floats(BATCH, TIME, FEATURES, seed=1), floats(BATCH, SOURCE, FEATURES, seed=2)
WEIGH = floats(BATCH, TIME, FEATURES, seed=3)
# our children and PyTorch's modules
ENCODER = {"norm1": "norm1", "attention": "self_attn", "norm2": "norm2", "up": "linear1", "down": "linear2"}
DECODER = {**ENCODER, "cross": "multihead_attn", "norm3": "norm3"}
QKV = ("query", "key", "value")


def block(kind, norm_first):
    make = jn.encoder_block if kind == "encoder" else jn.decoder_block
    return make(FEATURES, HEADS, hidden=HIDDEN, norm_first=norm_first, activation=jax.nn.relu)


def to_torch(names, params):
    """Our parameters, under PyTorch's names and in its layout."""
    weights = {}
    for ours, theirs in names.items():
        given = params[ours]
        if "query" in given:
            weights[f"{theirs}.in_proj_weight"] = np.concatenate([given[each]["kernel"].T for each in QKV])
            weights[f"{theirs}.in_proj_bias"] = np.concatenate([given[each]["bias"] for each in QKV])
            theirs, given = f"{theirs}.out_proj", given["out"]
        kernel = given["kernel"].T if "kernel" in given else given["scale"]
        weights |= {f"{theirs}.weight": kernel, f"{theirs}.bias": given["bias"]}
    return weights


def by_torch(kind, norm_first, params):
    import torch

    make = {"encoder": torch.nn.TransformerEncoderLayer, "decoder": torch.nn.TransformerDecoderLayer}[kind]
    layer = make(FEATURES, HEADS, HIDDEN, dropout=0.0, batch_first=True, norm_first=norm_first)
    names = ENCODER if kind == "encoder" else DECODER
    layer.load_state_dict({name: torch.tensor(array) for name, array in to_torch(names, params).items()})
    given = [torch.tensor(each, requires_grad=True) for each in ([X] if kind == "encoder" else [X, MEMORY])]
    later = torch.triu(torch.ones(TIME, TIME, dtype=torch.bool), 1)
    y = layer(*given) if kind == "encoder" else layer(*given, tgt_mask=later)
    (y * torch.tensor(WEIGH)).sum().backward()
    found = {"y": y.detach(), "x": given[0].grad, **{name: leaf.grad for name, leaf in layer.named_parameters()}}
    return {name: torch.as_tensor(tensor).numpy() for name, tensor in found.items()}


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_values_and_gradients_are_pytorchs(kind, norm_first):
    net, pair = block(kind, norm_first), kind == "decoder"
    params, _ = variables(net, (X, MEMORY) if pair else X, scale=0.4)

    def loss(params, x):
        y, _ = net.apply(params, {}, (x, MEMORY) if pair else x)
        y = y[0] if pair else y
        return (y * WEIGH).sum(), y

    (_, y), (gradients, dx) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, X)
    found = {"y": y, "x": dx, **to_torch(ENCODER if kind == "encoder" else DECODER, gradients)}
    name = f"transformer/{kind}_{'first' if norm_first else 'last'}"
    for each, value in witness(name, lambda: by_torch(kind, norm_first, params)).items():
        np.testing.assert_allclose(found[each], value, rtol=1e-4, atol=3e-5, err_msg=each)


def test_a_block_is_written_out():
    """Rotary positions, grouped heads, RMS norms and SwiGLU, as Llama's block, are those of the parts."""
    options = {"kv_heads": 1, "causal": True, "positions": "rotary"}
    net = jn.encoder_block(
        FEATURES, HEADS, hidden=6, norm=jn.rms_norm, activation=jax.nn.silu, gated=True, use_bias=False, **options
    )
    params, state = variables(net, X)
    run = {
        "norm": jn.rms_norm(),
        "attention": jn.attention(FEATURES, HEADS, use_bias=False, **options),
        "up": jn.gated_dense(6, activation=jax.nn.silu, use_bias=False),
        "down": jn.dense(FEATURES, use_bias=False),
    }

    def part(name, x, layer=None):
        return run[layer or name].apply(params[name], {}, x)[0]

    middle = X + part("attention", part("norm1", X, "norm"))
    expected = middle + part("down", part("up", part("norm2", middle, "norm")))
    np.testing.assert_allclose(net.apply(params, state, X)[0], expected, rtol=1e-5, atol=1e-5)
    assert sorted(params) == ["attention", "down", "norm1", "norm2", "up"]


def test_dropout_acts_in_four_places_in_training_alone():
    net = jn.encoder_block(FEATURES, HEADS, dropout=0.5)
    assert [name for name in net.children if "dropout" in name] == ["dropout1", "dropout", "dropout2"]
    params, state = variables(net, X)
    plain = jn.encoder_block(FEATURES, HEADS)
    assert "dropout" not in plain.children
    np.testing.assert_array_equal(net.apply(params, state, X)[0], plain.apply(params, state, X)[0])
    first, again, other = (net.apply(params, state, X, key=jax.random.key(seed), train=True)[0] for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
    with pytest.raises(jn.NetError, match="attention/mix: is random in training and needs a key"):
        net.apply(params, state, X, train=True)
    outside = jn.encoder_block(FEATURES, HEADS, dropout=0.5, attention_dropout=0.0)
    assert (outside.apply(params, state, X, key=jax.random.key(0), train=True)[0] != first).any()
    with pytest.raises(jn.NetError, match="dropout1: dropout"):
        outside.apply(params, state, X, train=True)


def test_decoders_drop_in_both_attentions():
    net, plain = (jn.decoder_block(FEATURES, HEADS, attention_dropout=rate) for rate in (0.5, 0.0))
    params, _ = variables(net, (X, MEMORY))
    evaluated = net.apply(params, {}, (X, MEMORY))[0][0]
    np.testing.assert_array_equal(evaluated, plain.apply(params, {}, (X, MEMORY), train=True)[0][0])
    trained = net.apply(params, {}, (X, MEMORY), key=jax.random.key(0), train=True)[0][0]
    assert (trained != evaluated).any()


def test_blocks_follow_each_other():
    """Unrolled and by `repeat`, of the same parameters; the memory of decoders passes through unchanged."""
    for net, x in (
        (jn.encoder_block(FEATURES, HEADS), X),
        (jn.decoder_block(FEATURES, HEADS), (X, jn.Padded(MEMORY, np.array([4, 2], np.int32)))),
    ):
        chain, loop = jn.serial(net, net, net), jn.repeat(net, 3)
        params, state = variables(chain, x, scale=0.3)
        expected, _ = jax.jit(chain.apply)(params, state, x)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params.values())
        shapes = jax.eval_shape(loop.init, jax.random.key(0), x)[0]
        stacked = jax.tree.unflatten(jax.tree.structure(shapes), jax.tree.leaves(stacked))
        found, _ = jax.jit(loop.apply)(stacked, state, x)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        if isinstance(x, tuple):
            assert isinstance(found[1], jn.Padded)
            np.testing.assert_array_equal(found[1].values, MEMORY)


def test_padding_changes_nothing():
    net = jn.encoder_block(FEATURES, HEADS, positions="distance")
    params, state = variables(net, X)
    y, _ = net.apply(params, state, jn.Padded(X, np.array([5, 3], np.int32)))
    alone, _ = net.apply(params, state, X[1:, :3])
    np.testing.assert_allclose(y.values[1, :3], alone[0], rtol=1e-4, atol=1e-5)


def test_counts_are_gpt_2s():
    """A block of GPT-2 small has 7,087,872 parameters."""
    x = jax.ShapeDtypeStruct((1, 3, 768), jnp.float32)
    assert jn.inspect.count_parameters(jn.encoder_block(768, 12, causal=True), x) == 7_087_872


def test_bad_input_is_named():
    with pytest.raises(jn.NetError, match=r"expects hidden ≥ 1, got 0"):
        jn.encoder_block(8, 2, hidden=0)
    net = jn.serial(block=jn.encoder_block(8, 2))
    message = (
        r"block/sum1: plus adds \(2, 5, 8\) float32 to the input \(2, 5, 6\) float32; "
        "give the block the features of its input"
    )
    with pytest.raises(jn.NetError, match=message):
        net.init(jax.random.key(0), jax.ShapeDtypeStruct((2, 5, 6), jnp.float32))
    with pytest.raises(jn.NetError, match=r"block/x: first expects a pair \(x, memory\), .* got one input"):
        jn.serial(block=jn.decoder_block(8, 2)).init(jax.random.key(0), X)
