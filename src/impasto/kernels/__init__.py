"""Compiled kernels for CPUs; the rest of the package imports only `ops`."""
