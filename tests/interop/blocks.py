"""Attention and blocks of transformers, and their counterparts in `torch.nn`."""

from functools import partial
from typing import Any

import jax

import jaxnets as jn
from tests.interop.counterparts import SEQUENCES, Counterpart
from tests.oracle import floats

EIGHT, MEMORY, NARROW = floats(2, 5, 8), floats(2, 4, 8, seed=1), floats(2, 4, 6)
EXACT_GELU = partial(jax.nn.gelu, approximate=False)


def read_itself(module: Any, x: Any) -> Any:
    return module(x, x, x)[0]


def read_memory(module: Any, pair: Any) -> Any:
    return module(pair[0], pair[1], pair[1])[0]


def decode(module: Any, pair: Any) -> Any:
    import torch

    later = torch.triu(torch.ones(2 * pair[0].shape[1:2], dtype=torch.bool), 1)
    return module(*pair, tgt_mask=later)


def encoder_layer(nn: Any, *, first: bool, activation: str = "relu") -> Any:
    return nn.TransformerEncoderLayer(8, 2, 12, 0.0, activation, batch_first=True, norm_first=first)


def decoder_layer(nn: Any) -> Any:
    return nn.TransformerDecoderLayer(8, 2, 12, 0.0, batch_first=True)


def our_layer(*, first: bool, activation: Any = jax.nn.relu) -> jn.Net:
    return jn.encoder_block(8, 2, hidden=12, norm_first=first, activation=activation)


def our_decoder_layer() -> jn.Net:
    return jn.decoder_block(8, 2, hidden=12, norm_first=False, activation=jax.nn.relu)


ALL = [
    Counterpart(
        "attention",
        lambda: jn.attention(8, 2),
        lambda nn: nn.MultiheadAttention(8, 2, batch_first=True),
        EIGHT,
        call=read_itself,
    ),
    Counterpart(
        "attention_no_bias",
        lambda: jn.attention(8, 4, use_bias=False),
        lambda nn: nn.MultiheadAttention(8, 4, bias=False, batch_first=True),
        EIGHT,
        call=read_itself,
    ),
    Counterpart(
        "attention_cross",
        lambda: jn.attention(8, 2, cross=True),
        lambda nn: nn.MultiheadAttention(8, 2, batch_first=True),
        (EIGHT, MEMORY),
        call=read_memory,
    ),
    Counterpart(  # three tensors: the widths differ
        "attention_cross_narrow",
        lambda: jn.attention(8, 2, cross=True),
        lambda nn: nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True),
        (EIGHT, NARROW),
        call=read_memory,
    ),
    Counterpart(
        "encoder_block_first",
        lambda: our_layer(first=True, activation=EXACT_GELU),
        lambda nn: encoder_layer(nn, first=True, activation="gelu"),
        EIGHT,
    ),
    Counterpart("encoder_block_last", lambda: our_layer(first=False), lambda nn: encoder_layer(nn, first=False), EIGHT),
    Counterpart("decoder_block", our_decoder_layer, decoder_layer, (EIGHT, MEMORY), call=decode),
    Counterpart(
        "encoder_stack",
        lambda: jn.serial(layers=jn.serial(*[our_layer(first=True)] * 2), norm=jn.layer_norm()),
        lambda nn: nn.TransformerEncoder(encoder_layer(nn, first=True), 2, nn.LayerNorm(8), enable_nested_tensor=False),
        EIGHT,
    ),
    Counterpart(
        "encoder_repeat",
        lambda: jn.serial(layers=jn.repeat(our_layer(first=False), 3)),
        lambda nn: nn.TransformerEncoder(encoder_layer(nn, first=False), 3, enable_nested_tensor=False),
        EIGHT,
    ),
    Counterpart(
        "decoder_repeat",
        lambda: jn.serial(layers=jn.remat(jn.repeat(our_decoder_layer(), 2))),
        lambda nn: nn.TransformerDecoder(decoder_layer(nn), 2),
        (EIGHT, MEMORY),
        call=decode,
    ),
    Counterpart(  # names of one's own around a block, and a place in a row
        "block_inside",
        lambda: jn.serial(jn.dense(8), jn.repeat(our_layer(first=True), 2), jn.dense(3)),
        lambda nn: nn.Sequential(nn.Linear(3, 8), *(encoder_layer(nn, first=True) for _ in range(2)), nn.Linear(8, 3)),
        SEQUENCES,
    ),
]
