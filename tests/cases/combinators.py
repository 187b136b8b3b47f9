"""Networks made of networks."""

import jax
import jax.numpy as jnp

import jaxnets as jn
from tests.cases.case import Case
from tests.oracle import floats

X = floats(4, 6)


def _block() -> jn.Net:
    return jn.residual(jn.serial(fc1=jn.dense(6), tanh=jnp.tanh, fc2=jn.dense(6)))


CASES = [
    Case("combinators/serial", lambda: jn.serial(jn.dense(5), jnp.tanh, out=jn.dense(2)), X),
    Case("combinators/residual", _block, X),
    Case(
        "combinators/residual_shortcut",
        lambda: jn.residual(jn.serial(fc=jn.dense(3)), shortcut=jn.dense(3), activation=jnp.tanh),
        X,
    ),
    Case("combinators/residual_leaf", lambda: jn.residual(jn.dense(6)), X),
    Case("combinators/branches", lambda: jn.branches(jn.concatenate, a=jn.dense(2), b=jnp.tanh), X),
    Case("combinators/heads", lambda: jn.branches(dict, label=jn.dense(2), value=jn.dense(1)), X),
    Case("combinators/repeat", lambda: jn.repeat(_block(), 3), X),
    Case("combinators/repeat_leaf", lambda: jn.repeat(jn.dense(6), 2), X),
    Case("combinators/repeat_empty", lambda: jn.repeat(jax.nn.silu, 2), X),
    Case("combinators/remat", lambda: jn.remat(_block()), X),
    Case(
        "combinators/cast",
        lambda: jn.cast(_block(), jn.Policy(jnp.float32, jnp.bfloat16, jnp.bfloat16)),
        X,
        differentiable=False,
    ),
    Case("combinators/ensemble", lambda: jn.ensemble(_block(), 3), X),
    Case("combinators/upto", lambda: jn.serial(a=jn.dense(5), b=jnp.tanh, c=jn.dense(2)).upto("b"), X),
]
