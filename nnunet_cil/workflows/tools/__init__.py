"""nnU-Net's own tools on the models of steps."""
