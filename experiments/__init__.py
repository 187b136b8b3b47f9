"""Studies that a reader can run: `python -m experiments`."""
