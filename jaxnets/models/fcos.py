"""FCOS: a detector that predicts, at each point of a feature pyramid, a class, a box and how central the point is."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import relu

from jaxnets.combinators.graph import graph
from jaxnets.combinators.serial import build_child, residual, serial
from jaxnets.core.dtypes import wide
from jaxnets.core.errors import NetError, check_count, check_counts, check_fraction, labeled_as
from jaxnets.core.net import Key, Net, Params, State, apply_child, compose
from jaxnets.core.value import recorded
from jaxnets.layers import batch_norm, conv, group_norm
from jaxnets.losses.detection import POINTS, decode
from jaxnets.models.blocks import basic, projection, stages, stem
from jaxnets.models.images import takes_images
from jaxnets.ops.boxes import clip_boxes, nms

LEVELS = 3
NORMAL = jax.nn.initializers.normal(0.01)


@takes_images
def fcos(
    num_classes: int, *, width: int = 32, blocks: Sequence[int] = (1, 1, 1, 1), features: int = 64, convs: int = 2
) -> Net:
    """Return a small FCOS: a ResNet, a feature pyramid of strides 4, 8 and 16, and one head for all levels.

    The ResNet has a 3×3 convolution of stride 2 and stages of `width`, 2, 4 and 8 times `width` features; the last
    three are the pyramid, each added to the coarser one, doubled in size. In the head, `convs` 3×3 convolutions with
    group norm lead to classes, and as many to boxes and center-ness.

    Args:
        num_classes: the number of classes, without background.
        width: the features of the first stage.
        blocks: the residual blocks in each of the four stages.
        features: the features of the pyramid and the head, a multiple of 8.
        convs: the convolutions of each branch of the head.

    Returns:
        A network from `(batch, height, width, channels)` of any floating dtype to a dict of all points of all levels:
        `class_logits` `(batch, points, num_classes)`, `distances` l, t, r, b to the edges of the box in pixels
        `(batch, points, 4)`, `center_logits` `(batch, points)`, and `points` x, y, stride `(batch, points, 3)`.
        `jn.losses.fcos` takes it, and `jn.models.detect` reads boxes from it.

    Raises:
        NetError: for a size < 1, other than four stages, features that are no multiple of 8, or an input that is not a
            batch of images.

    Tian and others, "FCOS: Fully Convolutional One-Stage Object Detection" (2019); Lin and others, "Feature Pyramid
    Networks for Object Detection" (2017).

    >>> import jax, jax.numpy as jnp
    >>> net, x = fcos(10, width=8, features=16), jax.ShapeDtypeStruct((2, 48, 48, 1), jnp.float32)
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> outputs = jax.eval_shape(net.apply, params, state, x)[0]  # 12² + 6² + 3² points
    >>> {name: each.shape for name, each in outputs.items()}
    {'center_logits': (2, 189), 'class_logits': (2, 189, 10), 'distances': (2, 189, 4), 'points': (2, 189, 3)}
    """
    with labeled_as("fcos"):
        for name, size in {"num_classes": num_classes, "width": width, "features": features, "convs": convs}.items():
            check_count(name, size)
        check_counts("blocks", blocks)
        if len(blocks) != LEVELS + 1 or features % 8:
            raise NetError(f"expects four stages and a multiple of 8 features, got blocks {blocks!r} and {features}")
    return over_levels(_pyramid(width, blocks, features), _head(num_classes, features, convs))


def detect(
    outputs: dict[str, Any],
    size: tuple[int, int],
    *,
    most: int = 100,
    threshold: Any = 0.05,
    overlap: Any = 0.6,
    candidates: int = 300,
) -> dict[str, jax.Array]:
    """Return the boxes that FCOS found, of fixed shapes: a pure function that can be compiled.

    A score is √(σ(class) σ(center-ness)). Of all points and classes the `candidates` highest scores above `threshold`
    stay; their boxes are cut off at the edges of the image, and suppressed by class.

    Args:
        outputs: what `jn.models.fcos` returns.
        size: height and width of the images.
        most: how many boxes are returned of each image.
        threshold: the smallest score, in [0, 1); may be traced.
        overlap: the IoU from which on a box suppresses another of its class, in [0, 1]; may be traced.
        candidates: how many scores of an image are considered.

    Returns:
        `boxes` `(batch, most, 4)` as x1, y1, x2, y2, `scores` `(batch, most)` in descending order, `labels`
        `(batch, most)` int32, and `count` `(batch,)`. Behind the boxes found follow zeros with the label −1.
        An image with a score that is NaN has none, and NaN in place of the zeros.

    Raises:
        NetError: for outputs of another network, `most` or `candidates` < 1, or a threshold out of range.

    >>> import jax.numpy as jnp
    >>> outputs = {"class_logits": jnp.array([[[9.0, -9.0], [-9.0, -9.0]]]), "distances": jnp.full((1, 2, 4), 3.0),
    ...     "center_logits": jnp.full((1, 2), 9.0), "points": jnp.array([[[2.0, 2.0, 4.0], [6.0, 2.0, 4.0]]])}
    >>> found = detect(outputs, (8, 8), most=2)
    >>> print(found["boxes"][0, 0], found["labels"][0], found["count"])
    [0. 0. 5. 5.] [ 0 -1] [1]
    """
    with labeled_as("detect"):
        if not isinstance(outputs, dict) or not set(POINTS) <= set(outputs):
            raise NetError(f"expects outputs of jn.models.fcos, {', '.join(POINTS)}, got {type(outputs).__name__}")
        check_count("most", most)
        check_count("candidates", candidates)
        check_fraction("threshold", threshold)
        check_fraction("overlap", overlap, one=True)

    def one(image: dict[str, jax.Array]) -> dict[str, jax.Array]:
        logits = image["class_logits"]
        classes = logits.shape[1]
        scores = jnp.sqrt(jax.nn.sigmoid(logits) * jax.nn.sigmoid(image["center_logits"])[:, None])
        values, places = jax.lax.top_k(scores.reshape(-1), min(candidates, scores.size))
        boxes = clip_boxes(decode(image["points"], image["distances"])[places // classes], size)
        labels = (places % classes).astype(jnp.int32)
        kept, count = nms(boxes, jnp.where(values > threshold, values, -jnp.inf), overlap, labels=labels, most=most)
        broken = jnp.isnan(scores).any()
        real = (kept >= 0) & ~broken
        empty = jnp.where(broken, jnp.nan, 0).astype(boxes.dtype)
        return {
            "boxes": jnp.where(real[:, None], boxes[kept], empty),
            "scores": jnp.where(real, values[kept], empty.astype(values.dtype)),
            "labels": jnp.where(real, labels[kept], -1),
            "count": jnp.where(broken, 0, count),
        }

    return jax.vmap(one)({name: jnp.asarray(outputs[name]) for name in POINTS})


def _pyramid(width: int, blocks: Sequence[int], features: int) -> Net:
    """Return the ResNet with its pyramid: images to a tuple of maps of strides 4, 8, 16."""

    def block(outs: int, stride: int, first: bool) -> Net:
        return residual(basic(outs, stride), projection(outs, stride) if stride > 1 else None, relu)

    nodes: dict[str, Any] = {"conv1": stem(width, 3, 2), "bn1": batch_norm(), "relu1": relu}
    nodes |= stages(blocks, width, block, scan=False)
    above = ""
    for level in range(LEVELS, 0, -1):
        own = f"lateral{level}"
        nodes[own] = (conv(features, 1), f"layer{level + 1}")
        nodes[f"merge{level}"] = (add_doubled, own, above) if above else (lambda x: x, own)
        above = f"merge{level}"
    for level in range(1, LEVELS + 1):
        nodes[f"out{level}"] = (conv(features, 3, padding=1), f"merge{level}")
    return graph(**nodes, pyramid=(tuple, *(f"out{level}" for level in range(1, LEVELS + 1))))


def add_doubled(maps: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Add a coarse map, each of whose places is repeated, to one of twice its size, odd or even.

    >>> import jax.numpy as jnp
    >>> add_doubled((jnp.ones((1, 3, 4, 2)), jnp.ones((1, 2, 2, 2)))).shape
    (1, 3, 4, 2)
    """
    fine, coarse = maps
    return fine + coarse.repeat(2, axis=1).repeat(2, axis=2)[:, : fine.shape[1], : fine.shape[2]]


