"""mmsegmentation's own segmentors, of its own backbones, at a tiny size."""

from pathlib import Path
from typing import Any

import torch

from backbones.arch import VitArch
from backbones.contract import Backbone, DenseOptions
from backbones.exports.mmseg import renamed
from backbones.vit import initial_weights
from backbones.zoo import vit
from tasks.edges.segmentation_config import segmentor_config
from tasks.edges.segmentation_mmseg import build_model
from tasks.edges.segmentation_model import Segmenter, build_segmenter
from tasks.edges.segmentation_weights import INSIDE, load_weights
from tasks.suite.segmentation import Config

WIDTH, DEPTH, HEADS, PATCH, CLASSES = 16, 4, 2, 8, 3


def own(kind: str, config: Config, *, seed: int = 0) -> Any:
    """A segmentor of mmseg with its own `MAE` or `BEiT` backbone and weights that are nowhere at their start."""
    side = config.image_size
    spec = arch_of(kind, side)[1]
    parts = segmentor_config({}, spec, config, CLASSES)
    backbone = {
        "type": kind,
        "img_size": (side, side),
        "patch_size": PATCH,
        "embed_dims": WIDTH,
        "num_layers": DEPTH,
        "num_heads": HEADS,
        "mlp_ratio": 2,
        "init_values": config.layer_scale,
        "drop_path_rate": config.drop_path,
        "out_indices": [0, 1, 2, 3],
        "norm_cfg": {"type": "LN", "eps": 1e-6},
    }
    torch.manual_seed(seed)
    segmentor = build_model({**parts, "backbone": backbone})
    segmentor.init_weights()
    with torch.no_grad():
        for parameter in segmentor.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        for buffer in segmentor.buffers():
            if buffer.is_floating_point() and buffer.ndim == 1:
                buffer += 0.1 * torch.rand_like(buffer)
    return segmentor


def arch_of(kind: str, side: int) -> tuple[VitArch, Any]:
    """The architecture of such a backbone, and what is told of it."""
    arch = VitArch(
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        patch_size=PATCH,
        mlp_dim=2 * WIDTH,
        image_size=(side, side),
        positions=kind == "MAE",
    )
    return arch, vit.spec_of(arch, method="random", pretrain_data="none")


def blank(kind: str, config: Config) -> Backbone:
    """The suite's backbone of that architecture, with other weights."""
    arch, spec = arch_of(kind, config.image_size)
    options = DenseOptions(relative_table=True, layer_scale=config.layer_scale, drop_path=config.drop_path, antialias=False)
    return vit.assemble(arch, spec, initial_weights(arch, 9), options)


def twin(segmentor: Any, kind: str, config: Config, folder: Path) -> Segmenter:
    """The suite's segmentor with the weights of one of mmseg's, by way of a file as mmengine writes it."""
    path = folder / "segmentor.pth"
    torch.save({"meta": {"iter": 1}, "state_dict": segmentor.state_dict()}, path)
    model = build_segmenter(blank(kind, config), config, CLASSES)
    load_weights(model, path)
    return model


def theirs(name: str) -> str:
    """mmseg's name of a parameter of the suite's segmentor."""
    return f"backbone.{renamed(name.removeprefix(INSIDE))}" if name.startswith(INSIDE) else name
