"""The maps of a backbone of the suite as a backbone of Detectron2, and what of it is trained."""

from typing import Self

import torch
from detectron2.modeling import Backbone as Detectron2Backbone
from torch import Tensor

from backbones.contract import Backbone

FEATURE = "last_feat"


class Wrapped(Detectron2Backbone):
    """A backbone of the suite inside one of Detectron2; `freeze` keeps it as it is whatever is trained around it."""

    net: Backbone
    frozen = False

    def freeze(self) -> None:
        """Train nothing of the backbone, and keep it in eval mode."""
        self.frozen = True
        self.net.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Switch everything but a frozen backbone."""
        super().train(mode)
        if self.frozen:
            self.net.eval()
        return self


class LastMap(Wrapped):
    """The map of the last block, without the final norm, as Detectron2's own ViT gives it."""

    def __init__(self, net: Backbone) -> None:
        super().__init__()
        self.net = net
        self._out_features = [FEATURE]
        self._out_feature_channels = {FEATURE: net.spec.embed_dim}
        self._out_feature_strides = {FEATURE: net.spec.patch_size}

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]  # the base class names no argument
        """Give `{"last_feat": (B, C, h, w)}` of normalised images (B, 3, H, W)."""
        (features,) = self.net(images, layers=(-1,), norm=False)
        return {FEATURE: features.map.contiguous()}

    @property
    def size_divisibility(self) -> int:
        """Sides of the images are multiples of this."""
        return self.net.spec.patch_size

    @property
    def padding_constraints(self) -> dict[str, int]:
        """The same, as Detectron2 asks for it when it makes a batch."""
        return {"size_divisibility": self.size_divisibility, "square_size": 0}


def settle(backbone: Wrapped, *, frozen: bool) -> None:
    """Decide what of a backbone is trained: nothing, or all that its maps depend on."""
    if frozen:
        backbone.freeze()
    else:
        freeze_unused(backbone)


def freeze_unused(backbone: Wrapped) -> list[str]:
    """Turn off the gradients of parameters that no map depends on, such as the final norm and class tokens that were dropped.

    An optimizer would hold state for them, and distributed training waits for gradients that never come.

    Returns:
        Their names.
    """
    side = 2 * backbone.net.spec.patch_size
    first = next(backbone.parameters())
    was_training = backbone.training
    backbone.eval()
    maps = backbone(torch.zeros(1, 3, side, side, device=first.device, dtype=first.dtype))
    learned = [(name, parameter) for name, parameter in backbone.named_parameters() if parameter.requires_grad]
    total = torch.stack([found.sum() for found in maps.values()]).sum()
    gradients = torch.autograd.grad(total, [parameter for _, parameter in learned], allow_unused=True)
    backbone.train(was_training)
    unused = [(name, parameter) for (name, parameter), gradient in zip(learned, gradients, strict=True) if gradient is None]
    for _, parameter in unused:
        parameter.requires_grad_(False)
    return [name for name, _ in unused]
