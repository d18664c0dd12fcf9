"""The doors: nothing imports them."""
