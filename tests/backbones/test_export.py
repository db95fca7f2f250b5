"""What is written for other programs loads in their own code, strictly, and gives the same features."""

import os
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import safetensors.torch
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from backbones.contract import DenseOptions
from backbones.export import export
from backbones.exports import timm as to_timm
from backbones.save import save_backbone
from backbones.source import Source, open_source
from backbones.vit import TimmViT, make_net
from backbones.zoo import vit
from mae_bench.core import find
from mae_bench.core.errors import ConfigError, InputError

PLAIN = {"embed_dim": 128, "num_heads": 2, "mlp_dim": 256}
BEIT = {**PLAIN, "relative": "table", "positions": False, "layer_scale": True}
SHARED = {**BEIT, "relative": "shared_table"}
DINOV2 = {**PLAIN, "layer_scale": True}
REGISTERS = {**DINOV2, "num_registers": 3, "prefix_positions": False}
GATED = {**DINOV2, "mlp": "swiglu", "mlp_dim": 2 * 344}
CLIP = {**PLAIN, "pre_norm": True, "patch_bias": False, "mlp": "quick_gelu", "norm_eps": 1e-5}
VITDET = {**PLAIN, "class_token": False, "relative": "decomposed", "window": 2, "global_layers": (1,), "final_norm": False}
SCALED = 1e-5
"""Largest difference of features that are of the size of one."""


@pytest.fixture
def source(tmp_path, make):
    """A small network with the given facts, as a source."""

    def build(zero_key_bias=False, **facts) -> Source:
        backbone = make(**facts)
        if zero_key_bias:
            for block in backbone.net.blocks:
                width = facts["embed_dim"]
                block.attn.qkv.bias.data[width : 2 * width] = 0
        save_backbone(tmp_path / "network" / "model.safetensors", backbone, method="mae", pretrain_data="scenes")
        return open_source(str(tmp_path / "network"))

    return build


def pictures(height=32, width=32):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def ours(source: Source, *, norm=True, size=(32, 32)):
    with torch.no_grad():
        return source.build().eval()(pictures(*size), norm=norm)[0]


def same(found, expected):
    scale = expected.abs().max()
    assert found.shape == expected.shape and scale > 0.1
    assert (found - expected).abs().max() <= SCALED * max(scale, 1)


@pytest.mark.parametrize("name", find.names("backbones.exports"))
def test_every_target_has_the_names_of_one(name):
    module = find.load("backbones.exports", name, what="target")
    assert isinstance(module.NAME, str) and isinstance(module.ENDINGS, tuple)
    assert callable(module.layout) and callable(module.write)


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
    with torch.no_grad():
        found = model.eval()(pictures()).last_hidden_state
    same(found, ours(opened, norm=kind != "CLIPVisionModel").tokens)
    if kind == "CLIPVisionModel":
        with torch.no_grad():
            same(model(pictures()).pooler_output, ours(opened).tokens[:, 0])


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


@pytest.mark.edge
@pytest.mark.parametrize("ending", [".pkl", ".pth"])
@pytest.mark.parametrize("facts", [PLAIN, VITDET], ids=str)
def test_detectron2s_own_checkpointer_and_vit_take_the_file(source, tmp_path, facts, ending):
    modeling = pytest.importorskip("detectron2.modeling.backbone.vit")
    from detectron2.checkpoint import DetectionCheckpointer

    opened = source(**facts)
    layout = export(opened, tmp_path / f"out{ending}", "detectron2")
    windowed = facts is VITDET
    net = modeling.ViT(
        img_size=32,
        patch_size=8,
        embed_dim=128,
        depth=3,
        num_heads=2,
        mlp_ratio=2.0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=windowed,
        window_size=2 if windowed else 0,
        window_block_indexes=(0, 2) if windowed else (),
        pretrain_img_size=32,
        pretrain_use_cls_token=not windowed,
    )
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.net = net
    DetectionCheckpointer(model).load(str(tmp_path / f"out{ending}"))
    assert model.state_dict().keys() == layout.tensors.keys()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in layout.tensors.items())
    assert ("cls_token" in " ".join(layout.notes)) == (facts is PLAIN)
    options = DenseOptions(keep_prefix=False, stored_positions=True, antialias=False)
    back = open_source(f"{tmp_path / f'out{ending}'}#num_heads=2")
    with torch.no_grad():
        expected = net.eval()(pictures(40, 24))["last_feat"]
        for each in (opened, back):
            same(expected, each.build(options).eval()(pictures(40, 24), norm=False)[0].map)


def mmseg_backbone(kind, **more):
    pytest.importorskip("mmseg")
    from mmseg.models import backbones

    facts = {"img_size": 32, "patch_size": 8, "num_layers": 3, "num_heads": 2, "mlp_ratio": 2, "final_norm": True, **more}
    return getattr(backbones, kind)(embed_dims=128, norm_cfg={"type": "LN", "eps": 1e-6}, **facts)


