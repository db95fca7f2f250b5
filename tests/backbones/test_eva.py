"""EVA-02 and DINOv3 behind the contract: timm's own networks on the same weights, dense options, saving."""

from functools import partial
from pathlib import Path

import pytest
import torch
from timm.layers.norm import LayerNorm
from timm.models.eva import Eva

from backbones.contract import DenseOptions
from backbones.eva import EvaArch
from backbones.save import save_backbone
from backbones.source import open_source
from backbones.zoo import eva
from tests.backbones.conftest import shaken

DINOV3 = {
    "num_registers": 4,
    "positions": False,
    "prefix_positions": False,
    "layer_scale": True,
    "qkv_bias": False,
    "rope": "dinov3",
    "norm_eps": 1e-5,
}
EVA02 = {"mlp": "swiglu", "mlp_dim": 96, "rope": "eva02", "rope_grid": (3, 3)}
SPLIT = {**EVA02, "mlp": "swiglu_split", "mlp_norm": True, "split_qkv": True}
FAMILIES = {"dinov3": DINOV3, "eva02": EVA02, "eva02 split": SPLIT}
# What timm's own models of these names are made with (timm, models/eva.py), shrunk.
TIMM = {
    "dinov3": {
        "qkv_bias": False,
        "init_values": 1e-5,
        "rope_type": "dinov3",
        "rope_temperature": 100,
        "rope_rotate_half": True,
        "use_rot_pos_emb": True,
        "use_abs_pos_emb": False,
        "num_reg_tokens": 4,
        "norm_layer": partial(LayerNorm, eps=1e-5),
        "mlp_ratio": 2,
    },
    "eva02": {"mlp_ratio": 48.5 / 64, "swiglu_mlp": True, "use_rot_pos_emb": True, "ref_feat_shape": (3, 3)},
    "eva02 split": {
        "qkv_fused": False,
        "mlp_ratio": 48.5 / 64,
        "swiglu_mlp": True,
        "scale_mlp": True,
        "use_rot_pos_emb": True,
        "ref_feat_shape": (3, 3),
    },
}


def arch_of(**facts):
    plain = {"embed_dim": 64, "depth": 3, "num_heads": 2, "patch_size": 8, "mlp_dim": 128, "image_size": (32, 32)}
    return EvaArch(**{**plain, **facts})


def make(dense=None, **facts):
    arch = arch_of(**facts)
    return eva.assemble(arch, eva.spec_of(arch), shaken(eva.initial_weights(arch, 0)), dense).eval()


