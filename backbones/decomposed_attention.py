"""Exact attention with ViTDet's decomposed relative positions that holds the scores of few queries at a time.

The way of Detectron2 keeps the scores of all heads for the backward, and copies them to add each bias. Here the backward computes
them again, so that what is kept is q, k and v as the projection gives them, and the result.

Letters in shape comments: B images or windows, A heads, b pairs of a window and a head, D width of a head, h w grid, y rows and x
columns of it, N = h*w, n = y*x.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from backbones import sketched_attention

Size = tuple[int, int]

SCORES = 2**20
"""Scores held at a time; 4 MB of them stay in the cache of a core."""


def applies(qkv: Tensor, row: Tensor, dropout: float) -> bool:
    """Whether `attend` can be used and is the faster way, which it is on a CPU; elsewhere torch's fused attention is."""
    return qkv.device.type == "cpu" and qkv.dtype == row.dtype and qkv.dtype in (torch.float32, torch.float64) and dropout == 0


def attend(qkv: Tensor, row: Tensor, column: Tensor, grid: Size, covered: Size | None = None) -> Tensor:
    """Softmax attention, scores scaled by 1 / sqrt(D), with the bias of each query's distance to the key's row and column.

    Args:
        qkv: (B, N, 3, A, D).
        row: (h, h, D), `relative.distances` of the rows.
        column: (w, w, D), the same of the columns.
        grid: (h, w).
        covered: height and width of the maps that the B images tile, window after window from the upper left; None: each image
            is a map of its own. Tokens beyond a map are keys, but what they would look for is not computed.

    Returns:
        (B, N, A, D); zeros for tokens beyond a map.
    """
    if sketched_attention.applies(qkv):
        return sketched_attention.attend(*qkv.permute(2, 0, 3, 1, 4).unbind(0), row, column).transpose(1, 2)
    return _Attend.apply(qkv, row, column, grid, covered or grid)  # type: ignore[return-value]  # apply is not typed


class _Chunk(NamedTuple):
    """Queries whose scores are held together: of some windows of some maps, some heads, some rows and columns of the windows."""

    windows: tuple[slice, slice, slice]
    """Maps, rows of windows, columns of windows."""
    heads: slice
    rows: slice
    columns: slice

    def of(self, part: Tensor) -> Tensor:
        """What (maps, rows, columns, h, w, A, D) has for the queries, (maps, rows, columns, A, y, x, D), as a view."""
        return part[(*self.windows, self.rows, self.columns, self.heads)].movedim(5, 3)

    def whole(self, part: Tensor) -> Tensor:
        """What it has for all tokens of the windows, (maps, rows, columns, A, h, w, D), as a view."""
        return part[(*self.windows, slice(None), slice(None), self.heads)].movedim(5, 3)


def _spans(covered: int, side: int) -> list[tuple[slice, int]]:
    """Windows along one side of a map, with how many of their tokens lie in it: the full ones, and one that is cut."""
    full, rest = divmod(covered, side)
    found = [(slice(0, full), side), (slice(full, full + 1), rest)]
    return [(windows, tokens) for windows, tokens in found if windows.stop > windows.start and tokens]


def _cut(part: slice, step: int) -> list[slice]:
    return [slice(first, min(first + step, part.stop)) for first in range(part.start, part.stop, step)]


