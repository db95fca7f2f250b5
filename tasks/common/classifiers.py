"""The heads that classification tasks train."""

import torch
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.init import trunc_normal_

from backbones.contract import Backbone, Pool
from tasks.common.features import pixels


class Probe(nn.Module):
    """The linear classifier of MAE's linear probe: normalised features, then one layer (arXiv 2111.06377, A.1)."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        # Without affine parameters it only brings features of different scale to one, so one learning rate fits all.
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6)
        self.linear = nn.Linear(width, num_classes)
        trunc_normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def logits(self, features: Tensor) -> Tensor:
        """Scores (B, K) of features (B, C)."""
        return self.linear(self.norm(features))

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Loss of (features (B, C), classes (B,))."""
        features, labels = batch
        return {"loss": cross_entropy(self.logits(features), labels)}


class FrozenProbe(nn.Module):
    """A probe on images, through a backbone that is frozen for good.

    The backbone is kept outside the module tree: it has no gradients, stays in eval mode whatever is called on the
    probe, is in no optimizer group and in no checkpoint.
    """

    def __init__(self, backbone: Backbone, pool: Pool, num_classes: int, device: str) -> None:
        super().__init__()
        self.probe = Probe(backbone.spec.embed_dim, num_classes)
        self._frozen = (backbone.to(device).eval().requires_grad_(False),)
        self._pool: Pool = pool

    def features(self, images: Tensor) -> Tensor:
        """Pooled features (B, C) of uint8 images."""
        (backbone,) = self._frozen
        with torch.no_grad():
            (features,) = backbone(pixels(images, backbone), norm=True)
        return features.pool(self._pool)

    def logits(self, images: Tensor) -> Tensor:
        """Scores (B, K) of uint8 images."""
        return self.probe.logits(self.features(images))

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Loss of (uint8 images (B, 3, H, W), classes (B,))."""
        images, labels = batch
        return self.probe((self.features(images), labels))


class Regularise:
    """What fine-tuning does to a batch of normalised images: random erasing, then mixup or cutmix (timm's order)."""

    def __init__(self, num_classes: int, *, smoothing: float, mixup: float, cutmix: float, erasing: float, device: str) -> None:
        self._erase = RandomErasing(erasing, mode="pixel", device=device) if erasing > 0 else None
        mixed = mixup > 0 or cutmix > 0
        self._mix = Mixup(mixup, cutmix, label_smoothing=smoothing, num_classes=num_classes) if mixed else None
        self.smoothing = 0.0 if mixed else smoothing
        """Label smoothing left for the loss: the mixed targets are smoothed already."""

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Give images and targets: classes (B,), or shares (B, K) where images are mixed."""
        if self._erase is not None:
            images = self._erase(images)
        return self._mix(images, labels) if self._mix is not None else (images, labels)


class FineTuned(nn.Module):
    """A whole network fine-tuned: mean of the patch tokens, a norm of its own, one layer (MAE's `global_pool`)."""

    def __init__(self, backbone: Backbone, num_classes: int, *, pool: Pool, regularise: Regularise) -> None:
        super().__init__()
        self.backbone = backbone
        self.norm = nn.LayerNorm(backbone.spec.embed_dim, eps=1e-6)
        self.head = nn.Linear(backbone.spec.embed_dim, num_classes)
        # Near zero, so that the first gradients do not shake the pretrained weights (mae `main_finetune.py`: std 2e-5).
        trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)
        self._pool: Pool = pool
        self._regularise = regularise

    def logits(self, images: Tensor) -> Tensor:
        """Scores (B, K) of uint8 images."""
        return self._classify(pixels(images, self.backbone))

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Loss of (uint8 images (B, 3, H, W), classes (B,)); erased and mixed here when that is on."""
        images, targets = self._regularise(pixels(batch[0], self.backbone), batch[1])
        return {"loss": cross_entropy(self._classify(images), targets, label_smoothing=self._regularise.smoothing)}

    def _classify(self, images: Tensor) -> Tensor:
        (features,) = self.backbone(images, norm=False)
        return self.head(self.norm(features.pool(self._pool)))
