"""Answers to questions about pictures: by attention, by feature-wise modulation, or from one vector of the picture."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxnets.combinators.attention import attention, first, second
from jaxnets.combinators.film import film
from jaxnets.combinators.graph import graph
from jaxnets.combinators.serial import Layer, concatenate, serial
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, check_counts, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.layer import layer
from jaxnets.core.net import Net
from jaxnets.layers import conv, dense, flatten, global_max_pool, layer_norm
from jaxnets.layers.windows import check_spatial


@explained
def visual_questions(
    num_answers: int,
    reader: Literal["attention", "film", "plain"] = "attention",
    *,
    widths: Sequence[int] = (16, 32),
    features: int = 64,
    steps: int = 2,
    heads: int = 4,
    kernel_size: int = 5,
) -> Net:
    """Return a network from `(images, questions)` to the logits of answers, with several questions about each picture.

    Convolutions of stride 2, each followed by a ReLU, make a map of the picture, once for all of its questions; the
    coordinates of each place, from -1 to 1, are appended as two channels. Then, by `reader`:

    - "attention": each question, mapped to `features`, reads the map in `steps` steps, x + A(norm(x)), then
      x + F(norm(x)), so that what it looks for next depends on what it has read. A is `jn.attention` with `cross`.
    - "film": `steps` residual blocks, r = relu(conv1×1(x)), then r + relu(film(conv3×3(r), question)), of the map for
      each question, and the maximum over all places.
    - "plain": the map as one vector of `features`, beside the question; the baseline.

    Two layers follow, of `features` and `num_answers`.

    Args:
        num_answers: the number of answers.
        reader: see above.
        widths: the channels of the convolutions; each halves height and width.
        features: see above; the blocks of "film" have it as channels.
        steps: see above.
        heads: of "attention"; a divisor of `features`.
        kernel_size: of the convolutions of stride 2.

    Returns:
        A network from `((batch, height, width, channels), (batch, questions, in))` to
        `(batch, questions, num_answers)`. A question does not read other questions about its picture.

    Raises:
        NetError: for another reader or a number below 1; for an input that is not a pair of such shapes with one batch.

    Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer" (2018), section 3, for the blocks; Yang et
    al., "Stacked Attention Networks for Image Question Answering" (2016), for steps, there of
    additive attention.

    >>> import jax, jax.numpy as jnp
    >>> net, x = visual_questions(10), (jnp.ones((2, 32, 32, 3)), jnp.ones((2, 20, 11)))
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> jax.eval_shape(net.apply, params, state, x)[0].shape
    (2, 20, 10)
    """
    with labeled_as("visual_questions"):
        if reader not in ("attention", "film", "plain"):
            raise NetError(f"expects reader 'attention', 'film' or 'plain', got {reader!r}")
        check_counts("widths", widths)
        for name, value in (("num_answers", num_answers), ("features", features), ("steps", steps)):
            check_count(name, value)
        check_count("heads", heads)
        if reader == "attention" and features % heads:
            raise NetError(f"expects features divisible by {heads} heads, got {features}")
    he = jax.nn.initializers.he_normal()
    stem: dict[str, Layer] = {}
    for place, width in enumerate(widths, start=1):
        stem |= {
            f"conv{place}": conv(width, kernel_size, stride=2, padding="SAME", kernel_init=he),
            f"relu{place}": jax.nn.relu,
        }
    nodes: dict[str, Any] = {
        "pair": layer(None, lambda _, pair: checked(pair), label="visual_questions"),
        "questions": second,
        "images": (first, "pair"),
        "stem": serial(**stem),
        "map": with_coordinates,
    }
    if reader == "attention":
        nodes |= {"places": _as_sequence, "embedding": (dense(features), "questions")}
        nodes |= _reading(features, heads, steps)
        nodes |= {"norm": layer_norm(), "fc": dense(features, kernel_init=he), "relu": jax.nn.relu}
        return graph(**nodes, out=dense(num_answers))
    if reader == "plain":
        vector = serial(flatten=flatten, fc=dense(features, kernel_init=he), relu=jax.nn.relu)
        nodes |= {"vector": vector, "beside": (_beside, "vector", "questions")}
    else:
        nodes |= {"each": (_for_each, "map", "questions"), "condition": (second, "each"), "x": (first, "each")}
        for step in range(1, steps + 1):
            nodes |= {
                f"conv{step}a": conv(features, 1, kernel_init=he),
                f"relu{step}": jax.nn.relu,
                f"conv{step}b": conv(features, 3, padding="SAME"),
                f"film{step}": (serial(film=film(features), relu=jax.nn.relu), f"conv{step}b", "condition"),
                f"sum{step}": (sum, f"relu{step}", f"film{step}"),
            }
        nodes |= {"pool": global_max_pool, "regroup": (_regroup, "pool", "questions")}
    nodes |= {"fc": dense(features, kernel_init=he), "relu": jax.nn.relu}
    return graph(**nodes, out=dense(num_answers))


def _reading(features: int, heads: int, steps: int) -> dict[str, Any]:
    """Return the nodes in which questions read the places of a picture, step by step."""
    nodes: dict[str, Any] = {}
    before = "embedding"
    for step in range(1, steps + 1):
        nodes |= {
            f"norm{step}a": (layer_norm(), before),
            f"attention{step}": (attention(features, heads, cross=True), f"norm{step}a", "places"),
            f"sum{step}a": (sum, before, f"attention{step}"),
            f"norm{step}b": layer_norm(),
            f"up{step}": dense(2 * features),
            f"relu{step}": jax.nn.relu,
            f"down{step}": dense(features),
            f"sum{step}b": (sum, f"sum{step}a", f"down{step}"),
        }
        before = f"sum{step}b"
    return nodes


def checked(pair: Any) -> Any:
    """Return `(images, questions)`, if they are that."""
    hint = "((batch, height, width, channels), (batch, questions, features))"
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise NetError(f"expects a pair {hint}, got {len(pair) if isinstance(pair, tuple) else 'one input'}")
    check_spatial(pair[0], 2)
    image, question = (tuple(each.shape) for each in pair)
    if len(question) != 3 or question[0] != image[0]:
        raise NetError(f"expects {hint}, got {image} and {question}; for one question a picture, questions[:, None]")
    return pair


def with_coordinates(x: jax.Array) -> jax.Array:
    """Append the coordinates (x, y) of each place as two channels, centers at (2 j + 1) / n - 1.

    >>> import jax.numpy as jnp
    >>> with_coordinates(jnp.zeros((1, 1, 2, 1))).tolist()
    [[[[0.0, -0.5, 0.0], [0.0, 0.5, 0.0]]]]
    """
    batch, height, width, _ = x.shape
    down, along = ((2 * jnp.arange(n, dtype=param_dtype(x)) + 1) / n - 1 for n in (height, width))
    grid = jnp.stack(jnp.meshgrid(along, down), -1).astype(x.dtype)
    return concatenate((x, jnp.broadcast_to(grid[None], (batch, height, width, 2))))


def _as_sequence(x: jax.Array) -> jax.Array:
    """Return a map `(batch, height, width, channels)` as `(batch, places, channels)`."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _beside(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
    vector, questions = pair
    return concatenate((jnp.broadcast_to(vector[:, None], (*questions.shape[:2], vector.shape[-1])), questions))


def _for_each(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Return the map repeated for each question, `(batch · questions, ...)`, and the questions alike."""
    x, questions = pair
    return jnp.repeat(x, questions.shape[1], axis=0), questions.reshape(-1, questions.shape[-1])


def _regroup(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
    y, questions = pair
    return y.reshape(*questions.shape[:2], y.shape[-1])
