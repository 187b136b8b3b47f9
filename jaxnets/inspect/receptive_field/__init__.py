"""What a unit of a network sees of its input."""
