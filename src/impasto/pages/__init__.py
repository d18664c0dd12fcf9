"""Several pictures on one labelled page."""
