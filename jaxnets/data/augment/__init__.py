"""Data augmentation: random changes of examples, and mixing within batches."""
