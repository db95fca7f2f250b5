"""UPerNet of mmsegmentation around a backbone of the suite, as one module that gives losses and predictions."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from backbones.adapters.to_mmseg import MaeBenchBackbone, rescales
from backbones.contract import Backbone, BackboneSpec
from tasks.edges.segmentation_mmseg import ConfigDict, build_model

if TYPE_CHECKING:
    from tasks.suite.segmentation import Config

IGNORE = 255
"""Label of pixels that neither train nor count."""


def crop_side(config: "Config", spec: BackboneSpec) -> int:
    """Side in pixels of training crops and test windows: `image_size`, rounded up to whole patches, which cover it exactly."""
    return config.image_size + -config.image_size % spec.patch_size


def segmentor_config(
    backbone: Backbone,
    config: "Config",
    num_classes: int,
    *,
    class_weight: list[float] | None = None,
    distributed: bool = False,
) -> dict[str, Any]:
    """The `EncoderDecoder` config that mmseg builds the network from (mmseg `configs/_base_/models/upernet_mae.py`).

    Args:
        backbone: the backbone with its weights.
        config: settings of the task.
        num_classes: number of classes, without the ignored label.
        class_weight: weights of the classes in the loss; None is one for each.
        distributed: whether several processes train together, each on an accelerator of its own. Then batch norms are SyncBN;
            one process alone computes the same with plain batch norms, which also run on a CPU.
    """
    spec = backbone.spec
    width, norm = spec.embed_dim, {"type": "SyncBN" if distributed else "BN", "requires_grad": True}
    head = {
        "num_classes": num_classes,
        "out_channels": num_classes,
        "dropout_ratio": config.dropout,
        "norm_cfg": norm,
        "align_corners": False,
    }
    return {
        "type": "EncoderDecoder",
        "data_preprocessor": _preprocessor(config, spec),
        "backbone": {"type": MaeBenchBackbone.__name__, "backbone": backbone, "out_layers": config.out_layers},
        "neck": {"type": "Feature2Pyramid", "embed_dim": width, "rescales": list(rescales(spec.patch_size)), "norm_cfg": norm},
        "decode_head": head
        | {
            "type": "UPerHead",
            "in_channels": [width] * 4,
            "in_index": [0, 1, 2, 3],
            "pool_scales": config.pool_scales,
            "channels": config.channels or width,
            "loss_decode": _cross_entropy(1.0, class_weight),
        },
        "auxiliary_head": head
        | {
            "type": "FCNHead",
            "in_channels": width,
            "in_index": 2,
            "channels": config.aux_channels,
            "num_convs": 1,
            "concat_input": False,
            "loss_decode": _cross_entropy(config.aux_weight, class_weight),
        },
        "train_cfg": {},
        "test_cfg": _test_config(config, spec),
    }


def _preprocessor(config: "Config", spec: BackboneSpec) -> dict[str, Any]:
    """Normalisation and padding: images come as BGR bytes; padding is zero after normalisation, and labels there are ignored."""
    side = crop_side(config, spec)
    whole = {"size_divisor": _coarsest_stride(spec)}
    return {
        "type": "mmseg.SegDataPreProcessor",
        "mean": [255 * value for value in spec.mean],
        "std": [255 * value for value in spec.std],
        "bgr_to_rgb": True,
        "pad_val": 0,
        "seg_pad_val": IGNORE,
        "size": (side, side),
        # Fills windows of images smaller than one; mmseg takes the padding away from the prediction again.
        "test_cfg": {"size": (side, side)} if config.test_mode == "slide" else whole,
    }


def _coarsest_stride(spec: BackboneSpec) -> int:
    return round(spec.patch_size / min(rescales(spec.patch_size)))


def _test_config(config: "Config", spec: BackboneSpec) -> Any:
    if config.test_mode == "whole":
        return ConfigDict(mode="whole")
    side = crop_side(config, spec)
    stride = config.test_stride or side * 2 // 3
    return ConfigDict(mode="slide", crop_size=(side, side), stride=(stride, stride))


def _cross_entropy(weight: float, class_weight: list[float] | None) -> dict[str, Any]:
    classes = {"class_weight": class_weight} if class_weight else {}
    return {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": weight, **classes}


class Segmenter(nn.Module):
    """A segmentor of mmseg behind the interface of the training engine."""

    segmentor: Any

    def __init__(self, segmentor: nn.Module) -> None:
        super().__init__()
        self.segmentor = segmentor

    def forward(self, batch: dict[str, list[Any]]) -> dict[str, Tensor]:
        """Loss terms of a batch of packed samples, whose sum is minimised; accuracies that mmseg adds are left out."""
        terms = self.segmentor(**self._prepare(batch, training=True), mode="loss")
        return {name: value for name, value in terms.items() if "loss" in name}

    @torch.no_grad()
    def predict(self, batch: dict[str, list[Any]]) -> list[Any]:
        """The `SegDataSample`s of a batch with `pred_sem_seg` at each one's original size; the module is to be in eval mode."""
        return self.segmentor(**self._prepare(batch, training=False), mode="predict")

    def _prepare(self, batch: dict[str, list[Any]], *, training: bool) -> dict[str, Any]:
        preprocessor = self.segmentor.data_preprocessor
        # mmengine keeps the device beside the buffers and misses a move that a module around it makes.
        preprocessor._device = preprocessor.mean.device
        return preprocessor(batch, training)


def build_segmenter(
    backbone: Backbone,
    config: "Config",
    num_classes: int,
    *,
    class_weight: list[float] | None = None,
    distributed: bool = False,
) -> Segmenter:
    """Build the network: the backbone as it is, and a new neck and heads drawn from torch's current generator."""
    parts = segmentor_config(backbone, config, num_classes, class_weight=class_weight, distributed=distributed)
    segmentor = build_model(parts)
    segmentor.init_weights()
    return Segmenter(segmentor)
