"""Reads images and label maps with nnU-Net's own readers, and knows their grids and spacings."""
