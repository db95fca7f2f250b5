"""Random views of an image, for objectives that compare several of them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2

from mae_bench.objectives._cropping import Crop

BLUR = (0.1, 2.0)
"""Deviation of the blur in pixels (SimCLR, arXiv 2002.05709, appendix A)."""
SOLARIZE_FROM = 128
"""Pixel value from which solarisation inverts (BYOL, arXiv 2006.07733, appendix B)."""


@dataclass(frozen=True)
class View:
    """One kind of random view: crop, flip, colour jitter, grey, blur, solarisation, in this order."""

    size: tuple[int, int]
    """Height and width in pixels."""
    scale: tuple[float, float]
    """Area of the crop as a share of the image."""
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    """Brightness, contrast, saturation and hue (BYOL, arXiv 2006.07733, table 6); zeros are off."""
    jitter_chance: float = 0.8
    grey: float = 0.2
    """Chance of a picture without colours, whatever the jitter (SimCLR, arXiv 2002.05709, appendix A; BYOL, table 6)."""
    blur: float = 0.0
    solarize: float = 0.0

    def transform(self) -> Callable[[Tensor], Tensor]:
        """Make the function from an RGB image (3, H, W) uint8 to a view of it, uint8."""
        steps: list[v2.Transform] = [Crop(self.size, self.scale, self.flip)]
        colours: list[v2.Transform] = []
        if any(self.jitter):
            colours.append(v2.RandomApply([v2.ColorJitter(*self.jitter)], self.jitter_chance))
        if self.grey:
            colours.append(v2.RandomGrayscale(self.grey))
        if colours:
            # Pillow changes the hue of a small image in half the time that tensor operations take.
            steps += [v2.ToPILImage(), *colours, v2.PILToTensor()]
        if self.blur:
            side = max(1, min(self.size) // 10)
            steps.append(v2.RandomApply([v2.GaussianBlur(side + 1 - side % 2, BLUR)], self.blur))
        if self.solarize:
            steps.append(v2.RandomSolarize(SOLARIZE_FROM, self.solarize))
        return v2.Compose(steps)


def views_of(kinds: list[View]) -> Callable[[Tensor], Tensor]:
    """Make the function that stacks one view of each kind, all of one size: (views, 3, H, W) uint8."""
    transforms = [kind.transform() for kind in kinds]
    return lambda image: torch.stack([transform(image) for transform in transforms])
