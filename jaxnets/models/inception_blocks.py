"""What Inception v3 is built of: branches in torchvision's names, in three sizes, and what halves the size between."""

import jax

from jaxnets.combinators import concatenate, serial
from jaxnets.graphs import graph
from jaxnets.layers import avg_pool, batch_norm, conv, max_pool
from jaxnets.layers.windows import Ints, Padding
from jaxnets.net import Net

HALVED = max_pool(3, stride=2)
AVERAGED = avg_pool(3, stride=1, padding=1)


def unit(features: int, window: Ints, *, stride: int = 1, padding: Padding = 0) -> Net:
    """Return a convolution without a bias, a batch norm with ε = 0.001 and a ReLU."""
    he = jax.nn.initializers.he_normal()
    layer = conv(features, window, stride=stride, padding=padding, use_bias=False, kernel_init=he)
    return serial(conv=layer, bn=batch_norm(epsilon=1e-3), relu=jax.nn.relu)


def across(features: int, length: int) -> Net:
    """Return a unit whose window is one row high."""
    return unit(features, (1, length), padding=(0, length // 2))


def down(features: int, length: int) -> Net:
    """Return a unit whose window is one column wide."""
    return unit(features, (length, 1), padding=(length // 2, 0))


def mixed_5(pool_features: int) -> Net:
    """Return figure 5: a 5×5 window, and two 3×3 ones in its stead."""
    return graph(
        branch1x1=unit(64, 1),
        branch5x5_1=(unit(48, 1), "input"),
        branch5x5_2=unit(64, 5, padding=2),
        branch3x3dbl_1=(unit(64, 1), "input"),
        branch3x3dbl_2=unit(96, 3, padding=1),
        branch3x3dbl_3=unit(96, 3, padding=1),
        pool=(AVERAGED, "input"),
        branch_pool=unit(pool_features, 1),
        join=(concatenate, "branch1x1", "branch5x5_2", "branch3x3dbl_3", "branch_pool"),
    )


def mixed_6a() -> Net:
    """Return figure 10: half the size, by stride and by pooling side by side."""
    return graph(
        branch3x3=unit(384, 3, stride=2),
        branch3x3dbl_1=(unit(64, 1), "input"),
        branch3x3dbl_2=unit(96, 3, padding=1),
        branch3x3dbl_3=unit(96, 3, stride=2),
        pool=(HALVED, "input"),
        join=(concatenate, "branch3x3", "branch3x3dbl_3", "pool"),
    )


def mixed_6(width: int) -> Net:
    """Return figure 6: 7×7 windows as 1×7 and 7×1 ones."""
    return graph(
        branch1x1=unit(192, 1),
        branch7x7_1=(unit(width, 1), "input"),
        branch7x7_2=across(width, 7),
        branch7x7_3=down(192, 7),
        branch7x7dbl_1=(unit(width, 1), "input"),
        branch7x7dbl_2=down(width, 7),
        branch7x7dbl_3=across(width, 7),
        branch7x7dbl_4=down(width, 7),
        branch7x7dbl_5=across(192, 7),
        pool=(AVERAGED, "input"),
        branch_pool=unit(192, 1),
        join=(concatenate, "branch1x1", "branch7x7_3", "branch7x7dbl_5", "branch_pool"),
    )


def mixed_7a() -> Net:
    """Return half the size again, with a 7×7 window before the stride."""
    return graph(
        branch3x3_1=unit(192, 1),
        branch3x3_2=unit(320, 3, stride=2),
        branch7x7x3_1=(unit(192, 1), "input"),
        branch7x7x3_2=across(192, 7),
        branch7x7x3_3=down(192, 7),
        branch7x7x3_4=unit(192, 3, stride=2),
        pool=(HALVED, "input"),
        join=(concatenate, "branch3x3_2", "branch7x7x3_4", "pool"),
    )


def mixed_7() -> Net:
    """Return figure 7: 3×3 windows as 1×3 and 3×1 ones side by side, for many features at few places."""
    return graph(
        branch1x1=unit(320, 1),
        branch3x3_1=(unit(384, 1), "input"),
        branch3x3_2a=across(384, 3),
        branch3x3_2b=(down(384, 3), "branch3x3_1"),
        branch3x3dbl_1=(unit(448, 1), "input"),
        branch3x3dbl_2=unit(384, 3, padding=1),
        branch3x3dbl_3a=across(384, 3),
        branch3x3dbl_3b=(down(384, 3), "branch3x3dbl_2"),
        pool=(AVERAGED, "input"),
        branch_pool=unit(192, 1),
        join=(
            concatenate,
            *("branch1x1", "branch3x3_2a", "branch3x3_2b", "branch3x3dbl_3a", "branch3x3dbl_3b", "branch_pool"),
        ),
    )
