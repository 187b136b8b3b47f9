"""AlexNet: the network that won ImageNet in 2012, and the single tower of torchvision."""

import jax

from jaxnets.combinators.serial import serial
from jaxnets.core.net import Net
from jaxnets.layers import adaptive_avg_pool, conv, dense, flatten, local_response_norm, max_pool
from jaxnets.layers import dropout as drop
from jaxnets.models.images import takes_images


@takes_images
def alexnet(num_classes: int = 1000, *, hidden: int = 4096, dropout: float | jax.Array = 0.5) -> Net:
    """Return torchvision's AlexNet, the single tower of "One weird trick", with torchvision's names.

    The input is `(batch, height, width, channels)` of at least 63 × 63, the output logits `(batch, num_classes)`. With
    224 × 224 × 3 and 1,000 classes there are 61,100,840 parameters and 714,188,480 multiply-adds. The parameters fit
    any input size, because the features are pooled to 6 × 6.

    Args:
        num_classes: the width of the output.
        hidden: the width of the two dense layers before it.
        dropout: the rate before each of them, in [0, 1); may be traced.

    Raises:
        NetError: for settings out of range, or an input that is too small, or not a batch of images; the message names
            the layer.

    Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014), as in torchvision.

    >>> import jax, jax.numpy as jnp
    >>> x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    >>> params, state = jax.eval_shape(alexnet().init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    61100840
    """
    relu, he = jax.nn.relu, jax.nn.initializers.he_normal()
    features = serial(
        # A pair of sizes restricts the input to images. (batch, 55, 55, 64)
        conv(64, (11, 11), stride=4, padding=2, kernel_init=he),
        relu,
        max_pool(3, stride=2),  # (batch, 27, 27, 64)
        conv(192, 5, padding=2, kernel_init=he),
        relu,
        max_pool(3, stride=2),  # (batch, 13, 13, 192)
        conv(384, 3, padding=1, kernel_init=he),
        relu,
        conv(256, 3, padding=1, kernel_init=he),
        relu,
        conv(256, 3, padding=1, kernel_init=he),
        relu,
        max_pool(3, stride=2),  # (batch, 6, 6, 256)
    )
    classifier = serial(
        drop(dropout),
        dense(hidden, kernel_init=he),
        relu,
        drop(dropout),
        dense(hidden, kernel_init=he),
        relu,
        dense(num_classes),
    )
    return serial(features=features, avgpool=adaptive_avg_pool(6), flatten=flatten, classifier=classifier)


@takes_images
def alexnet_2012(num_classes: int = 1000, *, hidden: int = 4096, dropout: float | jax.Array = 0.5) -> Net:
    """Return AlexNet as published: two groups, local response normalization, overlapping pools, its initial values.

    The groups are the halves that ran on two GPUs. The input is `(batch, 227, 227, channels)`, or any size of at least
    67 × 67 that is passed to `init`; the output logits `(batch, num_classes)`. With three channels and 1,000 classes
    there are 60,965,224 parameters and 724,406,816 multiply-adds. The paper says 224, but its 55 × 55 positions need
    227.

    Kernels are drawn from N(0, 0.01²); biases start at 1 in the second, fourth and fifth convolution and in the hidden
    dense layers, at 0 elsewhere.

    Args:
        num_classes: the width of the output.
        hidden: the width of the two dense layers before it.
        dropout: the rate after each of them, in [0, 1); may be traced.

    Raises:
        NetError: for settings out of range, or an input that is too small; the message names the layer.

    Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012), figure 2
    and sections 3 to 5.

    >>> import jax, jax.numpy as jnp
    >>> x = jax.ShapeDtypeStruct((1, 227, 227, 3), jnp.float32)
    >>> params, state = jax.eval_shape(alexnet_2012().init, jax.random.key(0), x)
    >>> params["conv2"]["kernel"].shape, sum(leaf.size for leaf in jax.tree.leaves(params))
    ((5, 5, 48, 256), 60965224)
    """
    relu, normal, ones = jax.nn.relu, jax.nn.initializers.normal(0.01), jax.nn.initializers.ones
    # The paper's α = 1e-4 multiplies the sum; ours is divided by the size, 5.
    norm = local_response_norm(5, alpha=5e-4, beta=0.75, bias=2.0)
    return serial(
        # A pair of sizes restricts the input to images. (batch, 55, 55, 96)
        conv1=conv(96, (11, 11), stride=4, kernel_init=normal),
        relu1=relu,
        norm1=norm,
        pool1=max_pool(3, stride=2),  # (batch, 27, 27, 96)
        conv2=conv(256, 5, padding=2, groups=2, kernel_init=normal, bias_init=ones),
        relu2=relu,
        norm2=norm,
        pool2=max_pool(3, stride=2),  # (batch, 13, 13, 256)
        # Connected to both groups.
        conv3=conv(384, 3, padding=1, kernel_init=normal),
        relu3=relu,
        conv4=conv(384, 3, padding=1, groups=2, kernel_init=normal, bias_init=ones),
        relu4=relu,
        conv5=conv(256, 3, padding=1, groups=2, kernel_init=normal, bias_init=ones),
        relu5=relu,
        pool5=max_pool(3, stride=2),  # (batch, 6, 6, 256)
        flatten=flatten,
        fc6=dense(hidden, kernel_init=normal, bias_init=ones),
        relu6=relu,
        drop6=drop(dropout),
        fc7=dense(hidden, kernel_init=normal, bias_init=ones),
        relu7=relu,
        drop7=drop(dropout),
        fc8=dense(num_classes, kernel_init=normal),
    )
