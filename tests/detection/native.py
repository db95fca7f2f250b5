"""Detectron2's own ViTDet from its own config files, at the sizes of the tests."""

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNConvFCHead, FastRCNNOutputLayers

CONFIGS = Path(detectron2.__file__).parent / "model_zoo" / "configs"
FACTS: dict[str, Any] = {"patch_size": 16, "image_size": (64, 64)}
"""Of the tests' backbone that `vitdet` has, too."""
DEPTH, CLASSES = 4, 2


def load(name: str) -> Any:
    """One of Detectron2's config files."""
    return LazyConfig.load(str(CONFIGS / name))


def vitdet(side: int = 64, *, cascade: bool = False) -> Any:
    """The lazy config of ViTDet with the widths of the tests' settings: windows of 3 but in blocks 1 and 3."""
    model = load("common/models/mask_rcnn_vitdet.py").model
    model.backbone.net.update(
        img_size=side,
        embed_dim=24,
        depth=DEPTH,
        num_heads=2,
        mlp_ratio=2,
        drop_path_rate=0.0,
        window_size=3,
        window_block_indexes=[0, 2],
        pretrain_img_size=64,
    )
    model.backbone.update(out_channels=8, square_pad=side)
    rpn, heads = model.proposal_generator, model.roi_heads
    rpn.head.update(in_channels=8, conv_dims=[-1])
    rpn.anchor_generator.sizes = [[16], [32], [64], [128], [256]]
    rpn.update(batch_size_per_image=16, pre_nms_topk=(40, 40), post_nms_topk=(20, 20))
    heads.update(num_classes=CLASSES, batch_size_per_image=8)
    heads.box_pooler.canonical_box_size = heads.mask_pooler.canonical_box_size = 64
    heads.box_head.update(input_shape=ShapeSpec(channels=8, width=7, height=7), conv_dims=[8], fc_dims=[16])
    heads.box_predictor.update(input_shape=ShapeSpec(channels=16), test_score_thresh=0.0, test_topk_per_image=10)
    heads.mask_head.update(input_shape=ShapeSpec(channels=8, width=14, height=14), conv_dims=[8, 8])
    if cascade:
        _as_cascade(heads)
    return model


def _as_cascade(heads: Any) -> None:
    """What projects/ViTDet/configs/COCO/cascade_mask_rcnn_vitdet_b_100ep.py changes."""
    for name in ("box_head", "box_predictor", "proposal_matcher"):
        heads.pop(name)
    heads.update(
        _target_=CascadeROIHeads,
        box_heads=[
            LazyCall(FastRCNNConvFCHead)(
                input_shape=ShapeSpec(channels=8, height=7, width=7), conv_dims=[8], fc_dims=[16], conv_norm="LN"
            )
            for _ in range(3)
        ],
        box_predictors=[
            LazyCall(FastRCNNOutputLayers)(
                input_shape=ShapeSpec(channels=16),
                test_score_thresh=0.0,
                test_topk_per_image=10,
                box2box_transform=LazyCall(Box2BoxTransform)(weights=(corner, corner, size, size)),
                cls_agnostic_bbox_reg=True,
                num_classes=CLASSES,
            )
            for corner, size in [(10, 5), (20, 10), (30, 15)]
        ],
        proposal_matchers=[
            LazyCall(Matcher)(thresholds=[overlap], labels=[0, 1], allow_low_quality_matches=False) for overlap in (0.5, 0.6, 0.7)
        ],
    )


def build(config: Any, seed: int = 0) -> Any:
    """Detectron2's model with noise on every weight, so that relative positions are not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = instantiate(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def write(model: Any, path: Path) -> Path:
    """A file of the model as Detectron2's model zoo (`.pkl`) and its trainer (`.pth`) write them."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if path.suffix == ".pth":
        torch.save({"model": state, "optimizer": {"state": {}, "param_groups": []}, "iteration": 7}, path)
    else:
        arrays = {name: value.numpy() for name, value in state.items()}
        with path.open("wb") as file:
            pickle.dump({"model": arrays, "__author__": "Detectron2"}, file)
    return path


def optimizer(model: Any, layer_decay: float, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW of configs/common/optim.py with what mask_rcnn_vitdet_b_100ep.py sets."""
    config = load("common/optim.py").AdamW
    config.lr, config.weight_decay = lr, weight_decay
    config.params.model = model
    config.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=layer_decay, num_layers=DEPTH)
    config.params.overrides = {"pos_embed": {"weight_decay": 0.0}}
    made: Any = instantiate(config)
    return made
