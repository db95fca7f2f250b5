"""timm's RandAugment, with the one operation mended that Pillow no longer takes."""

from typing import Any

from PIL import Image
from timm.data.auto_augment import RandAugment, posterize


def mended(policy: RandAugment) -> RandAugment:
    """Let a posterisation keep no bit at all, as it does at magnitude 10 of an increasing policy.

    `rand-m9-mstd0.5-inc1` draws that once in about 660 images: two of its 15 operations, each applied by half, at a magnitude two
    deviations above its mean. It made an image black; Pillow 13 raises ValueError.
    """
    for operation in policy.ops:
        if operation.aug_fn is posterize:
            operation.aug_fn = _posterize
    return policy


def _posterize(image: Image.Image, bits: int, **options: Any) -> Image.Image:
    return posterize(image, bits, **options) if bits > 0 else Image.new(image.mode, image.size)
