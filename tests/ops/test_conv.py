"""Convolution as array functions: against loops, and formulations against XLA's own in every derivative."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn
from jaxnets.ops.conv import dispatch
from jaxnets.ops.conv import forward as ops
from jaxnets.ops.conv.dispatch import formulation
from jaxnets.ops.conv.primitives import MAPS
from jaxnets.ops.geometry import Geometry
from tests.once import once
from tests.ops import loops
from tests.oracle import floats


@st.composite
def settings(draw, groups=st.integers(1, 2)):
    """Draw (input, kernel, stride, padding, dilation, groups) with at least one window."""
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


@pytest.mark.slow
@given(settings())
def test_conv_equals_loops(drawn):
    x, kernel, *rest = drawn
    with jax.enable_x64(True):
        y = jax.jit(lambda x, kernel: ops.conv(x, kernel, *rest))(x, kernel)
    np.testing.assert_allclose(y, loops.conv(*drawn), atol=1e-12)


CASES = {
    "1-D": ((6,), (3,), ((2,), ((2, 0),), (2,)), 2, 3),
    "2-D": ((5, 4), (3, 2), ((1, 2), ((1, 1), (0, 1)), (1, 1)), 2, 3),
    "1x1": ((5, 4), (1, 1), ((2, 1), ((0, 0), (1, 0)), (1, 1)), 2, 3),
    "unit stride": ((5, 4), (3, 3), ((1, 1), ((1, 1), (2, 0)), (1, 1)), 2, 3),
    "dilated": ((5, 7), (2, 3), ((1, 1), ((1, 1), (2, 1)), (2, 2)), 9, 17),
    "3-D": ((3, 2, 4), (2, 1, 3), ((1, 1, 1), ((0, 1), (0, 0), (1, 1)), (1, 1, 1)), 2, 2),
    "wide padding": ((3, 2), (2, 2), ((1, 1), ((3, 2), (0, 2)), (1, 1)), 2, 2),
    "depthwise": ((5, 4), (3, 2), ((1, 2), ((1, 1), (0, 1)), (1, 1), 2), 2, 4),
    "groups": ((5, 4), (3, 2), ((2, 1), ((1, 1), (0, 1)), (1, 2), 2), 4, 4),
    "thin groups": ((3, 4), (2, 2), ((1, 1), ((1, 0), (0, 1)), (1, 1), 8), 32, 16),
}


def native(x, kernel, stride, padding, dilation, groups=1):
    """Convolve by XLA's own operation, with JAX's own derivatives."""
    spatial = "DHW"[-len(stride) :]
    layout = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    return jax.lax.conv_general_dilated(
        x, kernel, stride, padding, rhs_dilation=dilation, dimension_numbers=layout, feature_group_count=groups
    )


FITTING_EIGEN = {"many rows": ((9, 7), (3, 3), ((1, 1), ((1, 1), (1, 1)), (1, 1)), 3, 4)}
GROUPED = ("depthwise", "groups", "thin groups")
FORMS: dict[Any, Any] = {
    "native": CASES,
    "eigen": FITTING_EIGEN,
    "patches": [name for name in CASES if name not in GROUPED],
    "shifts": ("unit stride", "dilated", "3-D"),
    "depthwise": ("depthwise",),
    "groups": GROUPED,
}


def doubles(*shapes):
    """Return arrays of float64, each of its own numbers."""
    return [floats(*shape, seed=seed).astype(np.float64) for seed, shape in enumerate(shapes)]


def same(found, expected, name):
    """Assert that trees of float64 are equal but for rounding."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1.0, np.abs(b).max()), err_msg=name)


