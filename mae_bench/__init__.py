"""mae-bench: transfer tables for Vision Transformer checkpoints, as the MAE paper prints them."""

__version__ = "0.1.0"