def _chunks(qkv: Tensor, covered: Size) -> Iterator[_Chunk]:
    """Chunks of (maps, rows, columns, h, w, 3, A, D) that hold all queries inside the maps."""
    maps, _, _, h, w, _, heads, _ = qkv.shape
    kinds = list(product(_spans(covered[0], h), _spans(covered[1], w)))
    for (down, height), (across, width) in kinds:
        # Rows of queries, over the windows side by side, whose scores may be held.
        room = max(1, SCORES // ((across.stop - across.start) * width * h * w))
        # How many heads of a map have their scores in that room.
        whole = room // (height * (down.stop - down.start))
        some = product(_cut(slice(0, heads), min(max(1, whole), heads)), _cut(slice(0, maps), max(1, whole // heads)))
        parts = product(some, _cut(down, max(1, room // height)), _cut(slice(0, height), min(room, height)))
        for (group, batch), high, rows in parts:
            yield _Chunk((batch, high, across), group, rows, slice(0, width))


def _flat(part: Tensor) -> Tensor:
    """(maps, rows, columns, A, y, x, D) as (b, n, D)."""
    return part.flatten(4, 5).flatten(0, 3)


def _parts(qkv: Tensor, chunk: _Chunk) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (b, n, D), keys (b, N, D) and values (b, N, D) of a chunk."""
    q, k, v = qkv.unbind(5)
    return _flat(chunk.of(q)), _flat(chunk.whole(k)), _flat(chunk.whole(v))


def _shares(q: Tensor, k: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Attention of the queries of a chunk, (b, n, N), to lines (y, h, D) and (x, w, D)."""
    scores = torch.bmm(q * q.shape[-1] ** -0.5, k.transpose(1, 2))
    queries = q.unflatten(1, (-1, len(column)))
    placed = scores.unflatten(1, (-1, len(column))).unflatten(3, (row.shape[1], column.shape[1]))
    placed += torch.einsum("byxd,ykd->byxk", queries, row).unsqueeze(-1)
    placed += torch.einsum("byxd,xkd->byxk", queries, column).unsqueeze(-2)
    return torch.softmax(scores, dim=-1, out=scores)


def _tiled(images: Tensor, grid: Size, covered: Size) -> Tensor:
    """(B, N, ...) as (maps, rows, columns, h, w, ...)."""
    windows = (-1, *(-(-whole // side) for whole, side in zip(covered, grid, strict=True)))
    return images.unflatten(1, grid).unflatten(0, windows)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, row: Tensor, column: Tensor, grid: Size, covered: Size) -> Tensor:
        out = qkv.new_zeros(*qkv.shape[:2], *qkv.shape[3:])
        tiled, into = _tiled(qkv, grid, covered), _tiled(out, grid, covered)
        for chunk in _chunks(tiled, covered):
            q, k, v = _parts(tiled, chunk)
            place = chunk.of(into)
            place.copy_(torch.bmm(_shares(q, k, row[chunk.rows], column[chunk.columns]), v).view(place.shape))
        ctx.save_for_backward(qkv, row, column, out)
        ctx.sizes = grid, covered
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # takes one gradient
        qkv, row, column, out = ctx.saved_tensors
        scale, covered = qkv.shape[-1] ** -0.5, ctx.sizes[1]
        grads, to_row, to_column = torch.zeros_like(qkv), torch.zeros_like(row), torch.zeros_like(column)
        tiled, found, above_all, below = (_tiled(images, *ctx.sizes) for images in (qkv, out, grad, grads))
        to_q, to_k, to_v = below.unbind(5)
        for chunk in _chunks(tiled, covered):
            q, k, v = _parts(tiled, chunk)
            lines = row[chunk.rows], column[chunk.columns]
            above, result = _flat(chunk.of(above_all)), _flat(chunk.of(found))
            shares = _shares(q, k, *lines)
            _add(chunk.whole(to_v), torch.bmm(shares.transpose(1, 2), above))
            inner = (above * result).sum(-1, keepdim=True)
            scores = torch.bmm(above, v.transpose(1, 2)).sub_(inner).mul_(shares)
            _add(chunk.whole(to_k), torch.bmm(scores.transpose(1, 2), q * scale))
            # By the key's row and column: (b, y, x, h) and (b, y, x, w).
            placed = scores.unflatten(1, (-1, len(lines[1]))).unflatten(3, ctx.sizes[0])
            by_row, by_column = placed.sum(-1), placed.sum(-2)
            queries = q.unflatten(1, (-1, len(lines[1])))
            to_row[chunk.rows] += torch.einsum("byxk,byxd->ykd", by_row, queries)
            to_column[chunk.columns] += torch.einsum("byxk,byxd->xkd", by_column, queries)
            step = torch.bmm(scores, k).mul_(scale).unflatten(1, (-1, len(lines[1])))
            step += torch.einsum("byxk,ykd->byxd", by_row, lines[0])
            step += torch.einsum("byxk,xkd->byxd", by_column, lines[1])
            _add(chunk.of(to_q), step)
        return grads, to_row, to_column, None, None


def _add(place: Tensor, value: Tensor) -> None:
    place += value.view(place.shape)
