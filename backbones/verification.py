"""The suite's backbone against the code a checkpoint comes from: the same tokens after every block."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from backbones.origins import Network
from backbones.source import Source

TOLERANCE = 1e-5
"""Largest difference allowed, relative to the largest absolute value of the block's tokens and at least to 1; in float32."""


@dataclass(frozen=True)
class Compared:
    """One block on one image."""

    size: tuple[int, int]
    """Height and width of the image in pixels."""
    block: int
    difference: float
    """Largest absolute difference of the tokens."""
    scale: float
    """Largest absolute value of the tokens of the other code."""

    @property
    def relative(self) -> float:
        """What `TOLERANCE` is for."""
        return self.difference / max(self.scale, 1.0)

    @property
    def same(self) -> bool:
        """Whether the two agree; what is not a number agrees with nothing."""
        return self.relative <= TOLERANCE


def sizes(source: Source, network: Network) -> list[tuple[int, int]]:
    """Heights and widths that are compared: the file's own, and a rectangle of about 3/4 by 5/4 of it where that can be."""
    height, width = source.spec.image_size
    patch = source.spec.patch_size
    rectangle = (max(height * 3 // 4 // patch, 1) * patch, max(width * 5 // 4 // patch, 1) * patch)
    return [(height, width), rectangle] if network.any_size else [(height, width)]


def image(size: tuple[int, int]) -> Tensor:
    """The image that is looked at, (1, 3, H, W): normal noise as strong as a normalised photograph, always the same."""
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))


def compare(source: Source, network: Network) -> Iterable[Compared]:
    """Run both on the same images and compare the tokens after every block, before the final norm."""
    backbone = source.build(network.options).eval()
    layers = tuple(range(source.spec.depth))
    for size in sizes(source, network):
        images = image(size)
        with torch.no_grad():
            theirs = network.blocks(images)
            ours = backbone(images, layers, norm=False)
        for block, (features, tokens) in enumerate(zip(ours, theirs, strict=True)):
            if features.tokens.shape != tokens.shape:
                yield Compared(size, block, float("inf"), float(tokens.abs().max()))
                continue
            difference = (features.tokens - tokens).abs().max()
            yield Compared(size, block, float(difference), float(tokens.abs().max()))
