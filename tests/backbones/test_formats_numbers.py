"""Shapes, sizes and numbers of checkpoints that are not as they should be."""

import pytest
import safetensors.torch
import torch

from backbones.contract import DenseOptions
from backbones.formats import suite
from backbones.source import open_source
from backbones.zoo import vit
from mae_bench.core.errors import InputError
from tests.backbones.format_samples import NOTHING, weights


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
