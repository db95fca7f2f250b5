"""What `-m` takes: forms, names, and the lines about what is none of them."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch

from backbones import hub, reading
from backbones.arch import VitArch
from backbones.contract import DenseOptions
from backbones.source import open_source
from backbones.zoo import vit
from mae_bench.core.errors import ConfigError, EnvironmentFault, InputError


def test_a_random_architecture_is_drawn_from_the_seed_of_each_build():
    source = open_source("random:vit_demo_patch8")
    assert (source.name, source.text, source.spec.method) == ("random", "random:vit_demo_patch8", "random")
    assert source.sha256 == hashlib.sha256(b"random 2:vit_demo_patch8").hexdigest()
    first, again, other = (vit.weights_of(source.build(seed=seed))["blocks.0.attn.qkv.weight"] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_bare_name_of_an_architecture_means_random_weights():
    source = open_source("mine=vit_demo_patch8")
    assert source.name == "mine" and source.spec.name == "vit_demo_patch8" and source.spec.method == "random"
    assert source.sha256 == open_source("random:vit_demo_patch8").sha256


def test_a_file_is_named_by_its_stem_or_by_its_folder(tmp_path, saved, timm_state):
    assert open_source(saved(timm_state, "mae_pretrain.pth")).name == "mae_pretrain"
    folder = tmp_path / "my run"
    folder.mkdir()
    Path(saved(timm_state, "model.safetensors")).rename(folder / "model.safetensors")
    assert open_source(str(folder / "model.safetensors")).name == "my run"
    assert open_source(str(folder)).name == "my run"
    assert open_source(f"a b={folder}").name == "a b"


def test_a_path_may_have_an_equals_sign(tmp_path, saved, timm_state):
    path = saved(timm_state, "lr=0.1.pth")
    assert open_source(path).name == "lr=0.1"
    assert open_source(f"x={path}").name == "x"


def test_the_hash_is_of_the_file(saved, timm_state):
    path = saved(timm_state)
    assert open_source(path).sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_a_build_does_not_share_memory_with_another(saved, timm_state):
    source = open_source(saved(timm_state))
    with torch.no_grad():
        vit.weights_of(source.build())["cls_token"].zero_()
    assert torch.equal(vit.weights_of(source.build(DenseOptions(drop_path=0.1)))["cls_token"], timm_state["cls_token"])


@pytest.mark.parametrize(
    "name",
    [
        "a/b",
        "../a",
        "..",
        ".",
        ".hidden",
        " a",
        "a ",
        "",
        "a\\b",
        "C:x",
        "-a",
        "a" * 81,
        "a" * 300,
        "é" * 41,
        "a*",
        "a|b",
        "a\tb",
        "a\x1b[0m",
    ],
)
def test_U09_names_that_are_no_folder_inside_the_output_are_refused(name):
    with pytest.raises(ConfigError) as caught:
        open_source(f"{name}=random:vit_demo_patch8")
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("name", ["MAE ViT-B (1600 ep)", "модель", "a" * 80, "x,y", "日本語"])
def test_ordinary_names_are_taken(name):
    assert open_source(f"{name}=random:vit_demo_patch8").name == name


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("random:vit_demo_patch9", "unknown architecture 'vit_demo_patch9'; did you mean vit_demo_patch8"),
        ("random:", "unknown architecture ''"),
        ("vit_bse_patch16", r"no file and no architecture \(did you mean vit_base_patch16"),
        ("", "no model; give"),
        ("  ", "no model; give"),
        ("x" * 300, "no file and no architecture"),
        ("x=", "no model after the '='"),
        ("timm:vit_tiny_patch16_225", "Unknown model .*did you mean vit_tiny_patch16_224"),
        ("timm:vit_base_patch16_224.mea", "did you mean vit_base_patch16_224.mae"),
        ("timm:resnet18", "is a ResNet, which is not supported"),
        ("timm:vit_small_patch16_rope_224", "is not supported"),
    ],
)
def test_text_of_no_known_form_is_a_usage_error_with_a_hint(text, match):
    with pytest.raises(ConfigError, match=match) as caught:
        open_source(text)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_a_path_that_is_not_there_is_an_input_error(tmp_path):
    for path in (tmp_path / "x.pth", tmp_path / "folder", tmp_path):
        with pytest.raises(InputError) as caught:
            open_source(str(path))
        assert caught.value.exit_code == 3


def test_timm_weights_that_cannot_be_fetched_are_told_with_the_way_round(monkeypatch):
    def offline(*args, **kwargs):
        raise FileNotFoundError("no network")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    with pytest.raises(EnvironmentFault, match=r"give its path instead: -m NAME=PATH/model\.safetensors"):
        open_source("timm:vit_tiny_patch16_224")


@pytest.mark.slow
def test_timm_weights_are_read_as_a_file_with_the_facts_of_timms_catalogue(monkeypatch, tmp_path):
    """Mean, std and heads come from timm's catalogue; here augreg's 0.5 and DeiT-III's LayerScale and class-less positions."""
    import safetensors.torch

    asked = []
    for name in ("vit_tiny_patch16_224.augreg_in21k", "deit3_small_patch16_224"):
        net: Any = timm.create_model(name).eval()
        safetensors.torch.save_file(net.state_dict(), tmp_path / "model.safetensors")

        def fetch(repository, file):
            asked.append(repository)
            return str(tmp_path / file)

        monkeypatch.setattr(hub, "hf_hub_download", fetch)
        source = open_source(f"timm:{name}")
        assert source.ledger.notes == () and source.name == name and source.spec.mean == net.pretrained_cfg["mean"]
        assert cast(VitArch, source.arch).num_heads == net.blocks[0].attn.num_heads
        images = torch.rand(1, 3, 224, 224)
        with torch.no_grad():
            assert torch.equal(source.build().eval()(images)[0].tokens, net.forward_features(images))
    assert asked[0] == "timm/vit_tiny_patch16_224.augreg_in21k"


def test_a_folder_comes_with_the_settings_beside_the_weights(monkeypatch, tmp_path, saved, timm_state):
    """Given the folder or its hf: name; a file given by itself is read by itself."""
    saved(timm_state, "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"num_attention_heads": 4}')
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    raw = reading.read_folder(tmp_path)
    assert raw.config == {"num_attention_heads": 4} and raw.preprocessor == {"image_mean": [0.5, 0.5, 0.5]}
    assert reading.read(tmp_path / "pytorch_model.bin").config == {}
    monkeypatch.setattr(hub, "hf_folder", lambda name: tmp_path, raising=False)
    assert open_source("hf:org/some-model").name == "org_some-model"


@pytest.mark.parametrize("text", ["[1]", "{", "\0", "[" * 100_000, '{"a": "' + "x" * 2**20 + '"}'], ids=range(5))
def test_settings_beside_the_weights_that_are_none_are_refused(tmp_path, saved, timm_state, text):
    saved(timm_state, "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json: "):
        open_source(str(tmp_path))


def test_a_source_is_a_frozen_value(saved, timm_state):
    source = open_source(saved(timm_state))
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.name = "other"  # pyright: ignore[reportAttributeAccessIssue]
