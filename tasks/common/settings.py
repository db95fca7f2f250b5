"""Settings that classification tasks share."""

from typing import Literal

from pydantic import Field

from mae_bench.core.config import Config
from mae_bench.core.values import CropScale


class Sized(Config):
    """How large the input is."""

    image_size: int | None = Field(default=None, ge=1)
    """Side of the square input in pixels; None takes the size the backbone was made for."""


class Viewed(Sized):
    """How images are evaluated."""

    crop_ratio: float = Field(default=0.875, gt=0, le=1)
    """Of the centre crop to the shorter side: resize 256, crop 224 (dino `eval_knn.py`, mae `main_linprobe.py`)."""


class Pooled(Viewed):
    """Which features are classified."""

    pool: Literal["cls", "mean"] = "cls"
    """Feature of an image, after the final norm: the class token, or the mean of the patch tokens."""


class Augmented(Config):
    """How images are trained on."""

    crop_scale: CropScale = (0.08, 1.0)
    """Area of the random resized crop (mae `main_linprobe.py`; timm's default, which `main_finetune.py` uses)."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches of one step in each process; a matter of memory."""
