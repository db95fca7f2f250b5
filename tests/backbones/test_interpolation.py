"""How images are resized travels with the backbone: from the settings of its source to the pixels that a probe sees."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.export import export
from backbones.save import save_backbone
from backbones.source import open_source
from mae_bench.core.errors import ConfigError, InputError
from tasks.common.images import evaluation_transform
from tests.backbones.export_samples import PLAIN
from tests.backbones.hf_models import make as make_hf
from tests.backbones.hf_models import save


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"resample": 2}, "bilinear"),
        ({"resample": 3}, "bicubic"),
        ({"resample": 1}, "lanczos"),
        ({"image_processor_type": "ViTImageProcessor"}, "bilinear"),
        ({"image_processor_type": "BitImageProcessor"}, "bicubic"),
        (None, "bicubic"),
    ],
    ids=str,
)
def test_transformers_settings_say_it(tmp_path, settings, expected):
    folder = save(make_hf("ViTModel", num_hidden_layers=1), tmp_path / "model")
    if settings is not None:
        (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(settings))
    source = open_source(folder)
    assert source.spec.interpolation == expected
    assert open_source(f"{folder}#interpolation=nearest").spec.interpolation == "nearest"


def test_a_way_that_is_not_known_is_refused(tmp_path):
    folder = save(make_hf("ViTModel", num_hidden_layers=1), tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").write_text('{"resample": 4}')
    with pytest.raises(InputError, match="resample 4; known"):
        open_source(folder)
    with pytest.raises(ConfigError, match="interpolation"):
        open_source(f"{folder}#interpolation=cubic")


def test_timms_settings_say_it(source, tmp_path):
    arch = {"embed_dim": 192, "depth": 12, "num_heads": 3, "patch_size": 16, "mlp_dim": 768, "image_size": (224, 224)}
    save_backbone(tmp_path / "own.safetensors", source(**arch).build(), method="mae", pretrain_data="none")
    export(open_source(str(tmp_path / "own.safetensors")), tmp_path / "tiny.pth", "mae")
    folder = tmp_path / "timm"
    folder.mkdir()
    shutil.copy(tmp_path / "tiny.pth", folder / "pytorch_model.bin")
    config = {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {"interpolation": "bilinear"}}
    (folder / "config.json").write_text(json.dumps(config))
    assert open_source(str(folder)).spec.interpolation == "bilinear"
    (folder / "config.json").write_text(json.dumps({**config, "pretrained_cfg": {"interpolation": "random"}}))
    with pytest.raises(InputError, match="interpolation 'random'; known"):
        open_source(str(folder))


def test_it_is_saved_and_written_for_transformers(tmp_path, make):
    backbone = make(**PLAIN)
    save_backbone(tmp_path / "usual", backbone, method="mae", pretrain_data="none")
    backbone.spec = replace(backbone.spec, interpolation="bilinear")
    save_backbone(tmp_path / "other", backbone, method="mae", pretrain_data="none")
    assert open_source(str(tmp_path / "usual")).spec.interpolation == "bicubic"
    assert b"interpolation" not in (tmp_path / "usual").read_bytes()
    source = open_source(str(tmp_path / "other"))
    assert source.spec.interpolation == "bilinear"
    export(source, tmp_path / "hf", "hf")
    assert json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())["resample"] == 2
    assert open_source(str(tmp_path / "hf")).spec.interpolation == "bilinear"


def test_a_probe_resizes_so():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    bicubic, bilinear = (evaluation_transform((16, 16), 1.0, way)(image) for way in ("bicubic", "bilinear"))
    assert torch.equal(evaluation_transform((16, 16), 1.0)(image), bicubic) and not torch.equal(bicubic, bilinear)
    expected = image.resize((24, 16), Image.Resampling.BILINEAR).crop((4, 0, 20, 16))
    assert np.array_equal(bilinear.permute(1, 2, 0).numpy(), np.asarray(expected))
