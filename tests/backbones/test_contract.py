"""The one contract: held by every architecture of the zoo, shrunk, and by networks with parts that the zoo's do not have."""

import copy

import pytest
import torch
from timm.models.eva import Eva
from timm.optim._param_groups import param_groups_layer_decay

from backbones.arch import VitArch
from backbones.contract import normalise
from backbones.zoo import vit
from mae_bench.core import find
from tests.backbones.conftest import shaken

SHRUNK = {
    f"{room}:{name}": (room, arch.model_copy(update={"embed_dim": 8 * arch.num_heads, "mlp_dim": 48, "depth": 3}))
    for room in find.names("backbones.zoo")
    for name, arch in find.load("backbones.zoo", room, what="family").VARIANTS.items()
}
PARTS = {
    "registers": {"num_registers": 4},
    "registers without positions": {"num_registers": 4, "prefix_positions": False},
    "no class token": {"class_token": False},
    "LayerScale": {"layer_scale": True, "prefix_positions": False},
    "q/k norm": {"qk_norm": True, "qkv_bias": False},
    "no final norm": {"final_norm": False},
    "patch 14": {"patch_size": 14, "image_size": (42, 28)},
}
ALL = [pytest.param((room, arch.model_dump()), id=name) for name, (room, arch) in SHRUNK.items()]
ALL += [pytest.param(("vit", facts), id=name) for name, facts in PARTS.items()]


@pytest.fixture(params=ALL)
def backbone(request, make):
    room, facts = request.param
    if room == "vit":
        return make(**facts)
    zoo = find.load("backbones.zoo", room, what="family")
    arch = zoo.Arch(**facts)
    return zoo.assemble(arch, zoo.spec_of(arch), shaken(zoo.initial_weights(arch, 0))).eval()


@pytest.fixture
def images(backbone):
    """Not square, and not of the size the positions are stored for."""
    patch = backbone.spec.patch_size
    return torch.rand(2, 3, 3 * patch, 5 * patch, generator=torch.Generator().manual_seed(0))


def by_hand(backbone, images):
    """The output after each block, run by timm's own code."""
    net = backbone.net
    if isinstance(net, Eva):
        tokens, rope = net._pos_embed(net.patch_embed(images))
        turn = {"rope": rope}
    else:
        tokens, turn = net.norm_pre(net.patch_drop(net._pos_embed(net.patch_embed(images)))), {}
    for block in net.blocks:
        tokens = block(tokens, **turn)
        yield tokens


def test_the_last_layer_is_the_plain_forward(backbone, images):
    (features,) = backbone(images)
    assert torch.equal(features.tokens, backbone.net.forward_features(images))


def test_layer_i_is_the_output_after_block_i(backbone, images):
    expected = list(by_hand(backbone, images))
    for index, tokens in enumerate(expected):
        (plain,), (normed,) = backbone(images, (index,), norm=False), backbone(images, (index,))
        assert torch.equal(plain.tokens, tokens)
        assert torch.equal(normed.tokens, backbone.net.norm(tokens))


def test_layers_come_in_the_order_asked(backbone, images):
    last, first, again = backbone(images, (-1, 0, 2), norm=False)
    expected = list(by_hand(backbone, images))
    assert torch.equal(last.tokens, expected[2]) and torch.equal(first.tokens, expected[0])
    assert torch.equal(again.tokens, last.tokens)


def test_the_map_flattens_to_the_patches(backbone, images):
    (features,) = backbone(images)
    assert features.grid == (3, 5) and features.num_prefix_tokens == backbone.spec.num_prefix_tokens
    assert features.map.shape == (2, backbone.spec.embed_dim, 3, 5)
    assert torch.equal(features.map.flatten(2).transpose(1, 2), features.patches)
    # A change of one patch of pixels shows first and most in its own cell of the map.
    patch = backbone.spec.patch_size
    changed = images.clone()
    changed[:, :, patch : 2 * patch, 3 * patch : 4 * patch] += 1
    (before,), (after,) = backbone(images, (0,), norm=False), backbone(changed, (0,), norm=False)
    moved = (after.map - before.map).norm(dim=1)
    assert (moved.flatten(1).argmax(1) == 1 * 5 + 3).all()


