"""Recurrent models against PyTorch's modules, in float64, and what padding, dropout and mistakes do."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.models.weights import draw
from tests.once import once
from tests.oracle import floats, integers, witness

BATCH, TIME, WIDTH, HIDDEN, WORDS = 4, 5, 3, 2, 6
LENGTHS = np.array([5, 2, 4, 1], np.int32)
TARGET_LENGTHS = np.array([2, 3, 1, 3], np.int32)
GATES = {"rnn": 1, "relu": 1, "lstm": 4, "gru": 3}
CELLS = {
    "rnn": jn.rnn_cell,
    "relu": functools.partial(jn.rnn_cell, activation=jax.nn.relu),
    "lstm": jn.lstm_cell,
    "gru": jn.gru_cell,
}
TOKENS = integers(BATCH, TIME + 1, high=WORDS)  # a language model's targets are one step on
TARGETS = integers(BATCH, 4, high=WORDS, seed=1)


def drawn(prefix, kind, depth=1, directions=1, width=WIDTH):
    """Draw the weights of a recurrent module under PyTorch's names and in its shapes."""
    shapes = {}
    for place in range(depth):
        for suffix in ("", "_reverse")[:directions]:
            rows, features = GATES[kind] * HIDDEN, width if place == 0 else HIDDEN * directions
            shapes |= {
                f"{prefix}.weight_ih_l{place}{suffix}": (rows, features),
                f"{prefix}.weight_hh_l{place}{suffix}": (rows, HIDDEN),
                f"{prefix}.bias_ih_l{place}{suffix}": (rows,),
                f"{prefix}.bias_hh_l{place}{suffix}": (rows,),
            }
    return fill(shapes)


def fill(shapes):
    names = enumerate(sorted(shapes))
    return {name: floats(*shapes[name], seed=seed).astype(np.float64) for seed, name in names}


def port(tensors):
    """Turn PyTorch's tensors into our parameters: modules keep their names, layers are numbered where several."""
    tree = {}
    for name, value in tensors.items():
        prefix, leaf = name.rsplit(".", 1)
        found = re.fullmatch(r"weight_ih_l(\d+)(_reverse)?", leaf)
        node = tree
        for part in prefix.split("."):
            node = node.setdefault(part, {})
        if found:
            own = found[0].removeprefix("weight_ih")
            if f"{prefix}.weight_ih_l1" in tensors:
                node = node.setdefault(found[1], {})
            if f"{prefix}.weight_ih_l0_reverse" in tensors:
                node = node.setdefault("backward" if found[2] else "forward", {})
            b_x, b_h = tensors[f"{prefix}.bias_ih{own}"], tensors[f"{prefix}.bias_hh{own}"]
            node |= {"kernel": value.T, "recurrent_kernel": tensors[f"{prefix}.weight_hh{own}"].T, "bias": b_x + b_h}
            if value.shape[0] == 3 * HIDDEN:  # a GRU
                node["recurrent_bias"] = b_h[2 * HIDDEN :]
                node["bias"] = b_x + jnp.concatenate([b_h[: 2 * HIDDEN], jnp.zeros_like(b_h[2 * HIDDEN :])])
        elif leaf in ("weight", "bias"):
            where = "embedding" if prefix.endswith("embedding") else "kernel" if leaf == "weight" else "bias"
            node[where] = value.T if where == "kernel" else value
    return tree


def head(prefix, rows, width):
    return fill({f"{prefix}fc.weight": (rows, width), f"{prefix}fc.bias": (rows,)})


def table(prefix):
    return fill({f"{prefix}embedding.weight": (WORDS, WIDTH)})


def torch_module(kind, depth, directions, width=WIDTH):
    import torch

    make = {"rnn": torch.nn.RNN, "relu": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind]
    extra = {"nonlinearity": "relu"} if kind == "relu" else {}
    return make(width, HIDDEN, depth, batch_first=True, bidirectional=directions == 2, **extra)


def torch_answers(weights, loss):
    """Return the outputs and gradients of `loss(leaves) -> (scalar, outputs)` on leaves of `weights`."""
    import torch

    leaves = {name: torch.tensor(leaf, requires_grad=True) for name, leaf in weights.items()}
    value, outputs = loss(leaves)
    value.backward()
    grads = {f"grad_{name}": np.asarray(leaf.grad) for name, leaf in leaves.items()}
    return {"loss": value.detach().numpy(), "outputs": outputs.detach().numpy()} | grads


