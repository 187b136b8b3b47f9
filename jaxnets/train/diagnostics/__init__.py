"""What a run did, and why: norms, verdicts, rates, and the layer that met a NaN."""