def test_prefix_and_patches_make_up_the_tokens(backbone, images):
    (features,) = backbone(images)
    assert torch.equal(torch.cat([features.prefix, features.patches], 1), features.tokens)
    assert torch.equal(features.pool("mean"), features.patches.mean(1))
    if backbone.arch.class_token:
        assert torch.equal(features.pool("cls"), features.tokens[:, 0])
    else:
        with pytest.raises(ValueError, match="use 'mean'"):
            features.pool("cls")


def test_layer_ids_are_the_depths_of_the_parameters(backbone):
    depth = backbone.spec.depth
    stem = {"net.cls_token", "net.reg_token", "net.pos_embed", "net.patch_embed.proj.weight", "net.patch_embed.proj.bias"}
    seen = set()
    for name, _ in backbone.named_parameters():
        expected = 0 if name in stem else depth + 1
        for block in range(depth):
            if name.startswith(f"net.blocks.{block}."):
                expected = block + 1
        assert backbone.layer_id(name) == expected, name
        seen.add(expected)
    assert seen == set(range(depth + (2 if backbone.arch.final_norm else 1)))


def test_learning_rate_scales_are_those_of_timms_layer_decay(backbone):
    depth, decay = backbone.spec.depth, 0.65
    net = copy.deepcopy(backbone.net)
    net.reset_classifier(10)
    groups = param_groups_layer_decay(net, weight_decay=0.05, layer_decay=decay)
    by_parameter = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    for name, parameter in net.named_parameters(prefix="net"):
        if name.startswith("net.norm."):
            # timm gives it the last block's scale, MAE (whose rule this is) the head's.
            assert backbone.layer_id(name) == depth + 1
            continue
        assert decay ** (depth + 1 - backbone.layer_id(name)) == pytest.approx(by_parameter[id(parameter)]), name


def test_images_of_broken_patches_are_refused_with_the_fix(backbone):
    patch = backbone.spec.patch_size
    with pytest.raises(ValueError, match=rf"whole patches of {patch}; resize or pad the image, to {2 * patch} x {patch}"):
        backbone(torch.zeros(1, 3, 2 * patch + 1, patch))


@pytest.mark.parametrize("layers", [(3,), (-4,), (0, 7)])
def test_layers_that_are_not_there_are_refused(make, layers):
    with pytest.raises(ValueError, match="use -3 to 2"):
        make()(torch.zeros(1, 3, 32, 32), layers)


def test_the_zoo_has_the_published_sizes():
    # Parameters in millions with a head of 1000 classes less that head: timm's and MAE's own numbers.
    counts = {
        "vit_tiny_patch16": 5_524_416,
        "vit_small_patch16": 21_665_664,
        "vit_base_patch16": 85_798_656,
        "vit_large_patch16": 303_301_632,
        "vit_huge_patch14": 630_764_800,
    }
    for name, count in counts.items():
        with torch.device("meta"):
            backbone = vit.build(name)
        assert sum(parameter.numel() for parameter in backbone.parameters()) == count, name
        assert backbone.spec.name == name


def test_normalise_takes_the_specs_mean_and_std(make):
    spec = make().spec
    image = torch.tensor(spec.mean).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert torch.equal(normalise(image, spec), torch.zeros(1, 3, 4, 4))
    assert torch.allclose(normalise(image + torch.tensor(spec.std).view(1, 3, 1, 1), spec), torch.ones(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("facts", "match"),
    [({"num_heads": 5}, "cannot be shared by 5 heads"), ({"image_size": (32, 33)}, "whole patches of 8"), ({"dept": 3}, "dept")],
)
def test_architectures_that_cannot_be_are_refused(tiny_arch, facts, match):
    with pytest.raises(ValueError, match=match):
        VitArch(**{**tiny_arch.model_dump(), **facts})
