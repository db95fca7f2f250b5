"""Windowed attention and relative positions, against what they must reduce to."""

import pytest
import torch
from timm.layers.attention import Attention
from timm.layers.norm import LayerNorm
from torch.nn import functional

from backbones.contract import DenseOptions
from backbones.relative import distances
from backbones.windows import GridAttention, merge, pad, partition


def pictures(height=32, width=32):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def attention(width=24, heads=2, **options):
    torch.manual_seed(1)
    module = Attention(width, heads, qkv_bias=True, norm_layer=LayerNorm, **options).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    return module


def tokens(count, width=24, batch=2):
    return torch.randn(batch, count, width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("options", [{}, {"qk_norm": True}, {"scale_norm": True}])
def test_without_windows_it_is_the_attention_it_replaces(options):
    plain = attention(**options)
    grid = GridAttention(attention(**options), window=0, side=(4, 4))
    assert torch.allclose(grid(tokens(15), (3, 5)), plain(tokens(15)), atol=1e-6)
    assert set(grid.state_dict()) == set(plain.state_dict())


def test_a_window_sees_itself_only():
    grid = GridAttention(attention(), window=2, side=(4, 4))
    plain = attention()
    x = tokens(4 * 6)
    image, out = x.view(2, 4, 6, 24), grid(x, (4, 6)).view(2, 4, 6, 24)
    for top in (0, 2):
        for left in (0, 2, 4):
            window = image[:, top : top + 2, left : left + 2].reshape(2, 4, 24)
            assert torch.allclose(out[:, top : top + 2, left : left + 2].reshape(2, 4, 24), plain(window), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"qk_norm": True}])
def test_a_grid_that_windows_do_not_fill_is_padded_with_zero_tokens(options):
    """At the bottom and the right; the zero tokens take part in the softmax, as in Detectron2."""
    grid, plain = GridAttention(attention(**options), window=3, side=(4, 4)), attention(**options)
    x = tokens(4 * 5)
    image = functional.pad(x.view(2, 4, 5, 24), (0, 0, 0, 1, 0, 2))
    expected = torch.zeros(2, 6, 6, 24)
    for top in (0, 3):
        for left in (0, 3):
            window = image[:, top : top + 3, left : left + 3].reshape(2, 9, 24)
            expected[:, top : top + 3, left : left + 3] = plain(window).view(2, 3, 3, 24)
    assert torch.allclose(grid(x, (4, 5)).view(2, 4, 5, 24), expected[:, :4, :5], atol=1e-5)


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (3, 3), (1, 2)])
@pytest.mark.parametrize("value", [None, torch.tensor([1.0, 2.0])])
def test_partition_and_merge_undo_each_other(size, value):
    grid = torch.randn(2, *size, 2)
    padded = pad(grid, 3, value)
    assert padded.shape[1] % 3 == 0 and padded.shape[2] % 3 == 0
    assert torch.equal(merge(partition(padded, 3), 3, size), grid)
    if padded.shape != grid.shape:
        assert torch.equal(padded[0, -1, -1], torch.zeros(2) if value is None else value)


@pytest.mark.parametrize("window", [0, 2, 3])
def test_relative_positions_of_zero_change_nothing(make, window):
    options = DenseOptions(window=window, global_layers=(1,), keep_prefix=False)
    plain = make(options) if window else make(DenseOptions(keep_prefix=False))
    relative = make(DenseOptions(window=window, global_layers=(1,), keep_prefix=False, rel_pos=True))
    assert torch.allclose(plain(pictures(40, 24))[0].tokens, relative(pictures(40, 24))[0].tokens, atol=1e-5)


def test_relative_positions_add_to_the_score_by_row_and_by_column():
    module = GridAttention(attention(), side=(3, 4), relative_kind="decomposed")
    tables = [torch.nn.init.normal_(module.get_parameter(name)) for name in ("rel_pos_h", "rel_pos_w")]
    x = tokens(12, batch=1)
    q, k, v = module.qkv(x).view(12, 3, 2, 12).permute(1, 2, 0, 3)
    scores = q @ k.transpose(1, 2) / 12**0.5
    for i in range(12):
        for j in range(12):
            by_row = tables[0][i // 4 - j // 4 + 2]
            by_column = tables[1][i % 4 - j % 4 + 3]
            scores[:, i, j] += q[:, i] @ by_row + q[:, i] @ by_column
    expected = module.proj((scores.softmax(-1) @ v).transpose(0, 1).reshape(12, 24))
    assert torch.allclose(module(x, (3, 4))[0], expected, atol=1e-5)


def test_tables_are_one_for_each_block_of_the_size_of_what_it_sees(make):
    options = DenseOptions(image_size=(48, 64), window=3, global_layers=(1,), rel_pos=True, keep_prefix=False)
    shapes = {name: tuple(parameter.shape) for name, parameter in make(options).named_parameters() if "rel_pos" in name}
    assert shapes == {
        "net.blocks.0.attn.rel_pos_h": (5, 12),
        "net.blocks.0.attn.rel_pos_w": (5, 12),
        "net.blocks.1.attn.rel_pos_h": (11, 12),
        "net.blocks.1.attn.rel_pos_w": (15, 12),
        "net.blocks.2.attn.rel_pos_h": (5, 12),
        "net.blocks.2.attn.rel_pos_w": (5, 12),
    }
    assert make(options).layer_id("net.blocks.1.attn.rel_pos_h") == 2


def test_tables_of_another_size_are_interpolated_along_the_distance():
    table = torch.arange(5.0).unsqueeze(1).expand(5, 2)
    expected = functional.interpolate(torch.arange(5.0).view(1, 1, 5), size=7, mode="linear").flatten()
    rows = distances(table, 4)
    assert rows.shape == (4, 4, 2)
    assert rows[0, 3, 0] == expected[0] and rows[3, 0, 1] == expected[6] and rows[2, 2, 0] == expected[3]


def test_gradients_reach_every_parameter(make):
    options = DenseOptions(image_size=(40, 32), window=3, global_layers=(1,), rel_pos=True, keep_prefix=False, drop_path=0.1)
    backbone = make(options).train()
    torch.manual_seed(0)
    backbone(pictures(40, 32))[0].tokens.square().sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    assert all(parameter.grad.any() for name, parameter in backbone.named_parameters() if "rel_pos" in name)


def test_attention_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="not this Linear"):
        GridAttention(torch.nn.Linear(3, 3), window=2, side=(4, 4))
    with pytest.raises(ValueError, match="timm's plain Attention"):
        GridAttention(Attention(24, 2, gated=True), window=2, side=(4, 4))