@pytest.mark.parametrize("case", [*CASES, *FITTING_EIGEN])
@jax.enable_x64(True)
def test_every_formulation_computes_all_three_maps(case):
    spatial, window, rest, channels, features = {**CASES, **FITTING_EIGEN}[case]
    geometry = Geometry(spatial, window, channels, features, *rest)
    given = doubles((2, *spatial, channels), geometry.kernel, (2, *geometry.out, features))

    def compute(x, kernel, dy):
        y, backward = jax.vjp(lambda x, kernel: native(x, kernel, *rest), x, kernel)
        operands = (x, kernel), (dy, kernel), (x, dy)
        found = {
            form: [formulation(map_, geometry, 2, np.float64, form)(*pair) for map_, pair in zip(MAPS, operands)]
            for form, cases in FORMS.items()
            if case in cases
        }
        return (y, *backward(dy)), found

    expected, found = once(compute, *given)
    same(expected[0], loops.conv(given[0], given[1], *rest), "loops")
    for form, maps in found.items():
        for map_, ours, theirs in zip(MAPS, maps, expected, strict=True):
            same(ours, theirs, f"{form} {map_}")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow_cases(*CASES.keys() - {"1-D"})
@jax.enable_x64(True)
def test_derivatives_are_those_of_the_native_convolution(case):
    spatial, window, rest, channels, features = CASES[case]
    shapes = (2, *spatial, channels), Geometry(spatial, window, channels, features, *rest).kernel

    def derivatives(conv, x, kernel, directions):
        def convolved(x, kernel):
            return conv(x, kernel, *rest)

        def loss(x, kernel):
            return (convolved(x, kernel) ** 3).sum()

        def slope(x, kernel):
            return jax.jvp(loss, (x, kernel), directions)[1]

        gradient = jax.grad(loss, (0, 1))
        kernels, xs = jnp.stack([kernel, 2 * kernel, -kernel]), jnp.stack([x, -x, x * x])
        return {
            "value": convolved(x, kernel),
            "jvp": jax.jvp(convolved, (x, kernel), directions)[1],
            "grad": gradient(x, kernel),
            "hvp": jax.grad(slope, (0, 1))(x, kernel),
            "reverse twice": jax.grad(lambda x, k: sum((g**2).sum() for g in gradient(x, k)), (0, 1))(x, kernel),
            "checkpoint": jax.grad(jax.checkpoint(loss), (0, 1))(x, kernel),
            "vmap": jax.vmap(gradient, (None, 0))(x, kernels),
            "vmap of x": jax.vmap(gradient, (0, None))(xs, kernel),
            "vmap of both": jax.vmap(gradient, (2, -1))(jnp.moveaxis(xs, 0, 2), jnp.moveaxis(kernels, 0, -1)),
            "vmap of vmap": jax.vmap(jax.vmap(gradient, (0, None)), (None, 0))(xs, kernels),
            "both, twice": jax.vmap(jax.vmap(gradient))(jnp.stack([xs, -xs]), jnp.stack([kernels, kernels**2])),
        }

    def both(*given):
        return [derivatives(conv, *given) for conv in (ops.conv, native)]

    x, kernel, *directions = doubles(*shapes, *shapes)
    found, expected = once(both, x, kernel, tuple(directions))
    for name, values in expected.items():
        same(found[name], values, name)


@pytest.mark.slow
@jax.enable_x64(True)
def test_groups_under_vmap():
    """Of x, of kernels, of both and of both twice: groups are batched apart from the others."""
    rest, shapes = CASES["depthwise"][2], ((3, 2, 2, 5, 4, 2), (3, 2, 3, 2, 1, 4))

    def mapped(conv, xs, kernels):
        def ways(x, kernel):
            return conv(x, kernel, *rest), jax.grad(lambda *of: (conv(*of, *rest) ** 3).sum(), (0, 1))(x, kernel)

        x, kernel = xs[0, 0], kernels[0, 0]
        return {
            "x": jax.vmap(ways, (0, None))(xs[0], kernel),
            "kernels": jax.vmap(ways, (None, 0))(x, kernels[0]),
            "both, twice": jax.vmap(jax.vmap(ways))(xs, kernels),
        }

    found, expected = once(lambda *given: [mapped(conv, *given) for conv in (ops.conv, native)], *doubles(*shapes))
    for name, values in expected.items():
        same(found[name], values, name)


def test_a_formulation_that_does_not_apply():
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2))
    with pytest.raises(jn.NetError, match="expects a convolution that the form 'shifts' can compute"):
        ops.conv(x, kernel, (2, 2), ((0, 0),) * 2, (1, 1), form="shifts")
    with pytest.raises(
        jn.NetError, match="expects a form among native, eigen, onednn, patches, shifts, depthwise, groups, got 'fft'"
    ):
        ops.conv(x, kernel, (2, 2), ((0, 0),) * 2, (1, 1), form="fft")


