"""The network: kept patches, dense options at build time, seeds, and other people's networks with the same weights."""

import copy
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from backbones.contract import DenseOptions
from backbones.initial import put_sincos
from backbones.positions import resample, sincos_2d
from backbones.vit import initial_weights
from backbones.zoo import vit


def pictures(height=32, width=32, count=2):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def ids(count, kept, batch=2):
    generator = torch.Generator().manual_seed(3)
    return torch.stack([torch.randperm(count, generator=generator)[:kept] for _ in range(batch)])


@pytest.mark.parametrize(
    "facts", [{}, {"num_registers": 2, "prefix_positions": False, "layer_scale": True}, {"class_token": False}]
)
def test_keeping_all_patches_is_the_full_forward(make, facts):
    backbone, images = make(**facts), pictures(24, 40)
    prefix, order = backbone.spec.num_prefix_tokens, ids(15, 15)
    (full,) = backbone(images)
    encoded = backbone.encode_kept(images, order)
    back = order.argsort(1).unsqueeze(-1).expand(-1, -1, encoded.shape[-1])
    assert torch.allclose(encoded[:, prefix:].gather(1, back), full.patches, atol=1e-5)
    assert torch.allclose(encoded[:, :prefix], full.prefix, atol=1e-5)


def test_kept_patches_alone_are_seen_and_keep_their_positions(make):
    backbone, images, kept = make(), pictures(), ids(16, 4)
    encoded = backbone.encode_kept(images, kept)
    assert encoded.shape == (2, 1 + 4, 24)
    hidden = torch.ones(2, 16, dtype=torch.bool).scatter(1, kept, False).view(2, 1, 4, 4)
    noise = hidden.repeat_interleave(8, 2).repeat_interleave(8, 3) * torch.rand(2, 3, 32, 32)
    assert torch.equal(backbone.encode_kept(images + noise, kept), encoded)
    net = backbone.net
    tokens = net._pos_embed(net.patch_embed(images))
    chosen = torch.cat([torch.zeros(2, 1, dtype=torch.long), kept + 1], 1)
    tokens = tokens.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 24))
    assert torch.allclose(net.norm(net.blocks(tokens)), encoded, atol=1e-6)


def test_kept_patches_and_windows_exclude_each_other(make):
    backbone = make(DenseOptions(window=2, keep_prefix=False))
    with pytest.raises(ValueError, match="cannot be used with encode_kept"):
        backbone.encode_kept(pictures(), ids(16, 4))


def test_timms_own_networks_give_the_same_features_on_the_same_weights():
    """A published architecture by timm's name, at a size that is not its own."""
    net: Any = timm.create_model("deit_tiny_patch16_224", num_classes=0, dynamic_img_size=True).eval()
    arch = vit.VARIANTS["vit_tiny_patch16"]
    backbone = vit.assemble(arch, vit.spec_of(arch), net.state_dict()).eval()
    images = pictures(64, 96)
    with torch.no_grad():
        assert torch.equal(backbone(images)[0].tokens, net.forward_features(images))


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone(tiny_arch):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first, again, other = (initial_weights(tiny_arch, seed) for seed in (4, 4, 5))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["blocks.0.attn.qkv.weight"], other["blocks.0.attn.qkv.weight"])


def test_random_weights_are_those_that_a_pretraining_starts_from(tiny_arch):
    """Xavier-uniform linear layers and patch projection, zero biases, sine-cosine positions (MAE, appendix A.1)."""
    ours = initial_weights(tiny_arch, 6)
    plain = VisionTransformer(32, 8, num_classes=0, embed_dim=24, depth=3, num_heads=2, mlp_ratio=40.5 / 24).state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: tensor.shape for name, tensor in plain.items()}
    for name in ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.2.mlp.fc2.weight"):
        weight = ours[name].flatten(1)
        bound = (6 / sum(weight.shape)) ** 0.5
        assert 0.95 * bound < weight.abs().max() <= bound and weight.std() == pytest.approx(bound / 3**0.5, rel=0.1), name
    assert not any(tensor.any() for name, tensor in ours.items() if name.endswith("bias"))
    assert torch.equal(ours["pos_embed"], sincos_2d(24, (4, 4), num_prefix=1))


