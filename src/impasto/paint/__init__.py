"""One picture, by descent."""
