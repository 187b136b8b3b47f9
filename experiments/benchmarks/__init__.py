"""Measurements beside a peer, interleaved in one run: `python -m experiments.benchmarks.<name>`."""
