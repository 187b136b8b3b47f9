"""Published transformers of Hugging Face: their outputs and gradients, every tensor once, and nothing lost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.interop import from_torch, to_torch
from jaxnets.models.vit import first_step
from tests.interop.blocks import EXACT_GELU
from tests.interop.test_torch import equal, tensor
from tests.once import once
from tests.oracle import floats, integers, witness
from tests.peers import TRANSFORMERS, transformers

TOKENS, TYPES = integers(2, 5, high=11), integers(2, 5, high=2, seed=1)
NORM = partial(jn.layer_norm, epsilon=1e-12)


def stack(block: jn.Net, scan: bool) -> jn.Net:
    return jn.repeat(block, 2) if scan else jn.serial(block, block)


def gpt2(scan: bool = False, **options: Any) -> jn.Net:
    """Return GPT-2 up to the product with the embedding."""
    block = jn.encoder_block(8, **{"heads": 2, "causal": True, **options})
    return jn.serial(wte=jn.embed(11, 8), wpe=jn.learned_positions(7), h=stack(block, scan), ln_f=jn.layer_norm())


def llama(scan: bool = False, *, tied: bool = False, **options: Any) -> jn.Net:
    given = {"heads": 4, "kv_heads": 2, "causal": True, "positions": "rotary", "period": 500.0, "norm": jn.rms_norm}
    layers: dict[str, Any] = {"hidden": 12, "gated": True, "activation": jax.nn.silu, "use_bias": False}
    block = jn.encoder_block(8, **given | layers | options)
    head = {} if tied else {"lm_head": jn.dense(11, use_bias=False)}
    return jn.serial(embed_tokens=jn.embed(11, 8), layers=stack(block, scan), norm=jn.rms_norm(), **head)


def bert(scan: bool = False, *, heads: Mapping[str, Any], **options: Any) -> jn.Net:
    """Return BERT for a pair of tokens and their types."""
    embeddings = jn.graph(
        tokens=(lambda pair: pair[0], "input"),
        types=(lambda pair: pair[1], "input"),
        word_embeddings=(jn.embed(11, 8), "tokens"),
        position_embeddings=jn.learned_positions(9),
        token_type_embeddings=(jn.embed(2, 8), "types"),
        sum=(sum, "position_embeddings", "token_type_embeddings"),
        norm=NORM(),
    )
    given: dict[str, Any] = {"heads": 2, "hidden": 12, "norm_first": False, "norm": NORM, "activation": EXACT_GELU}
    return jn.serial(embeddings=embeddings, encoder=stack(jn.encoder_block(8, **given | options), scan), **heads)


POOLED = {"first": first_step, "pooler": jn.dense(8), "tanh": jnp.tanh}
# Up to the product with the embedding, after which the test adds the bias.
BIAS = jn.layer(lambda key, x: {"bias": jnp.zeros(11)}, lambda params, x: x)
WORDS = {"transform": jn.dense(8), "gelu": EXACT_GELU, "norm": NORM(), "words": BIAS}


def theirs(model: str, **options: Any) -> Any:
    """Return a small model of theirs, with the settings of ours."""
    tokens = {"vocab_size": 11, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    shape = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2}
    rotary = {"num_attention_heads": 4, "num_key_value_heads": 2, "rope_theta": 500.0, **shape}
    settings = {
        "GPT2": {"n_positions": 7, "n_embd": 8, "n_layer": 2, "n_head": 2},
        "Llama": rotary,
        "Mistral": {"sliding_window": 3, **rotary},
        "Bert": {"num_attention_heads": 2, "max_position_embeddings": 9, **shape},
    }
    package, family = transformers(), next(family for family in settings if model.startswith(family))
    return getattr(package, model)(getattr(package, f"{family}Config")(**tokens, **settings[family], **options)).eval()


@dataclass(frozen=True)
class Peer:
    """A network here and one of transformers.

    Attributes:
        model: the name of theirs, and that of the oracle.
        ours: makes the network, with `scan` or without.
        scores: what is compared, from our parameters and the network's output.
        outputs: the same from theirs.
        options: of theirs.
    """

    model: str
    ours: Callable[..., jn.Net]
    scores: Callable[[Any, Any], Any] = lambda params, y: y
    outputs: Callable[[Any], Any] = lambda found: found.logits
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return "_".join([self.model, *(name for name, _ in self.options)])

    @property
    def x(self) -> Any:
        return (TOKENS, TYPES) if self.model.startswith("Bert") else TOKENS

    def start(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return tensors, and what they make of them: outputs and gradients of a weighted sum of these."""

        def ask() -> dict[str, np.ndarray]:
            import torch

            model = theirs(self.model, **dict(self.options))
            shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
            model.load_state_dict({name: torch.tensor(value) for name, value in drawn(shapes).items()})
            x = [torch.tensor(each).long() for each in (TOKENS, TYPES)]
            y = self.outputs(model(x[0], token_type_ids=x[1]) if isinstance(self.x, tuple) else model(x[0]))
            (y * torch.tensor(floats(*y.shape))).sum().backward()
            found = {f"gradient {name}": leaf.grad.numpy() for name, leaf in model.named_parameters()}
            return {f"shape {name}": np.array(shape, int) for name, shape in shapes.items()} | found | {"y": y.detach()}

        said = witness(f"interop/{self}", ask, installed=TRANSFORMERS)
        shapes = {name.removeprefix("shape "): tuple(shape) for name, shape in said.items() if name[:6] == "shape "}
        return drawn(shapes), said


