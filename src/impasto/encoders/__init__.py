"""Pretrained networks: from an image to features by layer name."""
