"""Backbones from transformers' files give the tokens that transformers gives, after every block."""

from typing import Any, cast

import pytest
import torch

from backbones import relative
from backbones.contract import DenseOptions
from backbones.source import open_source
from tests.backbones.hf_models import ANTIALIAS, MODELS, RELATIVE, WIDE, make, save, tokens_of, vision

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5


def pictures(height, width):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def difference(source, images, blocks, options=None):
    """Largest difference of a token after any block."""
    backbone = source.build(options).eval()
    assert backbone.spec.depth == len(blocks)
    found = [features.tokens for features in backbone(images, tuple(range(len(blocks))), norm=False)]
    assert all(ours.shape == theirs.shape for ours, theirs in zip(found, blocks, strict=True))
    return max(float((ours - theirs).abs().max()) for ours, theirs in zip(found, blocks, strict=True))


@torch.no_grad()
def final_norm(model, tokens):
    """The last norm of a model; the tokens themselves where a head has it."""
    names = ("layernorm", "post_layernorm", "norm")
    found = [getattr(part, name) for part in (vision(model), model) for name in names if hasattr(part, name)]
    norms = [norm for norm in found if not isinstance(norm, torch.nn.Identity)]
    return norms[0](tokens) if norms else tokens


@pytest.mark.parametrize("name", MODELS)
def test_C21_tokens_after_every_block_are_those_of_transformers(name, tmp_path):
    model = make(name)
    source = open_source(save(model, tmp_path / "model"))
    images = pictures(32, 32)
    blocks, last = tokens_of(model, images)
    assert difference(source, images, blocks) <= TOLERANCE
    with torch.no_grad():
        normed = source.build().eval()(images)[0].tokens
    assert (normed - final_norm(model, blocks[-1])).abs().max() <= TOLERANCE
    # CLIP normalises the class token alone, and BEiT's pretraining keeps the norm with its head.
    if "CLIP" not in name and "MaskedImageModeling" not in name:
        assert (normed - last).abs().max() <= TOLERANCE


@pytest.mark.parametrize("name", sorted(MODELS.keys() - RELATIVE))
def test_C21_other_rectangles_give_the_same_tokens_with_transformers_way_to_resize(name, tmp_path):
    model = make(name)
    source = open_source(save(model, tmp_path / "model"))
    images = pictures(48, 24)
    asked = {} if name.startswith(("Dinov2", "DINOv3", "Beit")) else {"interpolate_pos_encoding": True}
    blocks, _ = tokens_of(model, images, **asked)
    options = DenseOptions(antialias=name in ANTIALIAS)
    assert difference(source, images, blocks, options) <= TOLERANCE
    built_for_it = DenseOptions(antialias=name in ANTIALIAS, image_size=(48, 24))
    assert difference(source, images, blocks, built_for_it) <= TOLERANCE


@pytest.mark.parametrize("name", sorted(RELATIVE))
def test_C21_another_size_gives_the_same_tokens_once_relative_positions_are_resized_as_beit_does(name, tmp_path):
    """transformers resizes tables linearly, BEiT and this suite finer near the middle; here both get BEiT's."""
    source = open_source(save(make(name), tmp_path / "model"))
    larger = make(name, image_size=48)
    weights = {
        key: relative.resize_table(tensor, (4, 4), (6, 6)) if key.endswith(relative.TABLE) else tensor
        for key, tensor in make(name).state_dict().items()
    }
    larger.load_state_dict(weights)
    images = pictures(48, 48)
    assert difference(source, images, tokens_of(larger, images)[0]) <= TOLERANCE


@pytest.mark.parametrize(
    "name",
    ["ViTMAEForPreTraining", "Dinov2WithRegistersModel-swiglu", "BeitForImageClassification", "CLIPModel", "SiglipVisionModel"],
)
def test_C21_the_width_of_a_base_model_gives_the_same_tokens(name, tmp_path):
    model = make(name, **WIDE)
    images = pictures(48, 48)
    assert difference(open_source(save(model, tmp_path / "model")), images, tokens_of(model, images)[0]) <= TOLERANCE


@pytest.mark.parametrize("name", ["ViTModel", "DeiTForImageClassificationWithTeacher", "IJepaModel"])
def test_C21_a_rectangle_that_config_json_says_is_taken(name, tmp_path):
    """24 rows of positions are 4 x 6 as well as 6 x 4 and 3 x 8."""
    model = make(name, image_size=[32, 48])
    source = open_source(save(model, tmp_path / "model"))
    assert source.spec.image_size == (32, 48)
    images = pictures(32, 48)
    assert difference(source, images, tokens_of(model, images)[0]) <= TOLERANCE


@pytest.mark.parametrize(
    "name",
    [
        "ViTModel",
        "Dinov2ForImageClassification-swiglu",
        "DINOv3ViTModel-gated",
        "BeitForImageClassification",
        "CLIPModel",
        "SiglipModel",
    ],
)
def test_C21_names_as_they_are_in_memory_are_read_too(name, tmp_path):
    """transformers 5 has other names for its modules than its files have; a user's own torch.save has them."""
    model = make(name)
    save(model, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    images = pictures(32, 32)
    assert difference(open_source(str(tmp_path)), images, tokens_of(model, images)[0]) <= TOLERANCE


@pytest.mark.parametrize("name", ["ViTMAEModel", "Dinov2WithRegistersModel", "Data2VecVisionModel-shared", "CLIPVisionModel"])
def test_C21_a_bare_file_is_read_with_what_transformers_takes_by_default(name, tmp_path):
    """Without config.json heads are those of the width, 64 channels each."""
    model = make(name, hidden_size=128, num_attention_heads=2)
    cast(Any, model).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "bare.safetensors")
    source = open_source(str(tmp_path / "bare.safetensors"))
    notes = " ".join(source.ledger.notes)
    assert "there is no config.json" in notes and "mean and std are assumed" in notes
    images = pictures(32, 32)
    assert difference(source, images, tokens_of(model, images)[0]) <= TOLERANCE
