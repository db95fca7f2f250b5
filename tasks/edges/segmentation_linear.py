"""The linear head of DINOv2's segmentation results (arXiv 2304.07193, 7.4) among mmsegmentation's heads."""

from typing import Any

from mmcv.cnn import build_norm_layer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class MaeBenchLinearHead(BaseDecodeHead):
    """Maps side by side, batch norm, a 1x1 convolution to the classes; mmseg resizes its scores to the image."""

    def __init__(self, in_channels: list[int], **settings: Any) -> None:
        """Make the head.

        Args:
            in_channels: widths of the maps.
            settings: of mmseg's `BaseDecodeHead`.
        """
        width = sum(in_channels)
        settings |= {"in_index": list(range(len(in_channels))), "input_transform": "resize_concat", "dropout_ratio": 0.0}
        super().__init__(in_channels, width, **settings)
        self.bn = build_norm_layer(settings["norm_cfg"], width)[1]

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:  # type: ignore[override]  # mmseg's has no types
        """Scores (B, classes, h, w) of maps (B, C, h, w)."""
        return self.cls_seg(self.bn(self._transform_inputs(inputs)))
