"""Exact attention with ViTDet's decomposed relative positions that holds the scores of few queries at a time.

The way of Detectron2 keeps the scores of all heads for the backward, and copies them to add each bias. Here the backward computes
them again, so that what is kept is q, k and v as the projection gives them, and the result. Windows are read out of the map and
written into it few at a time: a map cut into windows, with what fills up those at its edges, is never there.

Letters in shape comments: B maps, H W their size, A heads, D width of a head, h w size of a window, R and C windows below and
beside each other, b pairs of a window and a head, y rows and x columns of a window that lie in the map, N = h*w, n = y*x.
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


def attend(qkv: Tensor, filling: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Softmax attention in windows, scores scaled by 1 / sqrt(D), with a bias for the distances to a key's row and column.

    Windows tile the map from the upper left. Where one reaches beyond the map, `filling` stands there as keys and values.

    Args:
        qkv: (B, H, W, 3, A, D).
        filling: (3, A, D); of its queries nothing is made.
        row: (h, h, D), `relative.distances` of a window's rows; (h, w) is the size of the windows.
        column: (w, w, D), the same of its columns.

    Returns:
        (B, H, W, A, D).
    """
    if sketched_attention.applies(qkv):
        return sketched_attention.attend_in_windows(qkv, filling, row, column)
    return _Attend.apply(qkv, filling, row, column)  # type: ignore[return-value]  # apply is not typed


class _Chunk(NamedTuple):
    """Queries whose scores are held together, and the windows they lie in, of which equally many tokens are in the map."""

    maps: slice
    height: slice
    """Rows of the map."""
    width: slice
    """Columns of the map."""
    heads: slice
    inside: Size
    """(y, x) of each window."""
    rows: slice
    """Rows of the queries in their windows."""

    @property
    def columns(self) -> slice:
        """Columns of the queries in their windows: all that lie in the map."""
        return slice(self.inside[1])

    def tokens(self, part: Tensor) -> Tensor:
        """What (B, H, W, A, D) has for the tokens of the windows, (B, R, C, A, y, x, D), as a view."""
        found = part[self.maps, self.height, self.width, self.heads]
        return found.unflatten(2, (-1, self.inside[1])).unflatten(1, (-1, self.inside[0])).permute(0, 1, 3, 5, 2, 4, 6)

    def queries(self, part: Tensor) -> Tensor:
        """What it has for the queries, as a view of the same order."""
        return self.tokens(part)[..., self.rows, :, :]

    def keys(self, part: Tensor, filling: Tensor, window: Size) -> Tensor:
        """What it has for the whole windows, (b, N, D), with `filling` (A, D) beyond the map."""
        tokens = self.tokens(part)
        if self.inside == window:
            return _flat(tokens)
        whole = filling[self.heads, None, None].expand(*tokens.shape[:4], *window, -1).contiguous()
        whole[..., : self.inside[0], : self.inside[1], :] = tokens
        return _flat(whole)

    def add_to_keys(self, part: Tensor, filling: Tensor, window: Size, value: Tensor) -> None:
        """Add (b, N, D) to what `keys` took it from."""
        tokens, (y, x) = self.tokens(part), self.inside
        value = value.view(*tokens.shape[:4], *window, -1)
        tokens += value[..., :y, :x, :]
        if self.inside != window:
            beyond = value[..., y:, :, :].sum((0, 1, 2, 4, 5)) + value[..., :y, x:, :].sum((0, 1, 2, 4, 5))
            filling[self.heads] += beyond


def _spans(covered: int, side: int) -> list[tuple[slice, int]]:
    """Windows along one side of a map, as the tokens they cover and how many a window has: the full ones, and one that is cut."""
    full, rest = covered // side * side, covered % side
    return [(span, own) for span, own in ((slice(0, full), side), (slice(full, covered), rest)) if span.stop > span.start]


def _cut(part: slice, step: int) -> list[slice]:
    return [slice(first, min(first + step, part.stop)) for first in range(part.start, part.stop, step)]