COPIES = {
    "lm_head.weight": ("transformer.wte.weight", "model.embed_tokens.weight"),
    "cls.predictions.decoder.weight": ("bert.embeddings.word_embeddings.weight",),
    "cls.predictions.decoder.bias": ("cls.predictions.bias",),
}


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return a tensor of each shape; those that a model may tie are equal."""
    found = {name: tensor(name, shape) for name, shape in shapes.items()}
    return found | {
        copy: found[name] for copy, names in COPIES.items() for name in names if {copy, name} <= found.keys()
    }


def embedded(path: str) -> Callable[[Any, Any], Any]:
    return lambda params, y: y @ jn.paths.paths(params)[path].T


def masked(params: Any, y: Any) -> Any:
    return embedded("embeddings/word_embeddings/embedding")(params, y) + params["words"]["bias"][None, None]


def spans(found: Any) -> Any:
    import torch

    return torch.stack([found.start_logits, found.end_logits], -1)


PEERS = [
    Peer("GPT2LMHeadModel", gpt2, embedded("wte/embedding")),
    Peer("LlamaForCausalLM", llama),
    Peer(
        "LlamaForCausalLM",
        partial(llama, tied=True),
        embedded("embed_tokens/embedding"),
        options=(("tie_word_embeddings", True),),
    ),
    Peer("MistralForCausalLM", partial(llama, window=3)),
    Peer("BertModel", partial(bert, heads=POOLED), outputs=lambda found: found.pooler_output),
    Peer("BertForMaskedLM", partial(bert, heads=WORDS), masked),
    Peer("BertForSequenceClassification", partial(bert, heads=POOLED | {"classifier": jn.dense(2)})),
    Peer("BertForQuestionAnswering", partial(bert, heads={"qa_outputs": jn.dense(2)}), outputs=spans),
]
BY_NAME = {str(peer): peer for peer in PEERS}
each_peer = pytest.mark.parametrize("peer", PEERS, ids=str)


@each_peer
def test_outputs_and_gradients_are_those_of_transformers_and_nothing_is_lost(peer: Peer):
    net, x = peer.ours(), peer.x
    tensors, said = peer.start()
    params, state = from_torch(net, tensors, x)

    def loss(params: Any) -> tuple[jax.Array, jax.Array]:
        y = peer.scores(params, net.apply(params, state, x)[0])
        return (y * floats(*y.shape)).sum(), y

    gradients, y = once(jax.grad(loss, has_aux=True), params)
    np.testing.assert_allclose(y, said["y"], rtol=0, atol=1e-5 * np.ptp(said["y"]))
    ours = to_torch(net, gradients, state, x)
    for name in (name.removeprefix("gradient ") for name in said if name.startswith("gradient ")):
        want = said[f"gradient {name}"]
        atol = 1e-5 * max(1, np.abs(want).max())
        np.testing.assert_allclose(ours[name], want, rtol=0, atol=atol, err_msg=name)
    equal(to_torch(net, params, state, x), tensors)


@each_peer
def test_copies_in_one_loop_have_the_same_tensors(peer: Peer):
    net, tensors = peer.ours(scan=True), peer.start()[0]
    params, state = from_torch(net, tensors, peer.x)
    equal(jn.to_unstacked(net, params), from_torch(peer.ours(), tensors, peer.x)[0])
    equal(to_torch(net, params, state, peer.x), tensors)


OLDER = {
    "GPT2LMHeadModel": ("transformer.", {"h.0.attn.bias": (1, 1, 7, 7), "h.1.attn.masked_bias": ()}, {}),
    "LlamaForCausalLM": ("model.", {"model.layers.0.self_attn.rotary_emb.inv_freq": (1,)}, {}),
    "BertModel": (
        "bert.",
        {"bert.embeddings.position_ids": (1, 9)},
        {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"},
    ),
}


@pytest.mark.parametrize("name", OLDER)
def test_files_without_the_prefix_and_older_files_are_read(name: str):
    prefix, buffers, older = OLDER[name]
    peer = BY_NAME[name]
    net, tensors = peer.ours(), peer.start()[0]
    want = from_torch(net, tensors, peer.x)
    bare = {each.removeprefix(prefix): value for each, value in tensors.items()}
    with_prefix = {each if each.startswith(("lm_head", prefix)) else prefix + each: v for each, v in bare.items()}
    for given in (bare, with_prefix):
        equal(from_torch(net, given, peer.x), want)
    for old, new in older.items():
        with_prefix = {each.replace(old, new): value for each, value in with_prefix.items()}
    if name == "GPT2LMHeadModel":
        with_prefix = {each: value for each, value in bare.items() if each != "lm_head.weight"}
    equal(from_torch(net, with_prefix | {each: np.zeros(shape) for each, shape in buffers.items()}, peer.x), want)


def test_an_output_of_its_own_is_not_dropped_in_silence():
    peer = BY_NAME["GPT2LMHeadModel"]
    tensors = peer.start()[0]
    tensors["lm_head.weight"] = tensors["lm_head.weight"] + 1
    message = r"expects lm_head\.weight equal to transformer\.wte\.weight, as the network has one for both; give the "
    with pytest.raises(jn.NetError, match=message):
        from_torch(peer.ours(), tensors, peer.x)
    own = jn.serial(**peer.ours().children, lm_head=jn.dense(11, use_bias=False))
    params, state = from_torch(own, tensors, peer.x)
    np.testing.assert_array_equal(params["lm_head"]["kernel"], tensors["lm_head.weight"].T)
    equal(to_torch(own, params, state, peer.x), tensors)


def test_mistakes_are_told_in_the_names_of_the_source():
    peer = BY_NAME["GPT2LMHeadModel"]
    tensors = peer.start()[0]
    tensors["transformer.h.1.attn.c_attn.weight"] = np.zeros((24, 8), np.float32)
    del tensors["transformer.h.0.mlp.c_fc.bias"]
    tensors["score.weight"] = np.zeros((2, 8), np.float32)
    message = (
        r"missing transformer\.h\.0\.mlp\.c_fc\.bias; unexpected score\.weight; "
        r"misshapen transformer\.h\.1\.attn\.c_attn\.weight \(24, 8\) for \(8, 24\); pass the weights"
    )
    with pytest.raises(jn.NetError, match=message):
        from_torch(peer.ours(), tensors, peer.x)


def test_blocks_in_a_network_of_ones_own_have_the_names_asked_for():
    net, x = jn.serial(blocks=llama()["layers"], head=jn.dense(3)), floats(2, 5, 8)
    params, state = net.init(jax.random.key(0), x)
    tensors = to_torch(net, params, state, x, names="llama")
    assert list(tensors)[:3] == [
        "blocks.0.input_layernorm.weight",
        "blocks.0.self_attn.q_proj.weight",
        "blocks.0.self_attn.k_proj.weight",
    ]
    assert "head.weight" in tensors
    equal(from_torch(net, tensors, x), (params, state))
    with pytest.raises(jn.NetError, match=r"blocks/0: encoder_block\(8, .* has no counterpart in names='bert'"):
        to_torch(net, params, state, x, names="bert")


def test_two_tensors_of_one_name_are_refused():
    net = jn.serial(**gpt2().children, drop=jn.dense(8), dropout=jn.dense(8))
    params, state = net.init(jax.random.key(0), TOKENS)
    with pytest.raises(jn.NetError, match=r"'gpt2' has two tensors of the name 'drop\.weight'; rename a child"):
        to_torch(net, params, state, TOKENS)
    equal(from_torch(net, to_torch(net, params, state, TOKENS, names="torch"), TOKENS), (params, state))
