"""Tables of mixed columns: read, fitted on training rows, and encoded as arrays."""
