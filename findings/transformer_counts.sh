#!/usr/bin/env bash
# torchinfo 1.8.0, thop 0.1.1, fvcore 0.1.5, PyTorch 2.13.0's FlopCounterMode, Flax 0.12.8's `tabulate`: how they count
# a vision transformer (ViT-B/16, one image) and GPT-2 (small, 128 tokens) as `transformers` 5.24.0 builds them.
#
# A good guess: parameters agree with those of the published tables, 86,567,656 and 124,439,808, and multiply-adds with
# the sum over all matrix products, 17,563,828,224 and 16,114,089,984.
#
# What happens, in this order of counters:
#   torchinfo counts the tied table of GPT-2 twice, counts a ViT at a hundredth, and GPT-2 at ten times.
#   thop misses parameters that are not in a layer (class token, positions), knows no `Conv1D`, which holds most of
#   GPT-2, so it counts a third of both, and leaves out the products inside attention.
#   fvcore leaves out `scaled_dot_product_attention`, and says so; with attention written out it adds the norms.
#   FlopCounterMode is exact with attention written out, and for GPT-2; it misses the fused attention of the ViT on CPU.
#   Flax's `tabulate` gives FLOPs of the compiler's analysis, two for each multiply-add and some for the rest.
#
# Output seen: the numbers in WANTED below.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 torchinfo==1.8.0 \
    thop==0.1.1.post2209072238 fvcore==0.1.5.post20221221 jax==0.10.2 jaxlib==0.10.2 flax==0.12.8
JAX_PLATFORMS=cpu "$scratch/venv/bin/python" - <<'PYTHON'
import logging
import re
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import thop
import torch
import torchinfo
from fvcore.nn import FlopCountAnalysis
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTForImageClassification

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
IMAGE, TOKENS = torch.zeros(1, 3, 224, 224), torch.zeros(1, 128, dtype=torch.long)


class Logits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x, return_dict=False)[0]


def counts(model, x):
    info = torchinfo.summary(model, input_data=x, verbose=0)
    traced = FlopCountAnalysis(model, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with FlopCounterMode(display=False) as counter:
        model(x)
    products, parameters = thop.profile(model, (x,), verbose=False)
    return {
        "parameters": sum(leaf.numel() for leaf in model.parameters()),
        "torchinfo": (info.total_params, info.total_mult_adds),
        "thop": (int(parameters), int(products)),
        "fvcore": traced.total(),
        "FlopCounterMode": counter.get_total_flops() // 2,
    }


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, causal):
        y = nn.LayerNorm()(x)
        mask = nn.make_causal_mask(jnp.ones(x.shape[:2])) if causal else None
        x = x + nn.MultiHeadDotProductAttention(12)(y, y, mask=mask)
        return x + nn.Dense(768)(nn.gelu(nn.Dense(3072)(nn.LayerNorm()(x))))


class ViT(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(768, (16, 16), (16, 16), padding="VALID")(x).reshape(1, -1, 768)
        x = jnp.concatenate([self.param("token", nn.initializers.zeros, (1, 1, 768)), x], 1)
        x = x + self.param("positions", nn.initializers.zeros, (1, 197, 768))
        for _ in range(12):
            x = Block()(x, False)
        return nn.Dense(1000)(nn.LayerNorm()(x)[:, 0])


class GPT2(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        table = nn.Embed(50257, 768)
        x = table(tokens) + self.param("positions", nn.initializers.zeros, (1024, 768))[None, : tokens.shape[1]]
        for _ in range(12):
            x = Block()(x, True)
        return table.attend(nn.LayerNorm()(x))


def flax_flops(model, x):
    table = model.tabulate(jax.random.key(0), x, compute_flops=True, depth=0, console_kwargs={"width": 240})
    row = next(line for line in table.split("\n") if f" {type(model).__name__} " in line and "float32" in line)
    return max(int(number) for number in re.findall(r"\b\d{9,}\b", row))


WANTED = {
    ("ViT", "sdpa"): (86567656, (86567656, 201581032), (86415592, 16863630336), 16867412736, 16848500736),
    ("ViT", "eager"): (86567656, (86567656, 201581032), (86415592, 16863630336), 17582740224, 17563828224),
    ("GPT-2", "sdpa"): (124439808, (163037184, 163343662080), (38635776, 4950294528), 15824388096, 16114089984),
    ("GPT-2", "eager"): (124439808, (163037184, 163343662080), (38635776, 4950294528), 16126377984, 16114089984),
}
for (name, attention), wanted in WANTED.items():
    if name == "ViT":
        config = ViTConfig(num_labels=1000, attn_implementation=attention)
        model, x = ViTForImageClassification(config), IMAGE
    else:
        model, x = GPT2LMHeadModel(GPT2Config(use_cache=False, attn_implementation=attention)), TOKENS
    found = counts(Logits(model.eval()), x)
    print(name, attention, found)
    assert tuple(found.values()) == wanted, (found, wanted)
for model, x, wanted in ((ViT(), jnp.zeros((1, 224, 224, 3)), 35256733696), (GPT2(), jnp.zeros((1, 128), int), 32309850112)):
    found = flax_flops(model, x)
    print(type(model).__name__, "Flax", found)
    assert found == wanted, (found, wanted)
PYTHON
