"""A backbone with a linear head, trained on labels."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.mixup import Mixup
from torch import Tensor, nn
from torch.nn import functional

from backbones.contract import Backbone, BackboneSpec
from mae_bench.objectives._parts import crop_and_flip, start, to_input
from mae_bench.objectives.supervised import Config
from tasks.common.rand_augment import mended

HEAD_STD = 0.01
"""Of the head's weights at the start."""


class Classifier(nn.Module):
    """Cross-entropy of a linear head on the pooled, normed tokens of a backbone."""

    def __init__(self, backbone: Backbone, config: Config, num_classes: int) -> None:
        super().__init__()
        self.backbone, self.config = backbone, config
        start(backbone)
        self.head = nn.Linear(backbone.spec.embed_dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)
        self.mix = self._mixing(num_classes)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss of a batch of uint8 `images` (B, 3, H, W) and `labels` (B,)."""
        images, labels = to_input(batch["images"], self.backbone.spec), batch["labels"]
        smoothing = self.config.label_smoothing
        if self.mix is not None:
            images, labels = self.mix(images, labels)  # targets are smoothed by it
            smoothing = 0.0
        return {"classification": functional.cross_entropy(self.logits(images), labels, label_smoothing=smoothing)}

    def logits(self, images: Tensor) -> Tensor:
        """Class scores (B, classes) of normalised images."""
        (features,) = self.backbone(images)
        return self.head(features.pool(self.config.pool)).float()

    def _mixing(self, num_classes: int) -> Mixup | None:
        config = self.config
        if not (config.mixup or config.cutmix):
            return None
        return Mixup(config.mixup, config.cutmix, label_smoothing=config.label_smoothing, num_classes=num_classes)


def augmentation(config: Config, spec: BackboneSpec) -> Callable[[Tensor], Tensor]:
    """Random crop, flip and RandAugment; uint8 in, uint8 out."""
    view = crop_and_flip(config, spec)
    if not config.rand_augment:
        return view
    # timm's operations are Pillow's; what they uncover is filled with the mean colour, as timm does.
    fill = tuple(round(255 * value) for value in spec.mean)
    hints = {"translate_const": int(min(spec.image_size) * 0.45), "img_mean": fill}
    policy = mended(rand_augment_transform(config.rand_augment, hints))

    def augment(image: Tensor) -> Tensor:
        changed = policy(Image.fromarray(view(image).permute(1, 2, 0).numpy()))
        return torch.from_numpy(np.array(changed)).permute(2, 0, 1)

    return augment
