"""Convolution as array functions: against loops, and one formulation against the other in every derivative."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnets.ops import conv as ops
from tests.ops import loops
from tests.oracle import floats


@st.composite
def settings(draw, groups=st.integers(1, 2)):
    """Draw (input, kernel, stride, padding, dilation, groups) with room for at least one window."""
    rank = draw(st.integers(1, 3))

    def each(strategy):
        return tuple(draw(st.lists(strategy, min_size=rank, max_size=rank)))

    g = draw(groups)
    window, stride, dilation = each(st.integers(1, 3)), each(st.integers(1, 3)), each(st.integers(1, 2))
    padding = each(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    more = each(st.integers(0, 3))
    spatial = [max(1, d * (w - 1) + 1 - sum(p)) + m for w, d, p, m in zip(window, dilation, padding, more)]
    channels, features = g * draw(st.integers(1, 2)), g * draw(st.integers(1, 2))
    x = floats(draw(st.integers(1, 2)), *spatial, channels).astype(np.float64)
    kernel = floats(*window, channels // g, features, seed=1).astype(np.float64)
    return x, kernel, stride, padding, dilation, g


@given(settings())
def test_conv_equals_loops(drawn):
    x, kernel, *rest = drawn
    with jax.enable_x64(True):
        y = jax.jit(lambda x, kernel: ops.conv(x, kernel, *rest))(x, kernel)
    np.testing.assert_allclose(y, loops.conv(*drawn), atol=1e-12)


@pytest.mark.parametrize(
    ("spatial", "window", "rest"),
    [
        ((6,), (3,), ((2,), ((2, 0),), (2,))),
        ((5, 4), (3, 2), ((1, 2), ((1, 1), (0, 1)), (1, 1))),
        ((5, 4), (1, 1), ((2, 1), ((0, 0), (1, 0)), (1, 1))),
    ],
    ids=["1-D", "2-D", "1x1"],
)
def test_formulations_agree_in_every_derivative(spatial, window, rest):
    with jax.enable_x64(True):
        x, kernel = (jnp.asarray(floats(*shape), jnp.float64) for shape in ((2, *spatial, 2), (*window, 2, 3)))
        directions = (
            jnp.cos(jnp.arange(x.size)).reshape(x.shape),
            jnp.sin(jnp.arange(kernel.size)).reshape(kernel.shape),
        )

        def derivatives(conv):
            def loss(x, kernel):
                return (conv(x, kernel, *rest) ** 3).sum()

            def slope(x, kernel):
                return jax.jvp(loss, (x, kernel), directions)[1]

            kernels = jnp.stack([kernel, 2 * kernel, -kernel])
            return {
                "value": conv(x, kernel, *rest),
                "jvp": jax.jvp(lambda x, kernel: conv(x, kernel, *rest), (x, kernel), directions)[1],
                "grad": jax.grad(loss, (0, 1))(x, kernel),
                "hvp": jax.grad(slope, (0, 1))(x, kernel),
                "vmap": jax.vmap(jax.grad(loss, (0, 1)), (None, 0))(x, kernels),
                "vmap of x": jax.vmap(jax.grad(loss, 1), (0, None))(jnp.stack([x, -x]), kernel),
            }

        native, chosen, patches = (
            jax.jit(lambda conv=conv: derivatives(conv))() for conv in (ops.conv_native, ops.conv, ops.conv_patches)
        )
        for other in (chosen, patches):
            for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(native)):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1.0, float(jnp.abs(b).max())))


def program(platform, window, size=8, channels=2, groups=1):
    """Return the text of the program for the gradients of a convolution on a platform."""
    padding = ((window // 2,) * 2,) * 2

    def loss(x, kernel):
        return ops.conv(x, kernel, (1, 1), padding, (1, 1), groups).sum()

    x = jax.ShapeDtypeStruct((4, size, size, channels), jnp.float32)
    kernel = jax.ShapeDtypeStruct((window, window, channels // groups, 4), jnp.float32)
    return jax.export.export(jax.jit(jax.grad(loss, (0, 1))), platforms=[platform])(x, kernel).mlir_module()


def test_the_platform_chooses_the_formulation():
    big = math.isqrt(ops.PATCHES_LIMIT // (4 * 9 * 2 * 4)) + 1
    assert "stablehlo.convolution" not in program("cpu", 3)
    assert "stablehlo.convolution" not in program("cpu", 3, size=big - 1)
    assert "stablehlo.convolution" in program("cpu", 3, size=big)
    assert "stablehlo.convolution" in program("cpu", 3, groups=2)
    for platform in ("cuda", "tpu"):
        assert "stablehlo.convolution" in program(platform, 3)
        assert "dot_general" not in program(platform, 3)
    for platform in ("cpu", "cuda", "tpu"):
        text = program(platform, 1, size=big)
        assert "dot_general" in text
        assert "stablehlo.convolution" not in text


def test_patches_are_not_kept_for_the_backward_pass():
    x, kernel = jnp.asarray(floats(2, 6, 6, 3)), jnp.asarray(floats(3, 3, 3, 2))
    _, backward = jax.vjp(lambda x, k: ops.conv(x, k, (1, 1), ((0, 0), (0, 0)), (1, 1)), x, kernel)
    kept = [leaf.size for leaf in jax.tree.leaves(backward)]
    assert sum(kept) <= x.size + kernel.size + 1


def test_gradients_inside_a_scan():
    x, kernel = jnp.asarray(floats(3, 2, 7, 2)), jnp.asarray(floats(3, 2, 2))

    def loss(kernel, x):
        return (ops.conv(x, kernel, (2,), ((1, 1),), (1,)) ** 2).sum()

    def step(kernel, x):
        return kernel - 0.01 * jax.grad(loss)(kernel, x), None

    scanned, _ = jax.jit(lambda kernel, x: jax.lax.scan(step, kernel, x))(kernel, x)
    for each in x:
        kernel, _ = step(kernel, each)
    np.testing.assert_allclose(scanned, kernel, rtol=1e-6, atol=1e-6)
