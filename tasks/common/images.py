"""What classification does to an image before the network sees it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode, v2

from tasks.data.folder import ImageFolderSplit

if TYPE_CHECKING:
    from tasks.handle import DataHandle


def split_of(data: "DataHandle", which: Literal["train", "val"]) -> ImageFolderSplit:
    """One split of a data set of kind `classification`."""
    return cast(ImageFolderSplit, data.split(which))


def evaluation_transform(size: tuple[int, int], crop_ratio: float) -> Callable[[Image.Image], Tensor]:
    """Resize so that a centre crop of `size` keeps `crop_ratio` of the shorter side, and crop.

    With 224 and 0.875 this is the resize to 256 and crop of 224 that MAE, DINO and DeiT evaluate with.

    Args:
        size: height and width in pixels.
        crop_ratio: 0 to 1; 1 crops nothing of the shorter side.
    """
    shorter = int(min(size) / crop_ratio) if size[0] == size[1] else [int(side / crop_ratio) for side in size]
    return v2.Compose(
        [
            v2.Resize(shorter, interpolation=InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(size),
            v2.PILToTensor(),
        ]
    )


def training_transform(size: tuple[int, int], scale: tuple[float, float], flip: float) -> Callable[[Image.Image], Tensor]:
    """Random resized crop and horizontal flip, the augmentation of MAE's probes and pretraining.

    Args:
        size: height and width in pixels.
        scale: smallest and largest share of the area that is cropped.
        flip: probability of a horizontal flip.
    """
    crop = v2.RandomResizedCrop(size, scale=scale, interpolation=InterpolationMode.BICUBIC, antialias=True)
    return v2.Compose([crop, v2.RandomHorizontalFlip(flip), v2.PILToTensor()])


def finetune_transform(
    size: tuple[int, int], scale: tuple[float, float], flip: float, rand_augment: str, mean: tuple[float, float, float]
) -> Callable[[Image.Image], Tensor]:
    """Add RandAugment to `training_transform`, as timm's pipeline does (crop, flip, policy).

    Args:
        size: height and width in pixels.
        scale: smallest and largest share of the area that is cropped.
        flip: probability of a horizontal flip.
        rand_augment: policy in timm's notation, such as `rand-m9-mstd0.5-inc1`; empty for none.
        mean: colour in 0..1 that fills what a shift or rotation uncovers.
    """
    if not rand_augment:
        return training_transform(size, scale, flip)
    fill = tuple(round(255 * value) for value in mean)
    policy = rand_augment_transform(rand_augment, {"translate_const": int(min(size) * 0.45), "img_mean": fill})
    crop = v2.RandomResizedCrop(size, scale=scale, interpolation=InterpolationMode.BICUBIC, antialias=True)
    return v2.Compose([crop, v2.RandomHorizontalFlip(flip), policy, v2.PILToTensor()])


class Labelled(Dataset[tuple[Tensor, int]]):
    """A split as training data: (image as uint8 (3, H, W), class)."""

    def __init__(self, split: ImageFolderSplit, transform: Callable[[Image.Image], Any]) -> None:
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
