"""`timm:NAME`: what stands in for a network of timm's gives its tokens; a network with other parts is refused by name."""

from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from backbones import hub
from backbones.source import open_source
from mae_bench.core.errors import ConfigError

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {"embed_dim": 128, "depth": 2, "num_heads": 2, "img_size": 48}
CARRIED = {
    "vit_base_patch16_224": {},
    "vit_base_patch16_siglip_224": {},
    "vit_base_patch16_clip_quickgelu_224": {},
    "vit_base_patch32_clip_224": {"img_size": 96},
    "vit_giant_patch14_dinov2": {"img_size": 56},
    "vit_base_patch14_reg4_dinov2": {"img_size": 56},
    "vit_base_patch16_plus_clip_240": {},
    "vit_medium_patch16_gap_256": {"num_heads": 4},
    "vit_little_patch16_reg4_gap_256": {"num_heads": 4},
    "deit_base_distilled_patch16_224": {},
    "deit3_small_patch16_224": {},
    "beit_base_patch16_224": {},
    "beitv2_base_patch16_224": {},
    "eva02_tiny_patch14_224": {"img_size": 56},
    "eva02_base_patch14_224": {"img_size": 56},
    "eva_large_patch14_196": {"img_size": 56},
    "vit_base_patch16_dinov3": {},
    "vit_small_plus_patch16_dinov3_qkvb": {},
}
REFUSED = {
    "vit_relpos_small_patch16_224": "is a VisionTransformerRelPos, which is not supported",
    "samvit_base_patch16": "is a VisionTransformerSAM",
    "vit_small_r26_s32_224": "a convolutional stem",
    "vit_small_patch16_18x2_224": "not supported",
    "vit_base_patch16_rpn_224": "blocks.0 is ResPostBlock",
    "vit_base_patch16_xp_224": "not supported",
    "vit_small_patch16_rope_224": "not supported",
    "vit_base_patch16_rope_reg1_gap_256": "not supported",
    "vit_pe_core_tiny_patch16_384": "not supported",
    "beit3_base_patch16_224": "norms inside attention or MLP",
    "vit_dwee_patch16_reg1_gap_256": "not supported",
}


@pytest.mark.parametrize("name", CARRIED)
def test_C21_tokens_are_those_of_timm_after_every_block(name, monkeypatch, tmp_path):
    """Narrow and short networks of timm's own builders, through the whole way of `timm:NAME` but for the download."""
    make, sizes = timm.create_model, {**SMALL, **CARRIED[name]}
    monkeypatch.setattr(timm, "create_model", lambda wanted: make(wanted, **sizes))
    monkeypatch.setattr(hub, "hf_hub_download", lambda repository, file: str(tmp_path / "model.safetensors"))
    torch.manual_seed(0)
    net: Any = make(name, **sizes).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    safetensors.torch.save_file(net.state_dict(), tmp_path / "model.safetensors")
    source = open_source(f"timm:{name}")
    assert source.spec.mean == net.pretrained_cfg["mean"] and source.spec.std == net.pretrained_cfg["std"]
    images = torch.randn(2, 3, *source.spec.image_size)
    found: list[torch.Tensor] = []
    for block in net.blocks:
        block.register_forward_hook(lambda _, __, out: found.append(out))
    with torch.no_grad():
        net.forward_features(images)
        ours = source.build().eval()(images, (0, 1), norm=False)
    assert len(found) == 2
    assert max(float((one.tokens - two).abs().max()) for one, two in zip(ours, found, strict=True)) <= 1e-5


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_with_other_parts_is_refused_before_anything_is_fetched(name, monkeypatch):
    monkeypatch.setattr(hub, "hf_hub_download", lambda *args: pytest.fail("fetched"))
    with pytest.raises(ConfigError, match=REFUSED[name]) as caught:
        open_source(f"timm:{name}")
    message = str(caught.value)
    assert message.startswith(f"timm:{name} ") and "\n" not in message and len(message) < 400


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda net: setattr(net.blocks[1].norm2, "eps", 1e-3), "blocks.1.norm2 is LayerNorm"),
        (lambda net: setattr(net.blocks[1].mlp, "act", torch.nn.ReLU()), "blocks.1.mlp.act is ReLU"),
        (lambda net: setattr(net.blocks[1].attn, "num_heads", 4), "blocks.1.attn is Attention"),
        (lambda net: setattr(net.blocks[1], "ls1", torch.nn.Hardtanh()), "blocks.1.ls1 is Hardtanh"),
    ],
)
def test_one_part_that_differs_is_found(change, match, monkeypatch):
    make = timm.create_model

    def changed(name):
        net = make(name, **SMALL)
        change(net)
        return net

    monkeypatch.setattr(timm, "create_model", changed)
    with pytest.raises(ConfigError, match=match):
        hub.timm_network("vit_base_patch16_224")
