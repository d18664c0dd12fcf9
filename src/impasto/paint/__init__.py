"""Painting one picture: step by step, by an optimiser."""
