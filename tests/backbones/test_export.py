"""Writing for other programs: what comes back, what is refused, and files that are whole or not there."""

import os
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from backbones.export import export
from backbones.source import open_source
from backbones.vit import TimmViT
from mae_bench.core import find
from mae_bench.core.errors import ConfigError, InputError
from tests.backbones.export_samples import (
    BEIT,
    CLIP,
    DEIT,
    DINOV2,
    GATED,
    PLAIN,
    REGISTERS,
    SHARED,
    SIGLIP,
    VITDET,
    pictures,
    weights,
)


@pytest.mark.parametrize("name", find.names("backbones.exports"))
def test_every_target_has_the_names_of_one(name):
    module = find.load("backbones.exports", name, what="target")
    assert isinstance(module.NAME, str) and isinstance(module.ENDINGS, tuple)
    assert callable(module.layout) and callable(module.write)


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
    ("hf", DEIT, ""),
    ("hf", SIGLIP, ""),
    ("hf", {**PLAIN, "image_size": (32, 48)}, ""),
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
