"""Tools to find out why training fails."""
