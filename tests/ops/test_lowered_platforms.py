"""On accelerators a convolution and its gradients are XLA's own; other formulations are for CPUs."""

import re
from collections import Counter
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxnets.ops.conv.forward import conv

CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, int]]] = {  # input, kernel, settings
    "dense": ((2, 8, 8, 4), (3, 3, 4, 6), {}),
    "strided": ((2, 9, 9, 4), (3, 3, 4, 6), {"stride": 2}),
    "dilated": ((2, 9, 9, 4), (3, 3, 4, 6), {"dilation": 2}),
    "few channels": ((2, 9, 9, 1), (3, 3, 1, 6), {}),
    "larger than the input": ((2, 3, 3, 4), (5, 5, 4, 6), {}),
    "grouped": ((2, 8, 8, 4), (3, 3, 2, 6), {"groups": 2}),
    "depthwise": ((2, 8, 8, 4), (3, 3, 1, 4), {"groups": 4}),
    "1-D": ((2, 16, 4), (3, 4, 6), {}),
    "3-D": ((2, 5, 5, 5, 4), (3, 3, 3, 4, 6), {}),
}
LAYOUT = {"transpose", "reshape", "reverse"}  # operations that only change where numbers lie


def convolved(x: jax.Array, kernel: jax.Array, *, stride: int = 1, dilation: int = 1, groups: int = 1) -> Any:
    """Return a convolution and both its gradients."""
    rank = x.ndim - 2
    padding = tuple((size // 2, size // 2) for size in kernel.shape[:rank])
    y, back = jax.vjp(lambda x, w: conv(x, w, (stride,) * rank, padding, (dilation,) * rank, groups), x, kernel)
    return y, back(y)


def operations(function: Any, platform: str, dtype: Any, *shapes: tuple[int, ...]) -> Counter[str]:
    """Return how often each operation occurs in the program for a platform."""
    arrays = (jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)
    program = jax.jit(function).trace(*arrays).lower(lowering_platforms=(platform,))
    return Counter(re.findall(r"stablehlo\.(\w+)", program.as_text()))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("case", CASES)
def test_convolutions_are_plain_on_accelerators(case: str, platform: str, dtype: Any):
    """Three convolutions: the output, and the gradients of the input and the kernel."""
    x, kernel, settings = CASES[case]
    found = operations(partial(convolved, **settings), platform, dtype, x, kernel)
    assert found.pop("convolution") == 3
    assert set(found) <= LAYOUT


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_networks_side_by_side_are_plain_too(platform: str):
    """`vmap` over inputs and kernels: groups of one convolution, not a loop as on CPU."""
    x, kernel, _ = CASES["dense"]
    found = operations(jax.vmap(convolved), platform, jnp.float32, (5, *x), (5, *kernel))
    assert found.pop("convolution") == 3
    assert set(found) <= LAYOUT


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_window_of_one_is_a_matrix_product_everywhere(platform: str):
    found = operations(convolved, platform, jnp.float32, (2, 8, 8, 4), (1, 1, 4, 6))
    assert (found["dot_general"], found["convolution"], found["custom_call"]) == (3, 0, 0)


@pytest.mark.parametrize("case", ["few channels", "larger than the input", "depthwise"])
def test_a_cpu_has_formulations_of_its_own(case: str):
    """What the tests above look for does occur."""
    x, kernel, settings = CASES[case]
    found = operations(partial(convolved, **settings), "cpu", jnp.float32, x, kernel)
    assert set(found) - LAYOUT - {"convolution"}
