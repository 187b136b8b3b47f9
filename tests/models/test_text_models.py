"""Models of text against Hugging Face and PyTorch: logits, every gradient, and the text they write."""

import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.interop import to_torch
from tests.oracle import TORCH, floats, integers, variables, witness
from tests.peers import TRANSFORMERS, transformers

WORDS, STEPS = 13, 6
TOKENS, TYPES = integers(2, 7, high=WORDS), integers(2, 7, high=2, seed=1)
GPT2 = partial(jn.models.gpt2, vocabulary=WORDS, length=16, layers=2, heads=2, features=8)
LLAMA = partial(jn.models.llama, WORDS, 8, 2, 4, hidden=12, period=500.0)
BERT = partial(jn.models.bert, "base", vocabulary=WORDS, length=9, layers=2, heads=2, features=8)
NETS = {
    "gpt2": GPT2(),
    "llama": LLAMA(kv_heads=2),
    "llama_tied": LLAMA(tie_weights=True),
    "bert": BERT(),
    "bert_pooled": BERT("pooled"),
    "bert_classes": BERT("classes", num_classes=3),
    "bert_span": BERT("span"),
    "bert_words": BERT("words"),
}


def given(name):
    return (TOKENS, TYPES) if name.startswith("bert") else TOKENS


def theirs(name):
    tf: Any = transformers()
    kind = name.partition("_")[0]
    if kind == "gpt2":
        config = tf.GPT2Config(vocab_size=WORDS, n_positions=16, n_embd=8, n_layer=2, n_head=2, **quiet(GPT2_RATES))
        return tf.GPT2LMHeadModel(config)
    sizes = {"vocab_size": WORDS, "hidden_size": 8, "num_hidden_layers": 2}
    if kind == "llama":
        tied = name == "llama_tied"
        config = tf.LlamaConfig(
            **sizes, intermediate_size=12, num_attention_heads=4, num_key_value_heads=4 if tied else 2,
            rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 500.0},
            tie_word_embeddings=tied, **quiet(()),
        )  # fmt: skip
        return tf.LlamaForCausalLM(config)
    config = tf.BertConfig(
        **sizes, intermediate_size=32, num_attention_heads=2, max_position_embeddings=9, num_labels=3,
        **quiet(("hidden_dropout_prob", "attention_probs_dropout_prob")),
    )  # fmt: skip
    if name == "bert":
        return tf.BertModel(config, add_pooling_layer=False)
    if name == "bert_span":
        config.num_labels = 2
    makers = {"pooled": tf.BertModel, "classes": tf.BertForSequenceClassification}
    makers |= {"span": tf.BertForQuestionAnswering, "words": tf.BertForMaskedLM}
    return makers[name.removeprefix("bert_")](config)


GPT2_RATES = ("resid_pdrop", "embd_pdrop", "attn_pdrop")


def quiet(rates):
    """No dropout, and no special tokens that would end a text."""
    return {**dict.fromkeys(rates, 0.0), "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def by_transformers(name, params):
    import torch

    net, model = NETS[name], theirs(name)
    missing = model.load_state_dict(tensors(net, params, given(name)), strict=False).missing_keys
    assert all("lm_head" in key or "decoder" in key or "position_ids" in key for key in missing), missing
    model.train()  # without dropout, for the gradients
    tokens = torch.tensor(TOKENS).long()
    options = {"token_type_ids": torch.tensor(TYPES).long()} if name.startswith("bert") else {}
    out = model(tokens, **options)
    if name == "bert_span":
        y = torch.stack([out.start_logits, out.end_logits], -1)
    else:
        y = out.pooler_output if name == "bert_pooled" else out.last_hidden_state if name == "bert" else out.logits
    (y * torch.tensor(floats(*y.shape))).sum().backward()
    found = {"y": y.detach().numpy()}
    found |= {n: torch.as_tensor(leaf.grad).numpy() for n, leaf in model.named_parameters() if leaf.grad is not None}
    if not name.startswith("bert"):
        limits = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "pad_token_id": 0}
        text = model.eval().generate(tokens[:, :3], do_sample=False, **limits)
        found["text"] = text[:, 3:].numpy()
    return found


def tensors(net, params, x):
    import torch

    return {name: torch.tensor(array) for name, array in to_torch(net, params, {}, x).items()}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.slow_cases("bert", "bert_span", "llama_tied")
