"""The images that a pretraining draws its samples from."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from mae_bench.core.errors import InputError
from mae_bench.objectives._cropping import Picture
from tasks.data import LabelledSplit

log = logging.getLogger(__name__)

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
    decoded: list[Tensor | None] | None = None
    """Images in memory; None for one that could not be decoded, which is tried again, and skipped, when it is drawn."""
    reduced: bool = False
    """Whether crops are decoded at reduced scale: `sample` is then given a `Picture`."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.split)

    def __getitem__(self, index: int) -> Any:
        """One sample, with whatever random augmentation the objective asks for."""
        image = None if self.decoded is None else self.decoded[index]
        if image is None:
            image = Picture(self.split.encoded(index)) if self.reduced else read(self.split, index)
        return self.sample(image, self.split.labels[index])


def read(split: LabelledSplit, index: int) -> Tensor:
    """One image as (3, H, W) uint8; a view of rows, columns, colours, which is what random crops are fastest on."""
    return torch.from_numpy(split.encoded(index).pixels()).permute(2, 0, 1)


def _readable(split: LabelledSplit, index: int) -> Tensor | None:
    """What `read` gives, or None for an image that cannot be decoded."""
    try:
        return read(split, index)
    except InputError:
        return None


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
        sizes = [image.numel() for index in looked_at if (image := _readable(split, index)) is not None]
        cache = "always" if sizes and sum(sizes) / len(sizes) * len(split) < CACHE_BYTES else "never"
    decoded = [_readable(split, index) for index in range(len(split))] if cache == "always" else None
    return Images(split, sample, decoded)


def held_out(split: LabelledSplit, count: int, size: tuple[int, int]) -> Tensor:
    """Images spread evenly over a split, brought to one size, (B, 3, H, W) uint8; the next one for one that cannot be read.

    Raises:
        InputError: none can be read.
    """
    count = min(count, len(split))
    found = [_from(split, number * len(split) // count) for number in range(count)]
    return torch.stack([functional.resize(image, list(size), antialias=True) for image in found])


def _from(split: LabelledSplit, first: int) -> Tensor:
    """The first image that can be read, from a number on and around."""
    for index in (*range(first, len(split)), *range(first)):
        try:
            return read(split, index)
        except InputError as error:
            log.warning("%s; the next image is taken instead", error)
    raise InputError(f"none of {len(split)} images can be read; see the warnings before this, or `mae-bench data check`")
