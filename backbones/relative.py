"""Relative positions in attention: ViTDet's decomposed ones and BEiT's tables.

Letters in shape comments: B batch, A heads, D width of a head, h w grid, P prefix tokens, N = P + h*w.
"""

import torch
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from torch import Tensor
from torch.nn import functional

Size = tuple[int, int]

ROWS, COLUMNS = "rel_pos_h", "rel_pos_w"
TABLE = "relative_position_bias_table"
TENSORS = (ROWS, COLUMNS, TABLE)
"""Last parts of the names of parameters that hold relative positions."""

# Rows at the end of BEiT's table (arXiv 2106.08254): class token to patch, patch to class token, class token to itself.
EXTRA = 3


def table_rows(grid: Size) -> int:
    """Number of rows of BEiT's table for a grid."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + EXTRA


def resize_table(table: Tensor, old: Size, new: Size) -> Tensor:
    """Bring BEiT's table (rows, A) from one grid to another, finer near the middle as BEiT does; timm's code."""
    if old == new:
        return table
    return resize_rel_pos_bias_table(table, new, (table_rows(new), table.shape[1]), old)


def table_bias(table: Tensor, stored: Size, grid: Size, num_prefix: int) -> Tensor:
    """What BEiT's table adds to the scores, (A, N, N), rows are queries.

    Args:
        table: (rows, A).
        stored: grid the table is for; another one is resized.
        grid: (h, w) of the tokens.
        num_prefix: 0, or 1 for a class token in front. Further prefix tokens get what the class token gets.
    """
    index = _index(grid, num_prefix, table.device)
    bias = resize_table(table, stored, grid)[index.flatten()]
    return bias.unflatten(0, index.shape).permute(2, 0, 1)


def _index(grid: Size, num_prefix: int, device: torch.device) -> Tensor:
    """Row of the table for each pair of tokens, (N, N)."""
    h, w = grid
    y, x = torch.arange(h, device=device), torch.arange(w, device=device)
    by_row, by_column = y[:, None] - y[None, :] + h - 1, x[:, None] - x[None, :] + w - 1
    patches = by_row[:, None, :, None] * (2 * w - 1) + by_column[None, :, None, :]
    index = functional.pad(patches.reshape(h * w, h * w), (num_prefix, 0, num_prefix, 0))
    rows = table_rows(grid)
    index[:num_prefix, :] = rows - 3
    index[:, :num_prefix] = rows - 2
    index[:num_prefix, :num_prefix] = rows - 1
    return index


def decomposed(q: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor, grid: Size) -> tuple[Tensor, Tensor]:
    """What decomposed positions add to the score of a query and a key, by the key's row (B, A, h*w, h) and column (B, A, h*w, w).

    Args:
        q: queries (B, A, h*w, D), not scaled.
        rel_pos_h: (2*side - 1, D), row i for a distance of i - (side - 1) from key to query; resized if the height is another.
        rel_pos_w: the same for columns.
        grid: (h, w).
    """
    queries = q.unflatten(2, grid)
    by_row = torch.einsum("bayxd,ykd->bayxk", queries, distances(rel_pos_h, grid[0]))
    by_column = torch.einsum("bayxd,xkd->bayxk", queries, distances(rel_pos_w, grid[1]))
    return by_row.flatten(2, 3), by_column.flatten(2, 3)


def fold(q: Tensor, k: Tensor, by_row: Tensor, by_column: Tensor, grid: Size) -> tuple[Tensor, Tensor]:
    """Widen queries and keys so that their plain product has the decomposed bias in it.

    A query carries its bias for every row and column, a key a one at its own row and column. So any attention kernel computes
    the sum, its gradients too, and no matrix of h*w x h*w is kept for the bias.
    """
    h, w = grid
    token = torch.arange(h * w, device=k.device)
    place = torch.cat([functional.one_hot(token // w, h), functional.one_hot(token % w, w)], dim=1).to(k.dtype)
    # The fast kernels of bfloat16 take widths that are multiples of 8.
    spare = -(q.shape[-1] + h + w) % 8
    q = functional.pad(torch.cat([q, by_row, by_column], dim=-1), (0, spare))
    return q, functional.pad(torch.cat([k, place.expand(*k.shape[:2], -1, -1)], dim=-1), (0, spare))


def distances(line: Tensor, side: int) -> Tensor:
    """Rows of a decomposed table for each pair (query, key) along a side, (side, side, D)."""
    line = resize_line(line, 2 * side - 1)
    steps = torch.arange(side, device=line.device)
    return line[steps[:, None] - steps[None, :] + side - 1]


def resize_line(line: Tensor, length: int) -> Tensor:
    """Bring a decomposed table (rows, D) to another number of rows, linearly as Detectron2 does."""
    if line.shape[0] == length:
        return line
    return functional.interpolate(line.T.unsqueeze(0), size=length, mode="linear").squeeze(0).T
