"""The number of heads shows in no tensor: file, family, timm or the user says it, or the ledger says that it is assumed."""

import json
from typing import Any, cast

import pytest
import safetensors.torch
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from backbones import hub, released
from backbones.origins import timm as from_timm
from backbones.releases import Release
from backbones.source import open_source
from backbones.verification import compare
from mae_bench.ckpt import verify_source
from mae_bench.core.errors import InputError
from tests.backbones import family_samples as samples
from tests.backbones.conftest import shaken

pytestmark = pytest.mark.slow

SIZES: dict[str, Any] = {"embed_dim": 192, "depth": 2, "img_size": 32}
# As timm's vit_base_patch16_gap_224: more heads than most networks of its width.
HEADS = 6


def heads(source) -> int:
    return cast(Any, source.arch).num_heads


def assumed(source) -> list[str]:
    return [note for note in source.ledger.notes if "heads are assumed" in note]


def agrees(source) -> bool:
    return all(row.same for row in compare(source, from_timm.network(source)))


@pytest.fixture
def net() -> Any:
    """A network of a width that is mostly used with three heads."""
    torch.manual_seed(0)
    made = VisionTransformer(patch_size=16, num_heads=HEADS, num_classes=0, **SIZES)
    made.load_state_dict(shaken(made.state_dict()))
    return made.eval()


@pytest.mark.parametrize("width", [192, 384, 768, 1024])
def test_a_guess_is_said_whatever_the_width(saved, width):
    source = open_source(saved(samples.vit(embed_dim=width, num_heads=4, depth=1).state_dict()))
    assert len(assumed(source)) == 1 and not assumed(open_source(f"{source.text}#num_heads=4"))


@pytest.mark.parametrize(
    ("name", "method", "width", "count"),
    [
        ("MAE", "mae", 768, 12),
        ("DINO teacher", "dino", 384, 6),
        ("iBOT", "ibot", 768, 12),
        ("MoCo v3", "mocov3", 384, 12),
    ],
)
def test_a_family_with_one_number_for_a_width_fixes_it(saved, name, method, width, count):
    sample = {**samples.timm_names()}[name]
    state = samples.vit(embed_dim=width, num_heads=count, depth=1).state_dict()
    if name == "iBOT":
        state["masked_embed"] = torch.ones(1, width)
    if name == "MAE":
        state["decoder_blocks.0.norm1.weight"] = torch.ones(4)
    source = open_source(saved({**{sample.prefix + key: tensor for key, tensor in state.items()}, **sample.around}))
    assert (source.spec.method, heads(source), assumed(source)) == (method, count, [])


def test_timms_config_json_beside_a_file_tells_heads_mean_and_std(tmp_path, net):
    """The folder as huggingface.co has it; the guess would be three heads."""
    config = {"architecture": "vit_tiny_patch16_224", "model_args": {**SIZES, "num_heads": HEADS}}
    config["pretrained_cfg"] = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5], "crop_pct": 0.9}
    (tmp_path / "config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(net.state_dict(), tmp_path / "model.safetensors")
    source = open_source(str(tmp_path))
    assert (heads(source), source.spec.mean, source.spec.std) == (HEADS, (0.5, 0.5, 0.5), (0.25, 0.5, 0.5))
    assert not any("assumed" in note for note in source.ledger.notes)
    images = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    net.set_input_size((32, 48))
    with torch.no_grad():
        expected, found = net.forward_features(images), source.build().eval()(images)[0].tokens
    assert (found - expected).abs().max() <= 1e-5
    assert heads(open_source(f"{tmp_path}#num_heads=2")) == 2


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"architecture": "vit_base_patch16_224"}, "width 192, 2 blocks and patches of 16 and not width 768, 12 blocks"),
        ({"architecture": "vit_base_patch16_rpn_224"}, "blocks.0 is ResPostBlock"),
        ({"architecture": "hf-hub:someone/else"}, "none that this timm"),
        ({"architecture": "vit_tiny_patch16_224", "model_args": {"checkpoint_path": "/tmp/x.pth"}}, "checkpoint_path"),
        ({"architecture": "vit_tiny_patch16_224", "model_args": {"num_heads": 7}}, "cannot be made"),
        ({"architecture": "vit_tiny_patch16_224", "model_args": SIZES, "pretrained_cfg": {"mean": [0.5]}}, "three numbers"),
        ({"architecture": "vit_tiny_patch16_224", "model_args": SIZES, "std": [1, 1, 0]}, "three numbers"),
        ({"architecture": "vit_tiny_patch16_224", "pretrained_cfg": "x"}, "settings by name"),
    ],
    ids=str,
)
def test_a_config_json_of_timms_that_does_not_fit_is_refused(tmp_path, net, changes, match):
    (tmp_path / "config.json").write_text(json.dumps(changes))
    safetensors.torch.save_file(net.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=match) as caught:
        open_source(str(tmp_path))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_local_file_of_a_release_has_the_heads_of_timm_and_its_size(saved, monkeypatch, net):
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: make(name, **{**SIZES, "num_heads": HEADS, **options}))
    release = Release("mine", "IN1K", "timm_vit", None, timm="vit_tiny_patch16_224")
    monkeypatch.setattr(released, "releases", lambda: {"mine": release})
    source = open_source(f"mine={saved(net.state_dict())}")
    assert (heads(source), source.spec.method, assumed(source)) == (HEADS, "mine", [])
    with pytest.raises(InputError, match="width 128, 2 blocks and patches of 8 and not width 192"):
        open_source(f"mine={saved(samples.vit().state_dict())}")


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "beit_base_patch16_224", "eva02_tiny_patch14_224"])
def test_verify_of_a_name_of_timms_compares_with_that_very_model(tmp_path, monkeypatch, name):
    make, sizes = timm.create_model, {**SIZES, "num_heads": HEADS, "img_size": 56 if "14" in name else 32}
    monkeypatch.setattr(timm, "create_model", lambda wanted, **options: make(wanted, **{**sizes, **options}))
    monkeypatch.setattr(hub, "hf_hub_download", lambda repository, file: str(tmp_path / "model.safetensors"))
    torch.manual_seed(0)
    safetensors.torch.save_file(shaken(make(name, **sizes).state_dict()), tmp_path / "model.safetensors")
    source = open_source(f"timm:{name}")
    assert heads(source) == HEADS and agrees(source)
    # BEiT's tables have a column a head, so that another number is refused.
    assert name.startswith("beit") or not agrees(open_source(f"timm:{name}#num_heads=3"))


def test_verify_says_what_both_sides_guess(saved, net, capsys):
    """Nothing can tell from the file that three heads are wrong, so the answer is not taken for more than it is."""
    from rich.console import Console

    for as_json in (False, True):
        verify_source(saved(net.state_dict()), as_json=as_json, trust_pickle="", console=Console())
        assert "3 heads are assumed" in capsys.readouterr().out


def test_norms_after_attention_cannot_be_told_and_that_is_said(saved):
    """timm's vit_*_rpn have the names of a network without a class token and without biases of queries."""
    options = {"class_token": False, "qkv_bias": False, "global_pool": "avg"}
    source = open_source(saved(samples.vit(**options).state_dict()))
    assert any("norms before attention and MLP are assumed" in note for note in source.ledger.notes)
