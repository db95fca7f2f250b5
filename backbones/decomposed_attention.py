"""Exact attention with ViTDet's decomposed relative positions that holds the scores of few queries at a time.

The way of Detectron2 keeps the scores of all heads for the backward, and copies them to add each bias. Here the backward computes
them again, so that what is kept is q, k and v as the projection gives them, and the result.

Letters in shape comments: B images or windows, b of them, A heads, D width of a head, h w grid, y rows of it, N = h*w, n = y*w.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Size = tuple[int, int]

SCORES = 2**20
"""Scores held at a time; 4 MB of them stay in the cache of a core."""


def applies(qkv: Tensor, row: Tensor, dropout: float) -> bool:
    """Whether `attend` can be used and is the faster way, which it is on a CPU; elsewhere torch's fused attention is."""
    return qkv.device.type == "cpu" and qkv.dtype == row.dtype and qkv.dtype in (torch.float32, torch.float64) and dropout == 0


def attend(qkv: Tensor, row: Tensor, column: Tensor, grid: Size) -> Tensor:
    """Softmax attention, scores scaled by 1 / sqrt(D), with the bias of each query's distance to the key's row and column.

    Args:
        qkv: (B, N, 3, A, D).
        row: (h, h, D), `relative.distances` of the rows.
        column: (w, w, D), the same of the columns.
        grid: (h, w).

    Returns:
        (B, N, A, D).
    """
    return _Attend.apply(qkv, row, column, grid)  # type: ignore[return-value]  # apply is not typed


class _Chunk(NamedTuple):
    """Queries whose scores are held together: of some images, one head, some rows of the grid."""

    images: slice
    head: int
    rows: slice
    tokens: slice


def _chunks(qkv: Tensor, grid: Size) -> Iterator[_Chunk]:
    (h, w), (batch, tokens, _, heads, _) = grid, qkv.shape
    images = max(1, SCORES // tokens**2)
    rows = h if images > 1 else max(1, min(h, SCORES // (w * tokens)))
    for head in range(heads):
        for first in range(0, batch, images):
            for top in range(0, h, rows):
                end = min(top + rows, h)
                yield _Chunk(slice(first, first + images), head, slice(top, end), slice(top * w, end * w))


def _parts(qkv: Tensor, chunk: _Chunk) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (b, n, D), keys (b, N, D) and values (b, N, D) of a chunk, as views."""
    images = qkv[chunk.images]
    return images[:, chunk.tokens, 0, chunk.head], images[:, :, 1, chunk.head], images[:, :, 2, chunk.head]


def _shares(q: Tensor, k: Tensor, row: Tensor, column: Tensor, grid: Size) -> Tensor:
    """Attention of the queries of a chunk, (b, n, N)."""
    scores = torch.bmm(q * q.shape[-1] ** -0.5, k.transpose(1, 2))
    queries = q.unflatten(1, (-1, grid[1]))
    placed = scores.unflatten(1, (-1, grid[1])).unflatten(3, grid)
    placed += torch.einsum("byxd,ykd->byxk", queries, row).unsqueeze(-1)
    placed += torch.einsum("byxd,xkd->byxk", queries, column).unsqueeze(-2)
    return torch.softmax(scores, dim=-1, out=scores)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, row: Tensor, column: Tensor, grid: Size) -> Tensor:
        out = qkv.new_empty(*qkv.shape[:2], *qkv.shape[3:])
        for chunk in _chunks(qkv, grid):
            q, k, v = _parts(qkv, chunk)
            out[chunk.images, chunk.tokens, chunk.head] = torch.bmm(_shares(q, k, row[chunk.rows], column, grid), v)
        ctx.save_for_backward(qkv, row, column, out)
        ctx.grid = grid
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # takes one gradient
        qkv, row, column, out = ctx.saved_tensors
        grid, scale = ctx.grid, qkv.shape[-1] ** -0.5
        grads, to_row, to_column = torch.empty_like(qkv), torch.zeros_like(row), torch.zeros_like(column)
        for chunk in _chunks(qkv, grid):
            q, k, v = _parts(qkv, chunk)
            to_q, to_k, to_v = _parts(grads, chunk)
            above = grad[chunk.images, chunk.tokens, chunk.head]
            if chunk.rows.start == 0:
                to_k.zero_()
                to_v.zero_()
            shares = _shares(q, k, row[chunk.rows], column, grid)
            to_v += torch.bmm(shares.transpose(1, 2), above)
            inner = (above * out[chunk.images, chunk.tokens, chunk.head]).sum(-1, keepdim=True)
            scores = torch.bmm(above, v.transpose(1, 2)).sub_(inner).mul_(shares)
            to_k += torch.bmm(scores.transpose(1, 2), q * scale)
            # By the key's row and column: (b, y, w, h) and (b, y, w, w).
            placed = scores.unflatten(1, (-1, grid[1])).unflatten(3, grid)
            by_row, by_column = placed.sum(-1), placed.sum(-2)
            queries = q.unflatten(1, (-1, grid[1]))
            to_row[chunk.rows] += torch.einsum("byxk,byxd->ykd", by_row, queries)
            to_column += torch.einsum("byxk,byxd->xkd", by_column, queries)
            found = torch.bmm(scores, k).mul_(scale).unflatten(1, (-1, grid[1]))
            found += torch.einsum("byxk,ykd->byxd", by_row, row[chunk.rows])
            found += torch.einsum("byxk,xkd->byxd", by_column, column)
            to_q.copy_(found.flatten(1, 2))
        return grads, to_row, to_column, None
