"""The images that a pretraining draws its samples from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from mae_bench.objectives._cropping import Picture
from tasks.data import LabelledSplit

CACHE_BYTES = 512 * 2**20
"""Decoded images that take less are kept in memory."""
SIZES_LOOKED_AT = 32
"""Images decoded to tell how much memory all of them would take."""


@dataclass(frozen=True)
class Images:
    """Training images as uint8 tensors, decoded once where they fit into memory, and turned into samples by an objective."""

    split: LabelledSplit
    sample: Callable[[Any, int], Any]
    """Takes an image and its label; what `Objective.sample` makes."""
    decoded: list[Tensor] | None = None
    reduced: bool = False
    """Whether crops are decoded at reduced scale: `sample` is then given a `Picture`."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.split)

    def __getitem__(self, index: int) -> Any:
        """One sample, with whatever random augmentation the objective asks for."""
        if self.decoded is not None:
            image = self.decoded[index]
        else:
            image = Picture(self.split.encoded(index)) if self.reduced else read(self.split, index)
        return self.sample(image, self.split.labels[index])


def read(split: LabelledSplit, index: int) -> Tensor:
    """One image as (3, H, W) uint8; a view of rows, columns, colours, which is what random crops are fastest on."""
    return torch.from_numpy(split.encoded(index).pixels()).permute(2, 0, 1)


def load_images(split: LabelledSplit, sample: Callable[[Any, int], Any], cache: str, *, reduced: bool = False) -> Images:
    """Training images of a split.

    Args:
        split: where they are.
        sample: see `Objective.sample`.
        cache: whether they are decoded once and kept: `auto`, `always`, `never`.
        reduced: whether crops are decoded at reduced scale; nothing is kept then.
    """
    if reduced:
        return Images(split, sample, reduced=True)
    looked_at = range(0, len(split), max(1, len(split) // SIZES_LOOKED_AT))
    if cache == "auto":
        mean_bytes = sum(read(split, index).numel() for index in looked_at) / len(looked_at)
        cache = "always" if mean_bytes * len(split) < CACHE_BYTES else "never"
    decoded = [read(split, index) for index in range(len(split))] if cache == "always" else None
    return Images(split, sample, decoded)


def held_out(split: LabelledSplit, count: int, size: tuple[int, int]) -> Tensor:
    """Images spread evenly over a split, brought to one size, (B, 3, H, W) uint8."""
    count = min(count, len(split))
    chosen = [read(split, number * len(split) // count) for number in range(count)]
    return torch.stack([functional.resize(image, list(size), antialias=True) for image in chosen])
