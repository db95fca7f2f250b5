"""What classification does to an image before the network sees it."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from PIL import Image
from timm.data.auto_augment import RandAugment
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode, v2

from backbones.contract import Interpolation
from tasks.common.rand_augment import mended
from tasks.data import LabelledSplit

if TYPE_CHECKING:
    from tasks.handle import DataHandle

ASPECTS = (3 / 4, 4 / 3)
"""Width to height of random crops, before the resize (torchvision's and timm's default)."""


def split_of(data: "DataHandle", which: Literal["train", "val"]) -> LabelledSplit:
    """One split of a data set of kind `classification`."""
    return cast(LabelledSplit, data.split(which))


def evaluation_transform(
    size: tuple[int, int], crop_ratio: float, interpolation: Interpolation = "bicubic"
) -> Callable[[Image.Image], Tensor]:
    """Resize so that a centre crop of `size` keeps `crop_ratio` of the shorter side, and crop.

    With 224 and 0.875 this is the resize to 256 and crop of 224 that MAE, DINO and DeiT evaluate with.

    Args:
        size: height and width in pixels.
        crop_ratio: 0 to 1; 1 crops nothing of the shorter side.
        interpolation: of the resize.
    """
    shorter = int(min(size) / crop_ratio) if size[0] == size[1] else [int(side / crop_ratio) for side in size]
    resize = v2.Resize(shorter, interpolation=InterpolationMode(interpolation), antialias=True)
    return v2.Compose([resize, v2.CenterCrop(size), v2.PILToTensor()])


class CropOnce:
    """Random resized crop without second tries, as MAE's linear probe has it (arXiv 2111.06377, A.1).

    Area and aspect ratio are drawn once, and what sticks out of the image is cut off; torchvision draws up to ten times and then
    takes the centre. Where torchvision's first draw fits, both give the same pixels.
    """

    def __init__(self, size: tuple[int, int], scale: tuple[float, float], interpolation: Interpolation = "bicubic") -> None:
        """Crop to `size` (height, width) in pixels an area of `scale` (smallest, largest share)."""
        self._size, self._scale, self._resampling = size, scale, Image.Resampling[interpolation.upper()]

    def __call__(self, image: Image.Image) -> Image.Image:
        """A random part of the image at the size."""
        area = image.width * image.height * torch.empty(1).uniform_(*self._scale).item()
        aspect = math.exp(torch.empty(1).uniform_(*(math.log(ratio) for ratio in ASPECTS)).item())
        width = max(1, min(image.width, round(math.sqrt(area * aspect))))
        height = max(1, min(image.height, round(math.sqrt(area / aspect))))
        top = int(torch.randint(0, image.height - height + 1, (1,)))
        left = int(torch.randint(0, image.width - width + 1, (1,)))
        part = image.crop((left, top, left + width, top + height))
        return part.resize((self._size[1], self._size[0]), self._resampling)


def probe_transform(
    size: tuple[int, int], scale: tuple[float, float], flip: float, interpolation: Interpolation = "bicubic"
) -> Callable[[Image.Image], Tensor]:
    """Random resized crop and horizontal flip, the augmentation of MAE's linear probe.

    Args:
        size: height and width in pixels.
        scale: smallest and largest share of the area that is cropped.
        flip: probability of a horizontal flip.
        interpolation: of the resize.
    """
    return v2.Compose([CropOnce(size, scale, interpolation), v2.RandomHorizontalFlip(flip), v2.PILToTensor()])


def finetune_transform(
    size: tuple[int, int],
    scale: tuple[float, float],
    flip: float,
    rand_augment: str,
    mean: tuple[float, float, float],
    interpolation: Interpolation = "bicubic",
) -> Callable[[Image.Image], Tensor]:
    """The training pipeline of timm as MAE's fine-tuning uses it: random resized crop, flip, RandAugment.

    Args:
        size: height and width in pixels.
        scale: smallest and largest share of the area that is cropped.
        flip: probability of a horizontal flip.
        rand_augment: policy in timm's notation, such as `rand-m9-mstd0.5-inc1`; empty for none.
        mean: colour in 0..1 that fills what a shift or rotation uncovers.
        interpolation: of all of them.
    """
    made = create_transform(
        size,
        is_training=True,
        use_prefetcher=True,  # uint8 is given; the rest is done for whole batches on the device
        scale=scale,
        ratio=ASPECTS,
        hflip=flip,
        color_jitter=cast(Any, None),
        auto_augment=rand_augment or None,
        interpolation=interpolation,
        mean=mean,
    )
    for step in cast(Any, made).transforms:
        if isinstance(step, RandAugment):
            mended(step)
    return lambda image: torch.as_tensor(cast(Any, made)(image))


class Labelled(Dataset[tuple[Tensor, int]]):
    """A split as training data: (image as uint8 (3, H, W), class)."""

    def __init__(self, split: LabelledSplit, transform: Callable[[Image.Image], Any]) -> None:
        self._split, self._transform = split, transform

    def __len__(self) -> int:
        """Number of images."""
        return len(self._split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One transformed image and its class."""
        return self._transform(self._split.image(index)), self._split.labels[index]


def stack(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """Collate labelled images into (B, 3, H, W) uint8 and (B,) classes."""
    images, labels = zip(*samples, strict=True)
    return torch.stack(images), torch.tensor(labels)
