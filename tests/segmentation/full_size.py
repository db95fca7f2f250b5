"""Recipes at their full size, on the meta device."""

from typing import Any

import torch

VARIANTS = {"paper-large": "vit_large_patch16", "beit-large-640": "vit_large_patch16", "demo": "vit_demo_patch8"}
"""Of recipes that are for another network than ViT-B with patches of 16."""


def full_size(variant: str, config: Any) -> tuple[Any, dict[str, Any]]:
    """The network, as several accelerators train it, and its config."""
    from backbones.zoo import vit
    from tasks.edges import segmentation_config, segmentation_mmseg
    from tasks.suite.segmentation import dense_options

    arch = vit.VARIANTS[variant]
    spec = vit.spec_of(arch)
    backbone = vit.empty(arch, spec, dense_options(config, spec))
    parts = segmentation_config.segmentor_config(backbone, backbone.spec, config, 150, distributed=True)
    with torch.device("meta"):
        return segmentation_mmseg.build_model(parts), parts
