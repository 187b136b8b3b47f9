"""Output sizes equal those of the layers and of PyTorch."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.inspect import output_size
from tests.oracle import witness


def shape_of(net: jn.Net, size: tuple[int, ...]) -> tuple[int, ...]:
    x = jax.ShapeDtypeStruct((1, *size, 2), jnp.float32)
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    return jax.eval_shape(net.apply, params, state, x)[0].shape[1:-1]


def answer(function, *args, **options):
    try:
        return function(*args, **options)
    except jn.NetError:
        return "refused"


pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
paddings = st.one_of(
    st.sampled_from(["SAME", "VALID"]), st.integers(0, 2), st.tuples(*[st.tuples(*[st.integers(0, 2)] * 2)] * 2)
)


@hypothesis.given(st.tuples(*[st.integers(1, 12)] * 2), pairs, pairs, paddings, pairs, st.booleans())
def test_sizes_are_those_of_the_layers(size, window, stride, padding, dilation, ceil_mode):
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    conv = jn.conv(3, window, **options)
    assert answer(output_size, size, window, **options) == answer(shape_of, conv, size)
    pool = answer(shape_of, jn.max_pool(window, **options, ceil_mode=ceil_mode), size)
    if pool != "refused":  # a pool refuses windows that see nothing but padding
        assert output_size(size, window, **options, ceil_mode=ceil_mode) == pool
    more = tuple(min(s, 2) - 1 if padding != "SAME" else 0 for s in stride)
    back = jn.conv_transpose(3, window, **options, output_padding=more)
    ours = answer(output_size, size, window, **options, output_padding=more, transposed=True)
    assert ours == answer(shape_of, back, size)


SETTINGS = [
    (n, window, stride, padding, dilation)
    for n in (7, 12, 13)
    for window in (2, 3)
    for stride in (1, 2, 3)
    for padding in (0, 1)
    for dilation in (1, 2)
]


def torch_sizes() -> dict[str, np.ndarray]:
    import torch
    import torch.nn.functional as F

    sizes = []
    for n, window, *settings in SETTINGS:
        stride, padding, dilation = settings
        x, kernel = torch.empty(1, 1, n, device="meta"), torch.empty(1, 1, window, device="meta")
        floor, ceil = (F.max_pool1d(x, window, *settings, ceil_mode=mode).shape[-1] for mode in (False, True))
        more = min(1, stride - 1)
        back = F.conv_transpose1d(x, kernel, None, stride, padding, more, dilation=dilation).shape[-1]
        sizes.append([F.conv1d(x, kernel, None, *settings).shape[-1], floor, ceil, back])
    return {"sizes": np.array(sizes)}


def test_sizes_are_pytorch_s():
    ours = []
    for n, window, stride, padding, dilation in SETTINGS:
        size = functools.partial(output_size, n, window, stride=stride, padding=padding, dilation=dilation)
        conv, ceil, back = size(), size(ceil_mode=True), size(transposed=True, output_padding=min(1, stride - 1))
        ours.append([conv, conv, ceil, back])
    np.testing.assert_array_equal(ours, witness("inspect/sizes", torch_sizes)["sizes"])


def test_mistakes():
    with pytest.raises(jn.NetError, match=r"output_size expects an input at least as large"):
        output_size(4, 5)
    with pytest.raises(jn.NetError, match="integer ≥ 1"):
        output_size((4, 0), 3)
    with pytest.raises(jn.NetError, match="same number of spatial axes"):
        output_size(8, 3, stride=(2, 2), padding=(1, 1, 1))
    with pytest.raises(jn.NetError, match="output_padding only with transposed=True, got 1"):
        output_size(8, 3, output_padding=1)
    with pytest.raises(jn.NetError, match="no ceil_mode for a transposed"):
        output_size(8, 3, ceil_mode=True, transposed=True)
