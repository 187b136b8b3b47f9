#!/usr/bin/env bash
# JAX 0.10.2, Equinox 0.13.8, Flax 0.12.8: which activations a pickle can hold, and with them which models.
#
# A good guess: `jax.nn.relu` and `jnp.tanh` are functions of a module, which pickle by their names; so a model that
# holds one can be sent to another process, as PyTorch modules are.
#
# What happens: it depends on how JAX has decorated each. Plain functions (`jax.nn.gelu`, `jax.nn.softmax`) pickle.
# Whatever is wrapped by `jax.jit` or `jax.custom_jvp`, which `relu`, `silu`, `elu`, `sigmoid`, `jnp.tanh` and `jnp.sin`
# are, raises PicklingError: the pickle finds the wrapper under the name of the function inside. `softmax` pickles and
# `log_softmax` does not. So an Equinox model can be pickled with `gelu` and not with `relu`. A layer of Flax's Linen
# never can: its default initializer is a closure.
#
# Output seen:
#   pickles: gelu softmax
#   raises PicklingError: log_softmax relu silu elu leaky_relu sigmoid tanh jnp.tanh jnp.sin jnp.maximum
#   Equinox Sequential of relu: PicklingError, of gelu: pickles
#   Linen Dense: AttributeError
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 equinox==0.13.8 flax==0.12.8
JAX_PLATFORMS=cpu "$scratch/venv/bin/python" - <<'PYTHON'
import pickle

import equinox
import flax.linen
import jax
import jax.numpy as jnp


def outcome(thing):
    try:
        pickle.loads(pickle.dumps(thing))
    except Exception as error:
        return type(error).__name__
    return "pickles"


names = "gelu softmax log_softmax relu silu elu leaky_relu sigmoid tanh".split()
functions = {name: getattr(jax.nn, name) for name in names}
functions |= {f"jnp.{name}": getattr(jnp, name) for name in ("tanh", "sin", "maximum")}
found = {name: outcome(function) for name, function in functions.items()}
print("pickles:", *(name for name, how in found.items() if how == "pickles"))
print("raises PicklingError:", *(name for name, how in found.items() if how == "PicklingError"))


def model(activation):
    linear = equinox.nn.Linear(2, 2, key=jax.random.key(0))
    return equinox.nn.Sequential([linear, equinox.nn.Lambda(activation)])


relu, gelu = outcome(model(jax.nn.relu)), outcome(model(jax.nn.gelu))
print(f"Equinox Sequential of relu: {relu}, of gelu: {gelu}")
dense = outcome(flax.linen.Dense(3))
print("Linen Dense:", dense)
assert [name for name, how in found.items() if how == "pickles"] == ["gelu", "softmax"]
assert set(found.values()) == {"pickles", "PicklingError"}
assert (relu, gelu, dense) == ("PicklingError", "pickles", "AttributeError")
PYTHON
