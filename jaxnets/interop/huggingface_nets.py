"""Networks of Hugging Face's `config.json`, by architecture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.combinators.serial import residual, serial
from jaxnets.combinators.transformer import encoder_block
from jaxnets.core.errors import NetError
from jaxnets.core.net import Net
from jaxnets.layers import (
    batch_norm,
    class_token,
    dense,
    global_avg_pool,
    layer_norm,
    learned_positions,
    max_pool,
    patch_embed,
)
from jaxnets.layers import dropout as drop
from jaxnets.models import bert, gpt2
from jaxnets.models.blocks import basic, bottleneck, projection, stem
from jaxnets.models.convnext import _convnext
from jaxnets.models.images import of_images
from jaxnets.models.vit import first_step

Config = Mapping[str, Any]

GELU = partial(jax.nn.gelu, approximate=False)
# Settings that do not change the function.
_NEUTRAL = {
    *("_name_or_path", "architectures", "dtype", "finetuning_task", "gradient_checkpointing", "id2label", "label2id"),
    *("initializer_range", "initializer_factor", "layer_norm_eps", "model_type", "num_labels", "problem_type"),
    *("task_specific_params", "torch_dtype", "transformers_version", "transformers.js_config", "use_cache"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "n_ctx", "attn_implementation", "_attn_implementation"),
    *("out_features", "out_indices", "stage_names", "encoder_stride", "pooler_act", "pooler_output_size"),
    *("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type"),
    *("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj"),
    *("directionality", "image_size", "return_dict", "output_attentions", "output_hidden_states", "output_past"),
}


@dataclass(frozen=True)
class Model:
    """A network for a config.

    Attributes:
        net: the network.
        x: the spec of an input.
        rename: PyTorch's names in the source, and ours to use instead.
        expanded: the end of the names of tensors that are given two more axes, as torchvision's have.
    """

    net: Net
    x: Any
    rename: Mapping[str, str] = field(default_factory=dict)
    expanded: str = ""


def model_of(config: Config, dropout: Any) -> tuple[Model, list[str]]:
    """Return the network of a config, and the names of settings that are unknown here.

    Args:
        config: the contents of `config.json`.
        dropout: the rate, `None` for that of the config.

    Raises:
        NetError: for another architecture, or settings without a counterpart here.
    """
    names = config.get("architectures") or []
    name = str(names[0]) if isinstance(names, list) and len(names) == 1 else ""
    if name not in MODELS:
        raise NetError(f"expects one of the architectures {', '.join(MODELS)}, got {names}", label="config.json")
    build, fixed = MODELS[name]
    read = _Read(config)
    wrong = [
        f"{key}={read(key, value)!r} (expects {value!r})" for key, value in fixed.items() if read(key, value) != value
    ]
    if wrong:
        raise NetError(f"has settings without a counterpart here: {', '.join(wrong)}", label="config.json")
    model = build(read, name, dropout)
    return model, sorted(key for key in config if key not in _NEUTRAL and key not in read.asked)


class _Read:
    """The settings of a config, with a record of those that were asked for."""

    def __init__(self, config: Config) -> None:
        self.config, self.asked = config, set[str]()

    def __call__(self, name: str, *default: Any) -> Any:
        self.asked.add(name)
        if name not in self.config and not default:
            raise NetError(f"lacks {name!r}", label="config.json")
        return self.config.get(name, *default)

    def rate(self, given: Any, *names: str) -> Any:
        """Return the rate of dropout: `given`, or the only one of the config."""
        rates = {name: float(self(name, 0.0)) for name in names}
        if given is not None:
            return given
        if len({*rates.values()}) > 1:
            listed = ", ".join(f"{name}={rate}" for name, rate in rates.items())
            raise NetError(f"has several rates of dropout, {listed}; pass one for all, dropout=", label="config.json")
        return next(iter(rates.values()))

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self("id2label", {0: "", 1: ""})) if "num_labels" not in self.config else self("num_labels")


def _gpt2(read: _Read, name: str, dropout: Any) -> Model:
    features = read("n_embd")
    if read("n_inner", None) not in (None, 4 * features):
        raise NetError(f"has n_inner={read('n_inner')}, expects 4 · n_embd", label="config.json")
    net = gpt2(
        vocabulary=read("vocab_size"),
        length=read("n_positions"),
        layers=read("n_layer"),
        heads=read("n_head"),
        features=features,
        dropout=read.rate(dropout, "resid_pdrop", "embd_pdrop", "attn_pdrop"),
    )
    return Model(net, jax.ShapeDtypeStruct((1, 2), jnp.int32))


_HEADS = {
    "BertModel": "pooled",
    "BertForSequenceClassification": "classes",
    "BertForQuestionAnswering": "span",
    "BertForMaskedLM": "words",
}


def _bert(read: _Read, name: str, dropout: Any) -> Model:
    features, head = read("hidden_size"), _HEADS[name]
    if read("intermediate_size") != 4 * features:
        hint = "expects 4 · hidden_size"
        raise NetError(f"has intermediate_size={read('intermediate_size')}, {hint}", label="config.json")
    net = bert(
        head=head,  # type: ignore[arg-type]  # one of its heads
        num_classes=read.classes if head == "classes" else None,
        vocabulary=read("vocab_size"),
        types=read("type_vocab_size"),
        length=read("max_position_embeddings"),
        layers=read("num_hidden_layers"),
        heads=read("num_attention_heads"),
        features=features,
        dropout=read.rate(dropout, "hidden_dropout_prob", "attention_probs_dropout_prob"),
    )
    return Model(net, jax.ShapeDtypeStruct((1, 2), jnp.int32))


def _vit(read: _Read, name: str, dropout: Any) -> Model:
    features, size, patch = read("hidden_size"), read("image_size"), read("patch_size")
    if not isinstance(size, int) or not isinstance(patch, int) or size % patch:
        raise NetError(f"has image_size={size}, patch_size={patch}, expects a multiple", label="config.json")
    rate = read.rate(dropout, "hidden_dropout_prob", "attention_probs_dropout_prob")
    norm = partial(layer_norm, epsilon=read("layer_norm_eps"))
    block = encoder_block(
        features,
        read("num_attention_heads"),
        hidden=read("intermediate_size"),
        norm=norm,
        activation=GELU,
        dropout=rate,
    )
    encoder = serial(
        pos_embedding=learned_positions(1 + (size // patch) ** 2),
        dropout=drop(rate),
        layers=serial(*[block] * read("num_hidden_layers")),
        ln=norm(),
    )
    net = serial(
        conv_proj=patch_embed(features, patch),
        class_token=class_token(),
        encoder=encoder,
        token=first_step,
        heads=dense(read.classes),
    )
    return Model(of_images(net, name, image_size=size), _images(read, size))


def _resnet(read: _Read, name: str, dropout: Any) -> Model:
    widths, counts = read("hidden_sizes"), read("depths")
    deep = {"basic": False, "bottleneck": True}.get(read("layer_type"))
    if deep is None or len(widths) != len(counts):
        listed = f"layer_type={read('layer_type')!r}, hidden_sizes={widths}, depths={counts}"
        raise NetError(f"has {listed}, expects basic or bottleneck, and as many sizes as depths", label="config.json")
    early = read("downsample_in_bottleneck", False)
    before = read("embedding_size")
    stages, rename = {}, {}
    for stage, (width, count) in enumerate(zip(widths, counts)):
        blocks = []
        for place in range(count):
            stride = 2 if not place and (stage or read("downsample_in_first_stage", False)) else 1
            side = projection(width, stride) if before != width or stride > 1 else None
            body = bottleneck(width, stride, width=width // 4, early=early) if deep else basic(width, stride)
            blocks.append(residual(body, side, jax.nn.relu))
            before = width
            theirs, ours = f"resnet.encoder.stages.{stage}.layers.{place}", f"layer{stage + 1}.{place}"
            rename |= _renamed(f"{theirs}.shortcut", f"{ours}.downsample.0", f"{ours}.downsample.1") if side else {}
            for k in range(3 if deep else 2):
                rename |= _renamed(f"{theirs}.layer.{k}", f"{ours}.conv{k + 1}", f"{ours}.bn{k + 1}")
        stages[f"layer{stage + 1}"] = serial(*blocks)
    net = serial(
        conv1=stem(read("embedding_size"), 7, stride=2),
        bn1=batch_norm(),
        relu=jax.nn.relu,
        maxpool=max_pool(3, stride=2, padding=1),
        **stages,
        avgpool=global_avg_pool,
        fc=dense(read.classes),
    )
    rename |= _renamed("resnet.embedder.embedder", "conv1", "bn1") | {"classifier.1": "fc"}
    return Model(of_images(net, name), _images(read, 224), rename)


def _renamed(theirs: str, conv: str, norm: str) -> dict[str, str]:
    return {f"{theirs}.convolution": conv, f"{theirs}.normalization": norm}


def _of_convnext(read: _Read, name: str, dropout: Any) -> Model:
    widths, counts = read("hidden_sizes"), read("depths")
    scale = read("layer_scale_init_value")
    if len(widths) != len(counts) or read("num_stages", len(counts)) != len(counts) or not scale > 0:
        listed = f"num_stages={read('num_stages', None)}, hidden_sizes={widths}, depths={counts}"
        raise NetError(f"has {listed}, layer_scale_init_value={scale}", label="config.json")
    rate = read("drop_path_rate", 0.0) if dropout is None else dropout
    net = _convnext(widths, counts, read.classes, rate, scale, epsilon=read("layer_norm_eps"))
    rename = {
        "convnext.embeddings.patch_embeddings": "features.0.0",
        "convnext.embeddings.layernorm": "features.0.1",
        "convnext.layernorm": "classifier.0",
        "classifier": "classifier.2",
    }
    for stage, count in enumerate(counts):
        theirs = f"convnext.encoder.stages.{stage}"
        rename |= {f"{theirs}.downsampling_layer": f"features.{2 * stage}"} if stage else {}
        for place in range(count):
            block = f"features.{2 * stage + 1}.{place}"
            inside = {"dwconv": "0", "layernorm": "2", "pwconv1": "3", "pwconv2": "5"}
            rename |= {f"{theirs}.layers.{place}.{own}": f"{block}.block.{ours}" for own, ours in inside.items()}
            rename[f"{theirs}.layers.{place}.layer_scale_parameter"] = f"{block}.layer_scale"
    return Model(of_images(net, name), _images(read, 224), rename, "layer_scale_parameter")


def _images(read: _Read, size: int) -> Any:
    return jax.ShapeDtypeStruct((1, size, size, read("num_channels")), jnp.float32)


_BERT = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "classifier_dropout": None,
    "tie_word_embeddings": True,
}
_GPT2 = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "add_cross_attention": False,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "tie_word_embeddings": True,
}
Build = Callable[[_Read, str, Any], Model]
MODELS: Mapping[str, tuple[Build, Mapping[str, Any]]] = {
    "GPT2LMHeadModel": (_gpt2, _GPT2),
    "GPT2Model": (_gpt2, _GPT2),
    **dict.fromkeys(_HEADS, (_bert, _BERT)),
    "ViTForImageClassification": (_vit, {"hidden_act": "gelu", "qkv_bias": True}),
    "ResNetForImageClassification": (_resnet, {"hidden_act": "relu"}),
    "ConvNextForImageClassification": (_of_convnext, {"hidden_act": "gelu", "patch_size": 4}),
}
"""By architecture: what builds the network, and the values that settings must have."""
