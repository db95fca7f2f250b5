"""Recipes of the detection task, each value with its source.

"ViTDet" is Detectron2's `projects/ViTDet/configs`, `COCO/` unless `LVIS/` is said. Values that it leaves at Detectron2's defaults
are the defaults of `Config`.
"""

from typing import Any

from mae_bench.core.optim import OptimConfig
from mae_bench.core.schedule import ScheduleConfig
from tasks.suite._detection_config import Config, HeadConfig

EPOCH = 118_000 / 64
"""Steps of a pass over COCO at the published batch: 118,000 images as ViTDet counts them."""


def _drops(*milestones: int, warmup: int = 250) -> ScheduleConfig:
    """A schedule of ViTDet: configs/common/optim.py and mask_rcnn_vitdet_b_100ep.py."""
    return ScheduleConfig(
        kind="multistep",
        milestones=milestones,
        gamma=0.1,  # values 1.0, 0.1, 0.01
        warmup_steps=warmup,  # warmup_length
        warmup_start=0.001,  # warmup_factor
    )


def _adamw(lr: float, layer_decay: float) -> OptimConfig:
    """Betas and weight decay of configs/common/optim.py; layer decay is lr_decay_rate of get_vit_lr_decay_rate."""
    return OptimConfig(name="adamw", lr=lr, betas=(0.9, 0.999), weight_decay=0.1, layer_decay=layer_decay)


def _coco(layer_decay: float, drop_path: float, **other: Any) -> Config:
    """mask_rcnn_vitdet_b_100ep.py, and mask_rcnn_vitdet_l_100ep.py with its own layer decay and drop path."""
    values: dict[str, Any] = {
        "image_size": 1024,  # configs/common/coco_loader_lsj.py; square_pad in mask_rcnn_vitdet.py
        "scale": (0.1, 2.0),  # coco_loader_lsj.py: ResizeScale, then FixedSizeCrop without padding
        "flip": 0.5,  # coco_loader_lsj.py: RandomFlip(horizontal=True), before the resize
        "masks": None,  # COCO has them: use_instance_mask and recompute_boxes in coco_loader_lsj.py
        "window": 14,  # mask_rcnn_vitdet.py
        "global_blocks": 4,  # window_block_indexes: blocks 2 5 8 11 of 12, 5 11 17 23 of 24, 7 15 23 31 of 32 are global
        "rel_pos": True,  # use_rel_pos
        "batch_size": 64,  # coco_loader_lsj.py: total_batch_size
        "steps": 184_375,  # 100 epochs
        "schedule": _drops(163_889, 177_546),
        "decay_norms": False,  # weight_decay_norm=0 in common/optim.py and the override of pos_embed
        "optim": _adamw(1e-4, layer_decay),  # lr: configs/common/optim.py
        "drop_path": drop_path,  # drop_path_rate
    }
    return Config(**values | other)


