"""The detector: its parameters' groups, its losses, and its likeness to Detectron2's own ViTDet."""

import copy
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.config import instantiate
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate
from detectron2.solver.build import get_default_optimizer_params
from detectron2.utils.events import EventStorage

from backbones.layers import find_backbone, layer_ids
from backbones.zoo import vit
from mae_bench.core.optim import parameter_groups
from mae_bench.core.seeding import seed_all
from tasks.edges.detection_data import TrainImages
from tasks.edges.detection_load import load_detector
from tasks.edges.detection_model import build_detector, decay_exemption
from tasks.suite.detection import RECIPES, dense_options
from tests.detection import native

pytestmark = [
    pytest.mark.edge,
    pytest.mark.filterwarnings("ignore:Importing from timm.models.layers:FutureWarning"),  # Detectron2's ViT
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools under NumPy 2
]

OURS, THEIRS = "backbone.net.net.net.", "backbone.net."


@pytest.fixture
def detector(backbone, settings):
    def build(masks=True, config=settings, **facts):
        seed_all(1, "heads")
        spec = backbone(**facts).spec
        return build_detector(backbone(dense_options(config, spec), **facts), config, num_classes=2, masks=masks)

    return build


@pytest.fixture
def batch(splits, settings):
    def draw(**options):
        data = TrainImages(splits(**options)[0], settings, masks=options.get("masks", "polygon") is not None)
        seed_all(7)
        return [data[0], data[1]]

    return draw


def full_size(recipe: str, num_classes: int = 80) -> Any:
    """A detector of a recipe on the meta device, which has shapes and no numbers."""
    sizes = {"large": "vit_large_patch16", "huge": "vit_huge_patch14"}
    arch = vit.VARIANTS[sizes.get(recipe.rpartition("-")[2], "vit_base_patch16")]
    config = RECIPES[recipe]
    if config.head.norm == "SyncBN":
        config = config.override({"head.norm": "BN"})  # as on one process
    spec = vit.spec_of(arch)
    net = vit.empty(arch, spec, dense_options(config, spec))
    with torch.device("meta"):
        return build_detector(net, config, num_classes, masks=True, class_weights=lambda: torch.ones(num_classes))


def own(**net: Any) -> Any:
    """Detectron2's own model of the ViTDet configs, on the meta device."""
    model = native.load("common/models/mask_rcnn_vitdet.py").model
    model.backbone.net.update(**net)
    linspace = torch.linspace
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        # It reads its drop path rates out of a tensor, which the meta device has no numbers for.
        patch.setattr(torch, "linspace", lambda *values: linspace(*values, device="cpu"))
        return instantiate(model)


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in ("demo",)])
def test_every_recipe_is_built_at_full_size(recipe):
    model = full_size(recipe, 1203 if "lvis" in recipe else 80)
    assert find_backbone(model)[1].spec.patch_size == 16
    stages = model.roi_heads.box_predictor
    predictors = list(stages) if "cascade" in recipe else [stages]
    assert len(predictors) == (3 if "cascade" in recipe else 1)
    for one in predictors:
        assert one.use_sigmoid_ce == one.use_fed_loss == ("lvis" in recipe)
        assert one.cls_score.out_features == (1204 if "lvis" in recipe else 81)
        assert one.test_topk_per_image == (300 if "lvis" in recipe else 100)
    learned = {name for name, value in model.named_parameters() if value.requires_grad}
    assert any("blocks.0." in name for name in learned) == (recipe != "frozen")


@pytest.mark.parametrize(
    ("recipe", "net"),
    [
        ("paper", {}),
        (
            "paper-large",
            {
                "embed_dim": 1024,
                "depth": 24,
                "num_heads": 16,
                "window_block_indexes": [block for block in range(24) if block not in (5, 11, 17, 23)],
            },
        ),
        (
            "paper-huge",
            {
                "embed_dim": 1280,
                "depth": 32,
                "num_heads": 16,
                "window_block_indexes": [block for block in range(32) if block not in (7, 15, 23, 31)],
            },
        ),
    ],
)
def test_paper_recipe_is_detectron2s_own_model(recipe, net):
    learned = {name: value for name, value in full_size(recipe).named_parameters() if value.requires_grad}
    ours = {name.replace(OURS, THEIRS): tuple(value.shape) for name, value in learned.items()}
    theirs = {name: tuple(value.shape) for name, value in own(**net).named_parameters()}
    # Theirs holds a position for the class token that it never uses; MAE's ViT-H has 16 x 16 of them, for patches of 14 pixels.
    positions = ours.pop("backbone.net.pos_embed"), theirs.pop("backbone.net.pos_embed")
    assert (positions[0][1], positions[1][1]) == (256 if "huge" in recipe else 196, 197)
    assert ours == theirs


def test_paper_settings_are_detectron2s_own(detector):
    ours, theirs = full_size("paper"), own()
    for part in ("proposal_generator", "roi_heads"):
        for name in ("batch_size_per_image", "positive_fraction", "pre_nms_topk", "post_nms_topk", "nms_thresh", "min_box_size"):
            assert getattr(getattr(ours, part), name, None) == getattr(getattr(theirs, part), name, None)
    anchors = ours.proposal_generator.anchor_generator, theirs.proposal_generator.anchor_generator
    assert anchors[0].strides == anchors[1].strides and anchors[0].offset == anchors[1].offset
    predictors = ours.roi_heads.box_predictor, theirs.roi_heads.box_predictor
    for name in ("test_score_thresh", "test_nms_thresh", "test_topk_per_image", "box_reg_loss_type", "smooth_l1_beta"):
        assert getattr(predictors[0], name) == getattr(predictors[1], name)
    for pooler in ("box_pooler", "mask_pooler"):
        poolers = getattr(ours.roi_heads, pooler), getattr(theirs.roi_heads, pooler)
        for name in ("output_size", "min_level", "max_level", "canonical_level", "canonical_box_size"):
            assert getattr(poolers[0], name) == getattr(poolers[1], name)
    assert ours.backbone.padding_constraints["square_size"] == theirs.backbone.padding_constraints["square_size"]
    assert ours.input_format == theirs.input_format == "RGB"


