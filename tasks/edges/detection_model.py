"""Detectron2's Mask R-CNN with a backbone of the suite under ViTDet's pyramid, built from settings."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, FastRCNNOutputLayers, MaskRCNNConvUpsampleHead, StandardROIHeads
from detectron2.solver.build import get_default_optimizer_params
from detectron2.utils.events import EventStorage
from torch import nn

from backbones.adapters.to_detectron2 import (
    LastMap,
    Pyramid,
    dense_options,
    feature_pyramid,
    freeze_unused,
    pyramid_factors,
    spread_layers,
)
from backbones.contract import Backbone, BackboneSpec, DenseOptions

if TYPE_CHECKING:
    from tasks.suite.detection import Config, HeadConfig


class Detector(GeneralizedRCNN):
    """Detectron2's model, usable outside of its trainer.

    Its heads log into an event storage and refuse to train without one. They also raise where a loss that is not finite says the
    same; the training engine looks for that loss, names the samples and stops.
    """

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Give the loss terms in training, else `[{"instances": ...}, ...]` in pixels of the original images."""
        if not self.training:
            return super().forward(batched_inputs)
        try:
            with EventStorage():
                return super().forward(batched_inputs)
        except FloatingPointError:
            parameter = next(p for p in self.parameters() if p.requires_grad)
            return {"loss_not_finite": parameter.sum() * math.nan}


def backbone_options(config: "Config", spec: BackboneSpec) -> DenseOptions:
    """What the settings ask of a backbone of this depth and patch size.

    Raises:
        ConfigError: the patch size does not fit Detectron2's strides.
    """
    pyramid_factors(spec.patch_size)
    return dense_options(
        (config.image_size, config.image_size),
        window=config.window,
        global_layers=spread_layers(spec.depth, config.global_blocks),
        rel_pos=config.rel_pos,
        drop_path=config.drop_path,
    )


def build_detector(backbone: Backbone, config: "Config", num_classes: int, *, masks: bool) -> Detector:
    """Put the detector on a backbone that was built with `backbone_options`.

    Args:
        backbone: a fresh one; it is trained whole, except for parameters that its map does not depend on.
        config: the task's settings.
        num_classes: of objects, without the background.
        masks: whether there is a mask head.
    """
    net = LastMap(backbone)
    freeze_unused(net)
    pyramid = feature_pyramid(net, config.head.channels, config.head.norm, square_pad=config.image_size)
    return Detector(
        backbone=pyramid,
        proposal_generator=_proposals(pyramid, config.head),
        roi_heads=_roi_heads(pyramid, config.head, num_classes, masks=masks),
        pixel_mean=[255 * value for value in backbone.spec.mean],
        pixel_std=[255 * value for value in backbone.spec.std],
        input_format="RGB",
    )


def _proposals(pyramid: Pyramid, head: "HeadConfig") -> RPN:
    shapes = pyramid.output_shape()
    strides = [shape.stride or 1 for shape in shapes.values()]
    anchors = DefaultAnchorGenerator(
        sizes=[[scale * stride for scale in head.anchor_scales] for stride in strides],
        aspect_ratios=list(head.aspect_ratios),
        strides=strides,
        offset=0.0,
    )
    return RPN(
        in_features=list(shapes),
        head=StandardRPNHead(in_channels=head.channels, num_anchors=anchors.num_anchors[0], conv_dims=[-1] * head.rpn_convs),
        anchor_generator=anchors,
        anchor_matcher=Matcher(thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=head.rpn_anchors,
        positive_fraction=0.5,
        pre_nms_topk=head.proposals_before_nms,
        post_nms_topk=head.proposals,
        nms_thresh=0.7,
    )


def _roi_heads(pyramid: Pyramid, head: "HeadConfig", num_classes: int, *, masks: bool) -> StandardROIHeads:
    # The coarsest level, made by pooling, only gives proposals.
    shapes = dict(list(pyramid.output_shape().items())[:-1])
    box_head = FastRCNNConvFCHead(
        ShapeSpec(channels=head.channels, height=7, width=7),
        conv_dims=list(head.box_convs),
        fc_dims=list(head.box_fcs),
        conv_norm=head.norm,
    )
    box_predictor = FastRCNNOutputLayers(
        box_head.output_shape,
        box2box_transform=Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)),
        num_classes=num_classes,
        test_score_thresh=head.score_threshold,
        test_nms_thresh=0.5,
        test_topk_per_image=head.detections,
    )
    mask_parts: dict[str, Any] = {}
    if masks:
        shape = ShapeSpec(channels=head.channels, height=14, width=14)
        mask_parts = {
            "mask_in_features": list(shapes),
            "mask_pooler": _pooler(shapes, head, 14),
            "mask_head": MaskRCNNConvUpsampleHead(
                shape, num_classes=num_classes, conv_dims=list(head.mask_convs), conv_norm=head.norm
            ),
        }
    return StandardROIHeads(
        num_classes=num_classes,
        batch_size_per_image=head.rois,
        positive_fraction=0.25,
        proposal_matcher=Matcher(thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=False),
        box_in_features=list(shapes),
        box_pooler=_pooler(shapes, head, 7),
        box_head=box_head,
        box_predictor=box_predictor,
        **mask_parts,
    )


def _pooler(shapes: dict[str, ShapeSpec], head: "HeadConfig", side: int) -> ROIPooler:
    scales = [1 / (shape.stride or 1) for shape in shapes.values()]
    return ROIPooler(
        output_size=side,
        scales=scales,
        sampling_ratio=0,
        pooler_type="ROIAlignV2",
        canonical_box_size=head.roi_level_size,
    )


def decay_exemption(model: nn.Module, *, decay_norms: bool) -> Callable[[str, nn.Parameter], bool]:
    """Which parameters have no weight decay, asked of Detectron2's own rule as ViTDet configures it.

    It spares position embeddings and the norms of torch's classes, but neither biases nor the channel-first LayerNorm of the
    pyramid and the heads, which is a class of Detectron2's own.
    """
    if decay_norms:
        return lambda name, parameter: False
    groups = get_default_optimizer_params(
        model, base_lr=1.0, weight_decay=1.0, weight_decay_norm=0.0, overrides={"pos_embed": {"weight_decay": 0.0}}
    )
    spared = {id(parameter) for group in groups if group["weight_decay"] == 0 for parameter in group["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in spared}
    return lambda name, parameter: name in names


def autocast(device: str, precision: str) -> torch.autocast:
    """The number format that `Run.precision` names, for work outside of the training engine."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device, dtype=dtype, enabled=precision != "fp32")
