"""Families of checkpoints: recognised by what is in them, converted with an account of every tensor."""

import argparse
import json
import random
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest
import safetensors.torch
import torch
from timm.models.vision_transformer import VisionTransformer

from backbones import reading
from backbones.arch import VitArch
from backbones.contract import DenseOptions
from backbones.families import Evidence, identify
from backbones.formats import suite
from backbones.positions import sincos_2d
from backbones.save import save_backbone
from backbones.source import open_source
from backbones.zoo import vit
from mae_bench.core import find
from mae_bench.core.errors import InputError

NOTHING = {"matched": 0, "converted": 0, "resized": 0, "dropped": 0, "new": 0, "missing": 0, "unexpected": 0}


def pictures(height=32, width=32):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mae_state(timm_state):
    """An official MAE file's encoder: fixed positions, a class token row of zeros."""
    return {**timm_state, "pos_embed": sincos_2d(128, (4, 4), num_prefix=1)}


@pytest.fixture
def decoder():
    names = ("mask_token", "decoder_embed.weight", "decoder_pos_embed", "decoder_blocks.0.norm1.weight", "decoder_pred.bias")
    return {name: torch.ones(1, 1, 4) for name in names}


def family(path):
    found = cast(ModuleType, identify(reading.read(Path(path))))
    return found.__name__.rpartition(".")[2]


def facts_of(source):
    return cast(VitArch, source.arch)


def weights(source, options=None):
    return vit.weights_of(source.build(options))


@pytest.mark.parametrize("name", find.names("backbones.formats"))
def test_every_format_has_the_names_of_a_family(name):
    module = find.load("backbones.formats", name, what="format")
    assert isinstance(module.NAME, str) and isinstance(module.EVIDENCE, Evidence)
    assert callable(module.recognise) and callable(module.convert)


def test_a_timm_file_is_taken_as_it_is_without_its_head(saved, timm_state):
    path = saved({**timm_state, "head.weight": torch.ones(10, 128), "head.bias": torch.ones(10)})
    source = open_source(path)
    assert family(path) == "timm_vit"
    assert source.ledger.summary() == {**NOTHING, "matched": 42, "dropped": 2}
    assert source.ledger.dropped == {"head.weight": "classification head", "head.bias": "classification head"}
    assert source.ledger.notes == (
        "2 heads are assumed: the file does not say how many",
        "ImageNet mean and std are assumed: the file does not say",
    )
    built = weights(source)
    assert all(torch.equal(built[name], tensor) for name, tensor in timm_state.items())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reg_tokens": 4, "no_embed_class": True, "init_values": 1e-5},
        {"reg_tokens": 4},
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
        {"no_embed_class": True},
        {"qk_norm": True, "num_heads": 4, "qkv_bias": False},
        {"mlp_ratio": 3.7362},
        {"patch_size": 14, "img_size": 56},
        {"global_pool": "avg"},
    ],
    ids=str,
)
def test_C21_timms_networks_come_back_with_the_same_features(saved, options):
    """LayerScale, registers, q/k norm and the rest are read from the shapes."""
    facts = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2, "num_classes": 5, **options}
    torch.manual_seed(0)
    net = VisionTransformer(**facts, dynamic_img_size=True).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    backbone = open_source(saved(net.state_dict())).build().eval()
    images = pictures(3 * facts["patch_size"], 2 * facts["patch_size"])
    with torch.no_grad():
        assert torch.equal(backbone(images)[0].tokens, net.forward_features(images))


def test_a_norm_after_the_pooling_goes_with_the_head(saved, timm_state):
    state = {name: tensor for name, tensor in timm_state.items() if not name.startswith("norm.")}
    source = open_source(saved({"model": {**state, "fc_norm.weight": torch.ones(128), "fc_norm.bias": torch.ones(128)}}))
    assert facts_of(source).final_norm is False and source.ledger.summary()["dropped"] == 2
    assert source.ledger.dropped["fc_norm.weight"] == "norm after pooling, part of the classification head"


def test_the_other_spelling_of_layer_scale_is_read(saved, timm_state):
    gammas = {f"blocks.{block}.gamma_{part}": torch.full((128,), 0.5) for block in range(3) for part in (1, 2)}
    source = open_source(saved({**timm_state, **gammas}))
    assert facts_of(source).layer_scale and source.ledger.summary()["converted"] == 6
    assert torch.equal(weights(source)["blocks.1.ls2.gamma"], torch.full((128,), 0.5))


