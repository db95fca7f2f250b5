"""Attention with decomposed relative positions by parts, against torch's own with the bias written out."""

import pytest
import torch
from torch.nn import functional

from backbones import decomposed_attention, relative
from backbones.windows import by_parts

GRIDS = [(4, 4), (3, 5), (1, 6)]


def parts(grid, batch=3, heads=2, width=4, window=None):
    """q, k and v of maps, what fills windows up, and lines of relative positions of rows and of columns."""
    generator = torch.Generator().manual_seed(grid[0])
    sides = window or grid
    numbers = (batch, *grid, 3, heads, width), (3, heads, width), *((2 * side - 1, width) for side in sides)
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in numbers]


def ours(qkv, filling, *lines):
    row, column = (relative.distances(line, (len(line) + 1) // 2) for line in lines)
    return decomposed_attention.attend(qkv, filling, row, column)


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


def windows_written_out(qkv, filling, *lines):
    """Maps padded with what fills them up, cut into windows, attended to and put together."""
    window = tuple((len(line) + 1) // 2 for line in lines)
    found = []
    for one in qkv:
        rows = []
        for top in range(0, one.shape[0], window[0]):
            row = []
            for left in range(0, one.shape[1], window[1]):
                own = one[top : top + window[0], left : left + window[1]]
                right = filling.expand(own.shape[0], window[1] - own.shape[1], *filling.shape)
                below = filling.expand(window[0] - own.shape[0], window[1], *filling.shape)
                whole = torch.cat([torch.cat([own, right], dim=1), below])
                out = written_out(whole.flatten(0, 1).unsqueeze(0), lines, window).view(*window, *filling.shape[1:])
                row.append(out[: own.shape[0], : own.shape[1]])
            rows.append(torch.cat(row, dim=1))
        found.append(torch.cat(rows))
    return torch.stack(found)


def are_the_same(values):
    """Results and gradients of both."""
    found, expected = ours(*values), windows_written_out(*values)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    one, other = (torch.autograd.grad(out, values, weights, materialize_grads=True) for out in (found, expected))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b)


def hold(monkeypatch, scores, queries=1):
    """Have few scores held at a time, unless those of so many queries are more."""
    monkeypatch.setattr(decomposed_attention, "SCORES", scores)
    monkeypatch.setattr(decomposed_attention, "QUERIES", queries)


# Scores held at a time: all, those of one image, those of one row of the grid, and those of some queries.
@pytest.mark.parametrize(("scores", "queries"), [(2**20, 1), (300, 1), (1, 1), (1, 12)])
@pytest.mark.parametrize("grid", GRIDS)
def test_result_and_gradients_are_those_of_the_bias_written_out(monkeypatch, grid, scores, queries):
    hold(monkeypatch, scores, queries)
    are_the_same(parts(grid))
    are_the_same(parts(grid, batch=1))


def test_gradients_are_those_of_finite_differences(monkeypatch):
    hold(monkeypatch, 12)
    assert torch.autograd.gradcheck(ours, parts((3, 4), batch=2, heads=1, width=2, window=(2, 3)))


# Scores held at a time: all, those of some heads, of a row of windows, of some rows of queries, of one.
@pytest.mark.parametrize("scores", [2**20, 300, 100, 40, 1])
@pytest.mark.parametrize("covered", [(5, 7), (4, 6), (2, 2), (5, 6), (3, 9), (1, 1)])
def test_windows_reach_beyond_the_map_where_the_filling_is_looked_at(monkeypatch, covered, scores):
    hold(monkeypatch, scores)
    are_the_same(parts(covered, batch=2, window=(2, 3)))
    are_the_same(parts(covered, batch=1, window=(2, 3)))


def test_it_stands_back_where_torchs_attention_is_to_do_it():
    qkv, _, line, _ = parts((2, 2))
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