def _head(num_classes: int, features: int, convs: int) -> Net:
    """Return the head: a map to its logits of classes, exponents of distances, and logits of center-ness."""

    def branch() -> Net:
        layers: dict[str, Any] = {}
        for number in range(1, convs + 1):
            layers[f"conv{number}"] = conv(features, 3, padding=1, kernel_init=jax.nn.initializers.he_normal())
            layers |= {f"norm{number}": group_norm(8), f"relu{number}": relu}
        return serial(**layers)

    # All points start as background, with the probability 0.99.
    rare = jax.nn.initializers.constant(-math.log(99))
    return graph(
        class_branch=branch(),
        classes=conv(num_classes, 3, padding=1, kernel_init=NORMAL, bias_init=rare),
        box_branch=(branch(), "input"),
        boxes=conv(4, 3, padding=1, kernel_init=NORMAL),
        center=(conv(1, 3, padding=1, kernel_init=NORMAL), "box_branch"),
        outputs=(tuple, "classes", "boxes", "center"),
    )


@recorded
def over_levels(pyramid: Net, head: Net) -> Net:
    """Return the detector of a pyramid, which returns maps of strides 4, 8, …, and of a head for each of them."""

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        params: dict[str, Any] = {}
        state: dict[str, Any] = {}
        maps = build_child(pyramid, "pyramid", key, x, params, state)
        build_child(head, "head", key, maps[0], params, state)
        return params, state, jax.eval_shape(lambda p, s, x: apply(p, s, x)[0], params, state, x)

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        maps, inner = apply_child(pyramid, "pyramid", params, state, x, key=key, train=train)
        levels = []
        for level, each in enumerate(maps):
            (classes, exponents, center), _ = apply_child(head, "head", params, state, each, key=key, train=train)
            batch, height, width, _ = each.shape
            stride = 4.0 * 2**level
            places = [(jnp.arange(n, dtype=jnp.float32) + 0.5) * stride for n in (width, height)]
            across, down = jnp.meshgrid(*places)
            points = jnp.stack([across, down, jnp.full_like(across, stride)], axis=-1).reshape(1, -1, 3)
            flat = [values.reshape(batch, height * width, -1) for values in (classes, exponents, center)]
            # exp, as in the paper: distances in strides, at most e⁶.
            distances = stride * jnp.exp(jnp.minimum(wide(flat[1]), 6))
            levels.append((flat[0], distances, flat[2][..., 0], jnp.broadcast_to(points, (batch, *points.shape[1:]))))
        outputs = dict(
            zip(POINTS, (jnp.concatenate(parts, axis=1) for parts in zip(*levels, strict=True)), strict=True)
        )
        return outputs, {"pyramid": inner} if inner else {}

    return compose(build, apply, label="fcos", children={"pyramid": pyramid, "head": head})
