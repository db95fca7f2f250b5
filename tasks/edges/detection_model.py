"""Detectron2's Mask R-CNN with a backbone of the suite under ViTDet's pyramid, built from settings."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from detectron2.config import LazyCall, instantiate
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.solver.build import get_default_optimizer_params
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from backbones.adapters.to_detectron2 import feature_pyramid, pyramid_strides
from backbones.adapters.to_detectron2_fpn import STRIDES, group_pyramid
from backbones.contract import Backbone, BackboneSpec
from backbones.vitdet import fitting_patch
from tasks.edges.detection_heads import Tree, proposals, roi_heads

if TYPE_CHECKING:
    from tasks.suite.detection import Config


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
            # Of all that is trained: processes that exchange gradients wait for each of them.
            return {"loss_not_finite": sum(p.sum() for p in self.parameters() if p.requires_grad) * math.nan}


def model_tree(
    config: "Config",
    spec: BackboneSpec,
    num_classes: int,
    *,
    backbone: Tree,
    masks: bool,
    class_weights: Callable[[], Tensor] | None = None,
) -> Tree:
    """The whole detector as a tree of lazy calls.

    Args:
        config: the task's settings.
        spec: of the checkpoint.
        num_classes: of objects, without the background.
        backbone: the backbone itself, or the lazy call that makes it.
        masks: whether there is a mask head.
        class_weights: see `roi_heads`.
    """
    pyramid = group_pyramid if config.head.pyramid == "fpn" else feature_pyramid
    patch = fitting_patch(spec.patch_size)
    strides = [*STRIDES, 2 * STRIDES[-1]] if config.head.pyramid == "fpn" else pyramid_strides(patch)
    return LazyCall(GeneralizedRCNN)(
        backbone=LazyCall(pyramid)(
            backbone=backbone,
            out_channels=config.head.channels,
            norm=config.head.norm,
            square_pad=config.image_size,
            frozen=config.frozen,
        ),
        proposal_generator=proposals(config.head, strides),
        roi_heads=roi_heads(config.head, strides, num_classes, masks=masks, class_weights=class_weights),
        pixel_mean=[255 * value for value in spec.mean],
        pixel_std=[255 * value for value in spec.std],
        input_format="RGB",
    )


def build_detector(
    backbone: Backbone, config: "Config", num_classes: int, *, masks: bool, class_weights: Callable[[], Tensor] | None = None
) -> Detector:
    """Put the detector on a backbone that was built with `tasks.suite.detection.dense_options`.

    Args:
        backbone: a fresh one; it is trained whole, except for parameters that no map depends on, unless the settings freeze it.
        config: the task's settings.
        num_classes: of objects, without the background.
        masks: whether there is a mask head.
        class_weights: see `roi_heads`.

    Raises:
        ConfigError: the backbone does not fit the pyramid.
    """
    tree = model_tree(config, backbone.spec, num_classes, backbone=None, masks=masks, class_weights=class_weights)
    pyramid = tree.backbone._target_(backbone, **_values(tree.backbone))
    return Detector(backbone=pyramid, **_values(tree))


def _values(call: Tree) -> dict[str, Any]:
    """The built arguments of a lazy call, but for the backbone: OmegaConf copies what is put into a tree."""
    return {key: instantiate(value) for key, value in call.items() if key not in ("_target_", "backbone")}


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
