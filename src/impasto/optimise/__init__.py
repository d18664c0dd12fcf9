"""Optimisers: they change an image to lower any function of it."""
