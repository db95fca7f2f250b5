"""Two views, a projection head and the NT-Xent loss; head and loss are lightly's."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from backbones.contract import Backbone, BackboneSpec
from mae_bench.core.find import missing
from mae_bench.objectives._parts import freeze_patch_projection, start, synchronised, to_input
from mae_bench.objectives._teacher import LOOK_EVERY, health
from mae_bench.objectives._views import View, views_of
from mae_bench.objectives.simclr import Config


class Contrastive(nn.Module):
    """A backbone whose pooled tokens, projected, tell images apart."""

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__()
        head, loss = _lightly()
        self.backbone, self.config = backbone, config
        start(backbone)
        freeze_patch_projection(backbone, config.freeze_patch_projection)
        self.head = synchronised(head(backbone.spec.embed_dim, config.hidden_dim, config.output_dim))
        self.loss = loss(temperature=config.temperature, gather_distributed=torch.distributed.is_available())
        self.look = True

    def before_step(self, step: int, steps: int) -> None:
        """Look for signs of collapse now and then."""
        self.look = step % LOOK_EVERY == 0

    def forward(self, views: Tensor) -> dict[str, Tensor]:
        """Loss of a batch of pairs of uint8 views (B, 2, 3, H, W)."""
        (features,) = self.backbone(to_input(views.transpose(0, 1).flatten(0, 1), self.backbone.spec))
        pooled = features.pool(self.config.pool)
        first, second = self.head(pooled).float().chunk(2)
        # Similarities divided by a small temperature need all their digits.
        with torch.autocast(first.device.type, enabled=False):
            return {"contrast": self.loss(first, second), **(health(pooled) if self.look else {})}


def two_views(config: Config, spec: BackboneSpec) -> Callable[[Tensor], Tensor]:
    """Make pairs of views as in arXiv 2002.05709, appendix A: crop, flip, colour jitter (80 %), grey (20 %), blur; uint8."""
    large, small = 0.8 * config.colour, 0.2 * config.colour
    jitter = (large, large, large, small)
    view = View(spec.image_size, config.crop_scale, config.flip, jitter, blur=config.blur)
    return views_of([view, view])


def _lightly() -> tuple[Any, Any]:
    """Projection head and loss.

    Raises:
        EnvironmentFault: lightly is not installed.
    """
    try:
        from lightly.loss import NTXentLoss
        from lightly.models.modules.heads import SimCLRProjectionHead
    except ModuleNotFoundError as error:
        raise missing(error, "objective simclr") from error
    return SimCLRProjectionHead, NTXentLoss