def _chunks(qkv: Tensor, window: Size) -> Iterator[_Chunk]:
    """Chunks of (B, H, W, 3, A, D) that hold all queries."""
    maps, high, wide, _, heads, _ = qkv.shape
    for (height, y), (width, x) in product(_spans(high, window[0]), _spans(wide, window[1])):
        down = (height.stop - height.start) // y
        # Rows of queries, over the windows side by side, whose scores may be held.
        room = max(1, SCORES // ((width.stop - width.start) * window[0] * window[1]))
        # How many heads of a map have their scores in that room.
        whole = room // (y * down)
        some = product(_cut(slice(0, maps), max(1, whole // heads)), _cut(slice(0, heads), min(max(1, whole), heads)))
        parts = product(some, _cut(height, max(1, room // y) * y), _cut(slice(0, y), min(room, y)))
        for (batch, group), strip, rows in parts:
            yield _Chunk(batch, strip, width, group, (y, x), rows)


def _flat(part: Tensor) -> Tensor:
    """(B, R, C, A, y, x, D) as (b, n, D)."""
    return part.reshape(part.shape[:4].numel(), -1, part.shape[-1])


def _parts(qkv: Tensor, filling: Tensor, window: Size, chunk: _Chunk) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (b, n, D), keys (b, N, D) and values (b, N, D) of a chunk."""
    q, k, v = qkv.unbind(3)
    return _flat(chunk.queries(q)), chunk.keys(k, filling[1], window), chunk.keys(v, filling[2], window)


def _shares(q: Tensor, k: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Attention of the queries of a chunk, (b, n, N), to lines (y, h, D) and (x, w, D)."""
    scores, queries = q.new_empty(*q.shape[:2], k.shape[1]), q.unflatten(1, (-1, len(column)))
    placed = scores.unflatten(1, (-1, len(column))).unflatten(3, (row.shape[1], column.shape[1]))
    by_row, by_column = torch.einsum("byxd,ykd->byxk", queries, row), torch.einsum("byxd,xkd->byxk", queries, column)
    # Written once and added to by the product: scores are read and written as few times as can be.
    torch.add(by_row.unsqueeze(-1), by_column.unsqueeze(-2), out=placed)
    torch.baddbmm(scores, q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5, out=scores)
    return torch.softmax(scores, dim=-1, out=scores)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, filling: Tensor, row: Tensor, column: Tensor) -> Tensor:
        out, window = qkv.new_empty(*qkv.shape[:3], *qkv.shape[4:]), (len(row), len(column))
        for chunk in _chunks(qkv, window):
            q, k, v = _parts(qkv, filling, window, chunk)
            place = chunk.queries(out)
            place.copy_(torch.bmm(_shares(q, k, row[chunk.rows], column[chunk.columns]), v).view(place.shape))
        ctx.save_for_backward(qkv, filling, row, column, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]  # takes one gradient
        qkv, filling, row, column, out = ctx.saved_tensors
        scale, window = qkv.shape[-1] ** -0.5, (len(row), len(column))
        to_qkv, to_filling, to_row, to_column = (torch.zeros_like(one) for one in (qkv, filling, row, column))
        to_q, to_k, to_v = to_qkv.unbind(3)
        for chunk in _chunks(qkv, window):
            q, k, v = _parts(qkv, filling, window, chunk)
            lines = row[chunk.rows], column[chunk.columns]
            above, result = _flat(chunk.queries(grad)), _flat(chunk.queries(out))
            shares = _shares(q, k, *lines)
            chunk.add_to_keys(to_v, to_filling[2], window, torch.bmm(shares.transpose(1, 2), above))
            inner = (above * result).sum(-1, keepdim=True)
            scores = torch.bmm(above, v.transpose(1, 2)).sub_(inner).mul_(shares)
            chunk.add_to_keys(to_k, to_filling[1], window, torch.bmm(scores.transpose(1, 2), q * scale))
            # By the key's row and column: (b, y, x, h) and (b, y, x, w).
            placed = scores.unflatten(1, (-1, len(lines[1]))).unflatten(3, window)
            by_row, by_column = placed.sum(-1), placed.sum(-2)
            queries = q.unflatten(1, (-1, len(lines[1])))
            to_row[chunk.rows] += torch.einsum("byxk,byxd->ykd", by_row, queries)
            to_column[chunk.columns] += torch.einsum("byxk,byxd->xkd", by_column, queries)
            step = torch.bmm(scores, k).mul_(scale).unflatten(1, (-1, len(lines[1])))
            step += torch.einsum("byxk,ykd->byxd", by_row, lines[0])
            step += torch.einsum("byxk,xkd->byxd", by_column, lines[1])
            place = chunk.queries(to_q)
            place += step.view(place.shape)
        return to_qkv, to_filling, to_row, to_column
