"""Counts by tracing, checked by sums of ones, XLA's and PyTorch's counters, JAX's list of residuals and arithmetic."""

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.ad_checkpoint import print_saved_residuals
from jax.experimental import pallas as pl
from jax.sharding import Mesh, PartitionSpec

import jaxnets as jn
from jaxnets.inspect import count_parameters, flops, memory, multiply_adds, trace
from jaxnets.ops.conv import forward as ops
from jaxnets.tracing import layers
from jaxnets.tracing.costs import flops_of, multiply_adds_of
from tests.oracle import witness
from tests.test_every_net import CASES


def shaped(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def xla_flops(function: Callable, *args: Any) -> int:
    """Return XLA's count for the program as written, without compiling it."""
    cost: Any = jax.jit(function).lower(*args).cost_analysis()
    return int(cost.get("flops", 0))


def in_training(net: Any, x: Any) -> int:
    """Return the multiply-adds of a forward and a backward pass."""
    return layers.total(trace.training_step(trace.model_of(net, x)), multiply_adds_of)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[tuple[int, ...], dict[str, Any]]:
    rank, groups = draw(st.integers(1, 2)), draw(st.integers(1, 3))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    x = (draw(st.integers(1, 2)), *each(5, 8), groups * draw(st.integers(1, 2)))
    kernel_size = each(1, 3)
    # A kernel of one element is a matrix product, which counts padding as rows like any other.
    wide = min(2, max(kernel_size) - 1)
    return x, {
        "features": groups * draw(st.integers(1, 3)),
        "kernel_size": kernel_size,
        "stride": each(1, 3),
        "padding": tuple(zip(each(0, wide), each(0, wide), strict=True)),
        "dilation": each(1, 2),
        "groups": groups,
    }


@given(convolutions())
def test_convolutions(case: tuple[tuple[int, ...], dict[str, Any]]):
    shape, settings = case
    net, groups = jn.conv(**settings, use_bias=False), settings["groups"]
    kernel = np.ones((*settings["kernel_size"], shape[-1] // groups, settings["features"]), np.float32)
    numbers: Any = {name: settings[name] for name in ("stride", "padding", "dilation")}

    def native(x: Any, kernel: Any) -> Any:
        return ops.conv(x, kernel, **numbers, groups=groups, form="native")

    y = np.asarray(native(np.ones(shape, np.float32), kernel))
    assert multiply_adds(net, shaped(*shape)) == y.size * math.prod(kernel.shape[:-1])
    # For inputs of ones, each output is the number of inputs it reads. XLA also leaves out the padding.
    assert jn.inspect.connections(net, shaped(*shape)) == y.sum() == xla_flops(native, np.ones(shape), kernel) // 2
    if not any(map(any, settings["padding"])):
        assert flops(net, shaped(*shape)) == 2 * y.sum()


@given(convolutions())
def test_transposed_convolutions_count_no_zeros_in_between(case: tuple[tuple[int, ...], dict[str, Any]]):
    (batch, *places, channels), settings = case
    del settings["padding"]
    net, x = jn.conv_transpose(**settings, use_bias=False), shaped(batch, *places, channels)
    each = math.prod(settings["kernel_size"]) * channels * settings["features"] // settings["groups"]
    assert multiply_adds(net, x) == batch * math.prod(places) * each
    assert in_training(net, x) == 2 * multiply_adds(net, x)  # the kernel's gradient is as expensive


FORMS = st.sampled_from(["abi,abd->abid", "abi,dbi->abd", "abi,ib->ab"])


@given(st.lists(st.integers(1, 4), min_size=4, max_size=4), FORMS)
def test_matrix_products(sizes: list[int], form: str):
    of = dict(zip("abid", sizes, strict=True))
    left, right = ([of[axis] for axis in term] for term in form.partition("->")[0].split(","))
    expected = np.einsum(form, np.ones(left), np.ones(right)).sum()  # of ones: the number of products

    def product(x: Any, y: Any) -> Any:
        return jnp.einsum(form, x, y)

    assert multiply_adds(product, shaped(*left), shaped(*right)) == expected


def test_products_agree_with_xla():
    x, y = jnp.ones((3, 4, 5)), jnp.ones((3, 5, 6))
    assert flops(jnp.matmul, x, y) == xla_flops(jnp.matmul, x, y) == 2 * 3 * 4 * 5 * 6


def window_sum(x: jax.Array) -> jax.Array:
    return lax.reduce_window(x, np.float32(0), lax.add, (3, 2), (2, 1), "VALID")


@pytest.mark.parametrize(
    "function",
    [
        *(lambda x: x + x, lambda x: x * x - x, lambda x: x > 0.5, lambda x: jnp.maximum(x, 0.5), lambda x: -x),
        *(lambda x: x.sum(), lambda x: x.max(0), lambda x: x.prod(1), lambda x: jnp.abs(x) / x, window_sum),
        *(lambda x: x.T.reshape(-1)[2:], lambda x: jnp.concatenate([x, x]), lambda x: x[::-1]),
        *(jnp.floor, lambda x: jnp.clip(x, 0.0, 1.0), lambda x: jnp.where(x > 0, x, 0.0)),
    ],
)
def test_arithmetic_agrees_with_xla(function: Callable):
    x = jnp.ones((7, 5))
    assert flops(function, x) == xla_flops(function, x)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (jnp.tanh, 12),
        (lambda x: lax.rsqrt(jnp.exp(x)), 24),
        (lambda x: jnp.cumsum(x, 0), 12),
        (lambda x: jnp.argmax(x, 1), 12 - 3),
        (lambda x: x.at[jnp.array([0, 0])].add(1.0), 2 * 4),
        (lambda x: jnp.sort(x, 1), 12 * 2),
        (lambda x: x.astype(jnp.bfloat16), 0),
        (lambda x: jnp.arange(12) * 3 + 1, 0),
        (lambda x: lax.reduce((x, x), (np.float32(0),) * 2, lambda a, b: (a[0] + b[0], a[1] + b[1]), (0,))[0], 16),
        (
            jax.grad(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2), (1, 2), "VALID").sum()),
            6 + 5 + 12,
        ),
    ],
)
def test_the_table_of_operations(function: Callable, expected: int):
    assert flops(function, shaped(3, 4)) == expected


