"""Settings of published transformers that weights do not show: given the module, a difference is an error."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import pytest

import jaxnets as jn
from jaxnets.interop import from_torch
from jaxnets.models.vit import _vit
from tests.interop.blocks import EXACT_GELU
from tests.interop.refusal import refused
from tests.interop.test_published import POOLED, TOKENS, TYPES, bert, gpt2, llama, theirs
from tests.oracle import floats
from tests.peers import PEERS, TRANSFORMERS, timm_model, torchvision_models

if not (PEERS and TRANSFORMERS):
    pytest.skip("needs PyTorch, torchvision, timm and transformers", allow_module_level=True)

IMAGES, PAIR = floats(1, 16, 16, 3), (TOKENS, TYPES)
RATE = "Dropout has rate=0.0, got 0.5"
GPT2, LLAMA, MISTRAL = (partial(theirs, name) for name in ("GPT2LMHeadModel", "LlamaForCausalLM", "MistralForCausalLM"))


def torchvision_vit() -> Any:
    return torchvision_models().VisionTransformer(16, 4, 2, 3, 12, 48, 0.0, 0.0, 5)


def timm_vit() -> Any:
    size = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3, "num_classes": 5}
    return timm_model("vit_tiny_patch16_224", **size)


def vit(heads: int = 3, rate: float = 0.0) -> jn.Net:
    return _vit(4, 12, 2, heads, 5, 16, rate, True)


@pytest.mark.parametrize(
    ("net", "module", "x"),
    [
        (vit, torchvision_vit, IMAGES),
        (vit, timm_vit, IMAGES),
        (gpt2, GPT2, TOKENS),
        (partial(llama, scan=True), LLAMA, TOKENS),
        (partial(llama, window=3), MISTRAL, TOKENS),
        (partial(bert, heads=POOLED), partial(theirs, "BertModel"), PAIR),
    ],
    ids=["torchvision", "timm", "gpt2", "llama", "mistral", "bert"],
)
def test_modules_with_the_same_settings_are_taken(net: Callable[[], jn.Net], module: Callable[[], Any], x: Any):
    from_torch(net(), module(), x)


DIFFERENT: dict[str, tuple[Callable[[], jn.Net], Callable[[], Any], Any, str]] = {
    "torchvision": (
        partial(vit, 2, 0.5),
        torchvision_vit,
        IMAGES,
        f"encoder/dropout: {RATE}, encoder/layers/attention: MultiheadAttention has heads=3, got 2, "
        f"encoder/layers/dropout1: {RATE}, encoder/layers/dropout: {RATE}, encoder/layers/dropout2: {RATE}",
    ),
    "timm": (
        partial(vit, 2, 0.5),
        timm_vit,
        IMAGES,
        f"encoder/dropout: {RATE}, encoder/layers/attention: Attention has heads=3, got 2, "
        f"encoder/layers/dropout1: {RATE}, encoder/layers/dropout: {RATE}, encoder/layers/dropout2: {RATE}",
    ),
    "gpt2": (
        partial(gpt2, True, heads=4, causal=False, activation=EXACT_GELU, norm=partial(jn.layer_norm, epsilon=1e-6)),
        GPT2,
        TOKENS,
        "h/norm1: LayerNorm has epsilon=1e-05, got 1e-06, h/attention: GPT2Attention has heads=2, got 4, "
        "h/attention: GPT2Attention has causal=True, got False, h/norm2: LayerNorm has epsilon=1e-05, got 1e-06, "
        "h/activation: NewGELUActivation has approximate=True, got False",
    ),
    "llama": (
        partial(llama, True, period=10000.0, norm=partial(jn.rms_norm, epsilon=1e-3)),
        LLAMA,
        TOKENS,
        "layers/norm1: LlamaRMSNorm has epsilon=1e-06, got 0.001, "
        "layers/attention: LlamaAttention has period=500.0, got 10000.0, "
        "layers/norm2: LlamaRMSNorm has epsilon=1e-06, got 0.001",
    ),
    "mistral": (
        partial(llama, True),
        MISTRAL,
        TOKENS,
        "layers/attention: MistralAttention has window=3, got None",
    ),
    "bert": (
        partial(bert, True, heads=POOLED, activation=jax.nn.gelu, causal=True),
        partial(theirs, "BertModel"),
        PAIR,
        "encoder/attention: BertAttention has causal=False, got True, "
        "encoder/activation: GELUActivation has approximate=False, got True",
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_other_settings_are_listed(name: str):
    net, module, x, message = DIFFERENT[name]
    refused(message, lambda: from_torch(net(), module(), x))


def test_a_network_without_dropout_takes_modules_with_it():
    from_torch(jn.serial(**gpt2().children, dropout=jn.dropout(0.0)), GPT2(), TOKENS)
    net = jn.serial(**{"wte": gpt2()["wte"], "dropout": jn.dropout(0.3), **gpt2().children})
    refused("dropout: Dropout has rate=0.1, got 0.3", lambda: from_torch(net, GPT2(), TOKENS))


def test_a_rotation_without_a_counterpart_is_refused():
    rotation = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}
    refused(
        "layers/attention: LlamaAttention has rope_type='linear', which attention does not have",
        lambda: from_torch(llama(scan=True), LLAMA(rope_parameters=rotation), TOKENS),
    )
