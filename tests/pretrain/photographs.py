"""Images with as much detail as photographs have, as files."""

import io

import numpy as np
from PIL import Image


def photograph(width: int, height: int, seed: int = 0, *, fine: bool = True) -> Image.Image:
    """Noise at several scales."""
    rng = np.random.default_rng(seed)
    parts = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (max(2, height // s), max(2, width // s), 3), dtype=np.uint8)).resize(
                (width, height), Image.Resampling.BICUBIC
            ),
            dtype=np.float32,
        )
        for s in (60, 15, 4)
    ]
    mixed = 0.6 * parts[0] + 0.3 * parts[1] + 0.1 * parts[2]
    return Image.fromarray(mixed.astype(np.uint8))


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
