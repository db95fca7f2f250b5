"""Detectron2's own ViTDet backbone on the same weights: the same numbers, forwards and backwards."""

from functools import partial

import pytest
import torch
from torch import nn

from backbones.contract import DenseOptions

pytestmark = pytest.mark.edge

# The same for both: 5 blocks, windows of 3 but in blocks 1 and 4, relative positions sized for 64 pixels.
GLOBAL = (1, 4)
OPTIONS = DenseOptions(
    image_size=(64, 64),
    window=3,
    global_layers=GLOBAL,
    rel_pos=True,
    keep_prefix=False,
    stored_positions=True,
    antialias=False,
)


@pytest.fixture(scope="module")
def detectron2_vit():
    return pytest.importorskip("detectron2.modeling.backbone.vit").ViT


@pytest.fixture
def pair(make, detectron2_vit):
    """Ours and theirs on the same weights."""
    ours = make(OPTIONS, depth=5, mlp_dim=48)
    for name, parameter in ours.named_parameters():
        if "rel_pos" in name:
            nn.init.normal_(parameter, std=0.5)
    theirs = detectron2_vit(
        img_size=64,
        patch_size=8,
        embed_dim=24,
        depth=5,
        num_heads=2,
        mlp_ratio=2.0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=3,
        window_block_indexes=[block for block in range(5) if block not in GLOBAL],
        pretrain_img_size=32,
        pretrain_use_cls_token=True,
    ).eval()
    # Detectron2 keeps the class token's row of the positions, and does not use it.
    state = {name: tensor for name, tensor in ours.net.state_dict().items() if not name.startswith("norm.")}
    state["pos_embed"] = torch.cat([torch.randn(1, 1, 24), state["pos_embed"]], dim=1)
    theirs.load_state_dict(state)
    return ours, theirs


# Sizes: the one it is built for, whole windows, and ones that need padding and resized tables on either side.
@pytest.mark.parametrize("size", [(64, 64), (48, 72), (40, 104), (32, 32)])
def test_the_map_is_detectron2s(pair, size):
    ours, theirs = pair
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (features,) = ours(images, norm=False)
        expected = theirs(images)["last_feat"]
    assert expected.abs().max() > 1
    assert (features.map - expected).abs().max() <= 1e-5


def test_the_gradients_are_detectron2s(pair):
    ours, theirs = pair
    images = torch.rand(2, 3, 40, 64, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(2, 24, 5, 8, generator=torch.Generator().manual_seed(1))
    (ours(images, norm=False)[0].map * weight).sum().backward()
    (theirs(images)["last_feat"] * weight).sum().backward()
    for name, parameter in theirs.named_parameters():
        expected, gradient = parameter.grad, ours.net.get_parameter(name).grad
        if name == "pos_embed":
            expected = expected[:, 1:]
        scale = expected.abs().max()
        assert scale > 0 and (gradient - expected).abs().max() <= 1e-5 * max(scale, 1), name


def test_the_layer_scales_are_detectron2s(pair):
    from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate

    ours, theirs = pair
    for name, _ in theirs.named_parameters():
        expected = get_vit_lr_decay_rate(f"backbone.net.{name}", lr_decay_rate=0.7, num_layers=5)
        assert 0.7 ** (6 - ours.layer_id(f"net.{name}")) == pytest.approx(expected), name
