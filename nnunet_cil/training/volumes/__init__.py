"""The teacher's segmentations of whole training volumes."""
