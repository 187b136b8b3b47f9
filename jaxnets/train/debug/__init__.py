"""Finding out why training fails."""