def test_a_width_without_sine_cosine_positions_keeps_learned_ones(tiny_arch):
    drawn = initial_weights(tiny_arch.override({"embed_dim": 26}), 6)["pos_embed"]
    assert drawn.std() == pytest.approx(0.02, rel=0.3)


def test_the_weights_drawn_do_not_depend_on_the_dense_options():
    plain = vit.build("vit_demo_patch8", seed=2)
    dense = vit.build("vit_demo_patch8", seed=2, dense=DenseOptions(window=4, rel_pos=True, keep_prefix=False, drop_path=0.1))
    for name, parameter in plain.net.blocks.named_parameters():
        assert torch.equal(parameter, dense.net.blocks.get_parameter(name)), name


def test_large_networks_are_made_without_memory():
    with torch.device("meta"):
        backbone = vit.build("vit_large_patch16", image_size=(1024, 1024))
        dense = vit.build(
            "vit_large_patch16", dense=DenseOptions(image_size=(1024, 512), window=14, rel_pos=True, keep_prefix=False)
        )
    assert backbone.positions.shape == (1, 64 * 64 + 1, 1024) and backbone.positions.is_meta
    assert dense.positions.shape == (1, 64 * 32, 1024) and dense.spec.image_size == (1024, 512)


def test_each_build_is_a_module_of_its_own(make):
    weights = make().net.state_dict()
    arch = make().arch
    first, second = (vit.assemble(arch, vit.spec_of(arch), weights) for _ in range(2))
    with torch.no_grad():
        first.positions.add_(1)
    assert torch.equal(second.positions, weights["pos_embed"])
    assert all(parameter.requires_grad for parameter in second.parameters())


def test_image_size_resizes_the_stored_positions(make):
    plain, resized = make(), make(DenseOptions(image_size=(48, 16)))
    assert resized.spec.image_size == (48, 16) and resized.net.pos_embed.shape == (1, 1 + 6 * 2, 24)
    images = pictures(48, 16)
    assert torch.allclose(plain(images)[0].tokens, resized(images)[0].tokens, atol=1e-6)


def test_image_size_of_the_same_number_of_patches_is_resized_too(make):
    plain, resized = make(image_size=(72, 32)), make(DenseOptions(image_size=(48, 48)), image_size=(72, 32))
    assert plain.net.pos_embed.shape == resized.net.pos_embed.shape
    assert not torch.equal(plain.net.pos_embed, resized.net.pos_embed)
    images = pictures(48, 48)
    assert torch.allclose(plain(images)[0].tokens, resized(images)[0].tokens, atol=1e-6)


def test_stored_positions_stay_at_their_size_and_are_resized_in_every_forward(make):
    options = DenseOptions(image_size=(48, 16), stored_positions=True, antialias=False)
    plain, dense = make(), make(options)
    assert dense.spec.image_size == (32, 32) and torch.equal(dense.net.pos_embed, plain.net.pos_embed)
    expected = copy.deepcopy(plain)
    expected.options = DenseOptions(antialias=False)
    assert torch.equal(dense(pictures(48, 16))[0].tokens, expected(pictures(48, 16))[0].tokens)


@pytest.mark.parametrize("facts", [{}, {"num_registers": 3}, {"num_registers": 3, "prefix_positions": False}])
def test_dropped_prefix_tokens_take_their_position_rows_along(make, facts):
    whole, bare = make(**facts), make(DenseOptions(keep_prefix=False), **facts)
    assert bare.spec.num_prefix_tokens == 0 and not {"net.cls_token", "net.reg_token"} & set(bare.state_dict())
    assert torch.equal(bare.net.pos_embed, whole.net.pos_embed[:, whole.arch.num_prefix_rows :])
    (features,) = bare(pictures(), (0,), norm=False)
    tokens = whole.net.patch_embed(pictures()).flatten(1, 2) + whole.net.pos_embed[:, whole.arch.num_prefix_rows :]
    assert torch.allclose(features.tokens, whole.net.blocks[0](tokens), atol=1e-6)


