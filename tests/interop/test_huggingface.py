"""Folders of Hugging Face: their models' outputs and gradients, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jaxnets as jn
from jaxnets.interop import from_huggingface
from tests.interop.alike import close, our_loss
from tests.interop.test_torch import tensor
from tests.oracle import floats, integers, witness
from tests.peers import TRANSFORMERS, transformers

# Not the token 0, whose row gets no gradient where it stands for padding.
TOKENS, IMAGES = integers(2, 5, low=1, high=11), floats(2, 12, 10, 3)
_GPT2 = {"n_embd": 8, "n_layer": 2, "n_head": 2, "vocab_size": 11, "n_positions": 7}
_BERT = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_BERT |= {"vocab_size": 11, "max_position_embeddings": 9}
_VIT = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
_VIT |= {"image_size": 8, "patch_size": 4, "num_labels": 3}
_SIZES = {"hidden_sizes": [4, 8], "depths": [1, 2], "num_labels": 3}
CASES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "gpt2": ("GPT2LMHeadModel", _GPT2, TOKENS),
    "gpt2 bare": ("GPT2Model", _GPT2, TOKENS),
    "bert": ("BertModel", _BERT, TOKENS),
    "bert classes": ("BertForSequenceClassification", _BERT | {"num_labels": 3}, TOKENS),
    "bert span": ("BertForQuestionAnswering", _BERT, TOKENS),
    "bert words": ("BertForMaskedLM", _BERT, TOKENS),
    "vit": ("ViTForImageClassification", _VIT, floats(2, 8, 8, 3)),
    "resnet": ("ResNetForImageClassification", {**_SIZES, "embedding_size": 4, "layer_type": "bottleneck"}, IMAGES),
    "resnet basic": (
        "ResNetForImageClassification",
        {**_SIZES, "embedding_size": 4, "layer_type": "basic", "downsample_in_first_stage": True},
        IMAGES,
    ),
    "convnext": ("ConvNextForImageClassification", _SIZES | {"num_stages": 2}, IMAGES),
}


def outputs(found: Any) -> Any:
    """Return what our network returns, from an output of theirs."""
    import torch

    if "start_logits" in found:
        return torch.stack([found.start_logits, found.end_logits], -1)
    return found.logits if "logits" in found else found.pooler_output


def answers(case: str, folder: Path) -> dict[str, np.ndarray]:
    """Return the config and the shapes that they write, and what a model of drawn weights gives."""
    name, sizes, x = CASES[case]

    def ask() -> dict[str, np.ndarray]:
        import torch

        package = transformers()
        model_class = getattr(package, name)
        model_class(model_class.config_class(**sizes)).save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        del config["transformers_version"]
        shapes = {path: each.shape for path, each in load_file(folder / "model.safetensors").items()}
        save_file({path: tensor(path, shape) for path, shape in shapes.items()}, folder / "model.safetensors", {"format": "pt"})
        model = model_class.from_pretrained(folder).eval()
        given = torch.tensor(np.moveaxis(x, -1, 1)) if x.ndim == 4 else torch.tensor(x).long()
        given = given.requires_grad_() if x.ndim == 4 else given
        found = model(given)
        # Without a head, the logits of the tied embedding.
        y = found.last_hidden_state @ model.wte.weight.T if name == "GPT2Model" else outputs(found)
        (y * torch.tensor(floats(*y.shape))).sum().backward()
        by_x = {"x": np.moveaxis(given.grad.numpy(), 1, -1)} if x.ndim == 4 else {}
        for parameter in model.parameters():
            parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        model.save_pretrained(folder)
        gradients = load_file(folder / "model.safetensors")
        text = np.frombuffer(json.dumps(config, sort_keys=True).encode(), np.uint8)
        return {"config": text, "y": y.detach().numpy(), **by_x} | {f"by {path}": each for path, each in gradients.items()}

    return witness(f"interop/huggingface/{case.replace(' ', '_')}", ask, installed=TRANSFORMERS)


def saved(case: str, folder: Path) -> dict[str, np.ndarray]:
    """Write the folder of a model of drawn weights, in two parts with an index; return the answers."""
    said = answers(case, folder)
    for file in folder.iterdir():
        file.unlink()
    (folder / "config.json").write_bytes(bytes(said["config"]))
    shapes = {path[3:]: each.shape for path, each in said.items() if path.startswith("by ")}
    write(folder, {path: tensor(path, shape) for path, shape in shapes.items()})
    return said


def write(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for part, own in parts.items():
        save_file({name: np.ascontiguousarray(tensors[name]) for name in own}, folder / part)
    index = {"weight_map": {name: part for part, own in parts.items() for name in own}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_those_of_transformers(case: str, tmp_path: Path):
    said, x = saved(case, tmp_path), CASES[case][2]
    found = from_huggingface(tmp_path)
    gradients, by_x, y = our_loss(found.net, found.params, found.state, x)
    close(y, {"y": said["y"]})
    if "x" in said:
        close(by_x, {"x": [said["x"]]})
    write(tmp_path, {path[3:]: each for path, each in said.items() if path.startswith("by ")})
    close(gradients, from_huggingface(tmp_path).params)
