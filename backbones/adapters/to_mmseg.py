"""The suite's backbone inside mmsegmentation, for the segmentation task and for a user's own mmseg config.

In an mmseg config with `custom_imports = dict(imports=["backbones.adapters.to_mmseg"])` the backbone stands as
`dict(type="MaeBenchBackbone", source="timm:vit_base_patch16_224.mae", image_size=(512, 512))`, and `optim_wrapper` takes
`constructor="MaeBenchLayerDecay", paramwise_cfg=dict(layer_decay_rate=0.65)`: mmseg's own layer decay goes by the parameter names
of its own backbones and knows no others.
"""

import math
from typing import Any

import torch
from mmengine.optim import DefaultOptimWrapperConstructor
from mmseg.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.contract import Backbone, DenseOptions
from backbones.layers import layer_ids
from backbones.source import open_source
from backbones.upernet import dense_options
from mae_bench.core.config import nearest
from mae_bench.core.errors import ConfigError
from mae_bench.core.optim import no_decay_1d

SMALL_PATCH = 12
"""Patches below so many pixels make a pyramid that begins one step coarser, so that it ends where those of 16 do."""

RATES = ("layer_decay_rate", "decay_rate", "layer_decay")
"""Names of the one setting: mmseg's `LayerDecayOptimizerConstructor`, its successor's, and the suite's."""

WHERE = "MaeBenchLayerDecay: paramwise_cfg"
NO_RATE = f"{WHERE} needs one {RATES[0]} above 0 and up to 1, such as 0.65"


def rescales(patch_size: int) -> tuple[float, ...]:
    """Factors of mmseg's `Feature2Pyramid`: strides of 4, 8, 16, 32 pixels for patches of 16 or 8, and 3.5, 7, 14, 28 for 14."""
    return (4, 2, 1, 0.5) if patch_size >= SMALL_PATCH else (2, 1, 0.5, 0.25)


def default_layers(depth: int) -> tuple[int, ...]:
    """Blocks whose outputs are taken: the ends of 1/3, 1/2, 2/3 and all of the network, rounded half up.

    Gives 3, 5, 7, 11 for 12 blocks (mmseg `configs/mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py`), 7, 11, 15, 23 for 24
    (`configs/beit/beit-large_upernet_8xb1-amp-160k_ade20k-640x640.py`) and 1, 2, 3, 5 for 6.
    """
    return tuple(max(1, math.floor(depth * share + 0.5)) - 1 for share in (1 / 3, 1 / 2, 2 / 3, 1))


