"""What is written for timm, transformers and MAE loads in their own code, strictly, and gives the same features."""

from functools import partial
from typing import Any, cast

import pytest
import safetensors.torch
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from backbones.eva import EvaArch
from backbones.export import export
from backbones.exports import timm as to_timm
from backbones.save import save_backbone
from backbones.source import open_source
from backbones.vit import make_net
from backbones.zoo import eva
from mae_bench.core.errors import InputError
from tests.backbones.conftest import shaken
from tests.backbones.export_samples import BEIT, CLIP, DEIT, DINOV2, GATED, PLAIN, REGISTERS, SHARED, SIGLIP, ours, pictures, same

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("facts", [PLAIN, REGISTERS, GATED, CLIP, {**PLAIN, "qk_norm": True, "final_norm": False}], ids=str)
def test_timm_takes_plain_networks_strictly(source, tmp_path, facts):
    opened = source(**facts)
    export(opened, tmp_path / "out.safetensors", "timm")
    arch = cast(Any, opened.arch)
    net = make_net(arch)
    assert type(net) is VisionTransformer
    net.load_state_dict(safetensors.torch.load_file(tmp_path / "out.safetensors"), strict=True)
    with torch.no_grad():
        same(net.eval().forward_features(pictures(40, 24)), ours(opened, size=(40, 24)).tokens)


def test_timm_create_model_takes_the_file(tmp_path):
    opened = open_source("random:vit_tiny_patch16")
    export(opened, tmp_path / "tiny.safetensors", "timm")
    net = timm.create_model("vit_tiny_patch16_224", checkpoint_path=str(tmp_path / "tiny.safetensors"), num_classes=0)
    with torch.no_grad():
        same(cast(Any, net.eval()).forward_features(pictures(224, 224)), ours(opened, size=(224, 224)).tokens)


@pytest.mark.parametrize(
    ("variant", "name"), [("dinov3_small_patch16", "vit_small_patch16_dinov3"), ("eva02_tiny_patch14", "eva02_tiny_patch14_224")]
)
def test_timms_eva_takes_networks_with_rotary_positions(tmp_path, variant, name):
    opened = open_source(f"random:{variant}")
    export(opened, tmp_path / "out.safetensors", "timm")
    side = opened.spec.image_size[0]
    net: Any = timm.create_model(name, num_classes=0, global_pool="", use_fc_norm=False, img_size=side).eval()
    net.load_state_dict(safetensors.torch.load_file(tmp_path / "out.safetensors"), strict=True)
    with torch.no_grad():
        same(net.forward_features(pictures(side, side)), ours(opened, size=(side, side)).tokens)
    again = open_source(str(tmp_path / "out.safetensors"))
    assert again.arch == opened.arch and again.spec.mean == opened.spec.mean
    assert all(torch.equal(tensor, again.weights()[key]) for key, tensor in opened.weights().items())
    with pytest.raises(InputError, match="rotary positions; choose --to timm"):
        export(opened, tmp_path / "out.pth", "mae")


@pytest.mark.parametrize("facts", [BEIT, SHARED, {**BEIT, "qkv_bias": False, "layer_scale": False, "positions": True}], ids=str)
def test_timms_beit_takes_networks_with_relative_tables(source, tmp_path, facts):
    from timm.models.beit import Beit

    opened = source(zero_key_bias=facts.get("qkv_bias", True), **facts)
    layout = export(opened, tmp_path / "out.safetensors", "timm")
    assert str(opened.spec.mean) in layout.how and "eps=1e-06" in layout.how
    net = Beit(**to_timm.beit_arguments(cast(Any, opened.arch)), norm_layer=cast(Any, partial(nn.LayerNorm, eps=1e-6)))
    net.load_state_dict(safetensors.torch.load_file(tmp_path / "out.safetensors"), strict=True)
    with torch.no_grad():
        same(net.eval().forward_features(pictures()), ours(opened).tokens)


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        (PLAIN, "ViTModel"),
        ({**PLAIN, "qkv_bias": False, "prefix_positions": False, "mlp": "gelu_tanh", "norm_eps": 1e-12}, "ViTModel"),
        (DINOV2, "Dinov2Model"),
        (GATED, "Dinov2Model"),
        (REGISTERS, "Dinov2WithRegistersModel"),
        (BEIT, "BeitModel"),
        (SHARED, "BeitModel"),
        ({**BEIT, "positions": True, "layer_scale": False}, "BeitModel"),
        (CLIP, "CLIPVisionModel"),
        (DEIT, "DeiTModel"),
        (SIGLIP, "SiglipVisionModel"),
        ({**PLAIN, "image_size": (32, 48)}, "ViTModel"),
        ({**DEIT, "image_size": (48, 32), "qkv_bias": False}, "DeiTModel"),
    ],
    ids=str,
)
def test_transformers_opens_the_folder_as_the_right_model(source, tmp_path, facts, kind):
    transformers = pytest.importorskip("transformers")
    opened = source(zero_key_bias=kind == "BeitModel", **facts)
    layout = export(opened, tmp_path / "out", "hf")
    assert kind in layout.how
    model, told = transformers.AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(model).__name__ == kind
    assert not told["unexpected_keys"] and not told["mismatched_keys"]
    assert all(name.startswith("pooler.") for name in told["missing_keys"]), told["missing_keys"]
    size = facts.get("image_size", (32, 32))
    with torch.no_grad():
        found = model.eval()(pictures(*size)).last_hidden_state
    same(found, ours(opened, norm=kind != "CLIPVisionModel", size=size).tokens)
    if kind == "CLIPVisionModel":
        with torch.no_grad():
            same(model(pictures()).pooler_output, ours(opened).tokens[:, 0])


