"""Detectron2: a `.pkl` or `.pth` file with the names of ViTDet's backbone, `backbone.net.*`."""

import pickle
from pathlib import Path
from typing import Any

import torch

from backbones.arch import VitArch
from backbones.contract import BackboneSpec
from backbones.exports import Layout, Weights, refuse
from mae_bench.core.files import write_with

NAME = "Detectron2's ViT under ViTDet's pyramid: backbone.net.*"
ENDINGS = (".pkl", ".pth")
PREFIX = "backbone.net."

HELD = ("class_less", "no_positions", "qkv_bias_less", "broken_mlp", "decomposed", "windows", "norm_less")
# Detectron2's ViT runs on patch tokens alone and gives its last map without a norm.
UNUSED = ("cls_token", "norm.weight", "norm.bias")


def layout(arch: VitArch, spec: BackboneSpec, weights: Weights) -> Layout:
    """Names with Detectron2's prefix; positions keep the class token's row, which Detectron2 skips."""
    refuse(arch, "Detectron2's ViT", HELD)
    left_out = [name for name in UNUSED if name in weights]
    tensors = {f"{PREFIX}{name}": tensor for name, tensor in weights.items() if name not in left_out}
    notes = (f"left out, since Detectron2's ViT has none: {', '.join(left_out)}",) if left_out else ()
    mean, std = ([round(255 * value, 3) for value in triple] for triple in (spec.mean, spec.std))
    how = (
        f"train.init_checkpoint=OUT; ViT(pretrain_img_size={arch.image_size[0]}, patch_size={arch.patch_size}, "
        f"num_heads={arch.num_heads}, pretrain_use_cls_token={arch.num_prefix_rows > 0}, LayerNorm eps={arch.norm_eps:g}); "
        f"pixel_mean={mean}, pixel_std={std}, input_format='RGB'"
    )
    return Layout(tensors, how, notes)


def write(out: Path, layout: Layout) -> None:
    """Arrays of numpy in a `.pkl`, as Detectron2's model zoo has them; tensors in a `.pth`."""
    tensors = {name: tensor.contiguous() for name, tensor in layout.tensors.items()}
    if out.suffix == ".pth":
        write_with(out, lambda file: torch.save({"model": tensors}, file))
        return
    content: dict[str, Any] = {"model": {name: tensor.numpy() for name, tensor in tensors.items()}, "__author__": "mae-bench"}
    write_with(out, lambda file: pickle.dump(content, file))
