"""Convolutions, in the formulation that is fastest for their shapes and platform."""