def test_an_mae_encoder_is_known_by_its_positions(saved, mae_state, timm_state):
    assert family(saved({"model": mae_state})) == "mae" and family(saved(timm_state)) == "timm_vit"
    source = open_source(saved({"model": mae_state}))
    assert source.spec.method == "mae" and source.ledger.summary() == {**NOTHING, "matched": 42}


def test_an_mae_encoder_in_half_precision_is_known_too(saved, mae_state):
    assert family(saved({name: tensor.half() for name, tensor in mae_state.items()})) == "mae"


def test_positions_of_moco_v3_are_not_taken_for_maes(saved, mae_state):
    """The same table with its halves the other way round."""
    halves = mae_state["pos_embed"].chunk(2, dim=-1)
    assert family(saved({**mae_state, "pos_embed": torch.cat(halves[::-1], -1)})) == "mocov3"


def test_C13_the_decoder_is_dropped_and_counted(saved, mae_state, decoder):
    args = argparse.Namespace(mask_ratio=0.75)
    source = open_source(saved({"model": {**mae_state, **decoder}, "epoch": 799, "args": args}))
    assert source.ledger.summary() == {**NOTHING, "matched": 42, "dropped": 5 + 2}
    assert source.ledger.dropped["mask_token"] == "decoder of the pretraining"
    assert source.ledger.dropped["epoch"] == "beside the weights, which are under 'model'"


def test_C13_missing_tensors_are_listed_and_never_made_up(saved, mae_state, decoder):
    cut = {name: tensor for name, tensor in mae_state.items() if not name.startswith("blocks.1.")}
    with pytest.raises(InputError, match=r"12 missing tensors \(blocks\.1\.norm1\.weight, .*, \.\.\.\)") as caught:
        open_source(saved({**cut, **decoder}))
    assert str(caught.value).count("blocks.1.") == 5
    with pytest.raises(InputError, match="1 missing tensors"):
        open_source(saved({name: tensor for name, tensor in mae_state.items() if name != "norm.bias"}))


def test_C13_tensors_nobody_knows_are_listed(saved, timm_state):
    with pytest.raises(InputError, match=r"1 unexpected tensors \(blocks\.0\.adapter\.weight\)"):
        open_source(saved({**timm_state, "blocks.0.adapter.weight": torch.ones(3)}))


def test_C14_weights_of_another_architecture_are_refused_with_both_shapes(tmp_path):
    """A header that says tiny over the tensors of small."""
    tiny, small = (vit.VARIANTS[name] for name in ("vit_tiny_patch16", "vit_small_patch16"))
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(vit.initial_weights(small, 0), path, suite.header("vit", tiny, vit.spec_of(tiny)))
    with pytest.raises(InputError) as caught:
        open_source(str(path))
    message = str(caught.value)
    assert "(1, 1, 384)" in message and "vit_tiny_patch16 needs (1, 1, 192)" in message
    assert message.endswith("looks like vit_small_patch16")


def test_C14_one_tensor_of_another_shape_is_refused(saved, timm_state):
    timm_state["blocks.2.mlp.fc2.weight"] = torch.ones(128, 7)
    with pytest.raises(
        InputError, match=r"blocks\.2\.mlp\.fc2\.weight is \(128, 7\), and .* needs \(128, 40\) \(1 tensors differ\)"
    ):
        open_source(saved(timm_state))


def test_C15_another_image_size_is_resized_and_said(saved, timm_state):
    source = open_source(saved(timm_state))
    options = DenseOptions(image_size=(64, 48))
    assert source.ledger_for(options).summary() == {**NOTHING, "matched": 41, "resized": 1}
    assert source.ledger_for(options).resized == ("pos_embed",)
    assert source.build(options).spec.image_size == (64, 48)
    assert source.ledger_for(DenseOptions()) == source.ledger


def test_C15_what_dense_options_leave_out_and_make_anew_is_said(saved, timm_state):
    source = open_source(saved(timm_state))
    options = DenseOptions(window=2, rel_pos=True, keep_prefix=False)
    ledger = source.ledger_for(options)
    assert ledger.summary() == {**NOTHING, "matched": 40, "resized": 1, "dropped": 1, "new": 6}
    assert ledger.dropped == {"cls_token": "prefix token, dropped by the dense options"}
    built = weights(source, options)
    assert set(ledger.new) == {name for name in built if "rel_pos" in name}
    assert not any(built[name].any() for name in ledger.new)