def test_loops_branches_and_calls():
    x, step = shaped(4, 4), 64
    custom = jax.custom_vjp(lambda x: x @ x)
    custom.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ x,))
    assert multiply_adds(lambda x: lax.scan(lambda c, _: (c @ x, c @ c), x, None, 5), x) == 2 * 5 * step
    assert multiply_adds(lambda x: lax.fori_loop(0, 3, lambda _, c: c @ c, x), x) == 3 * step
    assert multiply_adds(lambda x: lax.map(lambda row: lax.map(lambda a: a * x[0] @ x[1], row), x), x) == 4 * 4 * 4
    assert multiply_adds(lambda x: lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x), x) == 2 * step
    assert multiply_adds(lambda x: lax.switch(1, [lambda x: x @ x, lambda x: x], x), x) in (0, step)
    assert multiply_adds(jax.vmap(lambda x: jax.jit(jnp.matmul)(x, x)), shaped(7, 4, 4)) == 7 * step
    assert multiply_adds(lambda x: custom(jax.checkpoint(jnp.matmul)(x, x)), x) == 2 * step
    assert multiply_adds(jax.grad(lambda x: custom(x).sum()), x) == 2 * step
    assert (
        multiply_adds(lambda x: lax.platform_dependent(x, cpu=lambda x: x @ x @ x, default=lambda x: x @ x), x) == step
    )


def test_a_loop_of_unknown_length_is_never_counted_silently():
    def loop(x: jax.Array) -> jax.Array:
        with jax.named_scope("until"):
            return lax.while_loop(lambda x: x.max() < 9, lambda x: x @ x, x)

    x = shaped(4, 4)
    for count in (multiply_adds, flops):
        with pytest.raises(jn.NetError, match=r"loop in until has no known length; give it by trips="):
            count(loop, x)
    assert multiply_adds(loop, x, trips=10) == 640
    assert flops(loop, x, trips=10) == 10 * 128 + 11 * 16  # the condition runs once more than the body
    integers = lambda x: x + jnp.float32(lax.while_loop(lambda i: i < 3, lambda i: i + 1, 0))  # noqa: E731
    assert flops(integers, x) == 16


def test_operations_without_a_rule_are_reported():
    with pytest.raises(jn.NetError, match=r"cholesky in the function has no known cost"):
        flops(jnp.linalg.cholesky, shaped(4, 4))
    assert multiply_adds(jnp.linalg.cholesky, shaped(4, 4)) == 0

    def kernel(x: Any, y: Any) -> None:
        y[...] = x[...] @ x[...]

    def opaque(x: jax.Array) -> jax.Array:
        return pl.pallas_call(kernel, out_shape=shaped(4, 4))(x)

    def callback(x: jax.Array) -> jax.Array:
        return jax.pure_callback(lambda x: x @ x, shaped(4, 4), x)

    for function in (opaque, callback):
        with pytest.raises(jn.NetError, match=r"call(back)? in the function has no known cost"):
            multiply_adds(function, shaped(4, 4))


