#!/usr/bin/env bash
# JAX 0.10.0 beside Flax 0.12.0 and Optax 0.2.7, which pip installs together without a word.
#
# A good guess: where pip finds no conflict between the requirements that packages declare, they can be imported together.
#
# What happens: both declare a lower bound for JAX alone. Optax 0.2.7 sets the JAX option `jax_pmap_shmap_merge` when it is
# imported, which JAX 0.10.0 no longer has; 0.2.6 and 0.2.8 do not. Flax 0.12.0's `nnx` imports `mutable_array` from JAX's
# private core, which is gone; `flax.linen` works. So the lower bounds of a package that uses them must be found by trying:
# Flax 0.12.1 is the first whose `nnx` is imported, and 0.12.7 the first without a DeprecationWarning.
#
# Output seen:
#   pip check: No broken requirements found.
#   optax 0.2.7: AttributeError: Unrecognized config option: jax_pmap_shmap_merge
#   flax 0.12.0: ImportError: cannot import name 'mutable_array' from 'jax._src.core'
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet jax==0.10.0 jaxlib==0.10.0 flax==0.12.0 optax==0.2.7 chex==0.1.91
checked=$("$scratch/venv/bin/pip" check 2>/dev/null)
echo "pip check: $checked"
[ "$checked" = "No broken requirements found." ]
raised() { { "$scratch/venv/bin/python" -c "$1" 2>&1 || true; } | tail -1 | sed 's/ (.*//'; }
optax=$(raised "import optax")
echo "optax 0.2.7: $optax"
[ "$optax" = "AttributeError: Unrecognized config option: jax_pmap_shmap_merge" ]
"$scratch/venv/bin/pip" install --quiet optax==0.2.8
flax=$(raised "import flax.linen; from flax import nnx")
echo "flax 0.12.0: $flax"
[ "$flax" = "ImportError: cannot import name 'mutable_array' from 'jax._src.core'" ]
