"""What `fit` calls between epochs."""
