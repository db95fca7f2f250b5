"""Everything of the detector above its backbone, as a tree of Detectron2's lazy calls: to be built, or written as a config."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from detectron2.config import LazyCall
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    StandardROIHeads,
)
from torch import Tensor

if TYPE_CHECKING:
    from tasks.suite.detection import HeadConfig

Tree = Any
"""What `LazyCall(...)(...)` gives; `detectron2.config.instantiate` builds it."""

BOX_SIDE, MASK_SIDE = 7, 14
"""Side of what is cut out of a map for the box head and the mask head (mask_rcnn_fpn.py)."""
STAGES = ((0.5, (10, 10, 5, 5)), (0.6, (20, 20, 10, 10)), (0.7, (30, 30, 15, 15)))
"""Overlap from which a box counts as found, and the weights of its corners, for each head of a cascade (cascade_rcnn.py). Without
a cascade there is the first one."""


def proposals(head: "HeadConfig", strides: list[int]) -> Tree:
    """The region proposal network on pyramid levels of these strides."""
    per_place = len(head.anchor_scales) * len(head.aspect_ratios)
    return LazyCall(RPN)(
        in_features=_levels(strides),
        head=LazyCall(StandardRPNHead)(in_channels=head.channels, num_anchors=per_place, conv_dims=[-1] * head.rpn_convs),
        anchor_generator=LazyCall(DefaultAnchorGenerator)(
            sizes=[[scale * stride for scale in head.anchor_scales] for stride in strides],
            aspect_ratios=list(head.aspect_ratios),
            strides=strides,
            offset=0.0,
        ),
        anchor_matcher=LazyCall(Matcher)(thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=LazyCall(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        batch_size_per_image=head.rpn_anchors,
        positive_fraction=0.5,
        pre_nms_topk=list(head.proposals_before_nms),
        post_nms_topk=list(head.proposals),
        nms_thresh=0.7,
    )


def roi_heads(
    head: "HeadConfig", strides: list[int], num_classes: int, *, masks: bool, class_weights: Callable[[], Tensor] | None = None
) -> Tree:
    """Box and mask heads.

    Args:
        head: the settings.
        strides: of the pyramid levels; the coarsest one, made by pooling, only gives proposals.
        num_classes: of objects, without the background.
        masks: whether there is a mask head.
        class_weights: gives (num_classes,) weights of the draw of `federated_classes`.
    """
    strides = strides[:-1]
    common: dict[str, Any] = {
        "num_classes": num_classes,
        "batch_size_per_image": head.rois,
        "positive_fraction": 0.25,
        "box_in_features": _levels(strides),
        "box_pooler": _pooler(head, strides, BOX_SIDE),
    }
    if masks:
        shape = ShapeSpec(channels=head.channels, height=MASK_SIDE, width=MASK_SIDE)
        common["mask_in_features"] = _levels(strides)
        common["mask_pooler"] = _pooler(head, strides, MASK_SIDE)
        common["mask_head"] = LazyCall(MaskRCNNConvUpsampleHead)(
            input_shape=shape, num_classes=num_classes, conv_dims=list(head.mask_convs), conv_norm=head.norm
        )
    stages = STAGES if head.cascade else STAGES[:1]
    matchers = [LazyCall(Matcher)(thresholds=[iou], labels=[0, 1], allow_low_quality_matches=False) for iou, _ in stages]
    heads = [_box_head(head) for _ in stages]
    predictors = [_predictor(head, num_classes, list(weights), class_weights) for _, weights in stages]
    if head.cascade:
        return LazyCall(CascadeROIHeads)(proposal_matchers=matchers, box_heads=heads, box_predictors=predictors, **common)
    return LazyCall(StandardROIHeads)(proposal_matcher=matchers[0], box_head=heads[0], box_predictor=predictors[0], **common)


def _levels(strides: list[int]) -> list[str]:
    return [f"p{int(math.log2(stride))}" for stride in strides]


def _box_head(head: "HeadConfig") -> Tree:
    return LazyCall(FastRCNNConvFCHead)(
        input_shape=ShapeSpec(channels=head.channels, height=BOX_SIDE, width=BOX_SIDE),
        conv_dims=list(head.box_convs),
        fc_dims=list(head.box_fcs),
        conv_norm=head.norm,
    )


def _predictor(head: "HeadConfig", num_classes: int, weights: list[int], class_weights: Callable[[], Tensor] | None) -> Tree:
    federated: dict[str, Any] = {}
    if head.federated_classes:
        federated = {
            "use_fed_loss": True,
            "get_fed_loss_cls_weights": class_weights,
            "fed_loss_num_classes": min(head.federated_classes, num_classes),
        }
    return LazyCall(FastRCNNOutputLayers)(
        input_shape=ShapeSpec(channels=head.box_fcs[-1]),
        box2box_transform=LazyCall(Box2BoxTransform)(weights=weights),
        num_classes=num_classes,
        test_score_thresh=head.score_threshold,
        test_nms_thresh=0.5,
        test_topk_per_image=head.detections,
        cls_agnostic_bbox_reg=head.cascade,
        use_sigmoid_ce=head.sigmoid,
        **federated,
    )


def _pooler(head: "HeadConfig", strides: list[int], side: int) -> Tree:
    return LazyCall(ROIPooler)(
        output_size=side,
        scales=[1 / stride for stride in strides],
        sampling_ratio=0,
        pooler_type="ROIAlignV2",
        canonical_box_size=head.roi_level_size,
    )
