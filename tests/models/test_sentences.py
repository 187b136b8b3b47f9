"""Encoders of sentences and the comparison of two, against PyTorch; padding, and mistakes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets import Padded
from jaxnets.interop import to_torch
from tests.oracle import floats, integers, variables, witness

WORDS = 7
FIRST = Padded(integers(4, 5, high=WORDS), np.array([5, 2, 1, 3], np.int32))
SECOND = Padded(integers(4, 3, high=WORDS, seed=1), np.array([1, 3, 2, 3], np.int32))
ENCODE: Any = jn.models.sentence_encoder
NETS = {
    "attention": (ENCODE(WORDS, 3, 2, scores=4), FIRST),
    "bag": (ENCODE(WORDS, None, 2, pool="mean", embedding=4), FIRST),
    "siamese": (jn.models.siamese(ENCODE(WORDS, 3, pool="max", embedding=4), 3, hidden=5), (FIRST, SECOND)),
}


def by_torch(name, params):
    """The sum of all logits weighted by fixed numbers, and its gradients, one sentence at a time."""
    import torch
    from torch import nn

    class Encoder(nn.Module):
        def __init__(self, pool, width, hidden=None, scores=None, classes=None):
            super().__init__()
            self.kind, self.embedding = pool, nn.Embedding(WORDS, width)
            self.lstm = hidden and nn.LSTM(width, hidden, bidirectional=True, batch_first=True)
            out = 2 * hidden if hidden else width
            if scores:
                parts = {"hidden": nn.Linear(out, scores), "score": nn.Linear(scores, 1, bias=False)}
                self.pool = nn.ModuleDict(parts)
            self.fc = nn.Linear(out, classes) if classes else nn.Identity()

        def forward(self, words):
            h = self.embedding(words)[None]
            h = self.lstm(h)[0] if self.lstm else h
            if self.kind == "attention":
                shares = torch.softmax(self.pool["score"](torch.tanh(self.pool["hidden"](h))), 1)
                return self.fc((shares * h).sum(1))
            return self.fc(h.max(1).values if self.kind == "max" else h.mean(1))

    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = Encoder("max", 4, 3)
            self.classifier = nn.ModuleDict({"hidden": nn.Linear(24, 5), "fc": nn.Linear(5, 3)})

        def forward(self, a, b):
            u, v = self.encoder(a), self.encoder(b)
            h = torch.tanh(self.classifier["hidden"](torch.cat([u, v, (u - v).abs(), u * v], 1)))
            return self.classifier["fc"](h)

    net, x = NETS[name]
    makers = {"attention": lambda: Encoder("attention", 3, 3, 4, 2), "bag": lambda: Encoder("mean", 4, classes=2)}
    model = makers.get(name, Siamese)()
    model.load_state_dict({key: torch.tensor(value) for key, value in to_torch(net, params, {}, x).items()})
    each = x if isinstance(x, tuple) else (x,)
    rows = [[torch.tensor(np.asarray(p[i])).long() for p in each] for i in range(4)]
    y = torch.cat([model(*row) for row in rows])
    (y * torch.tensor(floats(*y.shape))).sum().backward()
    return {"y": y.detach().numpy()} | {n: np.asarray(p.grad) for n, p in model.named_parameters()}


@pytest.mark.parametrize("name", NETS)
def test_logits_and_gradients_are_those_of_torch(name):
    """Of each sentence alone, without any padding; ours are padded with words that would change them."""
    net, x = NETS[name]
    params, state = variables(net, x)
    wanted = witness(f"models/sentences_{name}", lambda: by_torch(name, params))

    @jax.jit
    def loss(params):
        y, _ = net.apply(params, state, x)
        return (y * floats(*y.shape)).sum(), y

    gradients, y = jax.grad(loss, has_aux=True)(params)
    np.testing.assert_allclose(y, wanted.pop("y"), rtol=1e-5, atol=1e-5)
    found = to_torch(net, gradients, {}, x)
    assert {n for n in wanted if "bias_hh" not in n} <= {*found}
    for each, value in wanted.items():
        if "bias" in each and "lstm" in each:
            continue  # torch has two biases in place of one
        np.testing.assert_allclose(found[each], value, rtol=2e-4, atol=2e-5, err_msg=each)


def test_no_words_are_zero_and_rows_of_equal_length_need_no_padding():
    empty = Padded(FIRST.values, np.array([5, 0, 5, 5], np.int32))
    nets = {pool: ENCODE(WORDS, None, pool=pool, embedding=3) for pool in ("attention", "max", "mean")}
    given = {pool: variables(net, empty)[0] for pool, net in nets.items()}

    @jax.jit
    def program(given):
        out = {pool: [net.apply(given[pool], {}, x)[0] for x in (empty, FIRST.values)] for pool, net in nets.items()}
        return sum(y.sum() for y, _ in out.values()), out

    gradients, out = jax.grad(program, has_aux=True)(given)
    for y, whole in out.values():
        np.testing.assert_array_equal(y[1], np.zeros(3))
        np.testing.assert_allclose(y[0], whole[0], rtol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_the_bag_of_words_does_not_see_their_order():
    net, words = ENCODE(WORDS, None, 2, pool="mean", embedding=4), integers(3, 6, high=WORDS)
    params, _ = variables(net, words)
    np.testing.assert_allclose(
        net.apply(params, {}, words)[0], net.apply(params, {}, words[:, ::-1].copy())[0], rtol=1e-5
    )


def test_dropout_of_the_two_sentences_differs_and_state_passes_through():
    words = jnp.asarray(integers(3, 6, high=WORDS))
    net = jn.models.siamese(ENCODE(WORDS, None, pool="mean", embedding=50, dropout=0.5), 2)
    params, _ = variables(net, (words, words))
    params["classifier"]["fc"]["kernel"] = np.repeat([[0.0], [0.0], [1.0], [0.0]], 50, 0) * np.ones((1, 2))
    apart, _ = net.apply(params, {}, (words, words), key=jax.random.key(0), train=True)
    assert (np.abs(apart - params["classifier"]["fc"]["bias"][None]) > 1).all()
    normed = jn.models.siamese(jn.serial(jn.dense(4), jn.batch_norm()), 2)
    x, z = jnp.asarray(floats(9, 3)), jnp.asarray(floats(9, 3, seed=1))
    params, state = normed.init(jax.random.key(0), (x, z))
    _, after = normed.apply(params, state, (x, z), train=True)
    inner, own = normed.children["encoder"], state["encoder"]
    for each in (x, z):
        _, own = inner.apply(params["encoder"], own, each, train=True)
    jax.tree.map(np.testing.assert_array_equal, after["encoder"], own)


MISTAKES = {
    "expects pool 'attention', 'max' or 'mean', got 'sum'": lambda: ENCODE(9, 4, pool="sum"),
    "expects hidden, .* or embedding, .* got neither": lambda: ENCODE(9, None),
    "takes scores for pool='attention' alone, got 'max'": lambda: ENCODE(9, 4, pool="max", scores=3),
    "expects a pair of inputs to compare, got": lambda: jax.eval_shape(
        NETS["siamese"][0].init, jax.random.key(0), FIRST
    ),
    "expects an encoder to features": lambda: jax.eval_shape(
        jn.models.siamese(jn.dense(3), 2).init, jax.random.key(0), (jnp.ones((2, 3, 4)),) * 2
    ),
    "pools a whole row, got Packed": lambda: jax.eval_shape(
        NETS["bag"][0].init, jax.random.key(0), jn.data.pack([np.ones(3, np.int32)], 4)
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told(message):
    with pytest.raises(jn.NetError, match=message):
        MISTAKES[message]()
