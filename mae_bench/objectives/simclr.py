"""SimCLR (arXiv 2002.05709): two random views of an image should be more alike than any two of different images."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mae_bench.objectives._recipes import CONTRASTIVE, SMALL_VIEWS
from mae_bench.objectives._settings import PretrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from backbones.contract import Backbone, BackboneSpec

PER_IMAGE = False


class Config(PretrainConfig):
    """Settings of a contrastive pretraining; the defaults are SimCLR's."""

    pool: Literal["cls", "mean"] = "cls"
    """What is projected, after the final norm: the class token (arXiv 2104.02057, section 3) or the mean of the patches."""
    temperature: float = Field(default=0.1, gt=0)
    """Of the NT-Xent loss (arXiv 2002.05709, Table 5: best at large batches)."""
    hidden_dim: int = Field(default=2048, ge=1)
    """Of the projection head, a two-layer perceptron (arXiv 2002.05709, section 2.1 and appendix B)."""
    output_dim: int = Field(default=128, ge=1)
    """Of the projection head (arXiv 2002.05709, section 2.1)."""
    colour: float = Field(default=1.0, ge=0)
    """Strength s of the colour distortion (arXiv 2002.05709, appendix A)."""
    blur: float = Field(default=0.5, ge=0, le=1)
    """Probability of a Gaussian blur of deviation 0.1 to 2 (arXiv 2002.05709, appendix A)."""
    freeze_patch_projection: bool = False
    """Whether the patch projection stays random, which keeps ViTs stable (arXiv 2104.02057, section 4)."""


RECIPES = {
    # No paper gives all values of SimCLR for a ViT. Loss, head and views are SimCLR's (arXiv 2002.05709); the training is that of
    # MoCo v3 (arXiv 2104.02057, sections 4 to 6), whose authors trained SimCLR too, with rates they searched and do not list.
    "paper": Config(**CONTRASTIVE, freeze_patch_projection=True),
    "demo": Config(**SMALL_VIEWS, epochs=6, base_lr=4e-3, temperature=0.2, hidden_dim=384, colour=0.5, blur=0.0),  # found on them
}

ABOUT = {
    "paper": "SimCLR's head, views, loss (arXiv 2002.05709) in the training of MoCo v3 for ViTs, 300 epochs (arXiv 2104.02057)",
    "demo": "6 epochs for vit_demo_patch8 and the embedded digits: minutes on a CPU (own choice)",
}
"""What tells the recipes apart, and where each comes from."""


def build(backbone: "Backbone", config: Config, num_classes: int) -> "nn.Module":
    """Put a projection head on a backbone; see `Objective.build`."""
    from mae_bench.objectives._contrastive import Contrastive

    return Contrastive(backbone, config)


def sample(config: Config, spec: "BackboneSpec") -> "Callable[[Tensor, int], Any]":
    """Two views of an image, (2, 3, H, W); see `Objective.sample`."""
    from mae_bench.objectives._contrastive import two_views

    views = two_views(config, spec)
    return lambda image, label: views(image)


def collate(samples: "list[Tensor]") -> "Tensor":
    """A batch of pairs of views, (B, 2, 3, H, W)."""
    import torch

    return torch.stack(samples)
