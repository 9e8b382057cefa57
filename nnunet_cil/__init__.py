"""Class-incremental segmentation for nnU-Net v2: teach a trained model new organs, step by step."""

__version__ = "0.1.0"
