"""Checkpoints that this suite writes: they come back bit for bit, and their header is not trusted."""

import json
import random

import pytest
import safetensors.torch
import torch
from timm.models.vision_transformer import VisionTransformer

from backbones.contract import DenseOptions
from backbones.formats import suite
from backbones.save import save_backbone
from backbones.source import open_source
from mae_bench.core.errors import InputError
from tests.backbones.format_samples import family, pictures

pytestmark = pytest.mark.slow


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
