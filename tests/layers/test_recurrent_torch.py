"""Recurrent networks against PyTorch's packed sequences: outputs, final carries, and every gradient, in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.oracle import floats, witness

BATCH, TIME, WIDTH, FEATURES = 4, 5, 3, 2
LENGTHS = np.array([5, 2, 4, 1], np.int32)
GATES = {"rnn": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}
CELLS = {
    "rnn": jn.rnn_cell(FEATURES),
    "rnn_relu": jn.rnn_cell(FEATURES, activation=jax.nn.relu),
    "lstm": jn.lstm_cell(FEATURES),
    "gru": jn.gru_cell(FEATURES),
}
ROWS = [
    *((kind, 1, 1) for kind in CELLS),
    ("rnn", 2, 1),
    ("lstm", 2, 1),
    ("gru", 2, 1),
    ("rnn", 1, 2),
    ("lstm", 2, 2),
    ("gru", 2, 2),
]


def double(*shape, seed):
    return floats(*shape, seed=seed).astype(np.float64)


def torch_weights(kind, depth, directions):
    """Make weights under PyTorch's names and in its shapes."""
    weights, rows = {}, GATES[kind] * FEATURES
    for place in range(depth):
        for suffix in ("", "_reverse")[:directions]:
            name, seed = f"_l{place}{suffix}", 10 * place + 100 * len(suffix)
            width = WIDTH if place == 0 else FEATURES * directions
            weights |= {
                f"weight_ih{name}": double(rows, width, seed=seed),
                f"weight_hh{name}": double(rows, FEATURES, seed=seed + 1),
                f"bias_ih{name}": double(rows, seed=seed + 2),
                f"bias_hh{name}": double(rows, seed=seed + 3),
            }
    return weights


def port(kind, weights, suffix):
    """Turn PyTorch's weights of one layer and direction into a cell's parameters."""
    kernel, recurrent_kernel = weights[f"weight_ih_{suffix}"].T, weights[f"weight_hh_{suffix}"].T
    b_x, b_h = weights[f"bias_ih_{suffix}"], weights[f"bias_hh_{suffix}"]
    params = {"kernel": kernel, "recurrent_kernel": recurrent_kernel}
    if kind != "gru":
        return params | {"bias": b_x + b_h}
    r_z, n = b_h[: 2 * FEATURES], b_h[2 * FEATURES :]
    return params | {"bias": b_x + jnp.concatenate([r_z, jnp.zeros_like(n)]), "recurrent_bias": n}


def inputs(kind, depth, directions):
    x, y = double(BATCH, TIME, WIDTH, seed=1), double(BATCH, TIME, FEATURES * directions, seed=2)
    h, c, dh, dc = (double(depth * directions, BATCH, FEATURES, seed=seed) for seed in (3, 4, 5, 6))
    given = {"x": x, "h": h} | ({"c": c} if kind == "lstm" else {})
    weigh = {"y": y, "h": dh} | ({"c": dc} if kind == "lstm" else {})  # the loss is a weighted sum of all outputs
    return given, weigh


def by_torch(kind, depth, directions):
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    module = {"rnn": torch.nn.RNN, "rnn_relu": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind]
    extra = {"nonlinearity": "relu"} if kind == "rnn_relu" else {}
    net = module(WIDTH, FEATURES, depth, batch_first=True, bidirectional=directions == 2, **extra).double()
    net.load_state_dict({name: torch.tensor(leaf) for name, leaf in torch_weights(kind, depth, directions).items()})
    given, weigh = inputs(kind, depth, directions)
    given = {name: torch.tensor(leaf, requires_grad=True) for name, leaf in given.items()}
    packed = pack_padded_sequence(given["x"], torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
    y, last = net(packed, (given["h"], given["c"]) if kind == "lstm" else given["h"])
    y, _ = pad_packed_sequence(y, batch_first=True, total_length=TIME)
    outputs = {"y": y} | (dict(zip("hc", last)) if kind == "lstm" else {"h": last})
    torch.stack([(outputs[name] * torch.tensor(weigh[name])).sum() for name in weigh]).sum().backward()
    answers = {name: leaf.detach().numpy() for name, leaf in outputs.items()}
    leaves = given | dict(net.named_parameters())
    return answers | {f"grad_{name}": np.asarray(leaf.grad) for name, leaf in leaves.items()}


def by_jaxnets(kind, depth, directions):
    cell = CELLS[kind]
    given, weigh = inputs(kind, depth, directions)

    def forward(weights, given):
        carry = [
            jn.LSTMCarry(cell=given["c"][k], hidden=given["h"][k]) if kind == "lstm" else given["h"][k]
            for k in range(depth * directions)
        ]
        y, places = jn.Padded(given["x"], LENGTHS), range(depth)
        if directions == 1:
            net = jn.recurrent(*[cell] * depth, return_carry=True)
            params: Any = {str(place): port(kind, weights, f"l{place}") for place in places}
            start = carry
        else:
            net = jn.bidirectional(cell, layers=depth, return_carry=True)
            params = {
                str(place): {
                    "forward": port(kind, weights, f"l{place}"),
                    "backward": port(kind, weights, f"l{place}_reverse"),
                }
                for place in places
            }
            start = [tuple(carry[2 * place : 2 * place + 2]) for place in places]
        single = depth == 1
        (y, last), _ = net.apply(params["0"] if single else params, {}, (y, start[0] if single else tuple(start)))
        last = [last] if single else last
        last = [each for pair in last for each in pair] if directions == 2 else last
        if kind != "lstm":
            return {"y": y.values, "h": jnp.stack(last)}
        return {
            "y": y.values,
            "h": jnp.stack([end.hidden for end in last]),
            "c": jnp.stack([end.cell for end in last]),
        }

    @jax.jit
    def run(weights, given):
        def loss(weights, given):
            outputs = forward(weights, given)
            return sum((outputs[name] * weigh[name]).sum() for name in weigh), outputs

        gradients, outputs = jax.grad(loss, (0, 1), has_aux=True)(weights, given)
        return outputs | {f"grad_{name}": leaf for part in gradients for name, leaf in part.items()}

    return run(torch_weights(kind, depth, directions), given)


@pytest.mark.parametrize(("kind", "depth", "directions"), ROWS)
@pytest.mark.slow_cases("rnn-2-1", "lstm-2-1", "gru-2-1", "rnn-1-2", "lstm-2-2")
def test_outputs_carries_and_gradients_agree_with_packed_sequences(kind, depth, directions):
    want = witness(f"recurrent/{kind}_{depth}_{directions}", lambda: by_torch(kind, depth, directions))
    with jax.enable_x64(True):
        got = by_jaxnets(kind, depth, directions)
    assert set(got) == set(want)
    for name, leaf in got.items():
        scale = max(1.0, np.abs(want[name]).max())
        np.testing.assert_allclose(leaf, want[name], rtol=0, atol=1e-12 * scale, err_msg=name)
