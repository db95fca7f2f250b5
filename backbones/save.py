"""Writing a backbone as a file that `-m` takes as it is."""

from dataclasses import replace
from pathlib import Path

import safetensors.torch

from backbones.contract import Backbone, DenseOptions
from backbones.eva import TimmEva
from backbones.formats import suite
from backbones.vit import TimmViT
from backbones.zoo import eva, vit
from mae_bench.core.files import write_bytes


def save_backbone(path: Path, backbone: Backbone, *, method: str, pretrain_data: str) -> None:
    """Write the weights by timm's names, with the architecture in the header; the same weights give the same bytes.

    Args:
        path: a `.safetensors` file, replaced atomically.
        backbone: built without dense options, but for the image size, drop path and checkpointing.
        method: how it was pretrained, such as `mae`.
        pretrain_data: on what.

    Raises:
        ValueError: a backbone built for a dense task, which is part of a detector and saved with it.
    """
    if not isinstance(backbone, TimmViT | TimmEva):
        raise ValueError(f"saving knows TimmViT and TimmEva, not {type(backbone).__name__}")
    if replace(backbone.options, image_size=None, drop_path=0.0, checkpointing=False) != DenseOptions():
        raise ValueError("a backbone built for a dense task is saved with its detector or segmentor")
    spec = replace(backbone.spec, method=method, pretrain_data=pretrain_data)
    name, zoo = ("vit", vit) if isinstance(backbone, TimmViT) else ("eva", eva)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in zoo.weights_of(backbone).items()}
    write_bytes(path, safetensors.torch.save(state, suite.header(name, backbone.arch, spec)))
