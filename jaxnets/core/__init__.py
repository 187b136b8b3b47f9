"""The foundation: the record `Net`, errors, paths, padded sequences, and the equality and caching of compiled code."""
