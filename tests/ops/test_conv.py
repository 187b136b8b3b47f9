"""Convolution as array functions: against loops, and formulations against XLA's own in every derivative."""

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


@pytest.mark.parametrize(("spatial", "window", "rest", "channels", "features"), CASES.values(), ids=CASES)
@pytest.mark.slow_cases("2-D", "3-D", "wide padding", "groups", "thin groups")
def test_derivatives_are_those_of_the_native_convolution(spatial, window, rest, channels, features):
    with jax.enable_x64(True):
        shapes = (2, *spatial, channels), (*window, channels // (rest[3] if len(rest) > 3 else 1), features)
        x, kernel = (jnp.asarray(floats(*shape, seed=seed), jnp.float64) for seed, shape in enumerate(shapes))
        directions = (
            jnp.cos(jnp.arange(x.size)).reshape(x.shape),
            jnp.sin(jnp.arange(kernel.size)).reshape(kernel.shape),
        )

        def derivatives(conv):
            def loss(x, kernel):
                return (conv(x, kernel, *rest) ** 3).sum()

            def slope(x, kernel):
                return jax.jvp(loss, (x, kernel), directions)[1]

            gradient = jax.grad(loss, (0, 1))
            kernels, xs = jnp.stack([kernel, 2 * kernel, -kernel]), jnp.stack([x, -x, x * x])
            return {
                "value": conv(x, kernel, *rest),
                "jvp": jax.jvp(lambda x, kernel: conv(x, kernel, *rest), (x, kernel), directions)[1],
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

        expected, found = (jax.jit(lambda conv=conv: derivatives(conv))() for conv in (native, ops.conv))
        for name, values in expected.items():
            for a, b in zip(jax.tree.leaves(found[name]), jax.tree.leaves(values), strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1.0, float(jnp.abs(b).max())), err_msg=name)


GROUPED = ("depthwise", "groups", "thin groups")
FITTING_EIGEN = {"many rows": ((9, 7), (3, 3), ((1, 1), ((1, 1), (1, 1)), (1, 1)), 3, 4)}
FORMS = {
    "native": CASES,
    "eigen": FITTING_EIGEN,
    "patches": [name for name in CASES if name not in GROUPED],
    "shifts": ("unit stride", "dilated", "3-D"),
    "depthwise": ("depthwise",),
    "groups": GROUPED,
}


@pytest.mark.parametrize(("form", "case"), [(form, case) for form, cases in FORMS.items() for case in cases])
def test_every_formulation_computes_all_three_maps(form, case):
    spatial, window, rest, channels, features = {**CASES, **FITTING_EIGEN}[case]
    geometry = Geometry(spatial, window, channels, features, *rest)
    with jax.enable_x64(True):
        x, kernel = (jnp.asarray(floats(*shape)) * 1.0 for shape in ((2, *spatial, channels), geometry.kernel))
        x, kernel = x.astype(jnp.float64), kernel.astype(jnp.float64)
        dy = jnp.asarray(floats(2, *geometry.out, features, seed=2), jnp.float64)
        y, backward = jax.vjp(lambda x, kernel: native(x, kernel, *rest), x, kernel)
        for map_, operands, expected in zip(MAPS, ((x, kernel), (dy, kernel), (x, dy)), (y, *backward(dy))):
            found = formulation(map_, geometry, 2, 8, form)(*operands)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * float(jnp.abs(expected).max()))


def test_a_formulation_that_does_not_apply():
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2))
    with pytest.raises(jn.NetError, match="expects a convolution that the form 'shifts' can compute"):
        ops.conv(x, kernel, (2, 2), ((0, 0),) * 2, (1, 1), form="shifts")
    with pytest.raises(
        jn.NetError, match="expects a form among native, eigen, patches, shifts, depthwise, groups, got 'fft'"
    ):
        ops.conv(x, kernel, (2, 2), ((0, 0),) * 2, (1, 1), form="fft")