def _huge(drop_path: float = 0.5, **other: Any) -> Config:
    """mask_rcnn_vitdet_h_75ep.py: three quarters of the steps, and no exemption from weight decay."""
    steps = 184_375 * 3 // 4
    # warmup_length stays 250 / 184375, a share of the length: 187.5 of these steps, and a half one cannot be stated.
    schedule = _drops(163_889 * 3 // 4, 177_546 * 3 // 4, warmup=188)
    values = {"steps": steps, "schedule": schedule, "decay_norms": True}
    return _coco(0.9, drop_path, **values | other)


CASCADE: dict[str, Any] = {"cascade": True}
"""cascade_mask_rcnn_vitdet_{b,l}_100ep.py and _h_75ep.py differ from the others in the box heads alone."""

LVIS_HEAD: dict[str, Any] = {  # LVIS/mask_rcnn_vitdet_b_100ep.py
    "sigmoid": True,  # use_sigmoid_ce
    "federated_classes": 50,  # use_fed_loss; fed_loss_num_classes of FastRCNNOutputLayers
    "federated_power": 0.5,  # second argument of get_fed_loss_cls_weights
    "score_threshold": 0.02,  # test_score_thresh
    "detections": 300,  # test_topk_per_image
}


def _lvis(layer_decay: float, drop_path: float, lr: float = 2e-4, *, cascade: bool = False, **other: Any) -> Config:
    """LVIS/mask_rcnn_vitdet_{b,l,h}_100ep.py."""
    values: dict[str, Any] = {
        "steps": 156_250,  # 100 epochs of 100,000 images
        "schedule": _drops(138_889, 150_463),
        "optim": _adamw(lr, layer_decay),
        "repeat_threshold": 0.001,  # repeat_thresh
        "head": HeadConfig(**LVIS_HEAD, cascade=cascade),
    }
    return _coco(layer_decay, drop_path, **values | other)


def _mae(drop_path: float) -> Config:
    """Table 4 of the MAE paper (arXiv 2111.06377, A.3): the protocol of arXiv 2111.11429, which was not released as code."""
    return _coco(
        1.0,  # none is stated
        drop_path,  # A.3 searched it; 0.1 for ViT-B and 0.3 for ViT-L in 2111.11429
        head=HeadConfig(
            pyramid="fpn",  # section 2: four groups of blocks
            norm="SyncBN",  # section 2: after the convolutions of FPN, box head and mask head
        ),
        optim=OptimConfig(
            name="adamw",
            lr=8e-5,  # section 3: what was chosen for MAE
            betas=(0.9, 0.999),
            weight_decay=0.1,
        ),
        schedule=ScheduleConfig(kind="cosine", warmup_steps=round(0.25 * EPOCH)),  # section 3: 0.25 epochs, half a cosine
        steps=184_375,  # section 3: up to 100 epochs
    )


def _frozen() -> Config:
    """`paper` for 12 epochs with nothing trained in the backbone, which shows what it has learned. Nothing of it is published."""
    fixed = {"frozen": True, "window": 0, "rel_pos": False, "optim": _adamw(1e-4, 1.0)}
    return _coco(1.0, 0.0, steps=22_125, schedule=_drops(19_667, 21_306), **fixed)


def _fast() -> Config:
    """`paper` at half the side for 12 epochs, for any batch: the rate follows it, the lengths run against it.

    The drops are at 8/9 and 26/27 as in `paper`. Nothing of it is published.
    """
    return _coco(0.7, 0.1, image_size=512, steps=22_125, schedule=_drops(19_667, 21_306), reference_batch=64)


def _demo() -> Config:
    """Minutes on one CPU core with small images: narrow heads, global attention, and anchors for objects of 16 px and more.

    The values were chosen by trials on the embedded scenes; nothing about them is published.
    """
    head = HeadConfig(
        channels=64,
        anchor_scales=(4.0,),  # 16 px at stride 4
        rpn_convs=1,
        rpn_anchors=64,
        proposals_before_nms=(200, 100),
        proposals=(100, 50),
        roi_level_size=128,
        rois=16,
        box_convs=(),
        box_fcs=(128, 128),
        mask_convs=(32, 32),
        detections=50,
    )
    return Config(
        image_size=96,
        scale=(0.8, 1.25),
        flip=0.0,  # letters, digits and much else are not mirror-symmetric
        window=0,
        rel_pos=False,
        drop_path=0.0,
        head=head,
        optim=OptimConfig(name="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.8),
        schedule=ScheduleConfig(kind="cosine", warmup_steps=20),
        batch_size=8,
        steps=400,
        eval_batch_size=10,
    )


RECIPES = {
    "paper": _coco(0.7, 0.1),
    "paper-large": _coco(0.8, 0.4),
    "paper-huge": _huge(),
    "paper-cascade": _coco(0.7, 0.1, head=HeadConfig(**CASCADE)),
    "paper-cascade-large": _coco(0.8, 0.4, head=HeadConfig(**CASCADE)),
    "paper-cascade-huge": _huge(head=HeadConfig(**CASCADE)),
    "paper-lvis": _lvis(0.7, 0.1),
    "paper-lvis-large": _lvis(0.8, 0.4),
    "paper-lvis-huge": _lvis(0.9, 0.4, 1e-4, decay_norms=True),
    "paper-lvis-cascade": _lvis(0.7, 0.1, cascade=True),
    "paper-lvis-cascade-large": _lvis(0.8, 0.4, cascade=True),
    "paper-lvis-cascade-huge": _lvis(0.9, 0.4, 1e-4, cascade=True, decay_norms=True),
    "paper-mae": _mae(0.1),
    "paper-mae-large": _mae(0.3),
    "frozen": _frozen(),
    "fast": _fast(),
    "demo": _demo(),
}

ABOUT = {
    "paper": "ViTDet ViT-B on COCO: Mask R-CNN, 100 epochs (Detectron2 mask_rcnn_vitdet_b_100ep.py)",
    "paper-large": "the same for ViT-L (mask_rcnn_vitdet_l_100ep.py)",
    "paper-huge": "the same for ViT-H, 75 epochs (mask_rcnn_vitdet_h_75ep.py)",
    "paper-cascade": "ViTDet ViT-B on COCO: Cascade Mask R-CNN, 100 epochs (cascade_mask_rcnn_vitdet_b_100ep.py)",
    "paper-cascade-large": "the same for ViT-L (cascade_mask_rcnn_vitdet_l_100ep.py)",
    "paper-cascade-huge": "the same for ViT-H, 75 epochs (cascade_mask_rcnn_vitdet_h_75ep.py)",
    "paper-lvis": "ViTDet ViT-B on LVIS: repeat factors, federated loss, 100 epochs (LVIS/mask_rcnn_vitdet_b_100ep.py)",
    "paper-lvis-large": "the same for ViT-L (LVIS/mask_rcnn_vitdet_l_100ep.py)",
    "paper-lvis-huge": "the same for ViT-H (LVIS/mask_rcnn_vitdet_h_100ep.py)",
    "paper-lvis-cascade": "paper-lvis with Cascade Mask R-CNN (LVIS/cascade_mask_rcnn_vitdet_b_100ep.py)",
    "paper-lvis-cascade-large": "the same for ViT-L (LVIS/cascade_mask_rcnn_vitdet_l_100ep.py)",
    "paper-lvis-cascade-huge": "the same for ViT-H (LVIS/cascade_mask_rcnn_vitdet_h_100ep.py)",
    "paper-mae": "MAE's COCO table, ViT-B: Mask R-CNN on an FPN, 100 epochs (arXiv 2111.11429; its code is not released)",
    "paper-mae-large": "the same for ViT-L",
    "frozen": "pyramid and heads alone on a frozen backbone, 12 epochs: what its features hold as they are (own choice)",
    "fast": "paper at 512 pixels for 12 epochs, for any batch: tells checkpoints apart early (own choice)",
    "demo": f"{RECIPES['demo'].steps} steps at 96 pixels: a few minutes on a CPU, for the embedded scenes (own choice)",
}
"""What tells the recipes apart, and where each comes from."""

_MAE = (  # the published side of each line: arXiv 2111.11429, sections 2 and 3, and arXiv 2111.06377, A.3
    "relative positions are decomposed and each block has its own; in arXiv 2111.11429 they are biases shared by all windowed "
    "blocks and by all global ones, beginning at zero except for BEiT, which brings its own, has layer scale and absolute "
    "positions that begin at random",
    "rate 8e-5 and weight decay 0.1 are the ones chosen there for MAE, by trainings of ViT-B for 25 epochs measured on COCO val; "
    "MoCo v3 and a random start had the rate 1.6e-4 there, a random start also weight decay 0.2",
    "the length is 100 epochs, the longest there for pretrained weights; a random start had up to 400",
    "not stated there and taken from ViTDet: flips, the number of convolutions of the mask head, initial weights of the pyramid, "
    "which parameters have no weight decay; from Detectron2: anchors, matching, thresholds, 100 detections an image, and 32 "
    "groups of the norm in the finest branch of the pyramid; no layer decay is stated and none is used",
    "weights are those given; published rows are of MAE of 1600 epochs with normalised pixels, BEiT of 800 epochs on "
    "ImageNet-1K, MoCo v3 of 300 epochs, and supervised DeiT-B of 300 epochs or ViT-L of 200",
)
_LVIS = ("fractions of the repeat factors are rounded for several epochs at once; Detectron2 rounds them anew in each epoch",)

DEVIATIONS_OF = {name: _MAE if "mae" in name else _LVIS for name in RECIPES if "mae" in name or "lvis" in name}
"""Where single recipes differ from what they are named after, beside `DEVIATIONS`."""
