"""Random changes of examples and batches."""