def test_shards_count_together():
    mesh = Mesh(np.array(jax.devices()[:4]), "batch")
    split = PartitionSpec("batch")
    sharded = jax.shard_map(lambda x, w: x @ w, mesh=mesh, in_specs=(split, PartitionSpec()), out_specs=split)
    assert multiply_adds(sharded, shaped(8, 3), shaped(3, 5)) == 8 * 3 * 5


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.slow_cases(
    *("models/cnn", "models/encoder_decoder", "models/fcn_tiny", "models/gru", "models/landmarks_tiny"),
    *("models/language_model", "models/lenet5_parts", "models/lenet5_smooth"),
    *(f"recurrent/bidirectional{end}" for end in ("", "_last", "_stacked")),
    *(f"recurrent/{name}" for name in ("carry_in", "carry_out", "carry_through", "cast", "dropout_padded", "gru")),
    *(f"recurrent/{name}" for name in ("gru_reset_before", "last", "last_reverse", "lstm", "reverse", "stacked")),
    *("recurrent/ensemble", "recurrent/repeat"),
)
def test_every_network_has_known_costs(case: Any):
    net = case.make()
    model = trace.model_of(net, case.x)
    assert layers.unknowns(trace.forward(model), flops_of) == {}
    if jax.tree.leaves(model.params):
        assert layers.unknowns(trace.training_step(model), flops_of) == {}
        assert layers.residuals(trace.residuals(model))[()] >= 0


def blocks(wrap: Callable = lambda net: net) -> jn.Net:
    block = jn.serial(conv=jn.conv(6, 3, padding=1), norm=jn.batch_norm(), relu=jax.nn.relu)
    return jn.serial(stem=jn.conv(6, 3), body=wrap(block), flatten=jn.flatten, fc=jn.dense(5))


def test_a_scan_over_depth_counts_as_the_layers_written_out():
    block = jn.residual(jn.serial(conv=jn.conv(4, 3, padding=1), norm=jn.batch_norm(), relu=jnp.tanh))
    written, scanned, x = jn.serial(block, block, block), jn.repeat(block, 3), shaped(2, 6, 6, 4)
    for options in ({}, {"train": True}):
        assert multiply_adds(scanned, x) == multiply_adds(written, x) == 3 * multiply_adds(block, x)
        assert flops(scanned, x, **options) == flops(written, x, **options)
    assert memory(scanned, x).activations == memory(written, x).activations
    # Written out, the input of the first block needs no gradient; in a scan every block computes one.
    assert in_training(scanned, x) == in_training(written, x) + multiply_adds(block, x)
    assert multiply_adds(jn.ensemble(block, 3), x) == 3 * multiply_adds(block, x)


def test_recomputation_costs_flops_and_saves_memory():
    plain, again, x = blocks(), blocks(jn.remat), shaped(2, 8, 8, 3)
    once = multiply_adds(jn.conv(6, 3, padding=1), shaped(2, 6, 6, 6))
    assert in_training(again, x) == in_training(plain, x) + once
    assert multiply_adds(again, x) == multiply_adds(plain, x)
    assert memory(again, x).residuals < memory(plain, x).residuals
    assert flops(plain, x, train=True) > flops(plain, x)  # batch statistics


def test_pools_multiply_nothing_but_compute():
    x = shaped(1, 5, 5, 2)
    assert multiply_adds(jn.adaptive_avg_pool(3), x) == 0
    assert flops(jn.adaptive_avg_pool(3), x) == 2 * 2 * (3 * 5 * 5 + 3 * 3 * 5)  # products with averages
    assert flops(jn.max_pool(2), shaped(1, 4, 4, 1)) == 3 * 4  # the larger of two, three times a window
    assert flops(jn.avg_pool(2), shaped(1, 4, 4, 1)) == 8 + 4 + 4