def pictures(height=32, width=32):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(32, 32), (24, 56)])
@pytest.mark.parametrize("family", FAMILIES)
def test_timms_own_network_gives_the_same_tokens_after_every_block(family, size):
    ours = make(**FAMILIES[family])
    theirs = Eva(
        img_size=32,
        patch_size=8,
        embed_dim=64,
        depth=3,
        num_heads=2,
        num_classes=0,
        use_post_transformer_norm=True,
        use_fc_norm=False,
        dynamic_img_size=True,
        **TIMM[family],
    ).eval()
    theirs.load_state_dict(ours.net.state_dict())
    seen = []
    for block in theirs.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        final = theirs.forward_features(pictures(*size))
        found = ours(pictures(*size), (0, 1, 2), norm=False)
        (last,) = ours(pictures(*size))
    assert torch.equal(last.tokens, final) and final.std() > 0.1
    assert all(torch.equal(features.tokens, tokens) for features, tokens in zip(found, seen, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_rotary_positions_matter(family):
    turned = make(**FAMILIES[family])
    still = make(**{**FAMILIES[family], "rope": "none", "rope_grid": None})
    with torch.no_grad():
        assert (turned(pictures())[0].tokens - still(pictures())[0].tokens).abs().max() > 1e-3


@pytest.mark.parametrize(
    "options", [DenseOptions(window=2), DenseOptions(rel_pos=True, keep_prefix=False), DenseOptions(relative_table=True)], ids=str
)
def test_windows_and_relative_positions_are_refused_by_name(options):
    with pytest.raises(ValueError, match=r"^(window|rel_pos|relative_table)=.*neither windows nor relative positions$"):
        make(options, **EVA02)


@pytest.mark.parametrize("family", FAMILIES)
def test_image_size_resizes_the_stored_positions(family):
    plain, resized = make(**FAMILIES[family]), make(DenseOptions(image_size=(48, 16)), **FAMILIES[family])
    assert resized.spec.image_size == (48, 16)
    with torch.no_grad():
        assert torch.allclose(plain(pictures(48, 16))[0].tokens, resized(pictures(48, 16))[0].tokens, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_prefix_tokens_the_patches_are_turned_as_before(family):
    """As the network that never had prefix tokens, with the rows of the patches."""
    whole = make(**FAMILIES[family])
    bare = make(DenseOptions(keep_prefix=False), **FAMILIES[family])
    assert bare.spec.num_prefix_tokens == 0 and bare(pictures())[0].tokens.shape == (2, 16, 64)
    rope = whole.net.rope.get_embed(shape=[4, 4])
    block = whole.net.blocks[0]
    block.attn.num_prefix_tokens = 0
    with torch.no_grad():
        tokens = whole._patches(pictures())[0]
        assert torch.equal(bare(pictures(), (0,), norm=False)[0].tokens, block(tokens, rope=rope))


def test_layer_scale_can_be_added_and_blocks_computed_again():
    options = DenseOptions(layer_scale=0.5, checkpointing=True)
    scaled = make(options, **EVA02).train()
    assert torch.equal(scaled.net.blocks[1].gamma_2, torch.full((64,), 0.5))
    plain = make(DenseOptions(layer_scale=0.5), **EVA02).train()
    for backbone in (scaled, plain):
        backbone(pictures())[0].tokens.square().sum().backward()
    assert torch.equal(scaled.net.blocks[0].attn.qkv.weight.grad, plain.net.blocks[0].attn.qkv.weight.grad)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_network_comes_back(tmp_path: Path, family):
    backbone = make(**FAMILIES[family])
    save_backbone(tmp_path / "model.safetensors", backbone, method="dinov3", pretrain_data="scenes")
    source = open_source(str(tmp_path / "model.safetensors"))
    assert source.arch == backbone.arch and source.spec.method == "dinov3" and not source.ledger.notes
    with torch.no_grad():
        assert torch.equal(source.build().eval()(pictures(24, 40))[0].tokens, backbone(pictures(24, 40))[0].tokens)


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ({"num_heads": 32}, "multiple of 4"),
        ({"mlp_norm": True}, "swiglu_split"),
        ({"mlp": "swiglu_split"}, "use mlp=swiglu"),
        ({"rope": "none"}, "rope_grid belongs to rope=eva02"),
        ({"mlp_dim": 95}, "halved"),
        ({"num_heads": 5}, "cannot be shared by 5 heads"),
    ],
)
def test_architectures_that_cannot_be_are_refused(facts, match):
    with pytest.raises(ValueError, match=match):
        arch_of(**{**EVA02, **facts})


def test_the_zoo_has_timms_sizes():
    # Parameters of timm's models of these names without a head.
    counts = {"dinov3_small_patch16": 21_586_944, "dinov3_base_patch16": 85_641_216, "dinov3_large_patch16": 303_079_424}
    counts |= {"eva02_tiny_patch14": 5_502_144, "eva02_small_patch14": 21_621_120, "eva02_base_patch14": 85_758_720}
    for name, count in counts.items():
        arch = eva.VARIANTS[name]
        backbone = eva.empty(arch, eva.spec_of(arch))
        assert sum(parameter.numel() for parameter in backbone.parameters()) == count, name
        assert backbone.spec.name == name


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first, again, other = (eva.initial_weights(arch_of(**EVA02), seed) for seed in (4, 4, 5))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["blocks.0.attn.qkv.weight"], other["blocks.0.attn.qkv.weight"])
