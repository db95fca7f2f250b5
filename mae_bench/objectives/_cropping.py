"""Random crops, of an image that is decoded or of one that is decoded no finer than the crop needs."""

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from tasks.encoded import Encoded

SHRINKS = (8, 4, 2)
"""Fractions of its resolution at which a JPEG can be decoded."""


class Picture:
    """An image that is not decoded yet; each scale that a crop asks for is decoded once."""

    def __init__(self, encoded: Encoded) -> None:
        """Read the header.

        Raises:
            InputError: it cannot be read.
        """
        self._encoded, self.size = encoded, encoded.size
        self._decoded: dict[int, Tensor] = {}

    def part(self, top: int, left: int, height: int, width: int, size: tuple[int, int]) -> Tensor:
        """A box of the image, brought to a size from the coarsest scale at which the box is at least that large.

        Args:
            top: of the box, as `left`, `height` and `width` in pixels of the whole image.
            left: see `top`.
            height: see `top`.
            width: see `top`.
            size: height and width of what is given.

        Returns:
            (3, h, w) uint8.

        Raises:
            InputError: the image cannot be decoded.
        """
        shrink = next((s for s in SHRINKS if height >= s * size[0] and width >= s * size[1]), 1)
        if shrink not in self._decoded:
            self._decoded[shrink] = torch.from_numpy(self._encoded.pixels(shrink=shrink)).permute(2, 0, 1)
        image = self._decoded[shrink]
        y, x = image.shape[1] / self.size[0], image.shape[2] / self.size[1]
        first, last = (round(top * y), round(left * x)), (round((top + height) * y), round((left + width) * x))
        return resized(image, (*first, last[0] - first[0], last[1] - first[1]), size)


class Crop(v2.RandomResizedCrop):
    """torchvision's random resized crop, bicubic, and horizontal flip, that takes a `Picture` too.

    The same draws give the same box and flip for both, those of torchvision's two transforms. Their own way to a single tensor,
    which looks for several kinds of inputs first, would take a tenth of the time from file to crop.
    """

    def __init__(self, size: tuple[int, int], scale: tuple[float, float], flip: float = 0.0) -> None:
        super().__init__(size, scale=scale, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
        self._target, self.flip = size, flip

    def forward(self, *inputs: Any) -> Any:
        """A random part of the image, (3, h, w) uint8."""
        (image,) = inputs
        view = self._crop(image)
        return view.flip(-1) if self.flip and torch.rand(1) < self.flip else view

    def _crop(self, image: Tensor | Picture) -> Tensor:
        if isinstance(image, Tensor):
            box = self.make_params([image])
            return resized(image, (box["top"], box["left"], box["height"], box["width"]), self._target)
        # A tensor of that shape without memory of its own; only its size is asked for.
        box = self.make_params([torch.empty(1, dtype=torch.uint8).expand(3, *image.size)])
        return image.part(**box, size=self._target)


def resized(image: Tensor, box: tuple[int, int, int, int], size: tuple[int, int]) -> Tensor:
    """A box (top, left, height, width) of an image, bicubic."""
    return functional.resized_crop(image, *box, size=list(size), interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
