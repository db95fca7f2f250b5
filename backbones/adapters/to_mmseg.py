"""The suite's backbone inside mmsegmentation, for the segmentation task and for a user's own mmseg config.

In an mmseg config with `custom_imports = dict(imports=["backbones.adapters.to_mmseg"])` the backbone stands as
`dict(type="MaeBenchBackbone", source="timm:vit_base_patch16_224.mae", image_size=(512, 512))`, and `optim_wrapper` takes
`constructor="MaeBenchLayerDecay", paramwise_cfg=dict(layer_decay=0.65)`: mmseg's own layer decay goes by the parameter names of
its own backbones and knows no others.
"""

import math
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmseg.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.contract import Backbone, DenseOptions
from backbones.layers import layer_ids
from backbones.source import open_source
from mae_bench.core.errors import ConfigError

# Factors, as Feature2Pyramid takes them, that bring four maps to strides of 4, 8, 16 and 32 pixels (3.5, 7, 14, 28 for patch 14).
RESCALES: dict[int, tuple[float, ...]] = {16: (4, 2, 1, 0.5), 14: (4, 2, 1, 0.5), 8: (2, 1, 0.5, 0.25)}


def rescales(patch_size: int) -> tuple[float, ...]:
    """Factors of mmseg's `Feature2Pyramid` for a patch size.

    Raises:
        ConfigError: a patch size that the pyramid cannot be made of.
    """
    if patch_size not in RESCALES:
        known = ", ".join(str(size) for size in sorted(RESCALES))
        raise ConfigError(f"no feature pyramid can be made of patches of {patch_size} pixels; use a backbone with one of {known}")
    return RESCALES[patch_size]


def default_layers(depth: int) -> tuple[int, ...]:
    """Blocks whose outputs are taken: the ends of 1/3, 1/2, 2/3 and all of the network, rounded half up.

    Gives 3, 5, 7, 11 for 12 blocks (mmseg `configs/mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py`), 7, 11, 15, 23 for 24
    (`configs/beit/beit-large_upernet_8xb1-amp-160k_ade20k-640x640.py`) and 1, 2, 3, 5 for 6.
    """
    return tuple(max(1, math.floor(depth * share + 0.5)) - 1 for share in (1 / 3, 1 / 2, 2 / 3, 1))


@MODELS.register_module()
class MaeBenchBackbone(nn.Module):
    """Gives mmseg's necks and heads the patch tokens after four blocks as maps, without the final norm.

    Images of any size are taken: they are padded with zeros (the mean colour) at the right and the bottom to whole patches, as
    mmseg's own patch embedding does, so a map has ceil(H / patch size) rows. Whoever needs maps that cover exactly the image
    makes its sides multiples of the patch size beforehand.

    What lies behind the last block that is taken (later blocks, the final norm) cannot learn and is frozen, so that no process
    of a distributed training waits for its gradient.
    """

    def __init__(
        self,
        backbone: Backbone | None = None,
        *,
        source: str | None = None,
        out_layers: tuple[int, ...] | None = None,
        image_size: tuple[int, int] | None = None,
        drop_path: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Wrap a backbone, or read one.

        Args:
            backbone: the backbone itself, in place of `source`.
            source: checkpoint, model name or `random:ARCH`, read by the suite.
            out_layers: blocks whose outputs are taken; `default_layers` of the depth when not given.
            image_size: height and width in pixels that positions are resized to, for `source`.
            drop_path: largest stochastic depth rate, for `source`.
            seed: of the weights, for `source` that is `random:ARCH`.
        """
        super().__init__()
        if (backbone is None) == (source is None):
            raise ConfigError("MaeBenchBackbone takes either backbone or source")
        if backbone is None:
            backbone = open_source(str(source)).build(DenseOptions(image_size=image_size, drop_path=drop_path), seed=seed)
        spec = backbone.spec
        rescales(spec.patch_size)
        self.backbone = backbone
        try:
            self.out_layers = backbone.resolve(tuple(out_layers) if out_layers else default_layers(spec.depth))
        except ValueError as error:
            raise ConfigError(f"out_layers: {error}") from None
        for name, parameter in backbone.named_parameters():
            if backbone.layer_id(name) > max(self.out_layers) + 1:
                parameter.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps (B, C, h, w) of normalised RGB images (B, 3, H, W), all at the stride of the patches."""
        patch, (height, width) = self.backbone.spec.patch_size, images.shape[-2:]
        padded = F.pad(images, (0, -width % patch, 0, -height % patch))
        return tuple(features.map for features in self.backbone(padded, self.out_layers, norm=False))


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MaeBenchLayerDecay(DefaultOptimWrapperConstructor):
    """Layer-wise learning rate decay for a model around `MaeBenchBackbone`, in a training of mmengine's own.

    `paramwise_cfg=dict(layer_decay=0.65)`; one-dimensional parameters have no weight decay.
    """

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, prefix: str = "", is_dcn_module: Any = None) -> None:
        """Add one group for each trainable parameter, with its rate and weight decay."""
        layer_id, depth = layer_ids(module)
        decay = self.paramwise_cfg["layer_decay"]
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                group = {"params": [parameter], "lr": self.base_lr * decay ** (depth + 1 - layer_id(name))}
                params.append(group | ({"weight_decay": 0.0} if parameter.ndim <= 1 else {}))
