#!/usr/bin/env bash
# JAX 0.10.2 and 0.12.0.1 (CPU): what was compiled for a function as a static argument stays when that function is gone.
#
# A good guess: `jax.jit` holds compiled code by weak references to functions, so that code compiled for a function that
# nobody holds any more is dropped with it, whether the function was decorated or handed over in `static_argnums`.
#
# What happens: a jitted function that is dropped takes its code along. One jitted function called with ever new functions
# as a static argument keeps them all, with what they close over (here an object), until `jax.clear_caches()`. A library
# whose training step is one jitted function of the network as a static argument keeps every network that was ever trained,
# its compiled code, and whatever its functions refer to.
#
# Output seen: functions still alive, of 20
#   decorated, then dropped       0
#   static, then dropped          20
#   after jax.clear_caches()      0
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/older"
"$scratch/older/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2
"${NEWER_PYTHON:-python3.13}" -m venv "$scratch/newer"
"$scratch/newer/bin/pip" install --quiet jax==0.12.0.1 jaxlib==0.12.0.1
for each in older newer; do
  JAX_PLATFORMS=cpu "$scratch/$each/bin/python" - <<'PYTHON'
import gc, weakref
import jax, jax.numpy as jnp


class Held:
    pass


def made():
    held = Held()

    def function(x):
        held
        return x + 1

    return function, weakref.ref(held)


def alive(refs):
    gc.collect()
    return sum(ref() is not None for ref in refs)


x, outer, decorated, static = jnp.ones(3), jax.jit(lambda function, x: function(x), static_argnums=0), [], []
for _ in range(20):
    function, ref = made()
    jax.jit(function)(x)
    decorated.append(ref)
for _ in range(20):
    function, ref = made()
    outer(function, x)
    static.append(ref)
del function
print(f"jax {jax.__version__}")
found = [alive(decorated), alive(static)]
jax.clear_caches()
found.append(alive(static))
for what, count in zip(("decorated, then dropped", "static, then dropped", "after jax.clear_caches()"), found):
    print(f"  {what:28}  {count}")
assert found[0] <= 1 and found[1] >= 19 and found[2] == 0, found
PYTHON
done
