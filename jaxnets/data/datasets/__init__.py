"""Datasets by name: in packages, made, or read from files."""
