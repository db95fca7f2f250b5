"""Cross entropy with weights of the classes among mmsegmentation's losses."""

from typing import Any

import torch
from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class MaeBenchBalancedLoss(CrossEntropyLoss):
    """mmseg's own, averaged over the weights of the pixels that have a class, as torch's `cross_entropy` is.

    mmsegmentation 1.2.2 looks up the weight of ignored pixels too, and fails; the releases of its fork do what is done here.
    """

    def forward(self, cls_score: Tensor, label: Tensor, *rest: Any, ignore_index: int = -100, **more: Any) -> Tensor:
        """The loss of scores (B, classes, H, W) and class numbers (B, H, W)."""
        weights = torch.tensor(self.class_weight, device=label.device)
        more["avg_factor"] = weights[label[label != ignore_index]].sum()
        return super().forward(cls_score, label, *rest, ignore_index=ignore_index, **more)
