"""MoCo v3 (arXiv 2104.02057): contrast with a momentum teacher's keys of the batch, patch projection frozen."""

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
    """Settings of MoCo v3; the defaults are the paper's for ViTs."""

    momentum: float = Field(default=0.99, ge=0, lt=1)
    """Of the teacher at the start (arXiv 2104.02057, section 5); it grows to 1 by half a cosine."""
    temperature: float = Field(default=0.2, gt=0)
    """Of the loss (arXiv 2104.02057, section 5)."""
    projector_depth: int = Field(default=3, ge=2)
    """Layers of the projector; the predictor has two (arXiv 2104.02057, section 5)."""
    freeze_patch_projection: bool = True
    """Whether the patch projection stays random (arXiv 2104.02057, section 4.2)."""


RECIPES = {
    # arXiv 2104.02057, section 5, at the 300 epochs of its table 4.
    "paper": Config(**CONTRASTIVE),
    "demo": Config(
        **SMALL_PAIRS,
        base_lr=4e-3,
        momentum=0.9,
        projector_depth=2,
        hidden_dim=384,
        output_dim=128,
    ),
}

ABOUT = {
    "paper": "300 epochs at batch 4096, base rate 1.5e-4 (arXiv 2104.02057, section 5 and table 4)",
    "demo": "12 epochs for vit_demo_patch8 and the embedded digits: minutes on a CPU (own choice)",
}
"""What tells the recipes apart, and where each comes from."""


def build(backbone: "Backbone", config: Config, num_classes: int) -> "nn.Module":
    """Put heads and a teacher on a backbone; see `Objective.build`."""
    from functools import partial

    from mae_bench.objectives._pair import Pair, lightly_heads, moco_loss

    heads, width, hidden, out = lightly_heads("mocov3"), backbone.spec.embed_dim, config.hidden_dim, config.output_dim
    projector = heads.MoCoProjectionHead(width, hidden, out, num_layers=config.projector_depth, batch_norm=True)
    predictor = heads.MoCoProjectionHead(out, hidden, out, num_layers=2, batch_norm=True)
    return Pair(backbone, projector, predictor, config, "contrast", partial(moco_loss, temperature=config.temperature))


def sample(config: Config, spec: "BackboneSpec") -> "Callable[[Tensor, int], Any]":
    """Two views of an image, (2, 3, H, W); see `Objective.sample`."""
    from mae_bench.objectives._pair import pair_of_views

    views = pair_of_views(config, spec)
    return lambda image, label: views(image)


def collate(samples: "list[Tensor]") -> "Tensor":
    """A batch of pairs of views, (B, 2, 3, H, W)."""
    import torch

    return torch.stack(samples)
