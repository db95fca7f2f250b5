"""MAE: a `.pth` file as facebookresearch/mae releases its encoders, for its own scripts and everything that reads those."""

from pathlib import Path

import torch

from backbones.arch import VitArch
from backbones.contract import BackboneSpec
from backbones.exports import Layout, Weights, colours, refuse
from mae_bench.core.files import write_with

NAME = "MAE's released encoder: {'model': ...}"
ENDINGS = (".pth", ".pt")


def layout(arch: VitArch, spec: BackboneSpec, weights: Weights) -> Layout:
    """MAE's names are timm's; its network is the plain ViT, with any fixed or learned positions."""
    refuse(arch, "MAE's layout", ("broken_mlp",))
    return Layout(dict(weights), f"torch.load(OUT)['model']; normalise with {colours(spec)}")


def write(out: Path, layout: Layout) -> None:
    """The weights under `model`, nothing beside them."""
    content = {"model": {name: tensor.contiguous() for name, tensor in layout.tensors.items()}}
    write_with(out, lambda file: torch.save(content, file))