def inside(path):
    state = torch.load(path, weights_only=True)["state_dict"]
    assert all(name.startswith("backbone.") for name in state)
    return {name.removeprefix("backbone."): tensor for name, tensor in state.items()}


@pytest.mark.edge
@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        (PLAIN, "MAE"),
        ({**DINOV2, "relative": "table"}, "MAE"),
        (BEIT, "BEiT"),
        (SHARED, "BEiT"),
        ({**BEIT, "qkv_bias": False, "layer_scale": False}, "BEiT"),
    ],
    ids=str,
)
def test_mmsegs_mae_and_beit_take_the_file(source, tmp_path, facts, kind):
    qv_bias = {"qv_bias": facts.get("qkv_bias", True)} if kind == "BEiT" else {}
    net = mmseg_backbone(kind, **qv_bias)
    opened = source(zero_key_bias=kind == "BEiT" and qv_bias["qv_bias"], **facts)
    layout = export(opened, tmp_path / "out.pth", "mmseg")
    assert f"type='{kind}'" in layout.how
    told = net.load_state_dict(inside(tmp_path / "out.pth"), strict=False)
    made_there = "relative_position_index" if "relative" in facts else ("relative_position_index", "bias_table")
    assert not told.unexpected_keys and all(name.endswith(made_there) for name in told.missing_keys)
    net.eval()  # gives nothing back in mmseg
    with torch.no_grad():
        same(net(pictures())[0], ours(opened).map)


@pytest.mark.edge
@pytest.mark.parametrize("facts", [PLAIN, {**PLAIN, "pre_norm": True, "patch_bias": False}], ids=str)
def test_mmsegs_vit_takes_the_file_strictly(source, tmp_path, facts):
    norm = {"pre_norm": "pre_norm" in facts, "patch_bias": "pre_norm" not in facts}
    net = mmseg_backbone("VisionTransformer", **norm)
    opened = source(**facts)
    export(opened, tmp_path / "out.pth", "mmseg_vit")
    net.load_state_dict(inside(tmp_path / "out.pth"), strict=True)
    net.eval()  # gives nothing back in mmseg
    with torch.no_grad():
        same(net(pictures())[0], ours(opened).map)


REFUSED = [
    ("mae", REGISTERS, "MAE's layout cannot hold this network exactly: it has register tokens and"),
    ("mae", DINOV2, "LayerScale"),
    ("mae", BEIT, "relative position tables"),
    ("mae", CLIP, "a norm before the blocks"),
    ("detectron2", REGISTERS, "Detectron2's ViT cannot hold .* register tokens"),
    ("detectron2", GATED, "SwiGLU"),
    ("detectron2", {**PLAIN, "image_size": (32, 48)}, "a rectangle"),
    ("mmseg", REGISTERS, "register tokens"),
    ("mmseg", {**PLAIN, "qk_norm": True}, "norms of queries and keys"),
    ("mmseg", {**PLAIN, "mlp_dim": 200}, "no whole multiple"),
    ("mmseg_vit", DINOV2, "LayerScale"),
    ("hf", {**PLAIN, "qk_norm": True}, "ViTModel cannot hold"),
    ("hf", VITDET, "windowed attention"),
    ("hf", {**GATED, "mlp_dim": 200}, "gated MLP of 200"),
    ("hf", {**BEIT, "num_registers": 1}, "register tokens"),
    ("timm", VITDET, "decomposed relative positions and windowed attention"),
    ("timm", {**BEIT, "mlp": "quick_gelu"}, "an approximated GELU"),
]


@pytest.mark.parametrize(("to", "facts", "match"), REFUSED, ids=str)
def test_what_a_target_cannot_hold_is_refused_by_name(source, tmp_path, to, facts, match):
    endings = find.load("backbones.exports", to, what="target").ENDINGS
    with pytest.raises(InputError, match=match) as caught:
        export(source(**facts), tmp_path / f"out{endings[0] if endings else ''}", to)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["network"]


@pytest.mark.parametrize(("to", "ending"), [("timm", ".safetensors"), ("hf", ""), ("mmseg", ".pth")])
def test_biases_of_keys_are_never_dropped(source, tmp_path, to, ending):
    with pytest.raises(InputError, match="has biases for keys"):
        export(source(**BEIT), tmp_path / f"out{ending}", to)


def test_a_part_added_to_networks_later_is_refused_until_a_target_knows_it():
    from backbones.arch import VitArch
    from backbones.exports import refuse

    class Later(VitArch):
        rope: bool = False

    plain = Later(embed_dim=8, depth=1, num_heads=1, patch_size=8, mlp_dim=8)
    refuse(plain, "x", ())
    with pytest.raises(InputError, match="rope=True"):
        refuse(plain.override({"rope": True}), "x", ())


