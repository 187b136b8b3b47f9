"""Receptive fields: the part of the input that a unit of a network sees."""
