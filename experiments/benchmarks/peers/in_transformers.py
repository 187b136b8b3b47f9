"""transformers of Hugging Face: `GPT2LMHeadModel.generate` on PyTorch, not compiled."""
# pyright: reportMissingImports=false

import sys
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmarks import architecture as a
from experiments.benchmarks.peers.in_pytorch import BIASES, DEVICE
from experiments.benchmarks.work import Contestant, Unsuited, Work

# Text needs no torchvision. It is hidden from transformers, as it can't be imported beside another build of PyTorch.
hidden = sys.modules.get("torchvision")
sys.modules["torchvision"] = None  # pyright: ignore
from transformers import GPT2Config, GPT2LMHeadModel  # noqa: E402

if hidden is None:
    del sys.modules["torchvision"]
else:
    sys.modules["torchvision"] = hidden


def network(layers: a.Layers) -> GPT2LMHeadModel:
    """Return the model, with random parameters."""
    (layer,) = layers
    if not isinstance(layer, a.Transformer):
        raise Unsuited("transformers takes part in language models alone")
    sizes: Any = {"vocab_size": layer.vocabulary, "n_positions": layer.length, "n_embd": layer.features}
    # No token ends a text.
    ends: Any = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    return GPT2LMHeadModel(GPT2Config(**sizes, n_layer=layer.blocks, n_head=layer.heads, **ends)).eval()


def decode(work: Work) -> Contestant:
    """Return the contestant."""
    # On the device of shapes alone attention shows the products that it is made of.
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        network(work.layers)(torch.zeros(work.x.shape, dtype=torch.long))
    net = network(work.layers)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return Contestant(work, lambda: write(net, work), parameters, counter.get_total_flops() // 2, BIASES)


def write(net: GPT2LMHeadModel, work: Work) -> torch.Tensor:
    """Return the tokens after the prompts."""
    prompts, count = torch.from_numpy(work.x).long().to(DEVICE), work.tokens
    found: Any = net.to(DEVICE).generate(  # pyright: ignore
        prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=False,
        use_cache=True,
        min_new_tokens=count,
        max_new_tokens=count,
    )
    return found[:, prompts.shape[1] :]
