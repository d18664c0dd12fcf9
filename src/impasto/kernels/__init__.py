"""Compiled loops for CPUs; `ops` is the only door."""
