"""Runs on disk: saved, gone on with, and begun from."""
