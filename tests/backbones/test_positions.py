"""Position embeddings, against timm's and transformers' own."""

import pytest
import torch
from timm.layers.pos_embed import resample_abs_pos_embed

from backbones.positions import resample, sincos_2d


@pytest.mark.parametrize("num_prefix", [0, 1, 5])
@pytest.mark.parametrize(
    ("old", "new"), [((4, 4), (7, 7)), ((4, 4), (3, 9)), ((2, 9), (6, 3)), ((6, 4), (4, 6)), ((7, 7), (3, 2))]
)
def test_C15_any_rectangle_becomes_any_rectangle_as_in_timm(old, new, num_prefix):
    positions = torch.randn(1, num_prefix + old[0] * old[1], 8)
    ours = resample(positions, old, new, num_prefix=num_prefix)
    assert torch.equal(ours, resample_abs_pos_embed(positions, list(new), list(old), num_prefix_tokens=num_prefix))
    assert ours.shape == (1, num_prefix + new[0] * new[1], 8)
    assert torch.equal(ours[:, :num_prefix], positions[:, :num_prefix])


def test_the_same_grid_stays_bit_for_bit():
    positions = torch.randn(1, 1 + 6, 8)
    assert torch.equal(resample(positions, (2, 3), (2, 3), num_prefix=1), positions)


def test_without_antialiasing_it_is_torchs_plain_bicubic():
    positions = torch.randn(1, 1 + 16, 8)
    image = positions[:, 1:].reshape(1, 4, 4, 8).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(image, size=(9, 6), mode="bicubic", align_corners=False)
    ours = resample(positions, (4, 4), (9, 6), num_prefix=1, antialias=False)
    assert torch.equal(ours[:, 1:], expected.permute(0, 2, 3, 1).reshape(1, -1, 8))


@pytest.mark.parametrize(("width", "grid"), [(768, (14, 14)), (1280, (16, 16)), (32, (3, 7))])
def test_sincos_positions_are_those_of_transformers_vitmae(width, grid):
    from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

    table = build_2d_sinusoidal_position_embedding(*grid, embed_dim=width, cls_token=True)
    # As their ViTMAE does: MAE's released weights have the halves the other way round.
    table = torch.cat([table[:, width // 2 :], table[:, : width // 2]], dim=1)
    assert torch.equal(sincos_2d(width, grid, num_prefix=1)[0], table)


def test_sincos_needs_quarters():
    with pytest.raises(ValueError, match="multiple of 4, not 30"):
        sincos_2d(30, (2, 2))
