"""Optimisers: they move an image down any function of it."""