@pytest.mark.parametrize(
    ("to", "name", "match"),
    [
        ("timm", "x.pth", r"ends in \.safetensors"),
        ("detectron2", "x", r"ends in \.pkl or \.pth"),
        ("hf", "x.pth", "writes a folder"),
        ("onnx", "x.onnx", "--to onnx: "),
        ("timm", "there.safetensors", "is there already"),
        ("hf", "folder", "is there already"),
    ],
)
def test_a_wrong_place_is_refused_before_anything_is_read(source, tmp_path, to, name, match):
    (tmp_path / "there.safetensors").write_bytes(b"mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=match):
        export(source(**PLAIN), tmp_path / name, to)
    assert (tmp_path / "there.safetensors").read_bytes() == b"mine"


def test_overwriting_replaces_a_file_and_an_own_folder_and_spares_others(source, tmp_path):
    opened = source(**PLAIN)
    (tmp_path / "x.safetensors").write_bytes(b"old")
    export(opened, tmp_path / "x.safetensors", "timm", overwrite=True)
    assert (tmp_path / "x.safetensors").stat().st_size > 1000
    export(opened, tmp_path / "deep" / "hf", "hf")
    (tmp_path / "deep" / "hf" / "config.json").write_text("{}")
    export(opened, tmp_path / "deep" / "hf", "hf", overwrite=True)
    assert (tmp_path / "deep" / "hf" / "config.json").stat().st_size > 100
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["hf"]
    (tmp_path / "deep" / "hf" / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds thesis\.tex"):
        export(opened, tmp_path / "deep" / "hf", "hf", overwrite=True)
    assert (tmp_path / "deep" / "hf" / "thesis.tex").read_text() == "mine"
    with pytest.raises(ConfigError, match="is a folder"):
        export(opened, tmp_path / "folder.safetensors", "timm", overwrite=not (tmp_path / "folder.safetensors").mkdir())


@pytest.mark.parametrize(("to", "name"), [("timm", "x.safetensors"), ("hf", "x"), ("mae", "x.pth")])
def test_a_writing_that_fails_leaves_nothing(source, tmp_path, monkeypatch, to, name):
    opened = source(**PLAIN)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Exception, match="No space left") as caught:
        export(opened, tmp_path / "place" / name, to)
    assert getattr(caught.value, "exit_code", None) == 4
    assert list((tmp_path / "place").iterdir()) == []


def weights(opened: Source):
    return vit.weights_of(opened.build())


ROUND = [
    ("timm", PLAIN, ".safetensors"),
    ("timm", REGISTERS, ".safetensors"),
    ("mae", PLAIN, ".pth"),
    ("hf", PLAIN, ""),
    ("hf", DINOV2, ""),
    ("hf", REGISTERS, ""),
    ("hf", CLIP, ""),
    ("hf", BEIT, ""),
    ("hf", GATED, ""),
    ("hf", SHARED, ""),
    ("timm", BEIT, ".safetensors"),
    ("detectron2", VITDET, ".pkl"),
    ("detectron2", VITDET, ".pth"),
    ("mmseg", BEIT, ".pth"),
    ("mmseg", {**DINOV2, "relative": "table"}, ".pth"),
    ("mmseg_vit", PLAIN, ".pth"),
]


@pytest.mark.parametrize(("to", "facts", "ending"), ROUND, ids=str)
def test_what_was_written_comes_back_bit_for_bit(source, tmp_path, to, facts, ending):
    opened = source(zero_key_bias="relative" in facts and not facts.get("positions", True), **facts)
    export(opened, tmp_path / f"back{ending}", to)
    again = open_source(str(tmp_path / f"back{ending}"))
    before, after = weights(opened), weights(again)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    with torch.no_grad():
        first, second = (cast(TimmViT, one.build().eval())(pictures())[0].tokens for one in (opened, again))
    if cast(Any, again.arch).norm_eps == cast(Any, opened.arch).norm_eps:
        assert torch.equal(first, second)


def test_the_pickle_holds_arrays_and_nothing_else(source, tmp_path):
    import pickletools

    export(source(**PLAIN), tmp_path / "x.pkl", "detectron2")
    content = Path(tmp_path / "x.pkl").read_bytes()
    named = [str(argument) for code, argument, _ in pickletools.genops(content) if code.name in ("GLOBAL", "SHORT_BINUNICODE")]
    assert {name for name in named if "numpy" in name} == {"numpy._core.multiarray", "numpy"}
    assert not any(name in ("os", "posix", "builtins", "torch") for name in named)
