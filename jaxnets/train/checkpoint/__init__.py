"""Checkpoints of a run: save it while it trains, and resume it bit for bit."""
