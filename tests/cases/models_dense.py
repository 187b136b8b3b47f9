"""Networks that are no chain, and dense prediction."""

import jax
import jax.numpy as jnp

import jaxnets as jn
from tests.cases.case import Case
from tests.oracle import floats

X = floats(4, 6)


def _graph() -> jn.Net:
    return jn.graph(
        wide=jn.dense(4),
        tanh=jnp.tanh,
        narrow=(jn.dense(2), "input"),
        drop=jn.dropout(0.3),
        join=(jn.concatenate, "tanh", "drop", "input"),
        out=jn.dense(3),
    )


def _auxiliary_heads() -> jn.Net:
    body = jn.serial(a=jn.dense(5), norm=jn.batch_norm(), tanh=jnp.tanh, out=jn.dense(2))
    return jn.auxiliary_heads(body, late=(jn.dense(2), "tanh"), early=(jn.serial(jn.dropout(0.3), jn.dense(2)), "a"))


def _fcn() -> jn.Net:
    backbone = jn.serial(conv=jn.conv(3, 3, padding=1), pool=jn.max_pool(2))
    return jn.models.fcn(2, backbone, skips=(), stride=2, features=3, dropout=0.3)


CASES = [
    Case("combinators/graph", _graph, X, random=True),
    Case("combinators/auxiliary_heads", _auxiliary_heads, X, random=True),
    # Kinks are many, so finite differences are left to PyTorch's gradients.
    Case("models/fcn_tiny", _fcn, floats(3, 5, 4, 2), random=True, differentiable=False),
    Case(
        "models/visual_questions_tiny",
        lambda: jn.models.visual_questions(3, widths=(2,), features=4, heads=2, steps=1),
        (floats(3, 4, 4, 2), floats(3, 2, 5)),
    ),
    Case(
        "models/visual_questions_film",
        lambda: jn.models.visual_questions(3, "film", widths=(2,), features=4, steps=1),
        (floats(3, 4, 4, 2), floats(3, 2, 5)),
    ),
    Case(
        "models/landmarks_tiny",
        lambda: jn.models.landmarks(2, jn.serial(jn.conv(3, 2), jax.nn.silu), head="heatmap"),
        floats(3, 4, 5, 1),
    ),
]
