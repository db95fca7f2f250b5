"""The backbone inside Detectron2: shapes, padding, and equality with Detectron2's own ViT."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.modeling import ViT
from detectron2.structures import ImageList

from backbones.adapters.to_detectron2 import feature_pyramid, open_backbone, optimizer_params
from backbones.adapters.to_detectron2_fpn import group_pyramid
from backbones.adapters.to_detectron2_maps import FEATURE, LastMap, freeze_unused
from backbones.layers import layer_ids
from backbones.source import open_source
from backbones.vitdet import dense_options, spread_layers
from mae_bench.core.errors import ConfigError

pytestmark = [
    pytest.mark.edge,
    pytest.mark.filterwarnings("ignore:Importing from timm.models.layers:FutureWarning"),  # Detectron2's ViT
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools under NumPy 2
]


@pytest.mark.parametrize(
    ("patch", "strides"),
    [(8, {"p2": 4, "p3": 8, "p4": 16, "p5": 32}), (16, {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64})],
)
def test_pyramid_levels_have_the_strides_they_declare(backbone, patch, strides):
    pyramid = feature_pyramid(backbone(patch_size=patch), out_channels=8)
    maps = pyramid(torch.randn(2, 3, 64, 96))
    assert {name: shape.stride for name, shape in pyramid.output_shape().items()} == strides
    for name, stride in strides.items():
        assert maps[name].shape == (2, 8, -(-64 // stride), -(-96 // stride))


@pytest.mark.parametrize(("patch", "padded"), [(8, (64, 80)), (16, (64, 96))])
def test_images_of_any_size_are_padded_to_whole_strides(backbone, patch, padded):
    pyramid = feature_pyramid(backbone(patch_size=patch), out_channels=8)
    images = ImageList.from_tensors(
        [torch.randn(3, 50, 70), torch.randn(3, 61, 33)],
        pyramid.size_divisibility,
        padding_constraints=pyramid.padding_constraints,
    )
    assert images.tensor.shape[-2:] == padded
    assert pyramid(images.tensor)["p2"].shape[-2:] == (padded[0] // 4, padded[1] // 4)


def test_square_pad_makes_every_image_a_square(backbone):
    pyramid = feature_pyramid(backbone(), out_channels=8, square_pad=96)
    images = ImageList.from_tensors([torch.randn(3, 50, 70)], padding_constraints=pyramid.padding_constraints)
    assert images.tensor.shape == (1, 3, 96, 96)


def test_patch_14_is_refused_by_name_and_taken_when_resampled(backbone):
    with pytest.raises(ConfigError, match="patches are of 14 pixels; build the backbone with patch_size=16"):
        feature_pyramid(backbone(patch_size=14, image_size=(28, 28)))
    plain = backbone(patch_size=14, image_size=(56, 56))
    options = dense_options(plain.spec, (64, 64), window=3, rel_pos=True)
    net = backbone(options, patch_size=14, image_size=(56, 56))
    assert (net.spec.patch_size, net.arch.grid, net.options.global_layers) == (16, (4, 4), (0, 1, 2, 3))
    pyramid = feature_pyramid(net, out_channels=8)
    assert pyramid(torch.randn(1, 3, 96, 64))["p4"].shape == (1, 8, 6, 4)


def test_the_ledger_says_that_patches_were_resampled():
    source = open_source("random:vit_huge_patch14")
    ledger = source.ledger_for(dense_options(source.spec, (1024, 1024), window=14, rel_pos=True))
    assert "patch projection resampled from 14 to 16 pixels, bicubic (arXiv 2203.16527)" in ledger.notes
    assert "patch_embed.proj.weight" in ledger.resized and "blocks.7.attn.rel_pos_h" in ledger.new


def test_group_norm_that_does_not_fit_is_refused(backbone):
    with pytest.raises(ConfigError, match="32 groups, which do not divide 12"):
        feature_pyramid(backbone(patch_size=16), norm="GN")


def test_backbone_stands_in_a_lazy_config_as_vitdet():
    from detectron2.config import LazyCall, instantiate

    size = {"image_size": (128, 128), "window": 3, "rel_pos": True}
    net = LazyCall(open_backbone)(source="random:vit_tiny_patch16", **size)
    pyramid: Any = instantiate(LazyCall(feature_pyramid)(backbone=net, out_channels=8, square_pad=128))
    assert pyramid(torch.zeros(1, 3, 128, 128))["p3"].shape == (1, 8, 16, 16)
    inside = pyramid.net.net
    assert inside.arch.relative_grid == (8, 8)
    assert [index for index, block in enumerate(inside.blocks) if block.attn.window == 0] == [2, 5, 8, 11]


def test_relative_positions_without_a_size_are_refused():
    with pytest.raises(ConfigError, match="needs image_size"):
        open_backbone("random:vit_demo_patch8", rel_pos=True)


DINOV2 = {"layer_scale": True, "num_registers": 4, "patch_size": 8, "image_size": (32, 32)}


@pytest.mark.parametrize("size", [(32, 32), (48, 64)])
def test_map_is_exactly_what_the_network_computes_outside(backbone, size):
    """Class token, registers and LayerScale are carried, also where positions are resized."""
    outside = backbone(**DINOV2)
    inside = LastMap(backbone(dense_options(outside.spec, (64, 64)), **DINOV2))
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        (features,) = outside(images, norm=False)
        assert torch.equal(inside(images)[FEATURE], features.map)
    assert inside.net.spec.num_prefix_tokens == 5
    net: Any = inside.net
    assert not freeze_unused(inside) == [] and net.net.cls_token.requires_grad


def test_windows_take_the_prefix_tokens_away(backbone):
    spec = backbone(**DINOV2).spec
    assert backbone(dense_options(spec, (64, 64), window=2), **DINOV2).spec.num_prefix_tokens == 0


def test_blocks_computed_again_give_the_same_numbers(backbone):
    images = torch.randn(2, 3, 64, 64)
    grads = []
    for again in (False, True):
        spec = backbone().spec
        net = backbone(dense_options(spec, (64, 64), window=3, rel_pos=True, drop_path=0.3, checkpointing=again)).train()
        torch.manual_seed(3)
        net(images)[0].map.square().mean().backward()
        grads.append([parameter.grad for parameter in net.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


def test_group_pyramid_has_four_maps_of_four_groups(backbone):
    net = backbone(dense_options(backbone(patch_size=16).spec), patch_size=16, embed_dim=64)
    pyramid = group_pyramid(net, out_channels=8, norm="BN").eval()
    shapes = {name: found.shape[-2:] for name, found in pyramid(torch.randn(1, 3, 96, 64)).items()}
    assert shapes == {f"p{level}": (96 // 2**level or 1, 64 // 2**level) for level in range(2, 7)} | {"p6": (2, 1)}
    assert pyramid.bottom_up.layers == (0, 1, 2, 3)
    with pytest.raises(ConfigError, match=r"use head\.pyramid=simple"):
        group_pyramid(backbone(patch_size=8, embed_dim=64))


def test_frozen_backbone_stays_in_eval_mode(backbone):
    for pyramid in (feature_pyramid(backbone(), frozen=True), group_pyramid(backbone(patch_size=16, embed_dim=64), frozen=True)):
        pyramid.train()
        inside = next(module for module in pyramid.modules() if isinstance(module, type(backbone())))
        assert pyramid.training and not any(module.training for module in inside.modules())
        assert not any(parameter.requires_grad for parameter in inside.parameters())
        assert any(parameter.requires_grad for parameter in pyramid.parameters())


def test_optimizer_groups_of_a_users_config_follow_the_depth(backbone):
    pyramid = feature_pyramid(backbone(**DINOV2), out_channels=8)
    layer_id, depth = layer_ids(pyramid)
    groups = optimizer_params(pyramid, 0.5, base_lr=1.0, weight_decay=0.1, weight_decay_norm=0.0)
    rates = {id(value): (group["lr"], group["weight_decay"]) for group in groups for value in group["params"]}
    for name, parameter in pyramid.named_parameters():
        if parameter.requires_grad:
            assert rates[id(parameter)][0] == pytest.approx(0.5 ** (depth + 1 - layer_id(name))), name
    net: Any = pyramid.net.net
    token, positions = net.net.cls_token, net.net.pos_embed
    assert rates[id(token)] == (0.5**5, 0.1) and rates[id(positions)] == (0.5**5, 0.0)


@pytest.mark.parametrize(
    ("depth", "layers"), [(12, (2, 5, 8, 11)), (24, (5, 11, 17, 23)), (32, (7, 15, 23, 31)), (6, (0, 2, 3, 5)), (2, (0, 1))]
)
def test_global_blocks_are_evenly_spaced(depth, layers):
    assert spread_layers(depth) == layers


def test_parameters_the_map_does_not_need_are_frozen(backbone):
    kept = LastMap(backbone(dense_options(backbone().spec, (32, 32), rel_pos=True, window=2, global_layers=(1, 3))))
    assert freeze_unused(kept) == ["net.net.norm.weight", "net.net.norm.bias"]
    kept(torch.randn(1, 3, 40, 40))[FEATURE].sum().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in kept.parameters())


def detectron2_twin(net):
    """Detectron2's ViT with the weights of one of the suite's."""
    arch, options = net.arch, net.options
    norm: Any = partial(torch.nn.LayerNorm, eps=arch.norm_eps)
    twin = ViT(
        img_size=options.image_size[0],
        patch_size=arch.patch_size,
        embed_dim=arch.embed_dim,
        depth=arch.depth,
        num_heads=arch.num_heads,
        mlp_ratio=arch.mlp_dim / arch.embed_dim,
        norm_layer=norm,
        use_rel_pos=options.rel_pos,
        window_size=options.window,
        window_block_indexes=[block for block in range(arch.depth) if options.window and block not in options.global_layers],
        pretrain_img_size=arch.image_size[0],
        pretrain_use_cls_token=False,
        out_feature=FEATURE,
    )
    state = {name: value for name, value in net.net.state_dict().items() if not name.startswith("norm.")}
    twin.load_state_dict(state)
    return twin.eval()


@pytest.mark.parametrize("patch", [8, 16])
@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("rel_pos", [False, True])
def test_map_equals_that_of_detectron2s_vit(backbone, patch, window, rel_pos):
    side = 8 * patch
    size = {"patch_size": patch, "image_size": (4 * patch, 4 * patch)}
    options = dense_options(
        backbone(**size).spec, (side, side), window=window, global_layers=(1, 3), rel_pos=rel_pos, keep_prefix=False
    )
    net = backbone(replace(options, antialias=False), **size)
    images = torch.randn(2, 3, side, side + patch)
    with torch.no_grad():
        ours, theirs = LastMap(net)(images)[FEATURE], detectron2_twin(net)(images)[FEATURE]
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
