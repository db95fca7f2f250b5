"""Files of transformers that are damaged, of another model or in another precision: one line, or a note."""

from pathlib import Path
from typing import Any, cast

import pytest
import safetensors.torch
import torch

from backbones import reading
from backbones.families import identify
from backbones.source import open_source
from mae_bench.core.errors import InputError
from tests.backbones.hf_models import make, save

pytestmark = pytest.mark.slow

FAMILIES = {
    "ViTForImageClassification": "hf_vit",
    "DeiTForImageClassificationWithTeacher": "hf_vit",
    "ViTMAEForPreTraining": "hf_vit",
    "Dinov2Model": "hf_dinov2",
    "Dinov2WithRegistersModel-swiglu": "hf_dinov2",
    "DINOv3ViTModel": "hf_dinov3",
    "BeitForImageClassification": "hf_beit",
    "Data2VecVisionModel-shared": "hf_beit",
    "CLIPModel": "hf_clip",
    "SiglipVisionModel": "hf_clip",
}
METHODS = {"ViTMAE": "mae", "Dinov2": "dinov2", "DINOv3": "dinov3", "Beit": "beit", "Data2Vec": "data2vec", "CLIP": "clip"}


@pytest.fixture
def folder(tmp_path):
    """A model's folder and its tensors, which a test may change and write back."""

    def build(name):
        save(make(name, num_hidden_layers=2), tmp_path)
        return tmp_path, safetensors.torch.load_file(tmp_path / "model.safetensors")

    return build


def write(path: Path, state: dict[str, torch.Tensor]) -> str:
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state.items()}, path / "model.safetensors")
    return str(path)


def one_line(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    return message


@pytest.mark.parametrize(("name", "family"), FAMILIES.items())
def test_the_family_is_recognised_in_the_file_alone(name, family, folder):
    path, _ = folder(name)
    raw = reading.read(path / "model.safetensors")
    assert cast(Any, identify(raw)).__name__ == f"backbones.formats.{family}"
    method = next((method for start, method in METHODS.items() if name.startswith(start)), None)
    if method:
        assert open_source(str(path)).spec.method == method


@pytest.mark.parametrize("name", FAMILIES)
def test_C13_every_tensor_that_is_missing_is_noticed(name, folder):
    """Each tensor of the stem, of the last block and after it, one at a time."""
    path, state = folder(name)
    ledger = open_source(str(path)).ledger
    raw = reading.read(path / "model.safetensors")
    optional = set(ledger.dropped) | {raw.prefix + dropped for dropped in ledger.dropped}
    needed = [key for key in state if key not in optional and ".0." not in key and key not in raw.dropped]
    assert len(needed) > 15
    for key in needed:
        write(path, {other: tensor for other, tensor in state.items() if other != key})
        # A SigLIP is what is left of a CLIP without its class token, and other such twins: the positions do not fit then.
        try:
            open_source(str(path))
        except InputError as error:
            assert "\n" not in str(error), error
        else:
            pytest.fail(f"{name} without {key} was opened")


@pytest.mark.parametrize("name", FAMILIES)
def test_C13_a_renamed_tensor_is_named(name, folder):
    path, state = folder(name)
    key = next(key for key in state if ".1." in key and "norm" in key and key.endswith("bias") and "text" not in key)
    state[key.replace("bias", "offset")] = state.pop(key)
    with pytest.raises(InputError, match="missing") as caught:
        open_source(write(path, state))
    one_line(caught)
    state[key] = torch.zeros(64)
    with pytest.raises(InputError, match=r"1 unexpected tensor \(.*offset") as caught:
        open_source(write(path, state))
    one_line(caught)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [(64, 7), (0,), ()], ids=str)
def test_C14_tensors_of_another_shape_are_refused(name, shape, folder):
    path, state = folder(name)
    kinds = (
        "patch_embed",
        "position_embed",
        "cls_token",
        "class_embed",
        "k_proj.weight",
        "key.weight",
        "fc1.weight",
        "norm1.bias",
    )
    kinds += ("query.bias", "register_tokens", "distillation_token", "table", "dense.weight", "lambda")
    raw = reading.read(path / "model.safetensors")
    inner = [key for key in state if key.startswith(raw.prefix) and "head." not in key and "pooler" not in key]
    for kind in kinds:
        key = next((key for key in inner if kind in key), None)
        if key is not None and state[key].shape != shape:
            with pytest.raises(InputError) as caught:
                open_source(write(path, {**state, key: torch.ones(shape)}))
            one_line(caught)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_C16_half_precision_becomes_float32_and_it_is_noted(name, dtype, folder):
    path, state = folder(name)
    source = open_source(write(path, {key: tensor.to(dtype) for key, tensor in state.items()}))
    assert f"cast to float32 from {str(dtype)[6:]}" in ", ".join(source.ledger.notes).replace("float32, ", "")
    rounded = {key: tensor.to(dtype).float() for key, tensor in state.items()}
    images = torch.ones(1, 3, 32, 32)
    with torch.no_grad():
        ours = source.build().eval()(images)[0].tokens
        whole = open_source(write(path, rounded)).build().eval()(images)[0].tokens
    assert torch.equal(ours, whole)


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("embeddings.detection_tokens", "YOLOS"),
        ("encoder.layers.0.blocks.0.attention.self.query.weight", "Swin"),
        ("embeddings.text_embeddings.word_embeddings.weight", "ViLT"),
    ],
)
def test_parts_of_other_models_are_named_without_a_config_json_too(key, what, folder):
    path, state = folder("ViTForImageClassification")
    (path / "config.json").unlink()
    with pytest.raises(InputError, match=what) as caught:
        open_source(write(path, {**state, f"vit.{key}": torch.ones(1, 100, 64)}))
    assert key in one_line(caught)


def test_videos_are_refused(folder):
    path, state = folder("ViTForImageClassification")
    key = "vit.embeddings.patch_embeddings.projection.weight"
    with pytest.raises(InputError, match=r"\(64, 3, 2, 8, 8\)"):
        open_source(write(path, {**state, key: torch.ones(64, 3, 2, 8, 8)}))


def test_two_spellings_of_one_tensor_are_refused(folder):
    path, state = folder("ViTForImageClassification")
    state["vit.layers.0.layernorm_before.weight"] = torch.ones(64)
    with pytest.raises(InputError, match="are the same tensor of the network"):
        open_source(write(path, state))


def test_buffers_of_older_files_are_left_out_with_the_reason(folder):
    path, state = folder("CLIPModel")
    state["vision_model.embeddings.position_ids"] = torch.arange(17).unsqueeze(0)
    ledger = open_source(write(path, state)).ledger
    assert ledger.dropped["embeddings.position_ids"] == "a table of numbers that is made anew"
    assert ledger.dropped["visual_projection.weight"] == "projection to the text tower's space"


def test_deits_distillation_token_is_a_register_and_mae_has_its_decoder_dropped(folder):
    path, _ = folder("DeiTForImageClassificationWithTeacher")
    source = open_source(str(path))
    arch = cast(Any, source.arch)
    assert (arch.num_registers, arch.prefix_positions, source.spec.num_prefix_tokens) == (1, True, 2)
    path, _ = folder("ViTMAEForPreTraining")
    dropped = open_source(str(path)).ledger.dropped
    assert dropped["decoder.mask_token"] == "decoder of the pretraining" and len(dropped) > 20
