"""What `config.json` and `preprocessor_config.json` of transformers say of a file, and what is refused of them."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from backbones.source import open_source
from mae_bench.core.errors import InputError
from tests.backbones.hf_models import make, save
from tests.backbones.test_hf_files import one_line


@pytest.fixture
def folder(tmp_path):
    """A model's folder."""

    def build(name):
        save(make(name, num_hidden_layers=2), tmp_path)
        return tmp_path

    return build


def settings(path: Path, name: str = "config.json", **changes: Any) -> None:
    """Change a JSON file; None takes a setting away."""
    file = path / name
    values = json.loads(file.read_text()) if file.exists() else {}
    values = {key: value for key, value in {**values, **changes}.items() if value is not None}
    file.write_text(json.dumps(values))


def test_other_settings_beside_the_same_weights_are_another_checkpoint(folder):
    """A record counts as done by this hash, and another mean gives other numbers."""
    path = folder("ViTModel")
    first = open_source(str(path))
    assert first.sha256 != first.raw_facts["sha256"] and open_source(str(path)).sha256 == first.sha256
    settings(path, transformers_version="0")
    assert open_source(str(path)).sha256 == first.sha256, "what shapes no number counts for nothing"
    seen = {first.sha256}
    for file, change in [
        ("config.json", {"num_attention_heads": 8}),
        ("config.json", {"layer_norm_eps": 1e-3}),
        ("preprocessor_config.json", {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}),
        ("preprocessor_config.json", {"resample": 2}),
    ]:
        settings(path, file, **change)
        source = open_source(str(path))
        assert source.sha256 not in seen and source.raw_facts["sha256"] == first.raw_facts["sha256"]
        seen.add(source.sha256)


def test_resizing_that_the_weights_alone_do_not_tell_counts(folder):
    """Without a word all images were once resized bicubically: such results stay what they are, others do not."""
    path = folder("ViTModel") / "model.safetensors"
    plain, bicubic, bilinear = (open_source(f"{path}{how}") for how in ("", "#interpolation=bicubic", "#interpolation=bilinear"))
    assert plain.sha256 == plain.raw_facts["sha256"]
    assert len({one.sha256 for one in (plain, bicubic, bilinear)}) == 3


def test_heads_epsilon_and_activation_come_from_config_json(folder):
    path = folder("CLIPModel")
    inner = json.loads((path / "config.json").read_text())["vision_config"]
    for told, field, value in [
        ({"num_attention_heads": 8}, "num_heads", 8),
        ({"layer_norm_eps": 1e-3}, "norm_eps", 1e-3),
        ({"hidden_act": "gelu"}, "mlp", "gelu"),
        ({"hidden_act": "gelu_pytorch_tanh"}, "mlp", "gelu_tanh"),
    ]:
        settings(path, vision_config={**inner, **told})
        assert getattr(open_source(str(path)).arch, field) == value
    without = {key: value for key, value in inner.items() if key not in ("layer_norm_eps", "hidden_act", "image_size")}
    settings(path, vision_config={**without, "num_attention_heads": 4})
    arch = cast(Any, open_source(str(path)).arch)
    assert (arch.norm_eps, arch.mlp, arch.image_size) == (1e-5, "quick_gelu", (32, 32))