def torch_run(module, leaves, prefix, x, carry=None, lengths=None):
    """Run a module with given weights: outputs at all steps, and what it remembers."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence

    own = {name.removeprefix(prefix): leaf for name, leaf in leaves.items() if name.startswith(prefix)}
    if lengths is not None:
        x = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    return torch.func.functional_call(module, own, (x,) if carry is None else (x, carry))


def agree(name, by_torch, weights, loss):
    """Compare PyTorch's answers to `loss(params) -> (scalar, outputs)` and its gradients by PyTorch's names."""
    want = witness(f"models/recurrent/{name}", by_torch)
    with jax.enable_x64(True):
        run = jax.value_and_grad(lambda weights: loss(port(weights)), has_aux=True)
        (value, outputs), grads = once(run, weights)
    got = {"loss": value, "outputs": outputs} | {f"grad_{name}": leaf for name, leaf in grads.items()}
    assert set(got) == set(want)
    for name, leaf in got.items():
        assert leaf.dtype == np.float64
        scale = max(1.0, np.abs(want[name]).max())
        np.testing.assert_allclose(leaf, want[name], rtol=0, atol=1e-12 * scale, err_msg=name)


CLASSIFIERS = [
    ("lstm", 1, 1, False),
    ("gru", 2, 1, True),
    ("rnn", 1, 2, False),
    ("relu", 2, 1, False),
    ("lstm", 2, 2, True),
]


@pytest.mark.parametrize(("kind", "depth", "directions", "words"), CLASSIFIERS)
@pytest.mark.slow_cases("lstm-2-2-True", "relu-2-1-False", "rnn-1-2-False")
def test_classifiers_agree_with_pytorch(kind, depth, directions, words):
    name = "rnn" if kind == "relu" else kind
    weights = drawn(name, kind, depth, directions) | head("", 4, HIDDEN * directions) | (table("") if words else {})
    x = TOKENS[:, :TIME] if words else floats(BATCH, TIME, WIDTH).astype(np.float64)
    labels = integers(BATCH, high=4)

    def by_torch():
        import torch

        module = torch_module(kind, depth, directions)

        def loss(leaves):
            inputs = leaves["embedding.weight"][torch.tensor(x).long()] if words else torch.tensor(x)
            _, last = torch_run(module, leaves, f"{name}.", inputs, lengths=LENGTHS)
            hidden = last[0] if kind == "lstm" else last  # (layers · directions, batch, hidden)
            logits = torch.cat(list(hidden[-directions:]), 1) @ leaves["fc.weight"].T + leaves["fc.bias"]
            return torch.nn.functional.cross_entropy(logits, torch.tensor(labels).long()), logits

        return torch_answers(weights, loss)

    options = {"layers": depth, "bidirectional": directions == 2, "cell": CELLS[kind], "dropout": 0.5}
    vocabulary = {"vocabulary": WORDS, "embedding": WIDTH} if words else {}
    net = getattr(jn.models, name)(HIDDEN, 4, **options, **vocabulary)

    def loss(params):
        logits, _ = net.apply(params, {}, jn.Padded(jnp.asarray(x), LENGTHS))
        return jn.losses.cross_entropy(logits, labels).mean(), logits

    agree(f"{kind}_{depth}_{directions}", by_torch, weights, loss)


@pytest.mark.parametrize(("kind", "depth", "tied"), [("lstm", 2, False), ("gru", 1, True)])
@pytest.mark.slow_cases("lstm-2-False")
def test_language_models_agree_with_pytorch(kind, depth, tied):
    """Through the loss of a language model: the mean over all tokens, the padding behind them left out."""
    width = HIDDEN if tied else WIDTH
    weights = drawn("rnn", kind, depth, width=width) | fill({"embedding.weight": (WORDS, width)})
    weights |= fill({"fc.bias": (WORDS,)} | ({} if tied else {"fc.weight": (WORDS, HIDDEN)}))
    net = jn.models.language_model(
        WORDS, HIDDEN, cell=CELLS[kind], layers=depth, embedding=width, dropout=0.5, tie_weights=tied
    )
    mask = np.arange(TIME)[None] < LENGTHS[:, None]

    def by_torch():
        import torch

        module = torch_module(kind, depth, 1, width)

        def loss(leaves):
            tokens, keep = torch.tensor(TOKENS).long(), torch.tensor(mask)
            outputs, _ = torch_run(module, leaves, "rnn.", leaves["embedding.weight"][tokens[:, :-1]])
            kernel = leaves["embedding.weight" if tied else "fc.weight"]
            logits = (outputs @ kernel.T + leaves["fc.bias"])[keep]
            return torch.nn.functional.cross_entropy(logits, tokens[:, 1:][keep], reduction="sum"), logits

        return torch_answers(weights, loss)

    def loss(params):
        logits, _ = net.apply(params, {}, jn.Padded(TOKENS[:, :-1], LENGTHS))
        total = jn.losses.sequence(jn.losses.cross_entropy, "sum")(logits, TOKENS[:, 1:]).sum()
        return total, logits.values[mask]

    agree(f"language_model_{kind}_{depth}", by_torch, weights, loss)


@pytest.mark.parametrize(("kind", "depth"), [("lstm", 2), ("gru", 1)])
@pytest.mark.slow_cases("lstm-2")
def test_encoder_decoders_agree_with_pytorch(kind, depth):
    """Through the loss of teacher forcing, with sources and targets of unequal lengths."""
    weights = {
        name: leaf for part in ("encoder", "decoder") for name, leaf in drawn(f"{part}.rnn", kind, depth).items()
    }
    weights |= table("encoder.") | table("decoder.") | head("decoder.", WORDS, HIDDEN)
    net = jn.models.encoder_decoder(WORDS, WORDS, HIDDEN, cell=CELLS[kind], layers=depth, embedding=WIDTH, dropout=0.5)
    source, target_in, target = TOKENS[:, :TIME], TARGETS[:, :3], TARGETS[:, 1:]
    mask = np.arange(3)[None] < TARGET_LENGTHS[:, None]

    def by_torch():
        import torch

        modules = [torch_module(kind, depth, 1) for _ in range(2)]

        def loss(leaves):
            read = leaves["encoder.embedding.weight"][torch.tensor(source).long()]
            _, carry = torch_run(modules[0], leaves, "encoder.rnn.", read, lengths=LENGTHS)
            written = leaves["decoder.embedding.weight"][torch.tensor(target_in).long()]
            outputs, _ = torch_run(modules[1], leaves, "decoder.rnn.", written, carry)
            logits = (outputs @ leaves["decoder.fc.weight"].T + leaves["decoder.fc.bias"])[torch.tensor(mask)]
            labels = torch.tensor(target).long()[torch.tensor(mask)]
            return torch.nn.functional.cross_entropy(logits, labels, reduction="sum"), logits

        return torch_answers(weights, loss)

    def loss(params):
        inputs = jn.Padded(source, LENGTHS), jn.Padded(target_in, TARGET_LENGTHS)
        logits, _ = net.apply(params, {}, inputs)
        total = jn.losses.sequence(jn.losses.cross_entropy, "sum")(logits, target).sum()
        return total, logits.values[mask]

    agree(f"encoder_decoder_{kind}_{depth}", by_torch, weights, loss)


NETS = {
    "classifier": lambda: jn.models.rnn(4, 3, layers=2, bidirectional=True),
    "regressor at every step": lambda: jn.models.gru(4, num_outputs=2, return_sequences=True),
    "language model": lambda: jn.models.language_model(WORDS, 4, cell=jn.gru_cell),
    "encoder–decoder": lambda: jn.models.encoder_decoder(None, WORDS, 4),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.slow_cases("classifier")
def test_padding_and_neighbors_change_nothing(name):
    """NaN, or tokens out of range, behind the end of a sequence: each example is what it is alone and cut."""
    net = NETS[name]()
    values = np.array(TOKENS[:, :TIME] if name == "language model" else floats(BATCH, TIME, WIDTH))
    behind = np.arange(TIME)[None] >= LENGTHS[:, None]
    junk = values.copy()
    junk[behind] = -7 if name == "language model" else np.nan

    def inputs(values: Any, rows: Any = slice(None), lengths: Any = LENGTHS):
        source = values if lengths is None else jn.Padded(values, lengths)
        return (source, TARGETS[rows]) if name == "encoder–decoder" else source

    row, length = 2, LENGTHS[2]
    given = inputs(junk), inputs(values), inputs(values[row : row + 1, :length], [row], None)

    def run(params: Any, *given: Any) -> list[jax.Array]:
        found = [net.apply(params, {}, each)[0] for each in given]
        return [y.zeroed() if isinstance(y, jn.Padded) else y for y in found]

    together, clean, alone = map(np.asarray, once(run, draw(net, given[1])[0], *given))
    np.testing.assert_array_equal(together, clean)
    np.testing.assert_allclose(
        together[row, : alone.shape[1]] if alone.ndim > 2 else together[row], alone[0], atol=2e-6
    )


def test_a_dropout_rate_may_be_traced():
    """At rate 0 training equals evaluation, and another rate does not, in one compiled function."""
    x = floats(BATCH, TIME, WIDTH)
    params, state = draw(jn.models.rnn(4, 3, layers=2, bidirectional=True), x)

    def run(rate, train=True):
        net = jn.models.rnn(4, 3, layers=2, bidirectional=True, dropout=rate)
        return net.apply(params, state, x, key=jax.random.key(1), train=train)[0]

    rates = np.array([0.0, 0.5], np.float32)
    (without, halved), evaluated = once(lambda rates: (jax.vmap(run)(rates), run(0.5, train=False)), rates)
    np.testing.assert_allclose(without, evaluated, atol=1e-6)
    assert np.abs(np.asarray(halved) - np.asarray(without)).max() > 0.1


def test_pieces_of_a_text_equal_the_whole():
    net = jn.models.language_model(WORDS, 4, cell=jn.gru_cell, layers=2)

    def run(params: Any, tokens: Any) -> Any:
        carry, pieces = None, []
        for piece in jnp.split(tokens, 3, axis=1):
            (logits, carry), _ = net.apply(params, {}, (piece, carry))
            pieces.append(logits)
        return pieces, net.apply(params, {}, tokens)[0]

    pieces, whole = once(run, draw(net, TOKENS)[0], TOKENS)
    np.testing.assert_allclose(np.concatenate(pieces, 1), whole, atol=1e-6)


@pytest.mark.slow
def test_tied_weights_start_at_the_size_of_logits():
    """The variance of a logit is Σ h² / H < 1, so that the cross entropy starts near log V."""
    net = jn.models.language_model(500, 64, cell=jn.rnn_cell, tie_weights=True)
    tokens = integers(4, 16, high=500)

    def run(key: jax.Array, tokens: jax.Array) -> Any:
        params, state = net.init(key, tokens)
        logits, _ = net.apply(params, state, tokens)
        return params, jn.losses.cross_entropy(logits, tokens).mean()

    params, loss = once(run, jax.random.key(0), tokens)
    assert sorted(params["fc"]) == ["bias"]
    assert abs(float(loss) - np.log(500)) < 0.1


MISTAKES = {
    "lstm expects num_classes .* or num_outputs .* got num_classes=None": lambda: jn.models.lstm(4),
    "rnn expects num_classes .* got num_classes=3 and num_outputs=1": lambda: jn.models.rnn(4, 3, num_outputs=1),
    "gru expects vocabulary=, the number of tokens, with embedding=": lambda: jn.models.gru(4, 3, embedding=8),
    r"lstm expects for cell .* such as jn.lstm_cell .* got gru_cell\(4\)": lambda: jn.models.lstm(
        4,
        3,
        cell=jn.gru_cell(4),  # type: ignore[arg-type]
    ),
    "lstm expects layers ≥ 1, got 0": lambda: jn.models.lstm(4, 3, layers=0),
    r"lstm expects rate in \[0, 1\), got 50; 50 % is 0.5": lambda: jn.models.lstm(4, 3, dropout=50),
    "language_model expects embedding equal to hidden to tie weights, got 3 and 4": lambda: jn.models.language_model(
        9, 4, embedding=3, tie_weights=True
    ),
    "language_model expects vocabulary_size ≥ 1": lambda: jn.models.language_model(0, 4),
    r"language_model expects tokens or \(tokens, carry\), got a tuple of 3": lambda: start(
        jn.models.language_model(9, 4), (TOKENS, None, None)
    ),
    r"embedding: embed\(9, 4\) expects integers, got float32": lambda: start(
        jn.models.language_model(9, 4), floats(2, 3)
    ),
    r"encoder_decoder expects \(source, target_in\), got ShapeDtypeStruct.*greedy": lambda: start(
        jn.models.encoder_decoder(9, 9, 4), TOKENS
    ),
    r"encoder/rnn: .*expects \(batch, time, features\), got \(2, 3\)": lambda: start(
        jn.models.encoder_decoder(None, 9, 4), (floats(2, 3), TOKENS[:2])
    ),
}


def start(net, x):
    return net.init(jax.random.key(0), x)


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told(message):
    with pytest.raises(jn.NetError, match=message):
        MISTAKES[message]()


def test_parameters_of_an_untied_model_are_refused():
    params, state = draw(jn.models.language_model(9, 4), TOKENS)
    with pytest.raises(jn.NetError, match="unexpected parameters fc/kernel"):
        jn.models.language_model(9, 4, tie_weights=True).apply(params, state, TOKENS)
    del params["embedding"], params["fc"]["kernel"]
    with pytest.raises(jn.NetError, match="missing parameters embedding/embedding"):
        jn.models.language_model(9, 4, tie_weights=True).apply(params, state, TOKENS)