DINOV3 = {"embed_dim": 128, "depth": 2, "num_heads": 2, "patch_size": 8, "mlp_dim": 256, "num_registers": 4, "positions": False}
DINOV3 |= {"prefix_positions": False, "layer_scale": True, "rope": "dinov3", "norm_eps": 1e-5, "image_size": (32, 32)}


@pytest.mark.parametrize("facts", [{}, {"qkv_bias": False}, {"mlp": "swiglu", "mlp_dim": 2 * 192}], ids=str)
def test_transformers_opens_dinov3_strictly_and_it_comes_back_bit_for_bit(tmp_path, facts):
    transformers = pytest.importorskip("transformers")
    arch = EvaArch(**{**DINOV3, **facts})
    backbone = eva.assemble(arch, eva.spec_of(arch), shaken(eva.initial_weights(arch, 0)))
    save_backbone(tmp_path / "here" / "model.safetensors", backbone, method="dinov3", pretrain_data="scenes")
    opened = open_source(str(tmp_path / "here"))
    layout = export(opened, tmp_path / "out", "hf")
    assert "DINOv3ViTModel" in layout.how
    model, told = transformers.AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(model).__name__ == "DINOv3ViTModel" and not any(told[key] for key in told), told
    for size in ((32, 32), (24, 48)):
        with torch.no_grad():
            same(model.eval()(pictures(*size)).last_hidden_state, ours(opened, size=size).tokens)
    again = open_source(str(tmp_path / "out"))
    assert again.arch == opened.arch and again.weights().keys() == opened.weights().keys()
    assert all(torch.equal(tensor, again.weights()[key]) for key, tensor in opened.weights().items())


def test_transformers_has_no_model_for_eva_02(tmp_path):
    with pytest.raises(InputError, match=r"it has rotary positions of EVA-02's kind and absolute positions .*choose --to timm"):
        export(open_source("random:eva02_tiny_patch14"), tmp_path / "out", "hf")


def test_transformers_processor_normalises_as_the_spec_says(source, tmp_path):
    import numpy as np

    transformers = pytest.importorskip("transformers")
    opened = source(**PLAIN)
    export(opened, tmp_path / "out", "hf")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    found = processor(image, return_tensors="pt")["pixel_values"][0]
    mean, std = (torch.tensor(triple).view(3, 1, 1) for triple in (opened.spec.mean, opened.spec.std))
    assert torch.allclose(found, (torch.from_numpy(image).permute(2, 0, 1) / 255 - mean) / std, atol=1e-5)


def test_mae_files_have_the_official_layout(source, tmp_path):
    """Read by timm's own filter of official files into timm's network, strictly."""
    from timm.models.vision_transformer import checkpoint_filter_fn

    opened = source(**PLAIN)
    export(opened, tmp_path / "out.pth", "mae")
    content = torch.load(tmp_path / "out.pth", weights_only=True)
    assert set(content) == {"model"} and content["model"]["blocks.0.attn.qkv.weight"].shape == (384, 128)
    net = VisionTransformer(32, 8, num_classes=0, global_pool="token", embed_dim=128, depth=3, num_heads=2, mlp_ratio=2)
    net.load_state_dict(checkpoint_filter_fn(content, net), strict=True)
    with torch.no_grad():
        same(net.eval().forward_features(pictures()), ours(opened).tokens)
