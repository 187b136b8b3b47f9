"""Array functions that know which formulation is fast on which platform."""