@pytest.mark.parametrize("features", [4, 20])
def test_an_empty_batch(features):
    @jax.jit
    def both(x, kernel):
        y, backward = jax.vjp(lambda x, kernel: ops.conv(x, kernel, (1, 1), ((1, 1),) * 2, (1, 1)), x, kernel)
        return y, *backward(y)

    x, kernel = np.zeros((0, 5, 5, 12), np.float32), np.ones((3, 3, 12, features), np.float32)
    y, dx, dkernel = both(x, kernel)
    assert (y.shape, dx.shape) == ((0, 5, 5, features), x.shape)
    np.testing.assert_array_equal(dkernel, np.zeros_like(kernel))


@pytest.mark.slow
def test_a_program_exported_for_any_batch():
    """In every formulation: each case and form is one output of the program."""
    cases = {**CASES, **FITTING_EIGEN, "wide": ((5, 5), (3, 3), ((1, 1), ((1, 1),) * 2, (1, 1)), 12, 20)}
    arrays = {
        case: doubles((3, *s, c), Geometry(s, w, c, f, *rest).kernel) for case, (s, w, rest, c, f) in cases.items()
    }
    forms = {None: cases} | FORMS

    @jax.jit
    def gradients(arrays):
        def loss(case, form, x, kernel):
            return (ops.conv(x, kernel, *cases[case][2], form=form) ** 2).sum()

        return [jax.grad(loss, (2, 3))(case, form, *arrays[case]) for form, names in forms.items() for case in names]

    (batch,) = jax.export.symbolic_shape("batch")
    with jax.enable_x64(True):
        specs = {
            case: [
                jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype),
                jax.ShapeDtypeStruct(kernel.shape, kernel.dtype),
            ]
            for case, (x, kernel) in arrays.items()
        }
        exported = jax.export.export(gradients)(specs)
        same(once(exported.call, arrays), once(gradients, arrays), "exported")


