"""nnU-Net outside of training: its folders, commands, plans and images. The one door for its next version."""