def test_C15_rows_that_are_no_square_are_refused(saved, timm_state):
    timm_state["pos_embed"] = torch.ones(1, 1 + 14, 128)
    with pytest.raises(InputError, match="15 position rows with 1 prefix tokens are no square grid"):
        open_source(saved(timm_state))


def test_C15_without_a_class_token_all_rows_are_patches(saved, timm_state):
    del timm_state["cls_token"]
    timm_state["pos_embed"] = timm_state["pos_embed"][:, 1:]
    source = open_source(saved(timm_state))
    assert source.spec.num_prefix_tokens == 0 and source.spec.image_size == (32, 32)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_C16_numbers_that_are_not_finite_are_refused(saved, timm_state, bad):
    timm_state["blocks.1.mlp.fc1.weight"][3, 4:6] = bad
    with pytest.raises(InputError, match=r"blocks\.1\.mlp\.fc1\.weight has 2 values that are NaN or infinite"):
        open_source(saved(timm_state))


def test_C16_a_file_of_zeros_is_warned_about(saved, timm_state):
    source = open_source(saved({name: torch.zeros_like(tensor) for name, tensor in timm_state.items()}))
    assert "warning: every number of the file is zero" in source.ledger.notes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_C16_other_precisions_become_float32_and_it_is_noted(saved, timm_state, dtype):
    source = open_source(saved({name: tensor.to(dtype) for name, tensor in timm_state.items()}))
    assert source.ledger.summary() == {**NOTHING, "converted": 42}
    assert f"cast to float32 from {str(dtype)[6:]}" in source.ledger.notes
    built = weights(source)
    assert all(torch.equal(built[name], tensor.to(dtype).float()) for name, tensor in timm_state.items())


def test_C16_integers_are_refused(saved, timm_state):
    timm_state["blocks.0.attn.qkv.weight"] = timm_state["blocks.0.attn.qkv.weight"].to(torch.int8)
    with pytest.raises(InputError, match=r"blocks\.0\.attn\.qkv\.weight holds int8, not floating point"):
        open_source(saved(timm_state))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("blocks.0.mlp.w12.weight", "SwiGLU"),
        ("blocks.0.attn.gate.weight", "gated attention"),
        ("blocks.0.3.norm1.weight", "chunks"),
        ("blocks.0.mlp.norm.weight", "norms inside"),
        ("rope.freqs", "rotary positions"),
        ("patch_embed.backbone.conv1.weight", "a convolutional stem"),
    ],
)
def test_parts_that_the_network_lacks_are_refused_by_name(saved, timm_state, name, what):
    with pytest.raises(InputError, match=what) as caught:
        open_source(saved({**timm_state, name: torch.ones(1, 1, 128)}))
    assert name in str(caught.value)


def test_an_unknown_family_is_told_with_its_first_names_and_the_known_ones(saved):
    state = {f"layer{index}.0.conv1.weight": torch.ones(3) for index in range(9)}
    with pytest.raises(InputError, match="no known kind of checkpoint") as caught:
        open_source(saved(state))
    message = str(caught.value)
    assert "layer4.0.conv1.weight, ...)" in message and "layer5" not in message
    assert all(f"{name} = " in message for name in find.names("backbones.formats"))


def test_two_families_of_the_same_evidence_are_an_error(saved, timm_state, monkeypatch):
    mae = find.load("backbones.formats", "mae", what="format")
    monkeypatch.setattr(mae, "recognise", lambda raw: True)
    monkeypatch.setattr(mae, "EVIDENCE", Evidence.NAMES)
    with pytest.raises(InputError, match="could be mae or timm_vit"):
        open_source(saved(timm_state))


@pytest.mark.parametrize(
    ("name", "tensor", "match"),
    [
        ("blocks.999999999.norm1.weight", torch.ones(1), "names a block 999999999"),
        ("patch_embed.proj.weight", torch.ones(128, 1, 8, 8), "(width, 3, side, side) is needed"),
        ("pos_embed", torch.ones(1, 17, 0), "embed_dim"),
        ("reg_token", torch.ones(3), "1 prefix tokens|shape|needs"),
    ],
)
def test_absurd_shapes_are_refused(saved, timm_state, name, tensor, match):
    with pytest.raises(InputError):
        open_source(saved({**timm_state, name: tensor}))


