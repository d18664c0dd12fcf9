"""Networks that repaint a picture in one pass: their layers, files, training, use and export."""
