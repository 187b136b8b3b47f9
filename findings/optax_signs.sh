#!/usr/bin/env bash
# Optax 0.2.8 (jax 0.10.2): two parts of the library whose sign is not what their name says.
#
# A good guess: an optimizer with its default arguments goes down, and a transformation called `scale_by_…` scales the
# gradient, so that without a negative learning rate behind it the parameters go up.
#
# What happens: `optax.adadelta()` goes up. Its learning rate is `None` by default, and then nothing turns the sign;
# `optax.adadelta(1.0)`, with the rate of the paper, goes down. `optax.contrib.scale_by_cocob()` goes down by itself,
# where `optax.scale_by_adam()`, as all others of the name, goes up.
#
# Output seen, x after 100 steps on x² from 3:
#   adadelta()      3.43
#   adadelta(1.0)   2.61
#   scale_by_adam   139.38
#   scale_by_cocob  0.00
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 optax==0.2.8
JAX_PLATFORMS=cpu "$scratch/venv/bin/python" - <<'PYTHON'
import jax, jax.numpy as jnp, optax


def after(optimizer, steps=100):
    x = jnp.array(3.0)
    state = optimizer.init(x)
    step = jax.jit(lambda x, state: optimizer.update(2 * x, state, x))
    for _ in range(steps):
        update, state = step(x, state)
        x = optax.apply_updates(x, update)
    return float(x)


found = {
    "adadelta()": after(optax.adadelta()),
    "adadelta(1.0)": after(optax.adadelta(1.0)),
    "scale_by_adam": after(optax.scale_by_adam()),
    "scale_by_cocob": after(optax.contrib.scale_by_cocob()),
}
for name, x in found.items():
    print(f"{name:15} {x:.2f}")
assert found["adadelta()"] > 3 > found["adadelta(1.0)"]
assert found["scale_by_adam"] > 3 > found["scale_by_cocob"]
PYTHON
