#!/usr/bin/env bash
# JAX 0.10.2: the gradient of a maximum behind a batch norm, compiled for CPU.
#
# A good guess: `jax.jit` changes a gradient by rounding. In float64, what `jax.jit(jax.grad(f))` and `jax.grad(f)` give
# agrees to 15 digits where no two elements are nearly equal.
#
# What happens: `jax.jit` loses parts of it, in silence. The derivative of `jnp.max` (and of `jnp.maximum`, `jnp.clip`,
# `jnp.min`) tests which elements equal the maximum. XLA computes the elements anew in the kernel that tests, and there
# the last step of the norm, a product and a sum, may be rounded once where it was rounded twice for the maximum. Then no
# element is equal, and the gradient of that maximum is 0. How much is lost depends on shapes and on the version: here
# most of the largest entry; on JAX 0.12.0.1 `jnp.max` loses as much and the `jnp.maximum` below nothing.
# Written with `jnp.argmax` or `jnp.where` nothing is lost, as there the elements are compared with one another.
#
# jax-ml/jax issue 40564 describes it for `jnp.maximum` on GPU.
#
# Output seen (the largest error of a gradient, over its largest entry):
#   max over rows, jit against no jit: 0.83
#   take_along_axis(argmax), jit against no jit: 0.00
#   maximum(y, -y / 2), jit against no jit: 0.86
#   where(y > -y / 2, y, -y / 2), jit against no jit: 0.00
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu JAX_ENABLE_X64=1 "$scratch/venv/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp
import numpy as np

rng = np.random.default_rng(0)
x = rng.standard_normal((2, 12, 12, 64))
scale, shift = rng.uniform(0.5, 1.5, 64), rng.standard_normal(64)
FUNCTIONS = {
    "max over rows": lambda y: y.max(1),
    "take_along_axis(argmax)": lambda y: jnp.take_along_axis(y, jnp.argmax(y, 1, keepdims=True), 1),
    "maximum(y, -y / 2)": lambda y: jnp.maximum(y, -y / 2),
    "where(y > -y / 2, y, -y / 2)": lambda y: jnp.where(y > -y / 2, y, -y / 2),
}
errors = []
for name, function in FUNCTIONS.items():

    def loss(x, scale, shift, function=function):
        y = (x - x.mean((0, 1, 2))) * jax.lax.rsqrt(x.var((0, 1, 2)) + 1e-3) * scale + shift
        z = function(y)
        return (z * jnp.cos(jnp.arange(z.size)).reshape(z.shape)).sum(), z

    gradient = jax.grad(loss, (0, 1, 2), has_aux=True)
    (compiled, *_), _ = jax.jit(gradient)(x, scale, shift)
    (eager, *_), _ = gradient(x, scale, shift)
    errors.append(float(jnp.abs(compiled - eager).max() / jnp.abs(eager).max()))
    print(f"{name}, jit against no jit: {errors[-1]:.2f}")
assert errors[0] > 0.1 and errors[2] > 0.1
assert errors[1] < 1e-12 and errors[3] < 1e-12
PYTHON
