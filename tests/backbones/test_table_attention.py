"""Attention with relative position tables: equal to the plain formula, in value and in every gradient."""

import pytest
import torch
from torch import Tensor

from backbones import relative, table_attention
from backbones.relative import table_bias, table_rows
from backbones.windows import GridAttention


def draw(grid, prefix, *, batch=2, heads=3, width=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    tokens = prefix + grid[0] * grid[1]
    shapes = [(batch, heads, tokens, width)] * 3 + [(table_rows(grid), heads)]
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def index_of_the_table(grid, prefix) -> Tensor:
    """Row of the table for each pair, one by one, as the BEiT paper's code counts them."""
    h, w = grid
    rows = table_rows(grid)
    index = torch.zeros(prefix + h * w, prefix + h * w, dtype=torch.long)
    for query in range(prefix + h * w):
        for key in range(prefix + h * w):
            if query < prefix and key < prefix:
                index[query, key] = rows - 1
            elif query < prefix:
                index[query, key] = rows - 3
            elif key < prefix:
                index[query, key] = rows - 2
            else:
                a, b = query - prefix, key - prefix
                index[query, key] = (a // w - b // w + h - 1) * (2 * w - 1) + a % w - b % w + w - 1
    return index


GRIDS: list[tuple[tuple[int, int], int]] = [((3, 3), 1), ((2, 4), 0), ((3, 2), 1), ((1, 3), 2), ((1, 1), 1)]


@pytest.mark.parametrize(("grid", "prefix"), GRIDS)
def test_bias_is_the_row_of_each_pair(grid, prefix):
    table = draw(grid, prefix)[3]
    expected = table[index_of_the_table(grid, prefix)].permute(2, 0, 1)
    assert torch.equal(table_bias(table, grid, grid, prefix), expected)


def attend(inputs, grid, scale):
    q, k, v, table = inputs
    return table_attention.attend(q, k, v, table, grid, scale)


def plain(inputs, grid, scale):
    q, k, v, table = inputs
    prefix = q.shape[2] - grid[0] * grid[1]
    scores = scale * q @ k.transpose(2, 3) + table[index_of_the_table(grid, prefix)].permute(2, 0, 1)
    return scores.softmax(-1) @ v


@pytest.mark.parametrize(("grid", "prefix"), GRIDS)
def test_value_and_gradients_equal_the_plain_formula(grid, prefix):
    inputs = draw(grid, prefix)
    ours, theirs = attend(inputs, grid, 0.7), plain(inputs, grid, 0.7)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    above = torch.randn_like(theirs)
    for one, other in zip(torch.autograd.grad(ours, inputs, above), torch.autograd.grad(theirs, inputs, above), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("grid", "prefix"), [((2, 3), 1), ((2, 2), 0)])
def test_gradients_are_those_of_small_differences(grid, prefix):
    inputs = draw(grid, prefix, batch=1, heads=2, width=2)
    assert torch.autograd.gradcheck(lambda *given: attend(given, grid, 0.5), inputs)


def test_large_scores_stay_finite():
    inputs = [tensor.detach().mul(100).requires_grad_() for tensor in draw((3, 3), 1, dtype=torch.float32)]
    out = attend(inputs, (3, 3), 1.0)
    assert out.isfinite().all()
    assert all(one.isfinite().all() for one in torch.autograd.grad(out.sum(), inputs))


def attention(grid):
    from timm.layers.attention import Attention

    torch.manual_seed(0)
    module = GridAttention(Attention(12, num_heads=3, qkv_bias=True), side=grid, relative_kind="table")
    assert module.relative_position_bias_table is not None
    torch.nn.init.normal_(module.relative_position_bias_table)
    return module


@pytest.mark.parametrize("grid", [(3, 4), (2, 5)])
def test_module_computes_the_same_either_way(grid, monkeypatch):
    """Of the grid the table is stored for, and of another one; in value and gradients."""
    module = attention((3, 4))
    tokens = torch.randn(2, 1 + grid[0] * grid[1], 12, requires_grad=True)
    inputs = [tokens, *module.parameters()]
    out = module(tokens, grid)
    found = torch.autograd.grad(out.square().sum(), inputs)
    with torch.no_grad():
        torch.testing.assert_close(module(tokens, grid), out)
    monkeypatch.setattr(table_attention, "applies", lambda *_: False)
    monkeypatch.setattr(table_attention, "attend", None)
    usual = module(tokens, grid)
    torch.testing.assert_close(out, usual, rtol=1e-5, atol=1e-6)
    for one, other in zip(found, torch.autograd.grad(usual.square().sum(), inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_lower_precision_and_dropout_go_the_usual_way():
    q, _, _, table = draw((2, 2), 1, dtype=torch.float32)
    assert table_attention.applies(q, table, 0.0)
    assert not table_attention.applies(q.bfloat16(), table, 0.0)
    assert not table_attention.applies(q, table, 0.1)
    assert not table_attention.applies(q.to("meta"), table.to("meta"), 0.0)


def test_table_of_another_grid_keeps_its_ends():
    """The three rows of the class token are not interpolated."""
    table = torch.randn(table_rows((4, 4)), 2)
    resized = relative.resize_table(table, (4, 4), (6, 5))
    assert resized.shape == (table_rows((6, 5)), 2) and torch.equal(resized[-3:], table[-3:])


@pytest.mark.parametrize(("old", "new"), [((14, 14), (32, 32)), ((14, 14), (40, 24)), ((8, 8), (7, 7)), ((4, 6), (9, 6))])
def test_table_of_another_grid_is_beits(old, new):
    """Against SciPy's splines over a rectangle, which the interpolation of BEiT's code (`interp2d`, gone from SciPy) stood on."""
    import numpy as np
    from scipy.interpolate import RectBivariateSpline

    def points(src, dst):
        if src == dst:
            return np.arange(src) - src // 2
        left, right, q = 1.01, 1.5, 0.0
        while right - left > 1e-6:
            q = (left + right) / 2
            left, right = (left, q) if sum(q**n for n in range(src // 2)) > dst // 2 else (q, right)
        half = [sum(q**m for m in range(n + 1)) for n in range(src // 2)]
        return np.array([-one for one in reversed(half)] + [0.0] + half)

    table = torch.randn(table_rows(old), 2, dtype=torch.float64)
    (sh, sw), (dh, dw) = ((2 * side[0] - 1, 2 * side[1] - 1) for side in (old, new))
    y, x = points(sh, dh), points(sw, dw)
    wanted = [np.clip(np.arange(d) - d // 2, p[0], p[-1]) for d, p in ((dh, y), (dw, x))]
    found = relative.resize_table(table, old, new)
    for head in range(2):
        values = table[:-3, head].numpy().reshape(sh, sw)
        expected = RectBivariateSpline(y, x, values, s=0)(*wanted)
        np.testing.assert_allclose(found[:-3, head].numpy().reshape(dh, dw), expected, atol=1e-7)


def test_a_shared_table_is_copied_to_each_block(tmp_path):
    """As fine-tuning of BEiT does; each copy then learns by itself, and the ledger says so."""
    from backbones.arch import VitArch
    from backbones.contract import DenseOptions
    from backbones.save import save_backbone
    from backbones.source import open_source
    from backbones.vit import initial_weights
    from backbones.zoo import vit

    arch = VitArch(
        embed_dim=8, depth=2, num_heads=2, patch_size=8, mlp_dim=16, image_size=(24, 24), positions=False, relative="shared_table"
    )
    weights = initial_weights(arch, 0)
    shared = "rel_pos_bias.relative_position_bias_table"
    weights[shared] = torch.randn_like(weights[shared])
    save_backbone(tmp_path / "beit.safetensors", vit.assemble(arch, vit.spec_of(arch), weights), method="beit", pretrain_data="x")
    source = open_source(str(tmp_path / "beit.safetensors"))
    images = torch.randn(1, 3, 24, 24)
    options = DenseOptions(relative_table=True)
    plain, built = source.build().eval(), source.build(options).eval()
    with torch.no_grad():
        torch.testing.assert_close(built(images)[0].tokens, plain(images)[0].tokens, rtol=1e-5, atol=1e-6)
    copies = [parameter for name, parameter in built.named_parameters() if name.endswith("relative_position_bias_table")]
    assert len(copies) == 2 and all(torch.equal(copy, weights[shared]) for copy in copies)
    assert copies[0].data_ptr() != copies[1].data_ptr()
    ledger = source.ledger_for(options)
    assert "copied to each block" in ledger.dropped[shared] and not ledger.new
    assert {f"blocks.{block}.attn.relative_position_bias_table" for block in range(2)} <= set(ledger.converted)
    larger = source.build(DenseOptions(relative_table=True, image_size=(40, 32)))
    assert dict(larger.named_parameters())["net.blocks.1.attn.relative_position_bias_table"].shape == (table_rows((5, 4)), 2)
