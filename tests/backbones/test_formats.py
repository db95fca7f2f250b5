"""Families of checkpoints: recognised by what is in them, converted with an account of every tensor."""

import argparse

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from backbones.families import Evidence
from backbones.source import open_source
from mae_bench.core import find
from mae_bench.core.errors import InputError
from tests.backbones.format_samples import NOTHING, facts_of, family, pictures, weights


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
    with pytest.raises(InputError, match="1 missing tensor "):
        open_source(saved({name: tensor for name, tensor in mae_state.items() if name != "norm.bias"}))


def test_C13_tensors_nobody_knows_are_listed(saved, timm_state):
    with pytest.raises(InputError, match=r"1 unexpected tensor \(blocks\.0\.adapter\.weight\)"):
        open_source(saved({**timm_state, "blocks.0.adapter.weight": torch.ones(3)}))


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
