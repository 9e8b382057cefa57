"""Names the files that nnU-Net writes."""

FINAL_CHECKPOINT = "checkpoint_final.pth"
"""The weights of a trained fold."""

DATA_ENDINGS = (".b2nd", ".npy", ".npz")
"""Endings of preprocessed cases, in the order in which nnU-Net looks for them."""