def test_forward_and_backward_agree_with_pytorchs_counter():
    net = jn.serial(
        jn.conv(8, 3, use_bias=True),
        jax.nn.relu,
        jn.conv(12, 3, stride=2, padding=1),
        jax.nn.relu,
        jn.conv_transpose(6, 3, stride=2, padding=1),
        jn.flatten,
        jn.dense(10),
        jnp.tanh,
        jn.dense(3),
    )

    def compute() -> dict[str, np.ndarray]:
        import torch
        from torch import nn
        from torch.utils.flop_counter import FlopCounterMode

        layers = [nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU()]
        layers += [nn.ConvTranspose2d(12, 6, 3, stride=2, padding=1), nn.Flatten(), nn.LazyLinear(10), nn.Tanh()]
        model = nn.Sequential(*layers, nn.Linear(10, 3))
        model(torch.ones(2, 4, 11, 11))
        with FlopCounterMode(display=False) as forward:
            y = model(torch.ones(2, 4, 11, 11))
        with FlopCounterMode(display=False) as backward:
            y.sum().backward()
        return {"forward": np.array(forward.get_total_flops()), "backward": np.array(backward.get_total_flops())}

    theirs, x = witness("inspect/flop_counter", compute), shaped(2, 11, 11, 4)
    assert 2 * multiply_adds(net, x) == theirs["forward"]
    assert 2 * in_training(net, x) == theirs["forward"] + theirs["backward"]


def test_residuals_are_those_that_jax_lists(capsys: pytest.CaptureFixture[str]):
    layer = jn.serial(jn.dense(6), jnp.tanh)
    several = jn.serial(jn.dense(7), jax.nn.sigmoid, jn.dense(5), jax.nn.softmax, jn.dense(2))
    for net in (several, jn.repeat(layer, 3), jn.serial(layer, jn.remat(jn.serial(layer, layer)), jn.dense(2))):
        x = jnp.ones((4, 6))
        params, _ = jax.eval_shape(net.init, jax.random.key(0), x)
        print_saved_residuals(lambda params, net=net, x=x: net.apply(params, {}, x)[0], params)
        lines = re.findall(r"^f32\[([\d,]*)\] (?!from)", capsys.readouterr().out, re.MULTILINE)
        sizes = [math.prod(int(n) for n in shape.split(",") if n) for shape in lines]
        assert memory(net, x).residuals == 4 * sum(sizes) > 0


def test_memory_of_a_layer_by_hand():
    net, x = jn.serial(jn.dense(10), jnp.tanh), shaped(32, 100)
    by_hand = {"parameters": 4 * 1010, "state": 0, "activations": 4 * 2 * 320, "optimizer": 4 * (2 * 1010 + 1)}
    got = memory(net, x, optimizer=optax.adam(1e-3))
    assert {name: getattr(got, name) for name in by_hand} == by_hand
    assert got.training == 2 * 4040 + got.residuals + 8084
    assert memory(jn.batch_norm(), x).state == 4 * 200
    assert memory(jnp.tanh, x) == jn.inspect.Memory(0, 0, 4 * 3200, 0)
    wide, half = (memory(net, shaped(32, 100, dtype=dtype)).activations for dtype in (jnp.float32, jnp.bfloat16))
    assert wide == 2 * half


def test_count_parameters():
    net, x = jn.models.lenet5(), shaped(1, 28, 28, 1)
    assert count_parameters(net, x) == 61_706
    assert count_parameters(net, x, on="**/bias") == 6 + 16 + 120 + 84 + 10
    assert count_parameters(jax.eval_shape(net.init, jax.random.key(0), x)[0]) == 61_706
    assert count_parameters(jn.repeat(jn.dense(3), 4), shaped(1, 3)) == 4 * 12
    assert count_parameters(jn.conv(6, 10), shaped(1, 12, 12, 1)) == 606  # six kernels of 10 × 10, and biases
    assert count_parameters(jn.conv(100, 3), shaped(1, 8, 8, 3)) == 2_800
    with pytest.raises(jn.NetError, match=r"matches no parameter"):
        count_parameters(net, x, on="head/*")
    with pytest.raises(jn.NetError, match=r"unknown parameters, as it is a function"):
        count_parameters(jnp.tanh, x)


def test_mistakes():
    net, x = jn.dense(3), shaped(1, 4)
    with pytest.raises(jn.NetError, match=r"dense\(3\) takes one input, got 2"):
        multiply_adds(net, x, x)
    with pytest.raises(jn.NetError, match=r"expects a net, a Flax module or a function, got dict"):
        multiply_adds({}, x)
    with pytest.raises(jn.NetError, match=r"has no parameters to train"):
        flops(jnp.tanh, x, train_step=True)
    assert flops(lambda params, x: x @ params, x, params=jnp.ones((4, 2)), train_step=True) == 2 * 2 * 8
