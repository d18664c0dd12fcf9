"""Tests of a real Ray cluster; `make cluster` runs them."""