@MODELS.register_module()
class MaeBenchBackbone(nn.Module):
    """Gives mmseg's necks and heads the patch tokens after some blocks as maps.

    Images of any size are taken, at any patch size: they are padded with zeros (the mean colour) at the right and the bottom to
    whole patches, as mmseg's own patch embedding does, so a map has ceil(H / patch size) rows. Whoever needs maps that cover
    exactly the image makes its sides multiples of the patch size beforehand.

    What cannot learn is frozen, so that no process of a distributed training waits for its gradient: blocks behind the last that
    is taken, the final norm where it is not applied.
    """

    def __init__(
        self,
        backbone: Backbone | None = None,
        *,
        source: str | None = None,
        out_layers: tuple[int, ...] | None = None,
        final_norm: bool = False,
        frozen: bool = False,
        image_size: tuple[int, int] | None = None,
        drop_path: float = 0.0,
        relative_table: bool = False,
        layer_scale: float | None = None,
        seed: int = 0,
    ) -> None:
        """Wrap a backbone, or read one.

        Args:
            backbone: the backbone itself, in place of `source` and what follows from `image_size` on.
            source: checkpoint, model name or `random:ARCH`, read by the suite.
            out_layers: blocks whose outputs are taken, negative ones from the end; `default_layers` of the depth when not given.
            final_norm: whether the backbone's final norm is applied to each map.
            frozen: whether nothing of it learns; it is then in eval mode always.
            image_size: height and width in pixels that positions are resized to.
            drop_path: largest stochastic depth rate.
            relative_table: whether each block has a table of relative positions, zero where the checkpoint has none.
            layer_scale: start of LayerScale where the checkpoint has none; None adds none.
            seed: of the weights, for `source` that is `random:ARCH`.

        Raises:
            ConfigError: settings that do not fit each other or the backbone.
        """
        super().__init__()
        if (backbone is None) == (source is None):
            raise ConfigError("MaeBenchBackbone takes either backbone or source")
        options = dense_options(image_size, drop_path, relative_table=relative_table, layer_scale=layer_scale)
        if backbone is None:
            backbone = _build(str(source), options, seed)
        elif options != dense_options(None, 0.0, relative_table=False, layer_scale=None) or seed:
            raise ConfigError("MaeBenchBackbone: settings for a source beside a backbone that is built already")
        self.backbone, self.final_norm, self.frozen = backbone, final_norm, frozen
        try:
            self.out_layers = backbone.resolve(tuple(out_layers) if out_layers else default_layers(backbone.spec.depth))
        except ValueError as error:
            raise ConfigError(f"out_layers: {error}") from None
        for name, parameter in backbone.named_parameters():
            if frozen or not self._learns(backbone.layer_id(name)):
                parameter.requires_grad_(False)

    def _learns(self, layer_id: int) -> bool:
        """Whether what lies at a depth has a part in the maps."""
        return layer_id <= max(self.out_layers) + 1 or (self.final_norm and layer_id > self.backbone.spec.depth)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps (B, C, h, w) of normalised RGB images (B, 3, H, W), all at the stride of the patches."""
        patch, (height, width) = self.backbone.spec.patch_size, images.shape[-2:]
        padded = F.pad(images, (0, -width % patch, 0, -height % patch))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return tuple(features.map for features in self.backbone(padded, self.out_layers, norm=self.final_norm))

    def train(self, mode: bool = True) -> "MaeBenchBackbone":
        """Set the mode; a frozen backbone stays in eval mode."""
        return super().train(mode and not self.frozen)


def _build(source: str, options: DenseOptions, seed: int) -> Backbone:
    try:
        return open_source(source).build(options, seed=seed)
    except ValueError as error:
        raise ConfigError(f"MaeBenchBackbone: {source}: {error}") from None


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MaeBenchLayerDecay(DefaultOptimWrapperConstructor):
    """Layer-wise learning rate decay for a model around `MaeBenchBackbone`, in a training of mmengine's own.

    `paramwise_cfg=dict(layer_decay_rate=0.65)`, as mmseg's own `LayerDecayOptimizerConstructor` takes it; `num_layers`, which it
    also takes, may stand beside and has to be the backbone's. One-dimensional parameters have no weight decay.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None) -> None:
        """Take the configs of mmengine; without settings for parameters it would not come to the rates at all."""
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        if not paramwise_cfg:
            raise ConfigError(NO_RATE)

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, prefix: str = "", is_dcn_module: Any = None) -> None:
        """Add one group for each trainable parameter, with its rate and weight decay.

        Raises:
            ConfigError: a setting that is not read here, or no rate.
        """
        layer_id, depth = layer_ids(module)
        rate = self._rate(depth)
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                scale = rate ** (depth + 1 - layer_id(name))
                group = {"params": [parameter], "lr": self.base_lr * scale, "lr_scale": scale}
                params.append(group | ({"weight_decay": 0.0} if no_decay_1d(name, parameter) else {}))

    def _rate(self, depth: int) -> float:
        given = dict(self.paramwise_cfg)
        layers = given.pop("num_layers", depth)
        rates = [given.pop(name) for name in RATES if name in given]
        if given:
            name = sorted(given)[0]
            raise ConfigError(f"{WHERE} has an unknown key {name!r}; {nearest(name, ['num_layers', *RATES])}")
        if layers != depth:
            raise ConfigError(f"{WHERE}: num_layers is {layers}, and the backbone has {depth} blocks")
        if len(rates) != 1 or not 0 < rates[0] <= 1:
            raise ConfigError(NO_RATE)
        return rates[0]
