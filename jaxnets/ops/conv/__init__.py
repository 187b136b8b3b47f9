"""Convolutions, in the formulation that is fast for their shapes and platform."""
