"""Attention with decomposed relative positions by parts, against torch's own with the bias written out."""

import pytest
import torch
from torch.nn import functional

from backbones import decomposed_attention, relative
from backbones.windows import by_parts

GRIDS = [(4, 4), (3, 5), (1, 6)]


def parts(grid, batch=3, heads=2, width=4):
    generator = torch.Generator().manual_seed(grid[0])
    numbers = (batch, grid[0] * grid[1], 3, heads, width), (2 * grid[0] - 1, width), (2 * grid[1] - 1, width)
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in numbers]


def ours(qkv, lines, grid, covered=None):
    row, column = (relative.distances(line, side) for line, side in zip(lines, grid, strict=True))
    return decomposed_attention.attend(qkv, row, column, grid, covered)


def written_out(qkv, lines, grid):
    """Scores of every pair, with the bias of the distance of its rows and of its columns."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    place = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    bias = torch.stack(
        [
            torch.stack([q[:, :, a] @ (lines[0][y - j + grid[0] - 1] + lines[1][x - i + grid[1] - 1]) for j, i in place], -1)
            for a, (y, x) in enumerate(place)
        ],
        dim=2,
    )
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2)


# Scores held at a time: all, those of one image, and those of one row of the grid.
@pytest.mark.parametrize("scores", [2**20, 300, 1])
@pytest.mark.parametrize("grid", GRIDS)
def test_result_and_gradients_are_those_of_the_bias_written_out(monkeypatch, grid, scores):
    monkeypatch.setattr(decomposed_attention, "SCORES", scores)
    qkv, *lines = parts(grid)
    found, expected = ours(qkv, lines, grid), written_out(qkv, lines, grid)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    one, other = (torch.autograd.grad(out, [qkv, *lines], weights) for out in (found, expected))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_are_those_of_finite_differences(monkeypatch):
    monkeypatch.setattr(decomposed_attention, "SCORES", 12)
    qkv, *lines = parts((2, 3), batch=2, heads=1, width=2)
    assert torch.autograd.gradcheck(lambda *values: ours(values[0], values[1:], (2, 3)), (qkv, *lines))


# Scores held at a time: all, those of some windows, those of one row of queries.
@pytest.mark.parametrize("scores", [2**20, 300, 1])
@pytest.mark.parametrize("covered", [(5, 7), (4, 6), (2, 2), (5, 6), (3, 9)])
def test_what_windows_hold_beyond_the_map_is_looked_at_and_looks_for_nothing(monkeypatch, covered, scores):
    monkeypatch.setattr(decomposed_attention, "SCORES", scores)
    grid, (h, w) = (2, 3), covered
    down, across = -(-h // 2), -(-w // 3)
    qkv, *lines = parts(grid, batch=2 * down * across)  # two maps
    found, expected = ours(qkv, lines, grid, covered), written_out(qkv, lines, grid)
    inside = torch.zeros(2, down * 2, across * 3, dtype=torch.bool)
    inside[:, :h, :w] = True
    inside = inside.view(2, down, 2, across, 3).transpose(2, 3).reshape(-1, 6, 1, 1)
    torch.testing.assert_close(found, expected * inside)
    weights = torch.randn_like(expected)
    one = torch.autograd.grad(found, [qkv, *lines], weights)
    other = torch.autograd.grad(expected, [qkv, *lines], weights * inside)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b)


def test_it_stands_back_where_torchs_attention_is_to_do_it():
    qkv, line, _ = parts((2, 2))
    row = relative.distances(line, 2)
    assert decomposed_attention.applies(qkv, row, 0.0)
    assert not decomposed_attention.applies(qkv, row, 0.1)
    assert not decomposed_attention.applies(qkv.bfloat16(), row, 0.0)


def test_folded_positions_give_the_same_where_it_stands_back(monkeypatch):
    from backbones.arch import VitArch
    from backbones.contract import DenseOptions
    from backbones.zoo import vit

    arch = VitArch(embed_dim=24, depth=3, num_heads=2, patch_size=8, mlp_dim=48, image_size=(32, 32))
    options = DenseOptions(image_size=(64, 64), window=3, global_layers=(1,), rel_pos=True, keep_prefix=False)
    net = vit.assemble(arch, vit.spec_of(arch), vit.initial_weights(arch, 0), options)
    for name, parameter in net.named_parameters():
        if "rel_pos" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    images = torch.randn(2, 3, 64, 40)
    found = []
    for applies in (True, False):
        monkeypatch.setattr(decomposed_attention, "applies", lambda *_, applies=applies: applies)
        net.zero_grad()
        (features,) = net(images)
        features.map.square().mean().backward()
        found.append([features.map, *(parameter.grad for parameter in net.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # strips of windows, and some tokens at a time
        torch.testing.assert_close(net(images)[0].map, found[0][0], rtol=1e-4, atol=1e-5)


def test_by_parts_is_the_module_itself():
    layer, tokens = torch.nn.Linear(4, 6), torch.randn(2, 600, 4)
    with torch.no_grad():
        torch.testing.assert_close(by_parts(layer, tokens), layer(tokens))
    assert by_parts(layer, tokens).requires_grad
