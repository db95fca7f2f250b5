"""BYOL (arXiv 2006.07733): predict a slowly moving teacher's view of the same image, without negatives."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from mae_bench.objectives._recipes import CONTRASTIVE, SMALL_PAIRS
from mae_bench.objectives._settings import PairConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from backbones.contract import Backbone, BackboneSpec

PER_IMAGE = False


class Config(PairConfig):
    """Settings of BYOL; the defaults are the paper's."""

    momentum: float = Field(default=0.996, ge=0, lt=1)
    """Of the teacher at the start (arXiv 2006.07733, section 3.3); it grows to 1 by half a cosine."""


RECIPES = {
    # The paper trains ResNets. Heads, views, loss and momentum are BYOL's; the training is that of MoCo v3 for ViTs (arXiv
    # 2104.02057, sections 4 to 6), whose authors trained BYOL too (its table 4), with rates they searched and do not list.
    "paper": Config(**CONTRASTIVE, freeze_patch_projection=True),
    "demo": Config(
        **SMALL_PAIRS,
        base_lr=2e-3,
        momentum=0.999,
        hidden_dim=1024,
        output_dim=256,
    ).override({"crop_scale": (0.08, 1.0)}),  # without negatives, crops that overlap are too easily told
}

ABOUT = {
    "paper": "BYOL's heads, views, loss (arXiv 2006.07733) in the training of MoCo v3 for ViTs, 300 epochs (arXiv 2104.02057)",
    "demo": "12 epochs for vit_demo_patch8 and the embedded digits: minutes on a CPU (own choice)",
}
"""What tells the recipes apart, and where each comes from."""


def build(backbone: "Backbone", config: Config, num_classes: int) -> "nn.Module":
    """Put heads and a teacher on a backbone; see `Objective.build`."""
    from mae_bench.objectives._pair import Pair, byol_loss, lightly_heads

    heads, width = lightly_heads("byol"), backbone.spec.embed_dim
    projector = heads.BYOLProjectionHead(width, config.hidden_dim, config.output_dim)
    predictor = heads.BYOLPredictionHead(config.output_dim, config.hidden_dim, config.output_dim)
    return Pair(backbone, projector, predictor, config, "regression", byol_loss)


def sample(config: Config, spec: "BackboneSpec") -> "Callable[[Tensor, int], Any]":
    """Two views of an image, (2, 3, H, W); see `Objective.sample`."""
    from mae_bench.objectives._pair import pair_of_views

    views = pair_of_views(config, spec)
    return lambda image, label: views(image)


def collate(samples: "list[Tensor]") -> "Tensor":
    """A batch of pairs of views, (B, 2, 3, H, W)."""
    import torch

    return torch.stack(samples)
