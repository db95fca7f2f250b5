"""A backbone of the suite as a backbone of Detectron2, alone or under ViTDet's simple feature pyramid (arXiv 2203.16527).

`open_backbone` and `feature_pyramid` also work inside a LazyConfig of one's own:
`model.backbone = L(feature_pyramid)(backbone=L(open_backbone)(source="mae.pth", window=14, rel_pos=True), out_channels=256)`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling import Backbone as Detectron2Backbone
from detectron2.modeling import SimpleFeaturePyramid
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor

from backbones.contract import Backbone, DenseOptions
from mae_bench.core.errors import ConfigError

FEATURE = "last_feat"
FINEST_STRIDE = 4
FACTORS = (4.0, 2.0, 1.0, 0.5)
"""The rescalings that SimpleFeaturePyramid can make."""
PATCH_SIZES = (4, 8, 16, 32)


class LastMap(Detectron2Backbone):
    """The map of the last block, without the final norm, as Detectron2's own ViT gives it."""

    def __init__(self, net: Backbone) -> None:
        super().__init__()
        self.net = net
        self._out_features = [FEATURE]
        self._out_feature_channels = {FEATURE: net.spec.embed_dim}
        self._out_feature_strides = {FEATURE: net.spec.patch_size}

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]  # the base class names no argument
        """Give `{"last_feat": (B, C, h, w)}` of normalised images (B, 3, H, W)."""
        (features,) = self.net(images, layers=(-1,), norm=False)
        return {FEATURE: features.map.contiguous()}

    @property
    def size_divisibility(self) -> int:
        """Sides of the images are multiples of this."""
        return self.net.spec.patch_size

    @property
    def padding_constraints(self) -> dict[str, int]:
        """The same, as Detectron2 asks for it when it makes a batch."""
        return {"size_divisibility": self.size_divisibility, "square_size": 0}


class Pyramid(SimpleFeaturePyramid):
    """SimpleFeaturePyramid that pads to whole patches.

    Detectron2's class spells its wish `size_divisiblity`, which nothing reads, so that without `square_pad` an image whose sides
    are not multiples of the patch loses its border or fails. With a `square_pad` in whole strides the two classes agree.
    """

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Multiples of the coarsest stride made by rescaling; `square_size` is 0 or the side every image is padded to."""
        return {"size_divisibility": self._size_divisibility, "square_size": self._square_pad}


def feature_pyramid(backbone: Backbone | LastMap, out_channels: int = 256, norm: str = "LN", square_pad: int = 0) -> Pyramid:
    """Put ViTDet's pyramid on a backbone: strides from 4 up to twice the patch, and one level more by pooling.

    Patch 16 gives p2 to p5 and p6, as in the paper; patch 8 gives p2 to p4 and p5.

    Args:
        backbone: one of the suite, built with the dense options wanted.
        out_channels: width of every level.
        norm: norm of the pyramid's convolutions, by Detectron2's name; `LN` in the paper.
        square_pad: side in pixels that every image is padded to; 0 pads a batch to its largest image, in whole strides.

    Raises:
        ConfigError: the patch size is not a power of two, and Detectron2's pyramids are made of those.
    """
    net = backbone if isinstance(backbone, LastMap) else LastMap(backbone)
    factors = pyramid_factors(net.net.spec.patch_size)
    top = LastLevelMaxPool()
    pyramid = Pyramid(net, FEATURE, out_channels, factors, top_block=top, norm=norm, square_pad=square_pad)
    # The pooled level sits on the coarsest rescaled one, which Detectron2 takes to be p5 whatever the patch size.
    top.in_feature = pyramid._out_features[-2]
    return pyramid


def pyramid_factors(patch_size: int) -> tuple[float, ...]:
    """The rescalings of the map that make strides from 4 upwards.

    Raises:
        ConfigError: there are none, since Detectron2's strides are powers of two.
    """
    if patch_size not in PATCH_SIZES:
        raise ConfigError(
            f"detection cannot take patch size {patch_size}: the strides of Detectron2's feature pyramid are powers of two; "
            "use a backbone with patch 8 or 16"
        )
    return tuple(factor for factor in FACTORS if patch_size / factor >= FINEST_STRIDE)


def freeze_unused(backbone: LastMap) -> list[str]:
    """Turn off the gradients of parameters that the map does not depend on, such as the final norm and dropped class tokens.

    An optimizer would hold state for them, and distributed training waits for gradients that never come.

    Returns:
        Their names.
    """
    side = 2 * backbone.net.spec.patch_size
    first = next(backbone.parameters())
    was_training = backbone.training
    backbone.eval()
    output = backbone(torch.zeros(1, 3, side, side, device=first.device, dtype=first.dtype))[FEATURE]
    learned = [(name, parameter) for name, parameter in backbone.named_parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(output.sum(), [parameter for _, parameter in learned], allow_unused=True)
    backbone.train(was_training)
    unused = [(name, parameter) for (name, parameter), gradient in zip(learned, gradients, strict=True) if gradient is None]
    for _, parameter in unused:
        parameter.requires_grad_(False)
    return [name for name, _ in unused]


def dense_options(
    image_size: tuple[int, int] | None = None,
    *,
    window: int = 0,
    global_layers: Sequence[int] = (),
    rel_pos: bool = False,
    drop_path: float = 0.0,
) -> DenseOptions:
    """What Detectron2's ViT does: no prefix tokens in the blocks, positions kept as stored and resized in every forward."""
    return DenseOptions(
        image_size=image_size,
        stored_positions=True,
        antialias=False,
        window=window,
        global_layers=tuple(global_layers) if window else (),
        rel_pos=rel_pos,
        keep_prefix=False,
        drop_path=drop_path,
    )


def spread_layers(depth: int, count: int = 4) -> tuple[int, ...]:
    """Numbers of `count` evenly spaced blocks, the last among them: 2, 5, 8, 11 of 12."""
    return tuple(sorted({max(0, depth * (part + 1) // count - 1) for part in range(count)}))


def open_backbone(source: str, image_size: tuple[int, int] | None = None, *, seed: int = 0, **options: Any) -> LastMap:
    """Read a checkpoint (`mae.pth`, `timm:NAME`, `random:ARCH`, ...) into a backbone that Detectron2 takes.

    Args:
        source: as after `-m` on the command line.
        image_size: height and width in pixels that relative positions are sized by.
        seed: for weights that the source does not give.
        **options: the other ones of `dense_options`.
    """
    from backbones.source import open_source

    net = LastMap(open_source(source).build(dense_options(image_size, **options), seed=seed))
    freeze_unused(net)
    return net
