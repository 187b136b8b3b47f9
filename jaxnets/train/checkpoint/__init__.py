"""Saving and resuming training runs."""
