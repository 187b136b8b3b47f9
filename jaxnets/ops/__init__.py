"""Array functions that choose the fastest formulation for their platform."""
