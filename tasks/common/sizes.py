"""The input size of a classification task."""

from backbones.contract import BackboneSpec
from mae_bench.core.errors import ConfigError


def input_size(spec: BackboneSpec, side: int | None) -> tuple[int, int]:
    """Height and width in pixels: the side asked for, or what the backbone was made for.

    Raises:
        ConfigError: the side is no multiple of the patch size.
    """
    size = (side, side) if side is not None else spec.image_size
    if any(length % spec.patch_size for length in size):
        below = max(1, min(size) // spec.patch_size) * spec.patch_size
        raise ConfigError(
            f"image_size={min(size)} is no multiple of the patch size {spec.patch_size} of {spec.name}; use {below}"
        )
    return size
