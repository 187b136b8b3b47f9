"""Speech recognizers against PyTorch's layers with the same weights: CTC losses of padded sounds, and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.models import conv_gru, conv_transformer
from tests.once import once
from tests.oracle import floats, integers, normal_like, witness

CLASSES, WIDTH, BANDS = 5, 8, 6
NETS = {
    "gru": conv_gru(CLASSES, WIDTH, layers=1, widths=(7, WIDTH), dropout=0.5),
    "transformer": conv_transformer(CLASSES, WIDTH, heads=2, layers=1, widths=(7,), hidden=12),
}
SOUND, LENGTHS = floats(3, 19, BANDS), np.array([19, 12, 7], np.int32)
LABELS, COUNTS = integers(3, 3, low=1, high=CLASSES), np.array([3, 1, 0], np.int32)


def drawn(net):
    x = jn.Padded(jnp.asarray(SOUND), jnp.asarray(LENGTHS))
    shapes = jax.eval_shape(net.init, jax.eval_shape(lambda: jax.random.key(0)), x)[0]
    return normal_like(shapes, scale=0.4, dtype=np.float64)


def by_torch(kind):
    import torch

    leaves = {path: torch.tensor(leaf, requires_grad=True) for path, leaf in jn.paths.paths(drawn(NETS[kind])).items()}
    x, lengths = torch.tensor(SOUND).double(), torch.tensor(LENGTHS).long()
    for place in (1, 2):
        mask = torch.arange(x.shape[1])[None] < lengths[:, None]
        x = torch.nn.functional.pad(x * mask[..., None], (0, 0, 0, x.shape[1] % 2))
        x, lengths = x.reshape(3, x.shape[1] // 2, -1), (lengths + 1) // 2
        kernel = leaves[f"stem/conv{place}/kernel"].permute(2, 1, 0)
        bias = leaves[f"stem/conv{place}/bias"]
        x = torch.nn.functional.conv1d(x.mT, kernel, bias, padding=1).mT.relu()
    mask = torch.arange(x.shape[1])[None] < lengths[:, None]
    x = x * mask[..., None]
    if kind == "gru":
        x = gru(x, lengths, leaves)
    else:
        x = transformer(x, mask, leaves)
    logits = x @ leaves["fc/kernel"] + leaves["fc/bias"]
    losses = torch.nn.functional.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1), torch.tensor(LABELS).long(), lengths, torch.tensor(COUNTS).long(),
        reduction="none",
    )  # fmt: skip
    losses.sum().backward()
    return {"losses": losses.detach().numpy()} | {path: np.asarray(leaf.grad) for path, leaf in leaves.items()}


def gru(x, lengths, leaves):
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    module, own = torch.nn.GRU(WIDTH, WIDTH, batch_first=True, bidirectional=True).double(), {}
    for way, end in (("forward", ""), ("backward", "_reverse")):
        part = {name: leaves[f"gru/{way}/{name}"] for name in ("kernel", "recurrent_kernel", "bias", "recurrent_bias")}
        zeros = torch.zeros(2 * WIDTH, dtype=torch.float64)
        own |= {f"weight_ih_l0{end}": part["kernel"].T, f"weight_hh_l0{end}": part["recurrent_kernel"].T}
        own |= {f"bias_ih_l0{end}": part["bias"], f"bias_hh_l0{end}": torch.cat([zeros, part["recurrent_bias"]])}
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(torch.func.functional_call(module, own, (packed,))[0], batch_first=True)[0]


def transformer(x, mask, leaves):
    import torch

    place, turn = np.arange(x.shape[1])[:, None], 10000.0 ** (-np.arange(0, WIDTH, 2) / WIDTH)
    table = np.stack([np.sin(place * turn), np.cos(place * turn)], -1).reshape(x.shape[1], WIDTH)
    gelu = partial(torch.nn.functional.gelu, approximate="tanh")
    module = torch.nn.TransformerEncoderLayer(
        WIDTH, 2, 12, dropout=0.0, activation=gelu, batch_first=True, norm_first=True
    ).double()

    def of(path):
        return leaves[f"encoder/0/{path}"]

    qkv = ("query", "key", "value")
    own = {
        "self_attn.in_proj_weight": torch.cat([of(f"attention/{each}/kernel").T for each in qkv]),
        "self_attn.in_proj_bias": torch.cat([of(f"attention/{each}/bias") for each in qkv]),
    }
    names = {"self_attn.out_proj": "attention/out", "linear1": "up", "linear2": "down"}
    for theirs, ours in names.items():
        own |= {f"{theirs}.weight": of(f"{ours}/kernel").T, f"{theirs}.bias": of(f"{ours}/bias")}
    for norm in ("norm1", "norm2"):
        own |= {f"{norm}.weight": of(f"{norm}/scale"), f"{norm}.bias": of(f"{norm}/bias")}
    x = torch.func.functional_call(module, own, (x + torch.tensor(table),), {"src_key_padding_mask": ~mask})
    return torch.nn.functional.layer_norm(x, (WIDTH,), leaves["norm/scale"], leaves["norm/bias"])


@pytest.mark.parametrize("kind", NETS)
def test_agrees_with_pytorch(kind):
    want = witness(f"models/recognizer_{kind}", lambda: by_torch(kind))
    net, spoiled = NETS[kind], SOUND.astype(np.float64)
    for row, length in zip(spoiled, LENGTHS, strict=True):
        row[length:] = np.nan
    with jax.enable_x64(True):

        def run(params, sound):
            targets = jn.Padded(jnp.asarray(LABELS), jnp.asarray(COUNTS))
            logits, _ = net.apply(params, {}, jn.Padded(sound, jnp.asarray(LENGTHS)))
            losses = jn.losses.ctc(logits, targets)
            return losses.sum(), losses

        gradients, losses = once(jax.grad(run, has_aux=True), drawn(net), jnp.asarray(spoiled))
    got = {"losses": losses, **jn.paths.paths(gradients)}
    assert set(got) == set(want)
    for name, leaf in got.items():
        # The gradient of the keys' bias is 0 but for rounding: it adds the same to all scores.
        scale = max(0.01, np.abs(want[name]).max())
        np.testing.assert_allclose(leaf, want[name], rtol=0, atol=1e-6 * scale, err_msg=name)


def test_mistakes_are_told():
    with pytest.raises(jn.NetError, match="conv_gru expects at least 2 classes, a label and the blank, got 1"):
        conv_gru(1)
    with pytest.raises(jn.NetError, match="expects stack ≥ 1, got 0"):
        conv_transformer(4, stack=0)
    with pytest.raises(jn.NetError, match=r"join1: joined_steps\(2\) expects \(batch, time, features\), got \(3, 9\)"):
        conv_gru(4).init(jax.random.key(0), jnp.zeros((3, 9)))


def test_labels_that_do_not_fit_have_the_documented_loss():
    x = jn.Padded(jnp.asarray(SOUND), jnp.asarray(LENGTHS))
    logits = jax.eval_shape(
        lambda key: NETS["gru"].init_with_output(key, x)[2], jax.eval_shape(lambda: jax.random.key(0))
    )
    assert logits.values.shape == (3, 5, CLASSES)
    losses = jn.losses.ctc(jn.Padded(jnp.zeros((3, 5, CLASSES)), jnp.array([5, 3, 2])), jnp.array([[1, 2, 2]] * 3))
    np.testing.assert_array_equal(losses > 1e29, [False, True, True])
