"""The trainers: what nnU-Net's trainer does, and what a step adds to it."""
