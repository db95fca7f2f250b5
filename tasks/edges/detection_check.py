"""Does the installed Detectron2 train a ViTDet? Two optimisation steps of a tiny one, on the CPU, with random data.

Run as `python -m tasks.edges.detection_check` or by its path; it imports nothing else of the suite, so that a fresh interpreter
gives a verdict on Detectron2 alone. It prints one JSON object (`version`, `where`, `losses`) as its last line.
"""

import json
import math
import sys
from typing import Any

import detectron2
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import SimpleFeaturePyramid, ViT
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, FastRCNNOutputLayers, MaskRCNNConvUpsampleHead, StandardROIHeads
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

SIZE = 64  # pixels, a side of the image
WIDTH = 8  # channels of the pyramid and of every head
CLASSES = 3
STEPS = 2
LEVELS = ("p2", "p3", "p4", "p5")
SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


def tiny_vitdet() -> nn.Module:
    """A ViTDet of the structure the suite trains (windows, relative position, mask head), with tiny widths."""
    net = ViT(
        img_size=SIZE,
        patch_size=16,
        embed_dim=16,
        depth=2,
        num_heads=2,
        window_size=3,
        window_block_indexes=(0,),
        use_rel_pos=True,
        out_feature="last_feat",
    )
    backbone = SimpleFeaturePyramid(
        net,
        "last_feat",
        out_channels=WIDTH,
        scale_factors=(4.0, 2.0, 1.0, 0.5),
        top_block=LastLevelMaxPool(),
        norm="LN",
        square_pad=SIZE,
    )
    pixel = [127.5] * 3
    return GeneralizedRCNN(
        backbone=backbone,
        proposal_generator=_proposals(),
        roi_heads=_heads(),
        pixel_mean=pixel,
        pixel_std=pixel,
        input_format="RGB",
    )


def _proposals() -> nn.Module:
    return RPN(
        in_features=[*LEVELS, "p6"],
        head=StandardRPNHead(in_channels=WIDTH, num_anchors=3),
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[8], [16], [32], [48], [64]], aspect_ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64], offset=0.0
        ),
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=32,
        positive_fraction=0.5,
        pre_nms_topk=(100, 100),
        post_nms_topk=(20, 20),
    )


def _heads() -> nn.Module:
    transform = Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0))
    box_head = FastRCNNConvFCHead(ShapeSpec(channels=WIDTH, height=7, width=7), conv_dims=[WIDTH], fc_dims=[16], conv_norm="LN")
    return StandardROIHeads(
        num_classes=CLASSES,
        batch_size_per_image=16,
        positive_fraction=0.25,
        proposal_matcher=Matcher([0.5], [0, 1], allow_low_quality_matches=False),
        box_in_features=list(LEVELS),
        box_pooler=ROIPooler(7, SCALES, sampling_ratio=0, pooler_type="ROIAlignV2"),
        box_head=box_head,
        box_predictor=FastRCNNOutputLayers(ShapeSpec(channels=16), box2box_transform=transform, num_classes=CLASSES),
        mask_in_features=list(LEVELS),
        mask_pooler=ROIPooler(14, SCALES, sampling_ratio=0, pooler_type="ROIAlignV2"),
        mask_head=MaskRCNNConvUpsampleHead(
            ShapeSpec(channels=WIDTH, height=14, width=14), num_classes=CLASSES, conv_dims=[WIDTH, WIDTH], conv_norm="LN"
        ),
    )


def random_sample() -> dict[str, Any]:
    """One image of noise with two boxes and their masks, as Detectron2's models take it."""
    truth = Instances((SIZE, SIZE))
    truth.gt_boxes = Boxes(torch.tensor([[4.0, 4.0, 36.0, 36.0], [20.0, 24.0, 60.0, 60.0]]))
    truth.gt_classes = torch.tensor([0, CLASSES - 1])
    masks = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
    masks[0, 6:34, 6:34] = True
    masks[1, 26:58, 22:58] = True
    truth.gt_masks = BitMasks(masks)
    return {"image": torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8), "instances": truth, "height": SIZE, "width": SIZE}


def train(steps: int = STEPS) -> list[float]:
    """Train the tiny ViTDet and give the loss of each step.

    Raises:
        RuntimeError: a loss is not finite, a part of the loss is missing, or the backbone did not learn.
    """
    torch.manual_seed(0)
    model = tiny_vitdet().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watched = {
        name: p.detach().clone() for name, p in model.named_parameters() if name.endswith(("qkv.weight", "mask_fcn1.weight"))
    }
    with EventStorage():  # the models log into it and refuse to train without
        losses = [_step(model, optimizer) for _ in range(steps)]
    now = dict(model.named_parameters())
    still = [name for name, before in watched.items() if torch.equal(before, now[name])]
    if still or not watched:
        raise RuntimeError(f"{steps} steps of a tiny ViTDet left {still or 'nothing to watch'} unchanged")
    return losses


def _step(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    terms: dict[str, torch.Tensor] = model([random_sample()])
    if not {"loss_rpn_cls", "loss_cls", "loss_mask"} <= set(terms):
        raise RuntimeError(f"ViTDet gave the losses {sorted(terms)}, without those of proposals, classes and masks")
    loss = torch.stack(list(terms.values())).sum()
    if not math.isfinite(loss.item()):
        raise RuntimeError(f"a tiny ViTDet has the loss {loss.item()}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def main() -> None:
    """Train and print the verdict."""
    torch.set_num_threads(1)
    losses = train()
    report = {"version": detectron2.__version__, "where": str(detectron2.__path__[0]), "losses": losses}
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
