#!/usr/bin/env bash
# Optax 0.2.8 (jax 0.10.2): `optax.monitor` can't be used in `jax.lax.scan`.
#
# A good guess: an optimizer's state keeps its structure from `init` on, as the documentation of transformations asks, so
# that a training loop may be a scan, and `monitor`, which only measures, is no exception.
#
# What happens: `init` gives a state with an empty dict of measurements, and the first update puts the names in. The
# structure changes once, so a scan that starts from `init` raises TypeError. One update before the scan, on gradients of
# zeros, makes it work; it counts as a measurement.
#
# Output seen:
#   names after init: []
#   names after an update: ['norm']
#   scan from init: TypeError
#   scan from the first update: 3 steps
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 optax==0.2.8
JAX_PLATFORMS=cpu "$scratch/venv/bin/python" - <<'PYTHON'
import jax, jax.numpy as jnp, optax

optimizer = optax.monitor({"norm": optax.measure_with_ema(optax.global_norm, 0.9)})
x = jnp.ones(2)
first = optimizer.init(x)
second = optimizer.update(jnp.zeros(2), first, x)[1]
names = [sorted(state.measurements) for state in (first, second)]
print(f"names after init: {names[0]}")
print(f"names after an update: {names[1]}")


def steps(state):
    return jax.lax.scan(lambda state, _: (optimizer.update(x, state, x)[1], None), state, length=3)[0]


try:
    steps(first)
    raised = False
except TypeError:
    raised = True
print(f"scan from init: {'TypeError' if raised else 'no error'}")
count = int(steps(second).measure_states[0][-1].count) - int(second.measure_states[0][-1].count)
print(f"scan from the first update: {count} steps")
assert names == [[], ["norm"]] and raised and count == 3
PYTHON
