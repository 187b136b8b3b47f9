"""Folders of Hugging Face: their models' outputs and gradients, and what is refused."""

import json
import re
import sys
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
        save_file(
            {path: tensor(path, shape) for path, shape in shapes.items()},
            folder / "model.safetensors",
            {"format": "pt"},
        )
        model = model_class.from_pretrained(folder).eval()
        given = torch.tensor(np.moveaxis(x, -1, 1)) if x.ndim == 4 else torch.tensor(x).long()
        given = given.requires_grad_() if x.ndim == 4 else given
        found = model(given)
        # Without a head, the logits of the tied embedding.
        y = found.last_hidden_state @ model.wte.weight.T if name == "GPT2Model" else outputs(found)
        (y * torch.tensor(floats(*y.shape))).sum().backward()
        by_x = {"x": np.moveaxis(given.grad.numpy(), 1, -1)} if given.grad is not None else {}
        for parameter in model.parameters():
            parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        model.save_pretrained(folder)
        gradients = load_file(folder / "model.safetensors")
        text = np.frombuffer(json.dumps(config, sort_keys=True).encode(), np.uint8)
        return {"config": text, "y": y.detach().numpy(), **by_x} | {
            f"by {path}": each for path, each in gradients.items()
        }

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


QUICK = ("gpt2 bare", "bert words", "vit")
EACH = [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]


@pytest.mark.parametrize("case", EACH)
def test_outputs_and_gradients_are_those_of_transformers(case: str, tmp_path: Path):
    said, x = saved(case, tmp_path), CASES[case][2]
    found = from_huggingface(tmp_path)
    gradients, by_x, y = our_loss(found.net, found.params, found.state, x)
    close(y, {"y": said["y"]})
    if "x" in said:
        close(by_x, {"x": [said["x"]]})
    write(tmp_path, {path[3:]: each for path, each in said.items() if path.startswith("by ")})
    close(gradients, from_huggingface(tmp_path).params)


def config(folder: Path, case: str, **changes: Any) -> None:
    """Write a config of the case with changes, and no weights."""
    name, sizes, _ = CASES[case]
    usual = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2, "num_channels": 3}
    (folder / "config.json").write_text(json.dumps({"architectures": [name], **usual, **sizes, **changes}))
    (folder / "model.safetensors").write_bytes(b"")


WRONG = {
    "another architecture": (
        "bert",
        {"architectures": ["T5Model"]},
        r"expects one of the architectures GPT2LMHeadModel, ",
    ),
    "no architecture": ("bert", {"architectures": None}, "got []"),
    "activation": ("bert", {"hidden_act": "relu"}, "hidden_act='relu' (expects 'gelu')"),
    "positions": ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
    "width": ("bert", {"intermediate_size": 12}, "has intermediate_size=12, expects 4 · hidden_size"),
    "rates": (
        "bert",
        {"hidden_dropout_prob": 0.1},
        "attention_probs_dropout_prob=0.0; pass one",
    ),
    "scaled": (
        "gpt2",
        {"scale_attn_by_inverse_layer_idx": True},
        "layer_idx=True (expects False)",
    ),
    "inner": ("gpt2", {"n_inner": 5}, "has n_inner=5, expects 4 · n_embd"),
    "patches": ("vit", {"patch_size": 3}, "has image_size=8, patch_size=3, expects a multiple"),
    "bias": ("vit", {"qkv_bias": False}, "qkv_bias=False (expects True)"),
    "blocks": ("resnet", {"layer_type": "x", "hidden_act": "relu"}, "has layer_type='x'"),
    "stages": ("convnext", {"num_stages": 3, "layer_scale_init_value": 1.0}, "has num_stages=3"),
    "scale": ("convnext", {"layer_scale_init_value": 0.0}, "layer_scale_init_value=0.0"),
}


@pytest.mark.parametrize("what", WRONG)
def test_settings_without_a_counterpart_are_named(what: str, tmp_path: Path):
    case, changes, message = WRONG[what]
    config(tmp_path, case, **changes)
    with pytest.raises(jn.NetError, match=re.escape(message)):
        from_huggingface(tmp_path)


def test_one_rate_stands_for_several_and_unknown_settings_are_named(tmp_path: Path):
    saved("bert words", tmp_path)
    given = json.loads((tmp_path / "config.json").read_text()) | {"hidden_dropout_prob": 0.2, "new": 1}
    (tmp_path / "config.json").write_text(json.dumps(given))
    with pytest.warns(UserWarning, match=r"ignores settings of config\.json: new$"):
        found = from_huggingface(tmp_path, dropout=0.3, dtype="bfloat16")
    assert found.net["embeddings/dropout"] == jn.dropout(0.3)
    assert found.params["transform"]["kernel"].dtype == jax.numpy.bfloat16


def test_what_else_a_folder_says(tmp_path: Path):
    saved("vit", tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    found = from_huggingface(str(tmp_path))
    assert found.classes == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert found.images == {"image_mean": [0.5, 0.5, 0.5]}
    assert (found.config["image_size"], found.folder) == (8, tmp_path)


def test_files_that_are_absent_or_broken_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no folder nowhere"):
        from_huggingface("nowhere")
    with pytest.raises(FileNotFoundError, match=r"no config\.json in"):
        from_huggingface(tmp_path)
    saved("vit", tmp_path)
    part = tmp_path / "model-2.safetensors"
    whole = part.read_bytes()
    part.write_bytes(whole[:-7])
    with pytest.raises(jn.NetError, match=r"expects a complete safetensors file, got .*model-2\.safetensors"):
        from_huggingface(tmp_path)
    part.unlink()
    with pytest.raises(jn.NetError, match=r"expects 'model-2\.safetensors' beside the index .* download all parts"):
        from_huggingface(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="save the model again by save_pretrained"):
        from_huggingface(tmp_path)
    for text, message in (("{", "expects JSON in"), ("[]", "expects settings by name in")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(jn.NetError, match=message):
            from_huggingface(tmp_path)


def test_weights_of_another_config_are_listed(tmp_path: Path):
    saved("vit", tmp_path)
    given = json.loads((tmp_path / "config.json").read_text()) | {"num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(given))
    with pytest.raises(jn.NetError, match=r"unexpected vit\.encoder\.layer\.1\.attention"):
        from_huggingface(tmp_path)


def test_a_repository_is_downloaded_without_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    class Hub:
        @staticmethod
        def snapshot_download(name: str, allow_patterns: list[str]) -> str:
            asked.append((name, allow_patterns))
            if name == "owner/absent":
                raise OSError("offline")
            return str(tmp_path)

    saved("vit", tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    assert from_huggingface("owner/name").config["image_size"] == 8
    assert asked == [("owner/name", ["*.json", "model*.safetensors", "vocab.txt", "merges.txt"])]
    with pytest.raises(jn.NetError, match="can't download 'owner/absent': OSError; pass the path of a folder"):
        from_huggingface("owner/absent")
