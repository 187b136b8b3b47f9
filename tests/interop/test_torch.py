"""Weights from PyTorch and back: the same outputs and gradients, every tensor once, and nothing lost."""

import zlib
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.interop import from_torch, to_torch
from tests.cases.case import Case
from tests.interop import blocks, counterparts
from tests.interop.counterparts import Counterpart
from tests.models.weights import draw
from tests.once import once
from tests.oracle import floats, witness
from tests.test_every_net import CASES

each_counterpart = pytest.mark.parametrize("counterpart", [*counterparts.ALL, *blocks.ALL], ids=str)


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw a tensor by its name: small, near 1 where it scales, positive where it is a variance."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    numbers = np.asarray(floats(*shape, seed=zlib.crc32(name.encode()), scale=0.3), np.float32)
    return np.exp(numbers) if name.endswith("running_var") or (len(shape) == 1 and "weight" in name) else numbers


def ask_torch(counterpart: Counterpart) -> dict[str, np.ndarray]:
    """Return shapes of the tensors, output, and gradients of a weighted sum of it, as they are in PyTorch."""
    import torch

    module = counterpart.theirs(torch.nn).eval()
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    module.load_state_dict({name: torch.tensor(tensor(name, shape)) for name, shape in shapes.items()})
    x = jax.tree.map(torch.tensor, counterpart.x)
    y = counterpart.call(module, x.movedim(-1, 1).contiguous() if counterpart.maps else x)
    (y * torch.tensor(floats(*y.shape))).sum().backward()
    gradients = {f"gradient {name}": p.grad.numpy() for name, p in module.named_parameters()}
    return (
        {f"shape {name}": np.array(shape, int) for name, shape in shapes.items()}
        | gradients
        | {"y": y.detach().numpy()}
    )


def start(counterpart: Counterpart) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the state dict, and what PyTorch says."""
    said = witness(f"interop/{counterpart}", lambda: ask_torch(counterpart))
    shapes = {name.removeprefix("shape "): tuple(shape) for name, shape in said.items() if name.startswith("shape ")}
    return {name: tensor(name, shape) for name, shape in shapes.items()}, said


def equal(left: Any, right: Any) -> None:
    """Assert that two trees are equal to the bit."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@each_counterpart
@pytest.mark.slow_cases(
    *("gru_3_both_ways_in_one", "lstm_2_both_ways", "rnn_2_both_ways", "lstm_1_both_ways", "gru_1_both_ways"),
    *("rnn_1_both_ways", "lstm_2", "gru_2", "rnn_2", "random_0", "random_1", "random_2", "random_4", "random_5"),
)
def test_outputs_and_gradients_are_those_of_pytorch_and_the_round_trip_is_lossless(counterpart: Counterpart):
    net, x = counterpart.ours(), counterpart.x
    tensors, said = start(counterpart)
    params, state = from_torch(net, tensors, x)
    first = counterpart.maps and said["y"].ndim > 2

    def loss(params: Any) -> tuple[jax.Array, jax.Array]:
        y, _ = net.apply(params, state, x)
        y = y[0] if isinstance(y, tuple) else y
        y = jnp.moveaxis(y, -1, 1) if first else y
        return (y * floats(*y.shape)).sum(), y

    gradients, y = once(jax.grad(loss, has_aux=True), params)
    np.testing.assert_allclose(y, said["y"], rtol=0, atol=1e-5 * np.ptp(said["y"]))
    ours = to_torch(net, gradients, state, x)
    compared = [name for name in said if name.startswith("gradient ") and "bias_hh" not in name]
    for name in compared:
        want = said[name]
        np.testing.assert_allclose(
            ours[name.removeprefix("gradient ")], want, rtol=0, atol=1e-5 * max(1, np.abs(want).max()), err_msg=name
        )
    back = to_torch(net, params, state, x)
    # PyTorch has two biases in a cell.
    lossless = [name for name in tensors if not any(bias in name for bias in ("bias_ih", "bias_hh"))]
    assert back.keys() == tensors.keys()
    equal({name: back[name] for name in lossless}, {name: tensors[name] for name in lossless})


@hypothesis.given(st.integers(6, 10**6))
@pytest.mark.slow
def test_the_round_trip_of_random_networks_is_lossless(seed: int):
    counterpart = counterparts.random(seed)
    net, x = counterpart.ours(), jax.ShapeDtypeStruct(counterpart.x.shape, jnp.float32)
    trees = draw(net, x)
    back = to_torch(net, *trees, x)
    equal(jax.tree.map(np.asarray, from_torch(net, back, x)), trees)


NO_COUNTERPART = {
    "combinators/ensemble",
    "combinators/spectral_norm",
    "combinators/spectral_norm_conv",
    "combinators/upto",
    "combinators/weight_norm",
    "combinators/weight_norm_conv",
    "layers/maxout",
    "layers/maxout_no_bias",
    "recurrent/carry_through",
    "recurrent/ensemble",
    "recurrent/gru_reset_before",
    "recurrent/lstm_peepholes",
}
# Of fewer heads for keys and values, or gated.
NOT_IN_TORCH_NN = {"combinators/attention_causal", "combinators/encoder_block_gated"}


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.slow_cases(
    *("models/cnn", "models/encoder_decoder", "models/gru", "models/lenet5_parts", "models/lenet5_smooth"),
    *(f"recurrent/bidirectional{end}" for end in ("", "_carry", "_last")),
    *(f"recurrent/{name}" for name in ("carry_in", "carry_out", "cast", "dropout", "dropout_padded", "last", "padded")),
    *(f"recurrent/{name}" for name in ("gru", "last_reverse", "lstm", "reverse")),
)
def test_every_network_comes_back_to_the_bit_or_says_why_not(case: Case):
    net = case.make()
    params, state = draw(net, case.x)
    if case.name in NO_COUNTERPART:
        with pytest.raises(jn.NetError, match=r"no counterpart|convert the whole network"):
            to_torch(net, params, state, case.x)
        return
    names = None
    if case.name in NOT_IN_TORCH_NN:
        names = "jaxnets"
        with pytest.raises(jn.NetError, match=r"no counterpart in names='torch'; pass .* names='jaxnets' for ours"):
            to_torch(net, params, state, case.x)
    back = from_torch(net, to_torch(net, params, state, case.x, names=names), case.x)
    equal(jax.tree.map(np.asarray, back), (params, state))


