"""Transformers. Parameters are those of torchvision, timm and Hugging Face; multiply-adds follow from the products."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets import models
from tests.models.row import Row, image


def products(tokens: int, features: int, blocks: int, patch: int) -> int:
    """Return the multiply-adds on an image of three channels: patches, 12 t f² + 2 t² f for each block, the output."""
    within = 12 * tokens * features**2 + 2 * tokens**2 * features
    return (tokens - 1) * patch**2 * 3 * features + blocks * within + features * 1000


def blocks(tokens: int, features: int, count: int, *, kv: float = 1.0, hidden: int = 0, gated: bool = False) -> int:
    """Return the multiply-adds of some blocks; `kv` is the share of heads that keys and values have."""
    projections = (2 + 2 * kv) * features**2
    return int(count * tokens * (projections + (2 + gated) * features * hidden + 2 * tokens * features))


def text(*tokens: int) -> Any:
    """Return the spec of one text, or of a pair of them."""
    first, *others = (jax.ShapeDtypeStruct((1, each), jnp.int32) for each in tokens)
    return (first, *others) if others else first


def gpt2(tokens: int, features: int, count: int) -> int:
    """Return GPT-2's multiply-adds."""
    return blocks(tokens, features, count, hidden=4 * features) + tokens * features * 50257


BERT = blocks(128, 768, 12, hidden=4 * 768)
LLAMA = blocks(64, 2048, 22, kv=1 / 8, hidden=5632, gated=True) + 64 * 2048 * 32000
# Its decoder also reads the source: queries and results of 9 tokens, keys and values of 7, 2 · 9 · 7 products.
BASE = (
    blocks(7, 512, 6, hidden=2048)
    + blocks(9, 512, 6, hidden=2048)
    + 6 * (2 * (9 + 7) * 512**2 + 2 * 9 * 7 * 512)
    + 9 * 512 * 37000
)

ROWS = [
    Row("vit_b_16", models.vit_b_16, image(), 86_567_656, products(197, 768, 12, 16)),
    Row("vit_b_16_scan", partial(models.vit_b_16, scan=True), image(), 86_567_656, products(197, 768, 12, 16)),
    Row("vit_b_32", models.vit_b_32, image(), 88_224_232, products(50, 768, 12, 32)),
    Row("vit_l_16", models.vit_l_16, image(), 304_326_632, products(197, 1024, 24, 16)),
    Row("deit_tiny", models.deit_tiny, image(), 5_717_416, products(197, 192, 12, 16)),
    Row("gpt2", models.gpt2, text(128), 124_439_808, gpt2(128, 768, 12)),
    Row("gpt2_scan", partial(models.gpt2, scan=True), text(128), 124_439_808, gpt2(128, 768, 12)),
    Row("gpt2_medium", partial(models.gpt2, "medium"), text(128), 354_823_168, gpt2(128, 1024, 24)),
    Row("gpt2_large", partial(models.gpt2, "large"), text(128), 774_030_080, gpt2(128, 1280, 36)),
    Row("gpt2_xl", partial(models.gpt2, "xl", scan=True), text(128), 1_557_611_200, gpt2(128, 1600, 48)),
    Row("tiny_llama", partial(models.llama, 32000, 2048, 22, 32, kv_heads=4), text(64), 1_100_048_384, LLAMA),
    Row("bert", models.bert, text(128), 108_891_648, BERT),
    Row("bert_pooled", partial(models.bert, "base", "pooled"), text(128), 109_482_240, BERT + 768**2),
    Row(
        "bert_classes",
        partial(models.bert, "base", "classes", num_classes=2),
        text(128, 128),
        109_483_778,
        BERT + 768**2 + 2 * 768,
    ),
    Row("bert_span", partial(models.bert, "base", "span"), text(128), 108_893_186, BERT + 128 * 768 * 2),
    Row(
        "bert_words",
        partial(models.bert, "base", "words"),
        text(128),
        109_514_298,
        BERT + 128 * 768 * (768 + 30522),
    ),
    Row("transformer_base", partial(models.transformer, 37_000), text(7, 9), 63_082_496, BASE),
]