def test_a_batch_in_chunks(monkeypatch):
    x, kernel = floats(6, 5, 5, 12), floats(3, 3, 12, 20)
    rest = (1, 1), ((1, 1), (1, 1)), (1, 1)

    def both(x, kernel):
        y, backward = jax.vjp(lambda x, kernel: ops.conv(x, kernel, *rest, form="shifts"), x, kernel)
        return y, *backward(y)

    whole = jax.jit(both)(x, kernel)
    monkeypatch.setattr(dispatch, "CHUNK_BYTES", 7 * 5 * (3 * 12 + 3 * 20) * 4 * 2)  # two examples a chunk, at most
    chunks = jax.jit(lambda x, kernel: both(x, kernel)[::-1])
    assert chunks.lower(x, kernel).as_text().count("stablehlo.while") == 3
    for a, b in zip(chunks(x, kernel)[::-1], whole):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def program(platform, window, channels=32, features=32, groups=1):
    """Return the text of the program for the gradients of a convolution on a platform."""
    padding = ((window // 2,) * 2,) * 2

    def loss(x, kernel):
        return ops.conv(x, kernel, (1, 1), padding, (1, 1), groups).sum()

    x = jax.ShapeDtypeStruct((4, 8, 8, channels), jnp.float32)
    kernel = jax.ShapeDtypeStruct((window, window, channels // groups, features), jnp.float32)
    return jax.export.export(jax.jit(jax.grad(loss, (0, 1))), platforms=[platform])(x, kernel).mlir_module()


def test_the_platform_chooses_the_formulation():
    assert "stablehlo.convolution" not in program("cpu", 3, channels=8)
    assert "4x9x8x32xf32" in program("cpu", 3)  # a padded row makes XLA choose Eigen
    assert "stablehlo.convolution" in program("cpu", 3, features=16)
    assert "stablehlo.convolution" in program("cpu", 3, groups=2)
    assert "stablehlo.convolution" not in program("cpu", 3, groups=32)
    for platform in ("cuda", "tpu"):
        assert "stablehlo.convolution" in program(platform, 3)
        assert "dot_general" not in program(platform, 3)
    for platform in ("cpu", "cuda", "tpu"):
        text = program(platform, 1)
        assert "dot_general" in text
        assert "stablehlo.convolution" not in text


def test_kernels_larger_than_the_input_and_few_channels_are_for_patches():
    for channels, side, library in ((64, 2, False), (512, 2, True), (3, 8, False)):
        geometry = Geometry((side, side), (3, 3), channels, 64, (1, 1), ((1, 1), (1, 1)), (1, 1))
        assert dispatch.choose("forward", geometry, library=library) == "patches"
        assert dispatch.choose("to_kernel", geometry, library=library and channels > 128) == "patches"
    few = Geometry((8, 8), (3, 3), 3, 64, (1, 1), ((1, 1), (1, 1)), (1, 1))
    assert [dispatch.choose(map_, few, library=True) for map_ in MAPS] == ["onednn", "patches", "patches"]


def test_a_padded_row_makes_xla_choose_eigen():
    x, kernel = floats(4, 8, 8, 32), floats(3, 3, 32, 32)

    def compiled(form):
        def gradients(x, kernel):
            return jax.grad(lambda x, k: (ops.conv(x, k, (1, 1), ((1, 1),) * 2, (1, 1), 1, form) ** 2).sum(), (0, 1))(
                x, kernel
            )

        made = jax.jit(gradients).lower(x, kernel).compile()
        return made.as_text() or "", made(x, kernel)

    (text, found), (plain, expected) = compiled("eigen"), compiled("native")
    assert sum("convolution(" in line for line in text.splitlines()) == 3
    # JAX 0.10.0 gives YNNPACK no convolutions, later versions do.
    assert text.count("ynn") < plain.count("ynn") or "ynn" not in text + plain
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("chunk_bytes", [dispatch.CHUNK_BYTES, 1])
def test_operands_under_shard_map_are_cast_to_vary_alike(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch):
    """Also the zeros that chunks of a batch are added to."""
    monkeypatch.setattr(dispatch, "CHUNK_BYTES", chunk_bytes)
    mesh, spec = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("batch",)), jax.sharding.PartitionSpec
    x, kernel = floats(4, 5, 5, 9), floats(3, 3, 9, 17)

    def loss(kernel, x):
        return jax.lax.psum((ops.conv(x, kernel, (1, 1), ((1, 1),) * 2, (1, 1)) ** 2).sum(), "batch")

    sharded = jax.shard_map(jax.grad(loss), mesh=mesh, in_specs=(spec(), spec("batch")), out_specs=spec())
    whole = jax.grad(lambda kernel, x: (native(x, kernel, (1, 1), ((1, 1),) * 2, (1, 1)) ** 2).sum())
    found, whole = jax.jit(lambda *given: (sharded(*given), whole(*given)))(kernel, x)
    np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-4 * np.abs(whole).max())


def test_patches_are_no_residuals():
    def residuals(x, kernel):
        return jax.vjp(lambda x, k: ops.conv(x, k, (1, 1), ((0, 0), (0, 0)), (1, 1)), x, kernel)[1]

    x, kernel = floats(2, 6, 6, 3), floats(3, 3, 3, 2)
    sizes = [leaf.size for leaf in jax.tree.leaves(jax.eval_shape(residuals, x, kernel))]
    assert x.size <= sum(sizes) <= x.size + kernel.size + 1


def test_gradients_inside_a_scan():
    x, kernel = floats(3, 2, 7, 2), floats(3, 2, 2)

    def loss(kernel, x):
        return (ops.conv(x, kernel, (2,), ((1, 1),), (1,)) ** 2).sum()

    def step(kernel, x):
        return kernel - 0.01 * jax.grad(loss)(kernel, x), None

    @jax.jit
    def both(kernel, x):
        scanned, _ = jax.lax.scan(step, kernel, x)
        for each in x:
            kernel, _ = step(kernel, each)
        return scanned, kernel

    scanned, unrolled = both(kernel, x)
    np.testing.assert_allclose(scanned, unrolled, rtol=1e-6, atol=1e-6)