@pytest.mark.parametrize("features", [4, 20])
def test_an_empty_batch(features):
    x, kernel = jnp.zeros((0, 5, 5, 12)), jnp.ones((3, 3, 12, features))
    y, backward = jax.vjp(lambda x, kernel: ops.conv(x, kernel, (1, 1), ((1, 1),) * 2, (1, 1)), x, kernel)
    dx, dkernel = backward(y)
    assert (y.shape, dx.shape) == ((0, 5, 5, features), x.shape)
    np.testing.assert_array_equal(dkernel, jnp.zeros_like(kernel))


def test_a_program_exported_for_any_batch():
    kernel = jnp.asarray(floats(3, 3, 12, 20))

    def gradient(x):
        return jax.grad(lambda x: (ops.conv(x, kernel, (1, 1), ((1, 1),) * 2, (1, 1)) ** 2).sum())(x)

    (batch,) = jax.export.symbolic_shape("batch")
    exported = jax.export.export(jax.jit(gradient))(jax.ShapeDtypeStruct((batch, 5, 5, 12), jnp.float32))
    x = jnp.asarray(floats(3, 5, 5, 12))
    np.testing.assert_allclose(exported.call(x), gradient(x), rtol=1e-5, atol=1e-4)


def test_a_batch_in_chunks(monkeypatch):
    x, kernel = (jnp.asarray(floats(*shape)) for shape in ((6, 5, 5, 12), (3, 3, 12, 20)))
    rest = (1, 1), ((1, 1), (1, 1)), (1, 1)

    def both(x, kernel):
        y, backward = jax.vjp(lambda x, kernel: ops.conv(x, kernel, *rest, form="shifts"), x, kernel)
        return y, *backward(y)

    whole = jax.jit(both)(x, kernel)
    monkeypatch.setattr(dispatch, "CHUNK_BYTES", 7 * 5 * (3 * 12 + 3 * 20) * 4 * 2)  # two examples a chunk, at most
    chunks = jax.jit(lambda x, kernel: both(x, kernel)[::-1])
    assert chunks.lower(x, kernel).as_text().count("stablehlo.while") == 3
    for a, b in zip(chunks(x, kernel)[::-1], whole):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(b).max()))


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


def test_a_padded_row_makes_xla_choose_eigen():
    x, kernel = jnp.asarray(floats(4, 8, 8, 32)), jnp.asarray(floats(3, 3, 32, 32))

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
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("chunk_bytes", [dispatch.CHUNK_BYTES, 1])
def test_operands_under_shard_map_are_cast_to_vary_alike(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch):
    """Also the zeros that chunks of a batch are added to."""
    monkeypatch.setattr(dispatch, "CHUNK_BYTES", chunk_bytes)
    mesh, spec = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("batch",)), jax.sharding.PartitionSpec
    x, kernel = jnp.asarray(floats(4, 5, 5, 9)), jnp.asarray(floats(3, 3, 9, 17))

    def loss(kernel, x):
        return jax.lax.psum((ops.conv(x, kernel, (1, 1), ((1, 1),) * 2, (1, 1)) ** 2).sum(), "batch")

    sharded = jax.shard_map(jax.grad(loss), mesh=mesh, in_specs=(spec(), spec("batch")), out_specs=spec())
    whole = jax.grad(lambda kernel: (native(x, kernel, (1, 1), ((1, 1),) * 2, (1, 1)) ** 2).sum())(kernel)
    np.testing.assert_allclose(jax.jit(sharded)(kernel, x), whole, rtol=1e-4, atol=1e-4 * float(jnp.abs(whole).max()))


def test_patches_are_no_residuals():
    x, kernel = jnp.asarray(floats(2, 6, 6, 3)), jnp.asarray(floats(3, 3, 3, 2))
    _, backward = jax.vjp(lambda x, k: ops.conv(x, k, (1, 1), ((0, 0), (0, 0)), (1, 1)), x, kernel)
    residuals = [leaf.size for leaf in jax.tree.leaves(backward)]
    assert sum(residuals) <= x.size + kernel.size + 1


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
