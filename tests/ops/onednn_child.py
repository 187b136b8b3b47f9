"""What a version of jaxlib must do with oneDNN's convolution: run by `test_onednn.py` in a process of its own."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.ops.conv import native, onednn
from jaxnets.ops.geometry import Geometry

SQUARE = ((1, 1), (1, 1))
GEOMETRIES = {
    "3x3": Geometry((8, 8), (3, 3), 16, 24, (1, 1), SQUARE, (1, 1)),
    "1x1": Geometry((8, 8), (1, 1), 16, 24, (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "stride": Geometry((9, 8), (3, 3), 16, 24, (2, 2), SQUARE, (1, 1)),
    "uneven": Geometry((16, 12), (3, 5), 9, 4, (2, 1), ((1, 0), (2, 2)), (1, 2)),
    "stride and dilation": Geometry((11, 10), (3, 3), 16, 8, (2, 3), ((0, 2), (1, 1)), (2, 2)),
    "no overlap": Geometry((7, 7), (2, 2), 3, 5, (3, 3), ((0, 0), (0, 0)), (1, 1)),
    "dilation": Geometry((16, 16), (3, 3), 16, 16, (1, 1), ((2, 2), (2, 2)), (2, 2)),
    "tiles": Geometry((32, 24), (3, 3), 8, 8, (1, 1), SQUARE, (1, 1)),
    "prime": Geometry((13, 13), (5, 5), 16, 16, (1, 1), ((2, 2), (2, 2)), (1, 1)),
    "wide padding": Geometry((3, 2), (2, 2), 16, 16, (1, 1), ((3, 2), (0, 2)), (1, 1)),
    "one column": Geometry((5, 1), (3, 1), 1, 1, (1, 1), ((1, 1), (0, 0)), (1, 1)),
}
MAPS = ("forward", "to_input", "to_kernel")


def operands(geometry: Geometry, batch: int, dtype: Any) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Return the operands of each map."""
    draw = np.random.default_rng(0).standard_normal
    x, kernel, dy = (
        jnp.asarray(draw(shape), dtype)
        for shape in (
            (batch, *geometry.spatial, geometry.channels),
            geometry.kernel,
            (batch, *geometry.out, geometry.features),
        )
    )
    return {"forward": (x, kernel), "to_input": (dy, kernel), "to_kernel": (x, dy)}


def check(name: str, dtype: Any, batch: int = 4) -> None:
    """Compare the three maps with those of XLA."""
    geometry, close = GEOMETRIES[name], 2e-6 if dtype == jnp.float32 else 2e-2
    given = operands(geometry, batch, dtype)

    def all_maps(module: Any) -> dict[str, jax.Array]:
        return jax.jit(lambda given: {m: getattr(module, m)(*given[m], geometry) for m in MAPS})(given)

    found, expected = all_maps(onednn), all_maps(native)
    for map_, array in expected.items():
        right = np.asarray(array, np.float32)
        most = float(np.abs(right).max(initial=0))
        np.testing.assert_allclose(found[map_].astype(jnp.float32), right, rtol=0, atol=close * most, err_msg=name)


def check_fused(name: str, dtype: Any) -> None:
    """Compare a call that includes bias, residual and ReLU with separate operations after the convolution."""
    g, draw = GEOMETRIES[name], np.random.default_rng(1).standard_normal
    x, kernel = operands(g, 4, dtype)["forward"]
    bias, residual = (jnp.asarray(draw(shape), dtype) for shape in ((g.features,), (4, *g.out, g.features)))
    settings = {"stride": g.stride, "padding": g.padding, "dilation": g.dilation}
    for one, two, relu in itertools.product((None, bias), (None, residual), (False, True)):
        found = jax.jit(partial(onednn.convolve, **settings, relu=relu))(x, kernel, bias=one, residual=two)
        expected = np.asarray(onednn.finished(onednn.convolve(x, kernel, **settings), one, two, relu=relu), np.float32)
        # In bfloat16 a single rounding of the result, not one after each operation.
        close = (1e-6 if dtype == jnp.float32 else 2e-2) * float(np.abs(expected).max())
        np.testing.assert_allclose(np.asarray(found, np.float32), expected, rtol=0, atol=close, err_msg=name)


def main() -> None:
    """Check everything, and say so."""
    for name in GEOMETRIES:
        check(name, jnp.float32)
    check("3x3", jnp.bfloat16)
    check("tiles", jnp.bfloat16)
    check("3x3", jnp.float32, batch=0)
    check("3x3", jnp.float32, batch=1)
    for name in ("3x3", "1x1", "uneven", "one column"):
        check_fused(name, jnp.float32)
        check_fused(name, jnp.bfloat16)

    geometry = GEOMETRIES["3x3"]
    x, kernel = operands(geometry, 4, jnp.float32)["forward"]
    expected = native.forward(x, kernel, geometry)

    def same(y: jax.Array) -> None:
        np.testing.assert_allclose(y, expected, rtol=0, atol=2e-6 * float(jnp.abs(expected).max()))

    # In a loop, of a donated operand, and in several threads at once.
    _, ys = jax.jit(lambda x, k: jax.lax.scan(lambda c, _: (c, onednn.forward(x, k, geometry)), 0, length=3))(x, kernel)
    same(ys[2])
    compiled = jax.jit(lambda x, kernel: onednn.forward(x, kernel, geometry))
    with ThreadPoolExecutor(4) as threads:
        for y in threads.map(lambda _: compiled(x, kernel), range(16)):
            same(y)
    same(jax.jit(lambda x, kernel: onednn.forward(x, kernel, geometry), donate_argnums=0)(jnp.copy(x), kernel))
    print("proved")


if __name__ == "__main__":
    main()
