"""Second derivatives in forward over reverse and reverse over reverse mode, against differences of the gradient."""

import jax
import numpy as np

from tests.once import once


def check_second(gradient, *args, step=1e-5):
    """Check the derivative of a gradient function along one direction, and its transpose, in float64."""
    direction = tuple(np.cos(np.arange(arg.size, dtype=arg.dtype)).reshape(arg.shape) for arg in args)

    def products(args, direction):
        _, forward = jax.jvp(gradient, args, direction)
        reverse = jax.vjp(gradient, *args)[1](gradient(*direction))
        ahead, behind = (gradient(*(a + sign * step * d for a, d in zip(args, direction))) for sign in (1.0, -1.0))
        return gradient(*direction), forward, reverse, jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, behind)

    other, forward, reverse, differences = once(products, args, direction)
    for a, b in zip(jax.tree.leaves(forward), jax.tree.leaves(differences)):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-7 * max(1.0, float(np.abs(b).max())))

    def inner(left, right):
        return sum(float(np.vdot(a, b)) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right)))

    np.testing.assert_allclose(inner(other, forward), inner(reverse, direction), rtol=1e-9)
