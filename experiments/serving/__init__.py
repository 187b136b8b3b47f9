"""A network behind HTTP."""
