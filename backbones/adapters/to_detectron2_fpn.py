"""The pyramid that came before ViTDet's: Detectron2's FPN on maps of four equal groups of blocks (arXiv 2111.11429, section 2).

It is what the detection tables of the MAE paper are measured with.
"""

from collections.abc import Sequence

from detectron2.layers import get_norm
from detectron2.modeling import FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor, nn

from backbones.adapters.to_detectron2_maps import LastMap, Wrapped, settle
from backbones.contract import Backbone
from backbones.vitdet import spread_layers
from mae_bench.core.errors import ConfigError

STRIDES = (4, 8, 16, 32)
NAMES = tuple(f"group{number}" for number in range(1, 5))
PATCH_SIZE = 16
GROUPS = 32
"""Of the group norm; the paper does not say how many, 32 is Detectron2's number."""


class FourMaps(Wrapped):
    """Maps after each quarter of the blocks, brought to strides 4, 8, 16 and 32, without the final norm."""

    def __init__(self, net: Backbone) -> None:
        """Put the rescalings on a backbone.

        Raises:
            ConfigError: patches that are not of 16 pixels, fewer than four blocks, or a width that 32 groups do not divide.
        """
        super().__init__()
        spec = net.spec
        width, self.layers = spec.embed_dim, spread_layers(spec.depth)
        if spec.patch_size != PATCH_SIZE or len(self.layers) < len(STRIDES) or width % GROUPS:
            raise ConfigError(
                f"the FPN is for patches of {PATCH_SIZE} pixels, 4 blocks or more and widths that are multiples of {GROUPS}, not "
                f"for {spec.name} (patch {spec.patch_size}, {spec.depth} blocks, width {width}); use head.pyramid=simple"
            )
        self.net = net
        self._out_features = list(NAMES)
        self._out_feature_channels = dict.fromkeys(NAMES, width)
        self._out_feature_strides = dict(zip(NAMES, STRIDES, strict=True))
        finest = [_twice(width), get_norm("GN", width), nn.GELU(), _twice(width)]
        self.rescale = nn.ModuleList([nn.Sequential(*finest), _twice(width), nn.Identity(), nn.MaxPool2d(2, 2)])

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]  # the base class names no argument
        """Give the four maps (B, C, H / stride, W / stride) of normalised images (B, 3, H, W)."""
        found = self.net(images, layers=self.layers, norm=False)
        maps = [rescale(features.map) for rescale, features in zip(self.rescale, found, strict=True)]
        return dict(zip(NAMES, maps, strict=True))

    @property
    def size_divisibility(self) -> int:
        """Sides of the images are multiples of this."""
        return STRIDES[-1]


class GroupPyramid(FPN):
    """Detectron2's FPN that also says what sides of images have to be multiples of."""

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Multiples of the coarsest stride made by rescaling; `square_size` is 0 or the side every image is padded to."""
        return {"size_divisibility": STRIDES[-1], "square_size": self._square_pad}


def group_pyramid(
    backbone: Backbone | LastMap, out_channels: int = 256, norm: str = "SyncBN", square_pad: int = 0, *, frozen: bool = False
) -> GroupPyramid:
    """Put the FPN on a backbone: strides 4 to 32, and 64 by pooling.

    Args:
        backbone: one of the suite with patches of 16 pixels.
        out_channels: width of every level.
        norm: after each convolution of the FPN, by Detectron2's name.
        square_pad: side in pixels that every image is padded to; 0 pads a batch to its largest image.
        frozen: train the pyramid alone.
    """
    maps = FourMaps(backbone.net if isinstance(backbone, LastMap) else backbone)
    settle(maps, frozen=frozen)
    names: Sequence[str] = list(NAMES)
    return GroupPyramid(maps, names, out_channels, norm=norm, top_block=LastLevelMaxPool(), square_pad=square_pad)


def _twice(width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)
