"""Finding out why a run fails to learn."""