def test_outputs_gradients_and_text_are_those_of_transformers(name):
    net, x = NETS[name], given(name)
    params, _ = variables(net, x, scale=0.5)
    wanted = witness(f"models/{name}", lambda: by_transformers(name, params), installed=TRANSFORMERS)

    def loss(params):
        y, _ = net.apply(params, {}, x)
        return (y * floats(*y.shape)).sum(), y

    (_, y), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(y, wanted["y"], atol=1e-4 * float(wanted["y"].std()))
    found = to_torch(net, gradients, {}, x)
    compared = 0
    for key, value in wanted.items():
        if key in found:
            np.testing.assert_allclose(found[key], value, atol=1e-4 * max(1.0, float(np.abs(value).max())), err_msg=key)
            compared += 1
    assert compared >= len(jax.tree.leaves(params)) // 2  # projections may be fused
    if "text" in wanted:
        text = jn.decoding.sample(net, params, {}, TOKENS[:, :3], STEPS, temperature=0)
        np.testing.assert_array_equal(text, wanted["text"])


TRANSLATOR = jn.models.transformer(WORDS, WORDS, features=8, layers=2, heads=2, dropout=0.0, norm_first=True)
SOURCE = integers(2, 4, high=WORDS, seed=3)


def by_torch(params):
    import torch

    weights = tensors(TRANSLATOR, params, (SOURCE, TOKENS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that norms first rule out nested tensors
        model = torch.nn.Transformer(8, 2, 2, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
    model.load_state_dict({name: weights[name] for name in model.state_dict()})

    def read(side, tokens):
        x = weights[f"{side}.embedding.weight"][torch.tensor(tokens).long()] * 8**0.5
        # PE(t, 2i) = sin(t / 10000^(2i/d)), PE(t, 2i+1) = cos of the same
        angle = np.arange(tokens.shape[1])[:, None] / 10000.0 ** (np.arange(0, 8, 2) / 8)
        waves = np.stack([np.sin(angle), np.cos(angle)], -1).reshape(1, -1, 8).astype(np.float32)
        return x + torch.tensor(waves)

    later = torch.triu(torch.ones(7, 7, dtype=torch.bool), 1)
    y = model(read("encoder", SOURCE), read("decoder", TOKENS), tgt_mask=later) @ weights["decoder.fc.weight"].T
    return {"y": y.detach().numpy()}


def test_a_translator_is_pytorchs():
    params, _ = variables(TRANSLATOR, (SOURCE, TOKENS), scale=0.5)
    wanted = witness("models/transformer", lambda: by_torch(params), installed=TORCH)["y"]
    found = jax.jit(TRANSLATOR.apply)(params, {}, (SOURCE, TOKENS))[0]
    np.testing.assert_allclose(found, wanted, atol=1e-4 * float(wanted.std()))


def test_padding_and_types_of_bert():
    """Padding changes nothing, and without types all are 0."""
    net = NETS["bert_classes"]
    params, _ = variables(net, given("bert"), scale=0.5)
    lengths = np.array([7, 4], np.int32)
    junk = np.where(np.arange(7)[None] < lengths[:, None], TOKENS, 99)
    together = net.apply(params, {}, jn.Padded(junk, lengths))[0]
    alone = net.apply(params, {}, TOKENS[1:, :4])[0]
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)
    zeros = net.apply(params, {}, (TOKENS, jnp.zeros_like(TOKENS)))[0]
    np.testing.assert_allclose(zeros[0], together[0], atol=1e-5)
    with pytest.raises(jn.NetError, match=r"expects tokens or \(tokens, types\), got a tuple of 3"):
        net.apply(params, {}, (TOKENS, TYPES, TYPES))


MISTAKES = {
    "gpt2 expects size 'small', 'medium', 'large', 'xl', got 'tiny'": lambda: jn.models.gpt2("tiny"),  # type: ignore[arg-type]
    "expects features divisible by 3 heads, got 8": lambda: GPT2(heads=3),
    "expects kv_heads that divide the 4 heads, got 3": lambda: LLAMA(kv_heads=3),
    "bert expects size 'base', 'large', got 'xl'": lambda: jn.models.bert("xl"),  # type: ignore[arg-type]
    "expects head .* or None, got 'ner'": lambda: jn.models.bert("base", "ner"),  # type: ignore[arg-type]
    "expects num_classes for the head 'classes', and only there, got None": lambda: jn.models.bert("base", "classes"),
    "expects an even number of features for the positions, got 9": lambda: jn.models.transformer(
        5, features=9, heads=3
    ),
    "expects layers ≥ 1, got 0": lambda: GPT2(layers=0),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told(message):
    with pytest.raises(jn.NetError, match=message):
        MISTAKES[message]()