def test_what_the_user_says_goes_before_config_json(folder):
    path = folder("ViTForImageClassification")
    assert cast(Any, open_source(f"{path}#num_heads=2").arch).num_heads == 2


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model_type": "swin"}, "model_type 'swin', which cannot be carried: its windows shift"),
        ({"model_type": "yolos"}, "detection tokens"),
        ({"model_type": "videomae"}, "it takes videos"),
        ({"model_type": "brandnew"}, "'brandnew'.*no family with tensors like these"),
        ({"model_type": None}, "model_type None"),
        ({"model_type": "clip"}, "model_type 'clip'"),
        ({"hidden_size": 128}, "hidden_size 128, and its tensors 64"),
        ({"num_hidden_layers": 12}, "num_hidden_layers 12, and its tensors 2"),
        ({"patch_size": 16, "image_size": None}, "patch_size 16, and its tensors 8"),
        ({"num_attention_heads": 7}, "7 heads"),
        ({"num_attention_heads": "many"}, "num_heads"),
        ({"layer_norm_eps": "small"}, "norm_eps"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'; known: gelu"),
        ({"hidden_act": ["gelu"]}, "hidden_act"),
        ({"image_size": 64}, "17 position rows .* 64 x 64 pixels"),
        ({"image_size": [32, 32, 3]}, "image_size .*one or two numbers"),
        ({"image_size": "large"}, "image_size 'large'"),
    ],
    ids=str,
)
def test_a_config_json_that_does_not_fit_is_refused(changes, match, folder):
    path = folder("ViTForImageClassification")
    settings(path, **changes)
    with pytest.raises(InputError, match=match) as caught:
        open_source(str(path))
    one_line(caught)


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        ("DINOv3ViTModel", {"rope_theta": 10000.0}, "rope_theta 10000.0"),
        ("DINOv3ViTModel", {"hidden_act": "silu"}, "hidden_act 'silu'"),
        ("SiglipVisionModel", {"model_type": "siglip2_vision_model"}, "cut into patches beforehand"),
        ("BeitForImageClassification", {"image_size": 64}, "relative_position_bias_table"),
    ],
)
def test_settings_of_other_families_that_do_not_fit_are_refused(name, changes, match, folder):
    path = folder(name)
    settings(path, **changes)
    with pytest.raises(InputError, match=match) as caught:
        open_source(str(path))
    one_line(caught)


@pytest.mark.parametrize(
    ("told", "mean", "std"),
    [
        ({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
        (
            {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_rescale": True, "rescale_factor": 0.00392156862745098},
            (0.5,) * 3,
            (0.5,) * 3,
        ),
        ({"image_mean": [127.5] * 3, "image_std": [127.5] * 3, "do_rescale": False}, (0.5,) * 3, (0.5,) * 3),
        ({"image_mean": [1, 1, 1], "image_std": [1, 1, 1], "rescale_factor": 2 / 255}, (0.5,) * 3, (0.5,) * 3),
        ({"do_normalize": False, "image_mean": [0.5] * 3}, (0.0,) * 3, (1.0,) * 3),
    ],
)
def test_mean_and_std_come_from_preprocessor_config_json(told, mean, std, folder):
    path = folder("ViTForImageClassification")
    settings(path, "preprocessor_config.json", **told)
    source = open_source(str(path))
    assert source.spec.mean == pytest.approx(mean) and source.spec.std == pytest.approx(std)
    assert not any("mean" in note for note in source.ledger.notes)


@pytest.mark.parametrize(
    "told",
    [
        {"image_mean": 0.5, "image_std": 0.5},
        {"image_mean": [0.5, 0.5], "image_std": [0.5, 0.5]},
        {"image_mean": [0.5] * 3},
        {"image_mean": [0.5] * 3, "image_std": [0.5, 0.5, 0]},
        {"image_mean": [0.5] * 3, "image_std": [0.5, 0.5, float("nan")]},
        {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": "1/255"},
        {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 0},
    ],
    ids=str,
)
def test_a_preprocessor_config_json_that_cannot_be_used_is_refused(told, folder):
    path = folder("ViTForImageClassification")
    settings(path, "preprocessor_config.json", **told)
    with pytest.raises(InputError, match=r"preprocessor_config\.json") as caught:
        open_source(str(path))
    one_line(caught)


@pytest.mark.parametrize(
    ("name", "mean"),
    [("CLIPModel", 0.48145466), ("SiglipModel", 0.5), ("BeitForImageClassification", 0.5), ("ViTMAEModel", 0.485)],
)
def test_without_it_they_are_assumed_and_it_is_noted(name, mean, folder):
    path = folder(name)
    source = open_source(str(path))
    assert source.spec.mean[0] == mean
    assert sum("mean and std are assumed" in note for note in source.ledger.notes) == 1
