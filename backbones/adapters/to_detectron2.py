"""A backbone of the suite as a backbone of Detectron2, alone or under ViTDet's simple feature pyramid (arXiv 2203.16527).

`open_backbone`, `feature_pyramid` and `optimizer_params` also work inside a LazyConfig of one's own. ViTDet at 1024 pixels is:

    net = L(open_backbone)(source="mae.pth", image_size=(1024, 1024), window=14, rel_pos=True, drop_path=0.1)
    model.backbone = L(feature_pyramid)(backbone=net, out_channels=256, norm="LN", square_pad=1024)
    optimizer.params = L(optimizer_params)(base_lr="${..lr}", layer_decay=0.7, weight_decay_norm=0.0)

`image_size` is what the tables of relative positions are made for, `square_pad` what every image is padded to; both are the side
of the training crops.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.modeling import SimpleFeaturePyramid
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.solver.build import get_default_optimizer_params
from torch import nn

from backbones.adapters.to_detectron2_maps import FEATURE, LastMap, settle
from backbones.contract import Backbone
from backbones.layers import layer_ids
from backbones.vitdet import PATCH_SIZES, dense_options, fitting_patch
from mae_bench.core.errors import ConfigError

FINEST_STRIDE = 4
FACTORS = (4.0, 2.0, 1.0, 0.5)
"""The rescalings that SimpleFeaturePyramid can make."""


class Pyramid(SimpleFeaturePyramid):
    """SimpleFeaturePyramid that pads to whole patches.

    Detectron2's class spells its wish `size_divisiblity`, which nothing reads, so that without `square_pad` an image whose sides
    are not multiples of the patch loses its border or fails. With a `square_pad` in whole strides the two classes agree.
    """

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Multiples of the coarsest stride made by rescaling; `square_size` is 0 or the side every image is padded to."""
        return {"size_divisibility": self._size_divisibility, "square_size": self._square_pad}


def feature_pyramid(
    backbone: Backbone | LastMap, out_channels: int = 256, norm: str = "LN", square_pad: int = 0, *, frozen: bool = False
) -> Pyramid:
    """Put ViTDet's pyramid on a backbone: strides from 4 up to twice the patch, and one level more by pooling.

    Patch 16 gives p2 to p5 and p6, as in the paper; patch 8 gives p2 to p4 and p5.

    Args:
        backbone: one of the suite, built with the dense options wanted.
        out_channels: width of every level.
        norm: norm of the pyramid's convolutions, by Detectron2's name; `LN` in the paper.
        square_pad: side in pixels that every image is padded to; 0 pads a batch to its largest image, in whole strides.
        frozen: train the pyramid alone.

    Raises:
        ConfigError: the patch size is not a power of two, and Detectron2's pyramids are made of those; or a group norm whose 32
            groups do not divide half of the width.
    """
    net = backbone if isinstance(backbone, LastMap) else LastMap(backbone)
    width, factors = net.net.spec.embed_dim, pyramid_factors(net.net.spec.patch_size)
    if norm == "GN" and FACTORS[0] in factors and width // 2 % 32:
        raise ConfigError(
            f"norm GN has 32 groups, which do not divide {width // 2}, half the width of {net.net.spec.name}; use LN"
        )
    settle(net, frozen=frozen)
    top = LastLevelMaxPool()
    pyramid = Pyramid(net, FEATURE, out_channels, factors, top_block=top, norm=norm, square_pad=square_pad)
    # The pooled level sits on the coarsest rescaled one, which Detectron2 takes to be p5 whatever the patch size.
    top.in_feature = pyramid._out_features[-2]
    return pyramid


def pyramid_strides(patch_size: int) -> list[int]:
    """Strides of the levels of `feature_pyramid`, the pooled one last."""
    strides = [int(patch_size / factor) for factor in pyramid_factors(patch_size)]
    return [*strides, 2 * strides[-1]]


def pyramid_factors(patch_size: int) -> tuple[float, ...]:
    """The rescalings of the map that make strides from 4 upwards.

    Raises:
        ConfigError: there are none, since Detectron2's strides are powers of two.
    """
    if patch_size not in PATCH_SIZES:
        raise ConfigError(
            f"Detectron2's pyramids have strides of powers of two, and the patches are of {patch_size} pixels; build the "
            f"backbone with patch_size={fitting_patch(patch_size)}, which resamples its patch projection"
        )
    return tuple(factor for factor in FACTORS if patch_size / factor >= FINEST_STRIDE)


def open_backbone(source: str, image_size: Sequence[int] | None = None, *, seed: int = 0, **options: Any) -> LastMap:
    """Read a checkpoint (`mae.pth`, `timm:NAME`, `random:ARCH`, ...) into a backbone that Detectron2 takes.

    Args:
        source: as after `-m` on the command line.
        image_size: height and width in pixels that relative positions are sized by: those of the training crops.
        seed: for weights that the source does not give.
        **options: the other ones of `dense_options`; windows alone are ViTDet's, with four blocks of global attention.

    Raises:
        ConfigError: relative positions without an image size, which would be made for that of the pretraining.
    """
    from backbones.source import open_source

    if options.get("rel_pos") and image_size is None:
        raise ConfigError("open_backbone: rel_pos=True needs image_size=(height, width), the size of the training crops")
    opened = open_source(source)
    size = None if image_size is None else (image_size[0], image_size[1])
    return LastMap(opened.build(dense_options(opened.spec, size, **options), seed=seed))


def optimizer_params(
    model: nn.Module, layer_decay: float, overrides: Mapping[str, Any] | None = None, **options: Any
) -> list[dict[str, Any]]:
    """Detectron2's parameter groups with the rate that the depth of each parameter of a wrapped backbone demands.

    `get_vit_lr_decay_rate` knows positions, patches and blocks by their names, and gives class token and registers the full rate.

    Args:
        model: with one backbone of the suite somewhere inside.
        layer_decay: `decay ** (depth + 1 - layer_id)` is the factor on the rate.
        overrides: by name of a parameter; None spares position embeddings from weight decay, as ViTDet does for ViT-B and ViT-L.
        **options: the other ones of `get_default_optimizer_params`.
    """
    layer_id, depth = layer_ids(model)
    spared = {"pos_embed": {"weight_decay": 0.0}} if overrides is None else dict(overrides)

    def rate(name: str) -> float:
        return layer_decay ** (depth + 1 - layer_id(name))

    return get_default_optimizer_params(model, overrides=spared, lr_factor_func=rate, **options)
