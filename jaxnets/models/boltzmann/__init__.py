"""Boltzmann machines, restricted and deep, and deep belief networks."""
