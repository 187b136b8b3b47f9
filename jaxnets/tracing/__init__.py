"""How traced programs are read: what JAX's primitives hold, and what depends on which part of the input."""
