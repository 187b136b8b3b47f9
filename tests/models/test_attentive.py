"""Encoder–decoders with attention and pointers: against PyTorch in float64, what padding does, what they copy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from tests.models.weights import draw
from tests.once import once
from tests.oracle import witness

BATCH, SOURCE, TARGET, WORDS, COPIES, WIDTH, HIDDEN = 3, 5, 4, 6, 2, 3, 4
LENGTHS, TARGET_LENGTHS = np.array([5, 2, 3], np.int32), np.array([4, 1, 3], np.int32)
# Sources and targets hold words beyond the vocabulary, and one word of a source twice.
SOURCES = np.array([[1, 6, 2, 6, 7], [6, 3, 0, 0, 0], [5, 5, 4, 0, 0]], np.int32)
TARGETS = np.array([[0, 6, 1, 7, 6], [0, 6, 0, 0, 0], [0, 5, 4, 2, 0]], np.int32)
INSIDE = np.arange(TARGET)[None] < TARGET_LENGTHS[:, None]


def network(kind: str, score: Any) -> jn.Net:
    if kind == "pointer":
        options: Any = {"copies": COPIES, "unknown": 3, "embedding": WIDTH, "score": score}
        return jn.models.pointer_generator(WORDS, HIDDEN, **options)
    return jn.models.attentive_encoder_decoder(
        WORDS + COPIES, WORDS + COPIES, HIDDEN, embedding=WIDTH, score=score, dropout=0.5
    )


def parameters(net: jn.Net) -> Any:
    params, _ = draw(net, (SOURCES, TARGETS))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)


def by_torch(kind: str, score: str, params: Any) -> dict[str, np.ndarray]:
    """Return loss, outputs and gradients of modules of PyTorch with the same weights."""
    import torch
    from torch.nn.functional import nll_loss
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    tree: Any = jax.tree.map(lambda leaf: torch.tensor(leaf, requires_grad=True), params)
    encoder, decoder, extra = tree["encoder"], tree["decoder"], SOURCES >= WORDS

    def lstm(features: int, hidden: int, **directions: Any) -> Any:
        module = torch.nn.LSTM(features, hidden, batch_first=True, bidirectional=len(directions) == 2).double()
        given = {}
        for suffix, own in directions.items():
            given |= {f"weight_ih_l0{suffix}": own["kernel"].T, f"weight_hh_l0{suffix}": own["recurrent_kernel"].T}
            given |= {f"bias_ih_l0{suffix}": own["bias"], f"bias_hh_l0{suffix}": torch.zeros(4 * hidden).double()}
        return lambda x, carry=None: torch.func.functional_call(module, given, (x, carry) if carry else (x,))

    def affine(x: Any, own: Any) -> Any:
        return x @ own["kernel"] + own.get("bias", 0)

    pointer = kind == "pointer"
    read = np.where(extra, 3, SOURCES) if pointer else SOURCES
    x = encoder["embedding"]["embedding"][torch.tensor(read).long()]
    packed = pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
    rnn = encoder["rnn"]
    outputs, carry = lstm(WIDTH, HIDDEN // 2, **{"": rnn["forward"], "_reverse": rnn["backward"]})(packed)
    memory, _ = pad_packed_sequence(outputs, batch_first=True, total_length=SOURCE)
    # (directions, batch, hidden / 2) to (1, batch, hidden)
    carry = tuple(torch.cat([*each], -1)[None] for each in carry)

    target = TARGETS[:, :-1]
    table = encoder["embedding"]["embedding"] if pointer else decoder["embedding"]["embedding"]
    x = table[torch.tensor(np.where(target >= WORDS, 3, target) if pointer else target).long()]
    s, _ = lstm(WIDTH, HIDDEN, **{"": decoder["rnn"]})(x, carry)
    keys = affine(memory, encoder["keys"])
    if score == "general":
        scores = s @ keys.transpose(1, 2)
    else:
        mixed = torch.tanh(affine(s, decoder["attend"]["query"])[:, :, None] + keys[:, None])
        scores = mixed @ decoder["attend"]["score"]
    real = torch.arange(SOURCE)[None] < torch.tensor(LENGTHS)[:, None]
    weights = torch.softmax(scores.masked_fill(~real[:, None], -torch.inf), -1)
    context = weights @ memory
    y = affine(torch.cat([s, context], -1), decoder["combine"])
    logits = affine(y if pointer else torch.tanh(y), decoder["fc"])
    p = torch.softmax(logits, -1)
    if pointer:
        gate = torch.sigmoid(affine(torch.cat([context, s, x], -1), decoder["gate"]))
        p = torch.cat([gate * p, torch.zeros(BATCH, TARGET, COPIES).double()], -1)
        places = torch.tensor(SOURCES).long()[:, None].expand(BATCH, TARGET, SOURCE)
        p = p.scatter_add(2, places, (1 - gate) * weights)
    inside = torch.tensor(INSIDE)
    loss = nll_loss(torch.log(p[inside]), torch.tensor(TARGETS[:, 1:]).long()[inside], reduction="sum")
    loss.backward()
    grads = {"/".join(path): leaf for path, leaf in leaves(jax.tree.map(lambda leaf: leaf.grad.numpy(), tree))}
    return {"loss": loss.detach().numpy(), "p": p[inside].detach().numpy()} | grads


def leaves(tree: Any, path: tuple[str, ...] = ()) -> Any:
    for name, each in tree.items():
        yield from leaves(each, (*path, name)) if isinstance(each, dict) else [((*path, name), each)]


@pytest.mark.parametrize(("kind", "score"), [("pointer", "additive"), ("attention", "general"), ("pointer", "general")])
@pytest.mark.slow_cases("attention-general", "pointer-general")
def test_values_and_gradients_are_those_of_pytorch(kind: str, score: str):
    net = network(kind, score)
    params = parameters(net)
    want = witness(f"models/attentive_{kind}_{score}", lambda: by_torch(kind, score, params))

    def loss(params: Any) -> Any:
        pair = jn.Padded(SOURCES, LENGTHS), jn.Padded(TARGETS[:, :-1], TARGET_LENGTHS)
        logits, _ = net.apply(params, {}, pair)
        total = jn.losses.sequence(jn.losses.cross_entropy, "sum")(logits, TARGETS[:, 1:]).sum()
        return total, jax.nn.softmax(logits.values)[INSIDE]

    with jax.enable_x64(True):
        (value, p), grads = once(jax.value_and_grad(loss, has_aux=True), params)
    got = {"loss": value, "p": p} | {"/".join(path): leaf for path, leaf in leaves(grads)}
    assert set(got) == set(want)
    for name, leaf in got.items():
        np.testing.assert_allclose(
            leaf, want[name], rtol=0, atol=1e-11 * max(1, np.abs(want[name]).max()), err_msg=name
        )


def test_decoding_continues_what_training_reads_and_padding_changes_nothing():
    """The log-probability of a decoded target is that of teacher forcing; junk behind the end of a source is unread."""
    net = network("pointer", "additive")
    params, _ = draw(net, (SOURCES, TARGETS))
    junk = np.where(np.arange(SOURCE)[None] < LENGTHS[:, None], SOURCES, -7)

    def run(params: Any, clean: Any, junk: Any) -> Any:
        limits: Any = {"max_length": 4, "start": 0, "end": 1}
        decoded = jn.decoding.greedy(net, params, {}, clean, **limits)
        late = jnp.pad(decoded.tokens[:, :-1], ((0, 0), (1, 0)))
        beam = jn.decoding.beam_search(net, params, {}, clean, beam=1, **limits)
        clean, junk = (net.apply(params, {}, (source, late))[0] for source in (clean, junk))
        return decoded, beam.tokens[:, 0], clean, junk

    sources = jn.Padded(SOURCES, LENGTHS), jn.Padded(junk, LENGTHS)
    decoded, beam, clean, junked = jax.tree.map(np.asarray, once(run, params, *sources))
    np.testing.assert_array_equal(clean, junked)
    np.testing.assert_array_equal(decoded.tokens, beam)
    np.testing.assert_allclose(np.exp(clean).sum(-1), 1, atol=1e-5)
    counted = np.arange(4)[None] < np.minimum(decoded.lengths + 1, 4)[:, None]
    found = np.take_along_axis(clean, decoded.tokens[..., None], 2)[..., 0]
    np.testing.assert_allclose((found * counted).sum(1), decoded.log_probabilities, atol=1e-5)
    # The second source has one word that the vocabulary lacks: the other one can't be written.
    assert (clean[1, :, WORDS] > -20).all()
    assert (clean[1, :, WORDS + 1] <= -1e8).all()


@pytest.mark.promotes
@pytest.mark.slow
def test_words_never_seen_are_copied():
    """It learns to repeat the second word of sources, and repeats one that training never had."""
    net = jn.models.pointer_generator(8, 16, copies=3, unknown=1)
    sources = np.random.default_rng(0).integers(2, 11, (1200, 3)).astype(np.int32)
    second, late = sources[:, 1:2], np.zeros((1200, 1), np.int32)
    known, unseen = (sources < 10).all(1), second[:, 0] == 10
    objective = jn.losses.sequence(jn.losses.cross_entropy)
    data = (sources[known], late[known]), second[known]
    trained, _ = jn.fit(net, objective, optax.adam(0.02), data, epochs=20, key=jax.random.key(0))
    limits: Any = {"max_length": 1, "start": 0, "end": 1}
    decoded = jn.decoding.greedy(net, trained.params, {}, sources[unseen], **limits)
    assert (decoded.tokens == 10).mean() > 0.9
    assert unseen.sum() > 100


MISTAKES = {
    "attentive_encoder_decoder expects an even width for hidden, .* got 5": lambda: jn.models.attentive_encoder_decoder(
        9, 9, 5
    ),
    "attentive_encoder_decoder expects score 'general' or 'additive', got 'dot'": lambda: (
        jn.models.attentive_encoder_decoder(9, 9, 4, score="dot")  # type: ignore[arg-type]
    ),
    "pointer_generator expects unknown from 0 to 8, a token of the vocabulary, got 9": lambda: (
        jn.models.pointer_generator(9, 4, copies=1, unknown=9)
    ),
    "pointer_generator expects copies ≥ 1, got 0": lambda: jn.models.pointer_generator(9, 4, copies=0, unknown=1),
    r"pointer_generator expects \(source, target_in\), got": lambda: network("pointer", "general").init(
        jax.random.key(0), SOURCES
    ),
    "embedding: embed.* got 8": lambda: network("pointer", "general").apply(
        parameters(network("pointer", "general")), {}, (SOURCES + 1, TARGETS)
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told(message: str):
    with pytest.raises(jn.NetError, match=message):
        MISTAKES[message]()
