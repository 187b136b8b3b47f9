"""Settings that weights of PyTorch do not show: where the module is given, a difference is an error that is right."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.interop import from_torch
from tests.interop import blocks, counterparts
from tests.interop.counterparts import MAPS, SEQUENCES, Counterpart
from tests.interop.refusal import refused
from tests.once import once
from tests.oracle import floats

torch = pytest.importorskip("torch")
WIDE = floats(2, 7, 6, 4)


def chain(*modules: Any) -> Any:
    return torch.nn.Sequential(*modules)


@pytest.mark.parametrize(
    "counterpart",
    [*counterparts.LAYERS, counterparts.COMPOSED[1], counterparts.RECURRENT[2], *blocks.ALL],
    ids=str,
)
def test_modules_with_the_same_settings_are_taken(counterpart: Counterpart):
    from_torch(counterpart.ours(), counterpart.theirs(torch.nn), counterpart.x)


TORCH = {
    "layer_norm": (
        jn.layer_norm(),
        jn.layer_norm(epsilon=1e-3),
        lambda: chain(torch.nn.LayerNorm(3, eps=1e-3)),
        1e-2 * SEQUENCES,
        "0: LayerNorm has epsilon=0.001, got 1e-05",
    ),
    "rms_norm": (
        jn.rms_norm(),
        jn.rms_norm(epsilon=2.0**-23),
        lambda: chain(torch.nn.RMSNorm(3)),
        1e-4 * SEQUENCES,
        "0: RMSNorm has epsilon=1.1920928955078125e-07, got 1e-06",
    ),
    "batch_norm": (
        jn.batch_norm(epsilon=1e-3),
        jn.batch_norm(decay=0.7),
        lambda: chain(torch.nn.BatchNorm2d(4, momentum=0.3)),
        1e-2 * MAPS,
        "0: BatchNorm2d has epsilon=1e-05, got 0.001, 0: BatchNorm2d has decay=0.7, got 0.9",
    ),
    "instance_norm": (
        jn.group_norm(2),
        jn.group_norm(4),
        lambda: chain(torch.nn.InstanceNorm2d(4, affine=True)),
        MAPS,
        "0: InstanceNorm2d has groups=4, got 2",
    ),
    "another norm": (
        jn.layer_norm(),
        jn.group_norm(2),
        lambda: chain(torch.nn.GroupNorm(2, 4)),
        MAPS,
        "0 is layer_norm, but the module is GroupNorm",
    ),
    "conv": (
        jn.conv(2, 2, stride=2, padding=1),
        jn.conv(2, 2, stride=(2, 1), dilation=2),
        lambda: chain(torch.nn.Conv2d(4, 2, 2, stride=(2, 1), dilation=2)),
        WIDE,
        "0: Conv2d has stride=(2, 1), got (2, 2), 0: Conv2d has padding=((0, 0), (0, 0)), got ((1, 1), (1, 1)), "
        "0: Conv2d has dilation=(2, 2), got (1, 1)",
    ),
    "same": (
        jn.conv(2, 3, padding=1, dilation=2),
        jn.conv(2, 3, padding="SAME", dilation=2),
        lambda: chain(torch.nn.Conv2d(4, 2, 3, padding="same", dilation=2)),
        WIDE,
        "0: Conv2d has padding=((2, 2), (2, 2)), got ((1, 1), (1, 1))",
    ),
    "conv_transpose": (
        jn.conv_transpose(2, 3, stride=2),
        jn.conv_transpose(2, 3, stride=2, padding=1, output_padding=1),
        lambda: chain(torch.nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1)),
        WIDE,
        "0: ConvTranspose2d has padding=((1, 0), (1, 0)), got ((0, 0), (0, 0))",
    ),
    "max_pool": (
        jn.max_pool(3, stride=2),
        jn.max_pool(3, stride=2, ceil_mode=True),
        lambda: chain(torch.nn.MaxPool2d(3, 2, ceil_mode=True)),
        WIDE,
        "0: MaxPool2d has ceil_mode=True, got False",
    ),
    "avg_pool": (
        jn.avg_pool(2, padding=1),
        jn.avg_pool(2, padding=1, count_include_pad=False),
        lambda: chain(torch.nn.AvgPool2d(2, padding=1, count_include_pad=False)),
        WIDE,
        "0: AvgPool2d has count_include_pad=False, got True",
    ),
    "gelu": (
        jax.nn.gelu,
        partial(jax.nn.gelu, approximate=False),
        lambda: chain(torch.nn.GELU()),
        SEQUENCES,
        "0: GELU has approximate=False, got True",
    ),
    "leaky_relu": (
        jax.nn.leaky_relu,
        partial(jax.nn.leaky_relu, negative_slope=0.2),
        lambda: chain(torch.nn.LeakyReLU(0.2)),
        SEQUENCES,
        "0: LeakyReLU has negative_slope=0.2, got 0.01",
    ),
    "activation": (
        jax.nn.relu,
        jnp.tanh,
        lambda: chain(torch.nn.Tanh()),
        SEQUENCES,
        "0 is relu, but the module is Tanh",
    ),
    "dropout": (
        jn.dropout(0.1),
        jn.dropout(0.5),
        lambda: chain(torch.nn.Dropout()),
        SEQUENCES,
        "0: Dropout has rate=0.5, got 0.1",
    ),
    "rnn": (
        jn.recurrent(jn.rnn_cell(4)),
        jn.recurrent(jn.rnn_cell(4, activation=jax.nn.relu)),
        lambda: torch.nn.ModuleList([torch.nn.RNN(3, 4, nonlinearity="relu", batch_first=True)]),
        SEQUENCES,
        "0: RNN has activation='relu', got 'tanh'",
    ),
    "heads": (
        jn.encoder_block(3, 1, hidden=4),
        jn.encoder_block(3, 3, hidden=4, activation=blocks.EXACT_GELU),
        lambda: chain(torch.nn.TransformerEncoderLayer(3, 3, 4, 0.0, "gelu", batch_first=True, norm_first=True)),
        SEQUENCES,
        "0/attention: MultiheadAttention has heads=3, got 1, 0/activation: gelu has approximate=False, got True",
    ),
    "norms": (
        jn.encoder_block(3, 1, hidden=4, activation=jnp.tanh),
        jn.encoder_block(
            3, 1, hidden=4, norm_first=False, norm=partial(jn.layer_norm, epsilon=1e-3), activation=jax.nn.relu
        ),
        lambda: chain(torch.nn.TransformerEncoderLayer(3, 1, 4, 0.0, layer_norm_eps=1e-3, batch_first=True)),
        1e-1 * SEQUENCES,
        "0: TransformerEncoderLayer has norm_first=False, got True, 0/norm1: LayerNorm has epsilon=0.001, got 1e-05, "
        "0/norm2: LayerNorm has epsilon=0.001, got 1e-05, 0/activation is tanh, but the module is relu",
    ),
    "lstm": (
        jn.recurrent(*[jn.lstm_cell(4)] * 2),
        jn.recurrent(*[jn.lstm_cell(4)] * 2, dropout=0.25),
        lambda: torch.nn.ModuleList([torch.nn.LSTM(3, 4, 2, dropout=0.25, batch_first=True)]),
        SEQUENCES,
        "0/0: LSTM has dropout=0.25, got 0.0, 0/1: LSTM has dropout=0.25, got 0.0",
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_what_the_message_says_makes_pytorchs_outputs(name: str):
    wrong, right, make, x, message = TORCH[name]
    theirs = make().eval()
    for leaf in theirs.state_dict().values():
        if leaf.is_floating_point():
            leaf += 0.1 * torch.arange(leaf.numel()).reshape(leaf.shape)
    refused(message, lambda: from_torch(jn.serial(wrong), theirs, x))
    from_torch(jn.serial(wrong), theirs.state_dict(), x)
    net = jn.serial(right)
    y, _ = once(net.apply, *from_torch(net, theirs, x), x)
    maps = x.ndim > 3
    out = (theirs[0] if len(theirs) == 1 else theirs)(torch.tensor(x).movedim(-1, 1) if maps else torch.tensor(x))
    out = (out[0] if isinstance(out, tuple) else out).detach()
    np.testing.assert_allclose(y, (out.movedim(1, -1) if maps else out).numpy(), rtol=1e-5, atol=1e-5)


def test_what_has_no_counterpart_is_refused_with_the_way_around():
    net, theirs = (
        jn.serial(jn.conv(2, 3, padding=1)),
        chain(torch.nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect")),
    )
    refused("0: Conv2d has padding_mode='reflect', which conv does not have", lambda: from_torch(net, theirs, MAPS))
    with pytest.raises(jn.NetError, match=r"or pass module\.state_dict\(\), which has no settings to compare$"):
        from_torch(net, theirs, MAPS)
    average = chain(torch.nn.BatchNorm2d(4, momentum=None))
    refused(
        "0: BatchNorm2d has decay='a mean of all batches', got 0.9",
        lambda: from_torch(jn.serial(jn.batch_norm()), average, MAPS),
    )


def test_attention_that_rotates_or_adds_keys_is_refused():
    x, plain = floats(1, 2, 4), torch.nn.MultiheadAttention(4, 2)
    refused(
        "it: MultiheadAttention has positions=None, got 'rotary'",
        lambda: from_torch(jn.attention(4, 2, positions="rotary"), plain, x),
    )
    refused(
        "it: MultiheadAttention has add_zero_attn=True, which attention does not have",
        lambda: from_torch(jn.attention(4, 2), torch.nn.MultiheadAttention(4, 2, add_zero_attn=True), x),
    )


def test_modules_are_found_through_wrappers_names_and_copies():
    theirs = torch.nn.Module()
    theirs.body = chain(
        torch.nn.Linear(4, 4), torch.nn.LayerNorm(4, 1e-3), torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)
    )
    block = jn.serial(fc=jn.dense(4), norm=jn.layer_norm())
    net = jn.serial(blocks=jn.remat(jn.repeat(jn.cast(block, jn.Policy(compute=jnp.float32)), 2)))
    rename = {f"body.{2 * k + n}": f"blocks.{k}.{name}" for k in (0, 1) for n, name in enumerate(("fc", "norm"))}
    for wrapped in (theirs, torch.nn.DataParallel(theirs)):
        refused(
            "blocks/norm: LayerNorm has epsilon=0.001, got 1e-05",
            lambda wrapped=wrapped: from_torch(net, wrapped, floats(1, 4), rename=rename),
        )


def test_a_traced_setting_is_taken_as_it_is():
    theirs = chain(torch.nn.BatchNorm1d(3))

    def load(decay: Any) -> Any:
        return from_torch(jn.serial(jn.batch_norm(decay=decay)), theirs, floats(2, 3))[0]

    assert set(jax.jit(load)(0.5)["0"]) == {"bias", "scale"}
    with pytest.raises(jn.NetError, match=r"decay=0\.9, got Array"):
        load(jnp.float32(0.5))
