"""The names that published transformers have for what is in ours, as tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Names = Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """How one source of weights names the tensors of a transformer.

    The keys of `parts`, `base` and `heads` are our names, of a tensor or the whole of what begins with it; of several
    keys that match, the longest counts. Several names in one key are one tensor there, concatenated along the outputs.
    Before a value that ends in "_" goes no dot: `in_proj_` becomes `in_proj_weight`.

    Attributes:
        parts: names inside attention and blocks, by kind of network. One that is missing has no counterpart.
        tree: the children of a whole model, by which it is recognized.
        base: names inside this model.
        heads: those of its heads.
        prefix: stands before the names of `base` in a model with a head, and before those of many files.
        transposed: whether the matrices of `parts` are (in, out), as in GPT-2.
        batched: their names of tensors that have a first axis of length 1.
        unfused: instead of a fused tensor's name, the names for inputs of unequal widths.
        tied: tensors that repeat another, each with that, and the tensor whose presence tells that a model has it; ""
            if it is that there is no head. Without the prefix.
        older: parts of names in older files, and what they are now.
        ignored: patterns of tensors that are not weights.
    """

    parts: Mapping[str, Names] = field(default_factory=dict)
    tree: tuple[str, ...] = ()
    base: Names = field(default_factory=dict)
    heads: Names = field(default_factory=dict)
    prefix: str = ""
    transposed: bool = False
    batched: tuple[str, ...] = ()
    unfused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tied: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    older: Names = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


_VIT = ("conv_proj", "class_token", "encoder", "heads")
_MULTIHEAD = {"query key value": "in_proj_", "out": "out_proj"}
_UNFUSED = {"in_proj_weight": ("q_proj_weight", "k_proj_weight", "v_proj_weight")}
_LAYER = {"attention": "self_attn", "norm1": "norm1", "norm2": "norm2", "up": "linear1", "down": "linear2"}

FAMILIES: Mapping[str, Family] = {
    "torch": Family(
        parts={
            "attention": _MULTIHEAD,
            "encoder_block": _LAYER,
            "decoder_block": {**_LAYER, "cross": "multihead_attn", "norm3": "norm3"},
        },
        unfused=_UNFUSED,
    ),
    "torchvision": Family(
        parts={
            "attention": _MULTIHEAD,
            "encoder_block": {
                "norm1": "ln_1",
                "attention": "self_attention",
                "dropout1": "dropout",
                "norm2": "ln_2",
                "up": "mlp.0",
                "activation": "mlp.1",
                "dropout": "mlp.2",
                "down": "mlp.3",
                "dropout2": "mlp.4",
            },
        },
        tree=_VIT,
        base={
            "class_token.token": "class_token",
            "encoder.pos_embedding.weight": "encoder.pos_embedding",
            "encoder.layers": "encoder.layers.encoder_layer_",
        },
        heads={"heads": "heads.head"},
        batched=("class_token", "encoder.pos_embedding"),
        unfused=_UNFUSED,
        older={"mlp.linear_1.": "mlp.0.", "mlp.linear_2.": "mlp.3."},
    ),
    "timm": Family(
        parts={
            "attention": {"query key value": "qkv", "out": "proj"},
            "encoder_block": {
                "norm1": "norm1",
                "attention": "attn",
                "dropout1": "attn.proj_drop",
                "norm2": "norm2",
                "up": "mlp.fc1",
                "activation": "mlp.act",
                "dropout": "mlp.drop1",
                "down": "mlp.fc2",
                "dropout2": "mlp.drop2",
            },
        },
        tree=_VIT,
        base={
            "conv_proj": "patch_embed.proj",
            "class_token.token": "cls_token",
            "encoder.pos_embedding.weight": "pos_embed",
            "encoder.dropout": "pos_drop",
            "encoder.layers": "blocks",
            "encoder.ln": "norm",
        },
        heads={"heads": "head"},
        batched=("cls_token", "pos_embed"),
    ),
    "vit": Family(
        parts={
            "attention": {
                "query": "attention.query",
                "key": "attention.key",
                "value": "attention.value",
                "out": "output.dense",
            },
            "encoder_block": {
                "norm1": "layernorm_before",
                "attention": "attention",
                "dropout1": "attention.output.dropout",
                "norm2": "layernorm_after",
                "up": "intermediate.dense",
                "activation": "intermediate.intermediate_act_fn",
                "down": "output.dense",
                "dropout2": "output.dropout",
            },
        },
        tree=_VIT,
        base={
            "conv_proj": "embeddings.patch_embeddings.projection",
            "class_token.token": "embeddings.cls_token",
            "encoder.pos_embedding.weight": "embeddings.position_embeddings",
            "encoder.dropout": "embeddings.dropout",
            "encoder.layers": "encoder.layer",
            "encoder.ln": "layernorm",
        },
        heads={"heads": "classifier"},
        prefix="vit.",
        batched=("embeddings.cls_token", "embeddings.position_embeddings"),
    ),
    "gpt2": Family(
        parts={
            "attention": {"query key value": "c_attn", "out": "c_proj"},
            "encoder_block": {
                "norm1": "ln_1",
                "attention": "attn",
                "dropout1": "attn.resid_dropout",
                "norm2": "ln_2",
                "up": "mlp.c_fc",
                "activation": "mlp.act",
                "down": "mlp.c_proj",
                "dropout2": "mlp.dropout",
            },
        },
        tree=("wte", "wpe", "h", "ln_f"),
        base={"wte": "wte", "wpe": "wpe", "dropout": "drop", "h": "h", "ln_f": "ln_f"},
        prefix="transformer.",
        transposed=True,
        tied={"lm_head.weight": ("wte.weight", "")},
        ignored=("**/attn/bias", "**/attn/masked_bias"),
    ),
    "llama": Family(
        parts={
            "attention": {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"},
            "encoder_block": {
                "norm1": "input_layernorm",
                "attention": "self_attn",
                "norm2": "post_attention_layernorm",
                "up.gate": "mlp.gate_proj",
                "up.up": "mlp.up_proj",
                "down": "mlp.down_proj",
            },
        },
        tree=("embed_tokens", "layers", "norm"),
        base={"embed_tokens": "embed_tokens", "layers": "layers", "norm": "norm"},
        prefix="model.",
        tied={"lm_head.weight": ("embed_tokens.weight", "")},
        ignored=("**/rotary_emb/inv_freq",),
    ),
    "bert": Family(
        parts={
            "attention": {"query": "self.query", "key": "self.key", "value": "self.value", "out": "output.dense"},
            "encoder_block": {
                "attention": "attention",
                "dropout1": "attention.output.dropout",
                "norm1": "attention.output.LayerNorm",
                "up": "intermediate.dense",
                "activation": "intermediate.intermediate_act_fn",
                "down": "output.dense",
                "dropout2": "output.dropout",
                "norm2": "output.LayerNorm",
            },
        },
        tree=("embeddings", "encoder"),
        base={
            "embeddings": "embeddings",
            "embeddings.norm": "embeddings.LayerNorm",
            "encoder": "encoder.layer",
            "pooler": "pooler.dense",
        },
        heads={
            "transform": "cls.predictions.transform.dense",
            "norm": "cls.predictions.transform.LayerNorm",
            "words.bias": "cls.predictions.bias",
        },
        prefix="bert.",
        tied={
            "cls.predictions.decoder.weight": ("embeddings.word_embeddings.weight", "cls.predictions.bias"),
            "cls.predictions.decoder.bias": ("cls.predictions.bias", "cls.predictions.bias"),
        },
        older={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
        ignored=("**/embeddings/position_ids",),
    ),
    "jaxnets": Family(),
}
"""By name. The last has one tensor for each of our layers, under its own path."""