def test_drop_path_grows_linearly_over_the_blocks(make):
    backbone = make(DenseOptions(drop_path=0.2))
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in backbone.net.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2])
    images = pictures().repeat(32, 1, 1, 1)
    still = backbone(images)[0].tokens
    torch.manual_seed(0)
    moving = backbone.train()(images)[0].tokens
    assert not torch.allclose(still, moving)


def test_sincos_positions_are_those_of_mae(make):
    backbone = make()
    put_sincos(backbone.net, backbone.arch)
    assert not backbone.net.pos_embed[:, 0].any()
    assert backbone.net.pos_embed[0, 1 + 4, :].tolist() == pytest.approx(backbone.net.pos_embed[0, 5].tolist())
    # Row 1, column 0: x = 0, y = 1.
    quarter = 24 // 4
    assert torch.equal(backbone.net.pos_embed[0, 5, : 2 * quarter], torch.cat([torch.zeros(quarter), torch.ones(quarter)]))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (DenseOptions(window=2), "keep_prefix=False"),
        (DenseOptions(rel_pos=True), "keep_prefix=False"),
        (DenseOptions(image_size=(30, 32)), "not made of whole patches of 8"),
        (DenseOptions(window=2, keep_prefix=False, global_layers=(3,)), "use -3 to 2"),
    ],
)
def test_dense_options_that_cannot_be_are_refused(make, options, match):
    with pytest.raises(ValueError, match=match):
        make(options)


def test_position_rows_that_fit_no_grid_are_refused():
    with pytest.raises(ValueError, match="10 position rows are not 1 prefix rows and a grid of 2 x 4"):
        resample(torch.zeros(1, 10, 4), (2, 4), (3, 3), num_prefix=1)


@pytest.fixture(scope="module")
def hugging_face():
    """transformers' ViTMAE with a quarter of the patches kept, and its weights by timm's names."""
    from transformers.models.vit_mae import ViTMAEConfig, ViTMAEModel

    config = ViTMAEConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8
    )
    torch.manual_seed(0)
    model = ViTMAEModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    theirs = model.state_dict()
    state = {
        "cls_token": theirs["embeddings.cls_token"],
        "pos_embed": theirs["embeddings.position_embeddings"],
        "patch_embed.proj.weight": theirs["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": theirs["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": theirs["layernorm.weight"],
        "norm.bias": theirs["layernorm.bias"],
    }
    names = {"layernorm_before": "norm1", "attention.o_proj": "attn.proj", "layernorm_after": "norm2"}
    names |= {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    for block in range(2):
        for kind in ("weight", "bias"):
            qkv = [theirs[f"layers.{block}.attention.{part}_proj.{kind}"] for part in "qkv"]
            state[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(qkv)
            for old, new in names.items():
                state[f"blocks.{block}.{new}.{kind}"] = theirs[f"layers.{block}.{old}.{kind}"]
    return model, state


def test_kept_patches_give_what_transformers_vitmae_gives(hugging_face, tiny_arch):
    model, state = hugging_face
    arch = tiny_arch.model_copy(update={"embed_dim": 32, "depth": 2, "mlp_dim": 64, "norm_eps": model.config.layer_norm_eps})
    backbone = vit.assemble(arch, vit.spec_of(arch), state).eval()
    noise = torch.rand(2, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = model(pictures(), noise=noise).last_hidden_state
        ours = backbone.encode_kept(pictures(), noise.argsort(1)[:, :4])
    assert torch.allclose(ours, theirs, atol=1e-5), (ours - theirs).abs().max()
