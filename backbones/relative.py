"""Relative positions in attention: ViTDet's decomposed ones and BEiT's tables.

Letters in shape comments: B batch, A heads, D width of a head, h w grid, P prefix tokens, N = P + h*w.
"""

from functools import cache

import numpy as np
import torch
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
    """Bring BEiT's table (rows, A) from one grid to another as BEiT's code does (microsoft/unilm, beit/run_class_finetuning.py).

    Cubic splines through its points, which are taken to lie the wider apart the farther from the middle, so that what is learned
    of near patches stays; the rows of the class token stay as they are.
    """
    if old == new:
        return table
    size = (2 * old[0] - 1, 2 * old[1] - 1)
    down, across = (_spread(2 * one - 1, 2 * other - 1).to(table) for one, other in zip(old, new, strict=True))
    between = table[: table.shape[0] - EXTRA].unflatten(0, size)
    resized = torch.einsum("iy,yxa,jx->ija", down, between, across).flatten(0, 1)
    return torch.cat([resized, table[table.shape[0] - EXTRA :]])


@cache
def _spread(old: int, new: int) -> Tensor:
    """Share of each of `old` distances in each of `new`, (new, old), along one side; both are odd."""
    from scipy.interpolate import make_interp_spline  # half a second that most networks do without

    if old == new:
        return torch.eye(old, dtype=torch.float64)
    # Steps grow by a factor that brings the farthest of the old distances to the farthest of the new.
    low, high, factor = 1.01, 1.5, 1.01
    while high - low > 1e-6:
        factor = (low + high) / 2
        reach = (1 - factor ** (old // 2)) / (1 - factor)
        low, high = (low, factor) if reach > new // 2 else (factor, high)
    right = np.cumsum(np.append(1.0, factor ** np.arange(1, old // 2)))[: old // 2]
    points = np.concatenate([-right[::-1], [0.0], right])
    wanted = np.arange(-(new // 2), new // 2 + 1).clip(points[0], points[-1])
    if old == 1:
        return torch.ones(new, 1, dtype=torch.float64)
    return torch.from_numpy(make_interp_spline(points, np.eye(old), k=min(3, old - 1))(wanted))


def table_bias(table: Tensor, stored: Size, grid: Size, num_prefix: int) -> Tensor:
    """What BEiT's table adds to the scores, (A, N, N), rows are queries.

    Args:
        table: (rows, A).
        stored: grid the table is for; another one is resized.
        grid: (h, w) of the tokens.
        num_prefix: 0, or 1 for a class token in front. Further prefix tokens get what the class token gets.
    """
    h, w = grid
    table = resize_table(table, stored, grid)
    patches = shifts(table, grid).flip(1, 2).reshape(-1, h * w, h * w)
    if num_prefix == 0:
        return patches
    from_prefix, to_prefix, among_prefix = (row.view(-1, 1, 1) for row in table[table.shape[0] - EXTRA :])
    top = torch.cat([among_prefix.expand(-1, num_prefix, num_prefix), from_prefix.expand(-1, num_prefix, h * w)], dim=2)
    return torch.cat([top, torch.cat([to_prefix.expand(-1, h * w, num_prefix), patches], dim=2)], dim=1)


def shifts(table: Tensor, grid: Size) -> Tensor:
    """The part of BEiT's table between patches as a view (A, h, w, h, w): query by row and column, both from the last, then key.

    Entry (a, y, x, i, j) lies in a copy of the table at row y + i and column x + j, so nothing is looked up one by one.
    """
    h, w = grid
    lines = table[: table.shape[0] - EXTRA].T.unflatten(1, (2 * h - 1, 2 * w - 1)).flip(1, 2)
    return lines.unfold(1, h, 1).unfold(2, w, 1)


def decomposed(q: Tensor, row: Tensor, column: Tensor, grid: Size) -> tuple[Tensor, Tensor]:
    """What decomposed positions add to the score of a query and a key, by the key's row (B, A, h*w, h) and column (B, A, h*w, w).

    Args:
        q: queries (B, A, h*w, D), not scaled.
        row: (h, h, D), `distances` of the rows.
        column: (w, w, D), the same of the columns.
        grid: (h, w).
    """
    queries = q.unflatten(2, grid)
    by_row = torch.einsum("bayxd,ykd->bayxk", queries, row)
    by_column = torch.einsum("bayxd,xkd->bayxk", queries, column)
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
    """Rows of a decomposed table for each pair (query, key) along a side, (side, side, D).

    Args:
        line: (2*s - 1, D), row i for a distance of i - (s - 1) from key to query; resized where s is not the side.
        side: tokens along it.
    """
    line = resize_line(line, 2 * side - 1)
    steps = torch.arange(side, device=line.device)
    return line[steps[:, None] - steps[None, :] + side - 1]


def resize_line(line: Tensor, length: int) -> Tensor:
    """Bring a decomposed table (rows, D) to another number of rows, linearly as Detectron2 does."""
    if line.shape[0] == length:
        return line
    return functional.interpolate(line.T.unsqueeze(0), size=length, mode="linear").squeeze(0).T
