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
"""Scores held at a time, unless `QUERIES` asks for more; 4 MB of them stay in the cache of a core."""

QUERIES = 2**10
"""Queries taken at a time even where their scores are more, 16 MB for a map of 64 x 64: fewer lose more than the cache gives."""


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


class _Windows(NamedTuple):
    """Windows of some maps and heads whose keys and values are held together; equally many tokens of each lie in the map."""

    maps: slice
    height: slice
    """Rows of the map."""
    width: slice
    """Columns of the map."""
    heads: slice
    inside: Size
    """(y, x) of each window."""

    def tokens(self, part: Tensor) -> Tensor:
        """What (B, H, W, A, D) has for the tokens of the windows, (B, R, C, A, y, x, D), as a view."""
        found = part[self.maps, self.height, self.width, self.heads]
        return found.unflatten(2, (-1, self.inside[1])).unflatten(1, (-1, self.inside[0])).permute(0, 1, 3, 5, 2, 4, 6)

    def queries(self, part: Tensor, rows: slice) -> Tensor:
        """What it has for some rows of them, as a view of the same order."""
        return self.tokens(part)[..., rows, :, :]

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


def _windows(qkv: Tensor, window: Size) -> Iterator[tuple[_Windows, list[slice]]]:
    """All windows of (B, H, W, 3, A, D), some at a time, and the rows of queries in them whose scores are held at a time."""
    maps, high, wide, _, heads, _ = qkv.shape
    for (height, y), (width, x) in product(_spans(high, window[0]), _spans(wide, window[1])):
        down = (height.stop - height.start) // y
        # Rows of queries, over the windows side by side, whose scores may be held.
        across = width.stop - width.start
        room = max(1, SCORES // (across * window[0] * window[1]), QUERIES // across)
        # How many heads of a map have their scores in that room.
        whole = room // (y * down)
        some = product(_cut(slice(0, maps), max(1, whole // heads)), _cut(slice(0, heads), min(max(1, whole), heads)))
        for (batch, group), strip in product(some, _cut(height, max(1, room // y) * y)):
            yield _Windows(batch, strip, width, group, (y, x)), _cut(slice(0, y), min(room, y))


def _flat(part: Tensor) -> Tensor:
    """(B, R, C, A, y, x, D) as (b, n, D)."""
    return part.reshape(part.shape[:4].numel(), -1, part.shape[-1])


def _shares(buffer: Tensor, q: Tensor, k: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Attention (b, n, N) of queries (b, n, D) to keys (b, N, D) with lines (y, h, D) and (x, w, D), written over `buffer`."""
    scores, queries = buffer.resize_(*q.shape[:2], k.shape[1]), q.unflatten(1, (-1, len(column)))
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
        (from_q, from_k, from_v), buffer = qkv.unbind(3), qkv.new_empty(0)
        for windows, parts in _windows(qkv, window):
            k, v = windows.keys(from_k, filling[1], window), windows.keys(from_v, filling[2], window)
            for rows in parts:
                q, place = _flat(windows.queries(from_q, rows)), windows.queries(out, rows)
                shares = _shares(buffer, q, k, row[rows], column[: windows.inside[1]])
                place.copy_(torch.bmm(shares, v).view(place.shape))
        ctx.save_for_backward(qkv, filling, row, column, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]  # takes one gradient
        qkv, filling, row, column, out = ctx.saved_tensors
        scale, window = qkv.shape[-1] ** -0.5, (len(row), len(column))
        to_qkv, to_filling, to_row, to_column = (torch.zeros_like(one) for one in (qkv, filling, row, column))
        (from_q, from_k, from_v), (to_q, to_k, to_v) = qkv.unbind(3), to_qkv.unbind(3)
        for_shares, for_scores = qkv.new_empty(0), qkv.new_empty(0)
        for windows, parts in _windows(qkv, window):
            k, v = windows.keys(from_k, filling[1], window), windows.keys(from_v, filling[2], window)
            sum_k, sum_v, x = torch.zeros_like(k), torch.zeros_like(v), windows.inside[1]
            for rows in parts:
                q, above, result = (_flat(windows.queries(one, rows)) for one in (from_q, grad, out))
                shares = _shares(for_shares, q, k, row[rows], column[:x])
                torch.baddbmm(sum_v, shares.transpose(1, 2), above, out=sum_v)
                inner = (above * result).sum(-1, keepdim=True)
                scores = torch.bmm(above, v.transpose(1, 2), out=for_scores.resize_(shares.shape)).sub_(inner).mul_(shares)
                torch.baddbmm(sum_k, scores.transpose(1, 2), q, alpha=scale, out=sum_k)
                step = torch.bmm(scores, k).mul_(scale)
                step += _to_lines(scores.unflatten(2, window), q, (row[rows], column[:x]), (to_row[rows], to_column[:x]))
                place = windows.queries(to_q, rows)
                place += step.view(place.shape)
            windows.add_to_keys(to_k, to_filling[1], window, sum_k)
            windows.add_to_keys(to_v, to_filling[2], window, sum_v)
        return to_qkv, to_filling, to_row, to_column


def _to_lines(scores: Tensor, q: Tensor, lines: tuple[Tensor, Tensor], grads: tuple[Tensor, Tensor]) -> Tensor:
    """Lead the gradient of scores (b, n, h, w) to lines (y, h, D) and (x, w, D), and give what queries (b, n, D) get by them."""
    x = len(lines[1])
    # By the key's row and column: (b, y, x, h) and (b, y, x, w).
    by_row, by_column = scores.sum(-1).unflatten(1, (-1, x)), scores.sum(-2).unflatten(1, (-1, x))
    queries = q.unflatten(1, (-1, x))
    grads[0].add_(torch.einsum("byxk,byxd->ykd", by_row, queries))
    grads[1].add_(torch.einsum("byxk,byxd->xkd", by_column, queries))
    step = torch.einsum("byxk,ykd->byxd", by_row, lines[0])
    step += torch.einsum("byxk,xkd->byxd", by_column, lines[1])
    return step.flatten(1, 2)