def test_what_is_saved_comes_back_bit_for_bit(tmp_path, make):
    backbone = make(image_size=(32, 48), num_registers=2, layer_scale=True, qk_norm=True, norm_eps=1e-5)
    save_backbone(tmp_path / "run" / "model.safetensors", backbone, method="mae", pretrain_data="scenes")
    source = open_source(str(tmp_path / "run"))
    assert source.name == "run" and family(tmp_path / "run" / "model.safetensors") == "suite"
    assert source.arch == backbone.arch
    assert (source.spec.method, source.spec.pretrain_data) == ("mae", "scenes")
    again = source.build().eval()
    assert again.state_dict().keys() == backbone.state_dict().keys()
    assert all(torch.equal(tensor, backbone.state_dict()[name]) for name, tensor in again.state_dict().items())
    assert torch.equal(again(pictures(32, 48))[0].tokens, backbone(pictures(32, 48))[0].tokens)


def test_the_same_weights_are_saved_as_the_same_bytes(tmp_path, make):
    for name in "ab":
        save_backbone(tmp_path / name, make(), method="mae", pretrain_data="scenes")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_saved_files_have_timms_names_for_other_programs(tmp_path, make):
    save_backbone(tmp_path / "x.safetensors", make(), method="mae", pretrain_data="scenes")
    net = VisionTransformer(32, 8, num_classes=0, embed_dim=24, depth=3, num_heads=2, mlp_ratio=40.5 / 24)
    net.load_state_dict(safetensors.torch.load_file(tmp_path / "x.safetensors"))


def test_a_resized_backbone_is_saved_with_its_new_size(tmp_path, make):
    save_backbone(tmp_path / "x", make(DenseOptions(image_size=(16, 48))), method="supervised", pretrain_data="scenes")
    assert open_source(str(tmp_path / "x")).spec.image_size == (16, 48)


@pytest.mark.parametrize("options", [DenseOptions(window=2, keep_prefix=False), DenseOptions(keep_prefix=False)])
def test_parts_of_detectors_are_not_saved_alone(tmp_path, make, options):
    with pytest.raises(ValueError, match="saved with its detector"):
        save_backbone(tmp_path / "x", make(options), method="mae", pretrain_data="scenes")


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.pop("zoo"),
        lambda facts: facts.update(zoo="../vit"),
        lambda facts: facts["arch"].update(dept=3),
        lambda facts: facts["arch"].update(embed_dim=-1),
        lambda facts: facts["arch"].update(depth=10**9),
        lambda facts: facts["spec"].pop("mean"),
        lambda facts: facts.update(spec=[]),
    ],
)
def test_a_header_that_describes_no_network_is_refused(tmp_path, make, change):
    backbone = make()
    facts = json.loads(suite.header("vit", backbone.arch, backbone.spec)[suite.KEY])
    change(facts)
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(backbone.net.state_dict(), path, {suite.KEY: json.dumps(facts)})
    with pytest.raises(InputError, match="header does not describe a network"):
        open_source(str(path))


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_C22_changed_bytes_end_in_one_line_or_in_another_hash(tmp_path, saved, make, kind):
    """A hundred random edits of a file each, most of them where its structure is."""
    path = tmp_path / f"weights.{kind}"
    backbone = make(embed_dim=8, mlp_dim=8, image_size=(16, 16))
    if kind == "safetensors":
        save_backbone(path, backbone, method="mae", pretrain_data="scenes")
    else:
        saved({"model": backbone.net.state_dict(), "epoch": 3}, path.name, _use_new_zipfile_serialization=kind == "zip")
    whole, expected, draw = path.read_bytes(), open_source(str(path)).sha256, random.Random(0)
    for _ in range(100):
        content, end = bytearray(whole), min(4000, len(whole))
        place = draw.choice([draw.randrange(end), len(whole) - 1 - draw.randrange(end), draw.randrange(len(whole))])
        content[place : place + draw.randrange(9)] = draw.randbytes(draw.randrange(9))
        path.write_bytes(content)
        try:
            source = open_source(str(path))
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert source.sha256 != expected or content == whole