def test_pixels_are_normalised_as_in_vitdet(detector):
    model = detector()
    torch.testing.assert_close(model.pixel_mean.flatten(), torch.tensor([123.675, 116.28, 103.53]))
    torch.testing.assert_close(model.pixel_std.flatten(), torch.tensor([58.395, 57.12, 57.375]))


def test_anchor_sizes_follow_the_strides(detector):
    cells = detector(patch_size=16).proposal_generator.anchor_generator.cell_anchors
    sides = [((cell[:, 2] - cell[:, 0]) * (cell[:, 3] - cell[:, 1])).sqrt() for cell in cells]
    for side, expected in zip(sides, (16.0, 32.0, 64.0, 128.0, 256.0), strict=True):
        torch.testing.assert_close(side, torch.full((3,), expected))


def test_every_parameter_has_the_rate_and_decay_that_detectron2_gives_it(detector, settings):
    model = detector(config=settings.override({"window": 3, "rel_pos": True}), patch_size=16)
    layer_id, depth = layer_ids(model)
    groups = parameter_groups(
        model, settings.optim, layer_id=layer_id, depth=depth, no_decay=decay_exemption(model, decay_norms=False)
    )
    ours = {name: (group["lr_scale"], group["weight_decay"]) for group in groups for name in group["names"]}
    assert sum(len(group["names"]) for group in groups) == len(ours)
    assert set(ours) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    def rate(name):
        return get_vit_lr_decay_rate(name.replace(OURS, THEIRS), settings.optim.layer_decay, depth)

    native_groups = get_default_optimizer_params(
        model,
        base_lr=1.0,
        weight_decay=0.05,
        weight_decay_norm=0.0,
        lr_factor_func=rate,
        overrides={"pos_embed": {"weight_decay": 0.0}},
    )
    known = {id(value): (group["lr"], group["weight_decay"]) for group in native_groups for value in group["params"]}
    theirs = {name: known[id(value)] for name, value in model.named_parameters() if value.requires_grad}
    assert ours == {name: (pytest.approx(scale), decay) for name, (scale, decay) in theirs.items()}
    assert ours[OURS + "pos_embed"] == (pytest.approx(0.8**5), 0.0)
    assert ours[OURS + "blocks.3.attn.qkv.weight"] == (pytest.approx(0.8), 0.05)
    assert ours["roi_heads.box_head.conv1.norm.weight"] == (1.0, 0.05)


def test_huge_recipe_spares_nothing_from_decay(detector):
    exempt = decay_exemption(detector(), decay_norms=RECIPES["paper-huge"].decay_norms)
    assert not any(exempt(name, parameter) for name, parameter in detector().named_parameters())


@pytest.mark.parametrize("patch", [8, 16])
@pytest.mark.parametrize("masks", ["polygon", "rle", None])
def test_losses_are_finite_and_the_same_for_the_same_seed(detector, batch, patch, masks):
    model = detector(masks=masks is not None, patch_size=patch).train()
    samples = batch(masks=masks)
    seed_all(3)
    first = model(copy.deepcopy(samples))
    seed_all(3)
    second = model(copy.deepcopy(samples))
    assert all(torch.isfinite(value) for value in first.values())
    assert ("loss_mask" in first) == (masks is not None)
    assert {name: value.item() for name, value in first.items()} == {name: value.item() for name, value in second.items()}


def test_a_broken_model_gives_a_loss_that_says_so(detector, batch):
    model = detector().train()
    with torch.no_grad():
        model.proposal_generator.rpn_head.anchor_deltas.bias.fill_(float("nan"))
    losses = model(batch())
    total = torch.stack(list(losses.values())).sum()
    assert total.isnan() and total.requires_grad


@pytest.mark.parametrize(("side", "cascade"), [(64, False), (96, False), (96, True)])
def test_detections_and_losses_equal_those_of_detectron2s_own_model(settings, detector, batch, tmp_path, side, cascade):
    changes = {"image_size": side, "window": 3, "global_blocks": 2, "rel_pos": True, "head.cascade": cascade}
    theirs = native.build(native.vitdet(side, cascade=cascade))
    ours = detector(config=settings.override(changes), **native.FACTS)
    load_detector(ours, str(native.write(theirs, tmp_path / "model.pth")))
    samples = batch()
    with torch.no_grad():
        found, expected = (model.eval()(copy.deepcopy(samples)) for model in (ours, theirs))
        for one, other in zip(found, expected, strict=True):
            a, b = one["instances"], other["instances"]
            assert len(a) == len(b) > 0 and torch.equal(a.pred_classes, b.pred_classes)
            torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, rtol=1e-4, atol=1e-3)
            torch.testing.assert_close(a.scores, b.scores, rtol=1e-4, atol=1e-4)
            assert torch.equal(a.pred_masks, b.pred_masks)
        losses = []
        for model in (ours, theirs):
            seed_all(3)
            with EventStorage():
                losses.append({name: value.item() for name, value in model.train()(copy.deepcopy(samples)).items()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
