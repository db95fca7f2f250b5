"""Sizes that classification tasks work out: of the input, of the batch, and of the crop."""

from backbones.contract import BackboneSpec, Pool
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


def check_pool(spec: BackboneSpec, pool: Pool) -> None:
    """Raise ConfigError for the class token of a network that has none."""
    if pool == "cls" and spec.num_prefix_tokens == 0:
        raise ConfigError(f"pool=cls needs a class token, and {spec.name} has none; set pool=mean")


def crop_ratio(size: tuple[int, int], ratio: float | None) -> float:
    """The ratio asked for, or MAE's of fine-tuning: 0.875 up to 224 pixels, and no cropping above (mae `util/datasets.py`)."""
    if ratio is not None:
        return ratio
    return 0.875 if max(size) <= 224 else 1.0


def fitting_batch(asked: int, images: int, *, accumulate: int, multiple: int) -> int:
    """The effective batch: the one asked for or what a smaller data set has, in whole micro-batches.

    Args:
        asked: samples of a step.
        images: of the training split.
        accumulate: micro-batches of a step.
        multiple: that a micro-batch has to be of, such as 2 where images are mixed in pairs.

    Raises:
        ConfigError: not even the smallest micro-batches fit.
    """
    unit = accumulate * multiple
    batch = min(asked, images)
    if batch < unit:
        parts = f"accumulate={accumulate} micro-batches of at least {multiple}" if accumulate > 1 else f"at least {multiple}"
        raise ConfigError(f"batch_size={asked} of {images} training images is too small: {parts} are needed; raise batch_size")
    return batch - batch % unit
