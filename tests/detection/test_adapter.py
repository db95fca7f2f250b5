"""The backbone inside Detectron2: shapes, padding, and equality with Detectron2's own ViT."""

from functools import partial
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.modeling import ViT
from detectron2.structures import ImageList

from backbones.adapters.to_detectron2 import (
    FEATURE,
    LastMap,
    dense_options,
    feature_pyramid,
    freeze_unused,
    open_backbone,
    spread_layers,
)
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
    pyramid = feature_pyramid(backbone(dense_options(), patch_size=patch), out_channels=8)
    maps = pyramid(torch.randn(2, 3, 64, 96))
    assert {name: shape.stride for name, shape in pyramid.output_shape().items()} == strides
    for name, stride in strides.items():
        assert maps[name].shape == (2, 8, -(-64 // stride), -(-96 // stride))


@pytest.mark.parametrize(("patch", "padded"), [(8, (64, 80)), (16, (64, 96))])
def test_images_of_any_size_are_padded_to_whole_strides(backbone, patch, padded):
    pyramid = feature_pyramid(backbone(dense_options(), patch_size=patch), out_channels=8)
    images = ImageList.from_tensors(
        [torch.randn(3, 50, 70), torch.randn(3, 61, 33)],
        pyramid.size_divisibility,
        padding_constraints=pyramid.padding_constraints,
    )
    assert images.tensor.shape[-2:] == padded
    assert pyramid(images.tensor)["p2"].shape[-2:] == (padded[0] // 4, padded[1] // 4)


def test_square_pad_makes_every_image_a_square(backbone):
    pyramid = feature_pyramid(backbone(dense_options()), out_channels=8, square_pad=96)
    images = ImageList.from_tensors([torch.randn(3, 50, 70)], padding_constraints=pyramid.padding_constraints)
    assert images.tensor.shape == (1, 3, 96, 96)


def test_patch_14_is_refused_by_name(backbone):
    with pytest.raises(ConfigError, match="patch size 14"):
        feature_pyramid(backbone(patch_size=14, image_size=(28, 28)))


def test_backbone_stands_in_a_lazy_config():
    from detectron2.config import LazyCall, instantiate

    net = LazyCall(open_backbone)(
        source="random:vit_demo_patch8", image_size=(64, 64), window=3, global_layers=(3,), rel_pos=True
    )
    pyramid: Any = instantiate(LazyCall(feature_pyramid)(backbone=net, out_channels=8, square_pad=64))
    assert pyramid(torch.zeros(1, 3, 64, 64))["p3"].shape == (1, 8, 8, 8)


@pytest.mark.parametrize(
    ("depth", "layers"), [(12, (2, 5, 8, 11)), (24, (5, 11, 17, 23)), (32, (7, 15, 23, 31)), (6, (0, 2, 3, 5)), (2, (0, 1))]
)
def test_global_blocks_are_evenly_spaced(depth, layers):
    assert spread_layers(depth) == layers


def test_parameters_the_map_does_not_need_are_frozen(backbone):
    kept = LastMap(backbone(dense_options(rel_pos=True, window=2, global_layers=(1, 3))))
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
    options = dense_options((side, side), window=window, global_layers=(1, 3), rel_pos=rel_pos)
    net = backbone(options, patch_size=patch, image_size=(4 * patch, 4 * patch))
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        ours, theirs = LastMap(net)(images)[FEATURE], detectron2_twin(net)(images)[FEATURE]
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
