#!/usr/bin/env bash
# The GRU cell of Flax NNX beside that of Flax Linen, and of PyTorch's formula.
#
# A good guess: `nnx.GRUCell` computes what `linen.GRUCell` computes, so the weights of one fit the other.
#
# What happens: Linen's cell has a bias `hn/bias` inside the product with the reset gate, n = tanh(Wx + b + r * (Uh + c)),
# as PyTorch's and cuDNN's have. NNX' cell has one product of h for all gates, without any bias: c is missing, and a
# trained Linen cell (or one of PyTorch, or of Keras with reset_after) can't be expressed by it. Where c is not 0, no
# choice of the other weights gives the same outputs. Its LSTM cell has all of Linen's parameters.
#
# Output seen (flax 0.12.8, jax 0.10.0):
#   Linen's GRU: 4 biases, 57 numbers
#   NNX' GRU: 54 numbers
#   with c = 0 they differ by less than 1e-6: True
#   with c = 1 they differ by more than 0.01: True
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet jax==0.10.0 jaxlib==0.10.0 flax==0.12.8
"$scratch/venv/bin/python" -W ignore >"$scratch/seen" <<'EOF'
import flax.linen as nn, jax, jax.numpy as jnp
from flax import nnx

x, h = jax.random.normal(jax.random.key(0), (4, 2)), jax.random.normal(jax.random.key(1), (4, 3))
linen = nn.GRUCell(3)
params = linen.init(jax.random.key(2), h, x)["params"]
count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
print(f"Linen's GRU: {sum('bias' in each for each in params.values())} biases, {count(params)} numbers")
cell = nnx.GRUCell(2, 3, rngs=nnx.Rngs(0))
print(f"NNX' GRU: {count(nnx.state(cell, nnx.Param))} numbers")
together = lambda side, leaf: jnp.concatenate([params[f"{side}{gate}"][leaf] for gate in "rzn"], -1)
cell.dense_i.kernel[...], cell.dense_i.bias[...] = together("i", "kernel"), together("i", "bias")
cell.dense_h.kernel[...] = together("h", "kernel")
for c in (0.0, 1.0):
    given = {**params, "hn": {**params["hn"], "bias": jnp.full(3, c)}}
    gap = float(jnp.abs(linen.apply({"params": given}, h, x)[1] - cell(h, x)[1]).max())
    print(f"with c = {c:.0f} they differ by " + (f"less than 1e-6: {gap < 1e-6}" if c == 0 else f"more than 0.01: {gap > 0.01}"))
EOF
cat "$scratch/seen"
diff "$scratch/seen" - <<'EOF'
Linen's GRU: 4 biases, 57 numbers
NNX' GRU: 54 numbers
with c = 0 they differ by less than 1e-6: True
with c = 1 they differ by more than 0.01: True
EOF