def test_signed_zeros_and_two_biases_keep_their_bits():
    net, x = jn.serial(rnn=jn.recurrent(jn.gru_cell(2))), floats(1, 3, 2)
    params, state = draw(net, x)
    params = jax.tree.map(lambda leaf: np.where(np.arange(leaf.shape[-1]) % 2 == 0, np.float32(-0.0), leaf), params)
    equal(jax.tree.map(np.asarray, from_torch(net, to_torch(net, params, state, x), x)[0]), params)


def test_what_comes_back_shares_no_memory():
    net, x = jn.dense(64, use_bias=False), floats(1, 64)
    for tensors in ({"weight": floats(64, 64)}, {"weight": np.asfortranarray(floats(64, 64))}):
        params, state = from_torch(net, tensors, x)
        before = np.array(params["kernel"])
        tensors["weight"][:] = 7
        np.testing.assert_array_equal(params["kernel"], before)
        to_torch(net, params, state, x)["weight"][:] = 7
        np.testing.assert_array_equal(params["kernel"], before)


def test_precision_is_that_of_init_or_the_one_asked_for():
    net, x = jn.serial(fc=jn.dense(3), bn=jn.batch_norm()), floats(2, 4)
    tensors = to_torch(net, *draw(net, x), x)
    half = {name: value.astype(jnp.bfloat16) if value.dtype == np.float32 else value for name, value in tensors.items()}
    params, state = from_torch(net, half, x)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((params, state))} == {"float32"}
    params, state = from_torch(net, tensors, x, dtype=jnp.bfloat16)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"bfloat16"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {"float32"}
    np.testing.assert_array_equal(params["fc"]["kernel"], half["fc.weight"].T)


def test_arrays_of_a_layer_of_ones_own_keep_name_and_layout():
    def cross() -> jn.Net:
        return jn.layer(lambda key, x: {"gamma": jnp.zeros((2, 3))}, lambda params, x: x * params["gamma"][:1, :1])

    tensors = {"own.gamma": floats(2, 3)}
    params, _ = from_torch(jn.serial(own=cross()), tensors, floats(1, 4))
    np.testing.assert_array_equal(params["own"]["gamma"], tensors["own.gamma"])


def test_heads_that_run_in_training_only_are_put_in_order_too():
    body = jn.serial(conv=jn.conv(3, 2), flatten=jn.flatten, fc=jn.dense(2))
    net = jn.auxiliary_heads(body, aux=(jn.serial(flatten=jn.flatten, fc=jn.dense(2)), "conv"))
    x = floats(2, 4, 5, 1)
    tensors = to_torch(net, *draw(net, x), x)
    tensors["aux.fc.weight"] = tensors["fc.weight"]
    params, _ = from_torch(net, tensors, x)
    np.testing.assert_array_equal(params["aux"]["fc"]["kernel"], params["fc"]["kernel"])


def test_prefixes_of_wrappers_are_dropped():
    net, x = jn.serial(jn.dense(3), jn.dense(2)), floats(1, 4)
    tensors = to_torch(net, *draw(net, x), x)
    want = from_torch(net, tensors, x)
    for prefix in (
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "module.module.",
        "_orig_mod." * 2,
    ):
        equal(from_torch(net, {prefix + name: value for name, value in tensors.items()}, x), want)
    inner = {f"_fsdp_wrapped_module.{name.replace('.', '._fsdp_wrapped_module._orig_mod.')}" for name in tensors}
    equal(from_torch(net, dict(zip(sorted(inner), (tensors[name] for name in sorted(tensors)))), x), want)
    with pytest.raises(jn.NetError, match=r"expects one tensor per name, got two of '0\.weight'"):
        from_torch(net, tensors | {"_orig_mod.0.weight": tensors["0.weight"]}, x)
    inside = jn.serial(module=net)
    assert list(from_torch(inside, {f"module.{name}": value for name, value in tensors.items()}, x)[0]) == ["module"]


@pytest.mark.slow
def test_modules_of_pytorch_are_taken_however_they_are_wrapped():
    torch = pytest.importorskip("torch")
    net, x = jn.serial(jn.dense(3), jn.dense(2)), floats(1, 4)
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    want = from_torch(net, module, x)
    equal(from_torch(net, torch.compile(torch.nn.DataParallel(module), backend="eager"), x), want)
    equal(from_torch(net, torch.nn.DataParallel(torch.compile(module, backend="eager")), x), want)
    module[0] = torch.compile(module[0], backend="eager")
    assert "0._orig_mod.weight" in module.state_dict()
    equal(from_torch(net, module, x), want)
