"""Published architectures read from the names and shapes of their tensors: heads, sizes and parts are those of timm's models."""

from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch

from backbones.families import Family
from backbones.reading import RawCheckpoint
from backbones.zoo import Zoo
from mae_bench.core import find
from mae_bench.core.errors import InputError

pytestmark = pytest.mark.slow

# timm's name, and the family that reads the file.
MODELS = {
    "deit_small_patch16_224": "timm_vit",
    "deit_base_distilled_patch16_224": "timm_vit",
    "deit3_large_patch16_224": "timm_vit",
    "vit_huge_patch14_224": "timm_vit",
    "vit_small_patch14_dinov2": "timm_vit",
    "vit_base_patch14_reg4_dinov2": "timm_vit",
    "vit_base_patch16_clip_224": "timm_vit",
    "vit_base_patch16_siglip_224": "timm_vit",
    "vit_base_patch16_reg4_gap_256": "timm_vit",
    "vit_so400m_patch14_siglip_224": "timm_vit",
    "vit_giant_patch14_reg4_dinov2": "timm_vit",
    "beit_base_patch16_224": "beit",
    "beitv2_large_patch16_224": "beit",
    "eva02_tiny_patch14_224": "timm_eva",
    "eva02_base_patch14_448": "timm_eva",
    "eva02_base_patch16_clip_224": "timm_eva",
    "vit_small_patch16_dinov3": "timm_eva",
    "vit_large_patch16_dinov3_qkvb": "timm_eva",
    "vit_huge_plus_patch16_dinov3": "timm_eva",
}


@pytest.mark.parametrize("name", MODELS)
def test_timms_models_are_read_from_their_shapes(name):
    with torch.device("meta"):
        net: Any = timm.create_model(name, num_classes=5)
    raw = RawCheckpoint(Path(name), "0", net.state_dict())
    # Not through `identify`, which looks at numbers, and there are none.
    family = cast(Family, find.load("backbones.formats", MODELS[name], what="format"))
    assert family.recognise(raw) if MODELS[name] != "timm_vit" else True
    converted = family.convert(raw)
    arch: Any = converted.arch
    assert arch.num_heads == net.blocks[0].attn.num_heads
    assert arch.norm_eps == net.blocks[0].norm1.eps
    assert (arch.depth, arch.embed_dim, arch.num_prefix_tokens) == (
        len(net.blocks),
        net.embed_dim,
        1 if "beit" in name else net.num_prefix_tokens,
    )
    if arch.positions:
        assert arch.image_size == tuple(net.patch_embed.img_size)
    zoo = cast(Zoo, find.load("backbones.zoo", converted.zoo, what="family"))
    wanted = zoo.weights_of(zoo.empty(arch, converted.spec))
    assert {key: tensor.shape for key, tensor in wanted.items()} == {key: tensor.shape for key, tensor in converted.state.items()}


@pytest.mark.parametrize(
    "name", ["vit_pe_spatial_base_patch16_512", "vit_pe_core_tiny_patch16_384", "vit_pe_lang_large_patch14_448"]
)
def test_perception_encoders_are_not_taken_for_clip(name):
    with torch.device("meta"):
        net: Any = timm.create_model(name)
    raw = RawCheckpoint(Path(name), "0", net.state_dict())
    with pytest.raises(InputError, match="Perception Encoder"):
        cast(Family, find.load("backbones.formats", "timm_vit", what="format")).convert(raw)


def test_what_no_tensor_tells_is_noted():
    """RoPE-ViT with position embeddings has DeiT III's names, SigLIP 2 those of SigLIP."""
    notes = {}
    for name in ("vit_small_patch16_rope_ape_224", "vit_base_patch32_siglip_256"):
        with torch.device("meta"):
            net: Any = timm.create_model(name, num_classes=0)
        raw = RawCheckpoint(Path(name), "0", net.state_dict())
        notes[name] = " ".join(cast(Family, find.load("backbones.formats", "timm_vit", what="format")).convert(raw).notes)
    assert "no rotary positions are assumed" in notes["vit_small_patch16_rope_ape_224"]
    assert "GELU is assumed" in notes["vit_base_patch32_siglip_256"]
