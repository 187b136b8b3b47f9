"""GoogLeNet as it won in 2014: biases, local response normalization, true 5×5 windows, no batch norm."""

from typing import Any

import jax

from jaxnets.combinators import serial
from jaxnets.layers import avg_pool, conv, local_response_norm
from jaxnets.models.googlenet import HE, POOL, chain, with_heads
from jaxnets.models.images import takes_images
from jaxnets.net import Net


@takes_images
def googlenet_2014(
    num_classes: int = 1000, *, auxiliary: bool = False, dropout: Any = 0.4, auxiliary_dropout: Any = 0.7
) -> Net:
    """Return GoogLeNet as in the paper: biases, local response normalization, true 5×5 windows, no batch norm.

    It is used as `googlenet` is, for 31 × 31 or more. At 1000 classes and 3 channels it has 6,998,552 parameters and
    1,582,671,872 multiply-adds at 224 × 224. The heads pool by windows of 5 with stride 3, so that they ask for
    79 × 79 or more, and have the paper's 4 × 4 places at 224 × 224.

    Args:
        num_classes: width of the output.
        auxiliary: whether there are heads behind `inception4a` and `inception4d`, in training only.
        dropout: of the features before the output. May be traced.
        auxiliary_dropout: of the heads' hidden layer. May be traced.

    Raises:
        NetError: by the layer, for input that is too small or without four axes.

    Szegedy and others, "Going Deeper with Convolutions" (2015), table 1, figure 3 for the normalization and section 5
    for the heads; the settings of the normalization are those of Caffe's model.

    >>> import jax, jax.numpy as jnp
    >>> x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    >>> params, _ = jax.eval_shape(googlenet_2014().init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    6998552
    """

    def unit(features: int, window: int | tuple[int, int], **options: Any) -> Net:
        return serial(conv=conv(features, window, kernel_init=HE, **options), relu=jax.nn.relu)

    body = chain(unit, 5, POOL, {"norm": local_response_norm(5)}, dropout, num_classes)
    return with_heads(body, unit, avg_pool(5, stride=3), auxiliary_dropout, num_classes) if auxiliary else body
