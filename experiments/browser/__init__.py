"""A network in a browser."""
