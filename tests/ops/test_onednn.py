"""oneDNN's convolution: that this version of jaxlib runs it, and that it is used only where it may be."""

import subprocess
import sys
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxnets.ops.conv import forward as ops
from jaxnets.ops.conv import onednn
from tests.oracle import floats

CALL = "__onednn$convolution"
SETTINGS = ((1, 1), ((1, 1), (1, 1)), (1, 1))
PROVED = jaxlib.version.__version__ in onednn.PROVED and "avx2" in onednn._processor_features()
X, KERNEL = floats(4, 6, 6, 12), floats(3, 3, 12, 20, seed=1)


def convolve(x, kernel):
    return ops.conv(x, kernel, *SETTINGS)


def gradient(x, kernel):
    return jax.grad(lambda *given: (convolve(*given) ** 2).sum(), (0, 1))(x, kernel)


@pytest.mark.slow
def test_this_version_of_jaxlib_computes_what_xla_does():
    if not PROVED:
        warnings.warn("oneDNN is not used here: run tests/ops/onednn_child.py, then list this jaxlib", stacklevel=1)
        return
    child = subprocess.run(
        [sys.executable, "-m", "tests.ops.onednn_child"], capture_output=True, text=True, timeout=300, check=False
    )
    assert child.returncode == 0, child.stderr[-2000:]
    assert child.stdout.strip() == "proved"


def calls(function, *arrays, **settings) -> int:
    # A new function, or JAX would reuse what it lowered before.
    return jax.jit(partial(function), **settings).lower(*arrays).as_text().count(CALL)


def test_all_three_maps_of_a_convolution_call_it():
    assert calls(convolve, X, KERNEL) == 1 * PROVED
    assert calls(gradient, X, KERNEL) == 3 * PROVED
    few = floats(4, 6, 6, 3), floats(3, 3, 3, 10)
    assert calls(convolve, *few) == 1 * PROVED
    assert calls(gradient, *few) == 1 * PROVED  # patches have the gradients
    assert calls(convolve, X.astype(np.float16), KERNEL.astype(np.float16)) == 0


def test_what_can_not_hold_the_call_does_not(monkeypatch, tmp_path):
    exported = export.export(jax.jit(gradient))(X, KERNEL)
    assert CALL not in exported.mlir_module()
    for one, other in zip(exported.call(X, KERNEL), jax.jit(gradient)(X, KERNEL), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6 * float(jnp.abs(other).max()))
    assert CALL not in export.export(jax.jit(convolve), platforms=["cuda"])(X, KERNEL).mlir_module()

    # Automatic sharding would gather the operands; each device's part under `shard_map` is its own.
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("batch"))
    whole = NamedSharding(mesh, PartitionSpec())
    assert calls(convolve, X, KERNEL, in_shardings=(split, whole)) == 0
    by_hand = jax.shard_map(
        convolve, mesh=mesh, in_specs=(PartitionSpec("batch"), PartitionSpec()), out_specs=PartitionSpec("batch")
    )
    assert calls(by_hand, X, KERNEL) == 1 * PROVED
    np.testing.assert_allclose(jax.jit(by_hand)(X, KERNEL), jax.jit(convolve)(X, KERNEL), rtol=1e-5, atol=1e-5)

    with monkeypatch.context() as patch:
        patch.setenv("JAXNETS_ONEDNN", "0")
        assert calls(convolve, X, KERNEL) == 0
    with monkeypatch.context() as patch:
        patch.setattr(jaxlib.version, "__version__", "99.0")
        assert calls(convolve, X, KERNEL) == 0
    with monkeypatch.context() as patch:
        patch.setattr(onednn, "_processor_features", lambda: frozenset({"avx", "sse4_1"}))
        assert calls(convolve, X, KERNEL) == 0
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        assert calls(convolve, X, KERNEL) == 0
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert calls(convolve, X, KERNEL) == 1 * PROVED


def native(x, kernel):
    stride, padding, _ = SETTINGS
    return jax.lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def derivatives(conv):
    """Return what JAX's transformations make of a convolution."""

    def loss(x, kernel):
        return (conv(x, kernel) ** 2).mean()

    both = jax.grad(loss, (0, 1))
    xs, kernels = jnp.stack([X, -X]), jnp.stack([KERNEL, 2 * KERNEL])
    return {
        "value": conv(X, KERNEL),
        "gradient": both(X, KERNEL),
        "forward mode": jax.jvp(conv, (X, KERNEL), (jnp.cos(X), jnp.sin(KERNEL)))[1],
        "Hessian product": jax.jvp(both, (X, KERNEL), (jnp.cos(X), jnp.sin(KERNEL)))[1],
        "reverse twice": jax.grad(lambda k: sum((g**2).sum() for g in both(X, k)))(KERNEL),
        "checkpoint": jax.grad(jax.checkpoint(loss), (0, 1))(X, KERNEL),
        "vmap": jax.vmap(both)(xs, kernels),
        "vmap of kernels": jax.vmap(both, (None, 0))(X, kernels),
        "scan": jax.lax.scan(lambda k, x: (k - 0.1 * both(x, k)[1], loss(x, k)), KERNEL, xs),
    }


def test_derivatives_and_transformations_are_those_of_xla():
    program = jax.jit(lambda: derivatives(convolve))
    assert program.lower().as_text().count(CALL) >= 9 * PROVED
    expected, found = jax.jit(lambda: derivatives(native))(), program()
    for name, values in expected.items():
        for a, b in zip(jax.tree.leaves(found[name]), jax.tree.leaves(values), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()), err_msg=name)
