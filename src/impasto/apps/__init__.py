"""Programs that use impasto; no other part of the package imports them."""
