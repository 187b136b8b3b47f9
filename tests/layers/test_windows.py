"""What convolution and pooling say when they are used wrong."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxnets as jn

BAD: Any = {
    "real": 1.5,
    "text": "3",
    "triple": ((1, 2, 3),),
    "none": None,
}  # of types that the type checker refuses


def x(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


CONV = {
    "flat": (
        lambda: jn.conv(64, 3),
        x(32, 784),
        r"conv\(64, 3\) expects \(batch, length, channels\), \(batch, height, width, channels\) or "
        r"\(batch, depth, height, width, channels\), got \(32, 784\); .*reshape\(len\(x\), height, width, channels\)",
    ),
    "flat_2d": (
        lambda: jn.conv(64, (3, 3)),
        x(32, 784),
        r"conv\(64, \(3, 3\)\) expects \(batch, height, width, channels\), got \(32, 784\); restore the axes",
    ),
    "one_axis_short": (
        lambda: jn.conv(64, (3, 3)),
        x(32, 28, 28),
        r"expects .*, got \(32, 28, 28\); add the missing .*x\[None\].*x\[\.\.\., None\]",
    ),
    "too_many_axes": (
        lambda: jn.conv(64, (3,)),
        x(2, 3, 4, 5),
        r"expects \(batch, length, channels\), got .*tuple fixes",
    ),
    "integers": (
        lambda: jn.conv(6, 5),
        x(2, 28, 28, 1, dtype=jnp.uint8),
        r"conv\(6, 5\) expects floating input, got uint8",
    ),
    "channels_in_groups": (
        lambda: jn.conv(4, 3, groups=2),
        x(2, 9, 9, 3),
        "channels divisible by groups, got 3 channels in 2",
    ),
    "features_in_groups": (lambda: jn.conv(5, 3, groups=2), None, "features divisible by groups, got 5 features in 2"),
    "kernel_too_large": (
        lambda: jn.conv(6, 5),
        x(2, 28, 3, 1),
        'input at least as large as the kernel, got width 3 for kernel_size 5; use padding="SAME"',
    ),
    "kernel_too_large_dilated": (
        lambda: jn.conv(6, 3, dilation=4, padding=2),
        x(2, 4, 9, 1),
        r"got height 4 and 4 of padding for kernel_size 3 \(9 with dilation 4\)",
    ),
    "no_features": (lambda: jn.conv(0, 3), None, r"conv\(0, 3\) expects features ≥ 1, got 0"),
    "no_groups": (lambda: jn.conv(4, 3, groups=0), None, "groups ≥ 1"),
    "stride": (lambda: jn.conv(4, 3, stride=0), None, "expects stride ≥ 1, got 0"),
    "stride_real": (
        lambda: jn.conv(4, 3, stride=BAD["real"]),
        None,
        "stride as an integer or a tuple of integers, got 1.5",
    ),
    "kernel_size": (lambda: jn.conv(4, (3, 0)), None, r"expects kernel_size ≥ 1, got \(3, 0\)"),
    "kernel_size_string": (
        lambda: jn.conv(4, BAD["text"]),
        None,
        "kernel_size as an integer or a tuple of integers, got '3'",
    ),
    "kernel_size_flag": (lambda: jn.conv(4, True), None, "kernel_size as an integer or a tuple of integers, got True"),
    "kernel_size_axes": (lambda: jn.conv(4, (1, 2, 3, 4)), None, "kernel_size for 1 to 3 spatial axes"),
    "dilation": (lambda: jn.conv(4, 3, dilation=-1), None, "expects dilation ≥ 1, got -1"),
    "lengths": (
        lambda: jn.conv(4, (3, 3), stride=(1, 2, 1)),
        None,
        r"same number of spatial axes, got kernel_size \(3, 3\), stride \(1, 2, 1\)",
    ),
    "padding_name": (lambda: jn.conv(4, 3, padding="CIRCULAR"), None, "SAME.*VALID.*got 'CIRCULAR'"),
    "padding_case": (lambda: jn.conv(4, 3, padding="same"), None, "got 'same'; write \"SAME\""),
    "padding_negative": (lambda: jn.conv(4, 3, padding=-1), None, "expects padding .*got -1"),
    "padding_triple": (lambda: jn.conv(4, 3, padding=BAD["triple"]), None, r"expects padding .*got \(\(1, 2, 3\),\)"),
    "padding_length": (
        lambda: jn.conv(4, 3, stride=(1, 1), padding=(1, 1, 1)),
        None,
        r"got stride \(1, 1\), padding \(1, 1, 1\)",
    ),
    "depthwise_multiplier": (lambda: jn.depthwise_conv(3, 0), None, r"depthwise_conv\(3, 0\) expects multiplier ≥ 1"),
    "transpose_flat": (
        lambda: jn.conv_transpose(4, (3, 3)),
        x(32, 784),
        r"conv_transpose\(4, \(3, 3\)\) expects \(batch, height",
    ),
    "transpose_features": (lambda: jn.conv_transpose(5, 3, groups=2), None, "got 5 features in 2 groups"),
    "transpose_channels": (lambda: jn.conv_transpose(4, 3, groups=2), x(2, 4, 4, 3), "got 3 channels in 2 groups"),
    "transpose_output_padding": (
        lambda: jn.conv_transpose(4, 3, stride=2, output_padding=2),
        x(2, 4, 4, 3),
        "output_padding less than stride or dilation, got 2",
    ),
    "transpose_output_padding_negative": (
        lambda: jn.conv_transpose(4, 3, output_padding=-1),
        None,
        "output_padding ≥ 0, got -1",
    ),
    "transpose_output_padding_same": (
        lambda: jn.conv_transpose(4, 3, stride=2, padding="SAME", output_padding=1),
        None,
        "expects output_padding 0 with padding=.SAME",
    ),
    "transpose_output_padding_axes": (
        lambda: jn.conv_transpose(4, 3, stride=2, output_padding=(1, 1)),
        x(2, 4, 3),
        r"expects \(batch, height, width, channels\)",
    ),
    "transpose_all_cut_off": (
        lambda: jn.conv_transpose(4, 3, padding=2),
        x(2, 4, 1, 3),
        "output of at least 1, got width -1 from 1 after cutting off 4 of padding",
    ),
}


POOL = {
    "rank": (
        lambda: jn.max_pool((2, 2)),
        x(32, 784),
        r"max_pool\(\(2, 2\)\) expects \(batch, height, width, channels\), got \(32, 784\)",
    ),
    "integers": (lambda: jn.max_pool(2), x(2, 4, 4, 1, dtype=jnp.int32), "floating input, got int32"),
    "too_large": (
        lambda: jn.max_pool(3),
        x(2, 4, 2, 1),
        "at least as large as the kernel, got width 2 for kernel_size 3",
    ),
    "avg_too_large": (lambda: jn.avg_pool(3), x(2, 2, 4, 1), "got height 2 for kernel_size 3"),
    "only_padding": (
        lambda: jn.max_pool(2, stride=1, padding=2),
        x(2, 4, 4, 1),
        r"some input in every window, but with height 4 and padding \(2, 2\) a window of 2 lies entirely in",
    ),
    "avg_only_padding": (
        lambda: jn.avg_pool(2, padding=((0, 0), (3, 0))),
        x(2, 4, 4, 1),
        r"width 4 and padding \(3, 0\)",
    ),
    "kernel_size": (lambda: jn.avg_pool(0), None, r"avg_pool\(0\) expects kernel_size ≥ 1"),
    "stride": (lambda: jn.max_pool(2, stride=(2, 0)), None, r"stride ≥ 1, got \(2, 0\)"),
    "padding": (lambda: jn.max_pool(2, padding="FULL"), None, "SAME.*VALID.*got 'FULL'"),
    "lengths": (lambda: jn.max_pool((2, 2), dilation=(1,)), None, "same number of spatial axes"),
    "output_size": (lambda: jn.adaptive_avg_pool(0), None, r"adaptive_avg_pool\(0\) expects output_size ≥ 1"),
    "output_size_none": (
        lambda: jn.adaptive_avg_pool(BAD["none"]),
        None,
        "output_size as an integer or a tuple of integers, got None",
    ),
    "adaptive_rank": (
        lambda: jn.adaptive_avg_pool((1, 1)),
        x(2, 9),
        r"\(batch, height, width, channels\), got \(2, 9\)",
    ),
    "adaptive_empty": (lambda: jn.adaptive_avg_pool(2), x(2, 0, 4, 1), "at least one position on every spatial axis"),
    "global_rank": (
        lambda: jn.global_avg_pool,
        x(2, 9),
        r"global_avg_pool expects \(batch, length, channels\), .*got \(2, 9\)",
    ),
    "global_max_rank": (lambda: jn.global_max_pool, x(2, 9), r"global_max_pool expects \(batch, length, channels\)"),
    "global_empty": (lambda: jn.global_max_pool, x(2, 4, 0, 1), "at least one position"),
    "global_integers": (lambda: jn.global_avg_pool, x(2, 4, 4, 1, dtype=jnp.uint8), "floating input, got uint8"),
}


MISTAKES = {f"conv-{name}": row for name, row in CONV.items()} | {f"pool-{name}": row for name, row in POOL.items()}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_explained(mistake):
    make, shape, words = mistake
    with pytest.raises(jn.NetError, match=words):
        jn.serial(inner=make()).init(jax.random.key(0), shape)


@pytest.mark.parametrize("net", [jn.conv(4, 3), jn.conv_transpose(4, 3)], ids=["conv", "transpose"])
def test_parameters_for_other_channels_name_both(net: jn.Net):
    outer = jn.serial(conv1=net)
    params, state = outer.init(jax.random.key(0), x(1, 8, 8, 3))
    both = r"conv1: conv\w*\(4, 3\) has kernel \(3, 3, .*3.*\), but input \(2, 8, 8, 1\) needs kernel \(3, 3, .*1.*\)"
    with pytest.raises(jn.NetError, match=both):
        outer.apply(params, state, jnp.ones((2, 8, 8, 1)))
    with pytest.raises(jn.NetError, match="missing parameters conv1/bias"):
        outer.apply({"conv1": {"kernel": params["conv1"]["kernel"]}}, state, jnp.ones((2, 8, 8, 3)))
