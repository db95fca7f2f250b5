"""Exact attention with BEiT's relative position tables that holds the scores of one head of one image at a time.

Where the bias learns, torch's own attention takes the plain path and keeps the scores of all heads for the backward, more than
all else that a block keeps; and a bias of all heads is made and read for nothing. Here the backward computes the scores again.

Letters in shape comments: B batch, A heads, D width of a head, h w grid, P prefix tokens, N = P + h*w.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from backbones import relative, sketched_attention

Size = tuple[int, int]


def applies(q: Tensor, table: Tensor, dropout: float) -> bool:
    """Whether `attend` can be used and is the faster way, which it is on a CPU; elsewhere torch's fused attention is."""
    return q.device.type == "cpu" and q.dtype == table.dtype and q.dtype in (torch.float32, torch.float64) and dropout == 0


def attend(q: Tensor, k: Tensor, v: Tensor, table: Tensor, grid: Size, scale: float) -> Tensor:
    """Softmax attention with `relative.table_bias` added to the scores.

    Args:
        q: (B, A, N, D), not scaled.
        k: (B, A, N, D).
        v: (B, A, N, D).
        table: (rows, A) for this very grid.
        grid: (h, w).
        scale: factor on the products of queries and keys.

    Returns:
        (B, A, N, D), laid out in memory as (B, N, A, D).
    """
    if sketched_attention.applies(q):
        return sketched_attention.attend(q, k, v, table)
    return _Attend.apply(q, k, v, table, grid, scale)  # type: ignore[return-value]  # apply is not typed


class _Attend(torch.autograd.Function):
    """Queries are taken from the last to the first: in this order the bias of the patches is a view of the table."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, table: Tensor, grid: Size, scale: float) -> Tensor:
        out = q.new_empty(q.shape[0], q.shape[2], q.shape[1], q.shape[3]).transpose(1, 2)
        for head in range(q.shape[1]):
            bias = _bias(table, head, grid, q.shape[2])
            for image in range(q.shape[0]):
                share = _shares(bias, q[image, head].flip(0), k[image, head], scale)
                out[image, head] = (share @ v[image, head]).flip(0)
        ctx.save_for_backward(q, k, v, table, out)
        ctx.grid, ctx.scale = grid, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # takes one gradient
        q, k, v, table, out = ctx.saved_tensors
        # As one tensor, so that the gradient of the projection to q, k and v needs no copy of the three.
        qkv = q.new_empty(q.shape[0], q.shape[2], 3, q.shape[1], q.shape[3])
        grads = qkv.permute(2, 0, 3, 1, 4)
        to_table = torch.zeros_like(table)
        for head in range(q.shape[1]):
            bias = _bias(table, head, ctx.grid, q.shape[2])
            to_bias = torch.zeros_like(bias)
            for image in range(q.shape[0]):
                queries, keys, above = q[image, head].flip(0), k[image, head], grad[image, head].flip(0)
                share = _shares(bias, queries, keys, ctx.scale)
                grads[2, image, head] = share.T @ above
                inner = (above * out[image, head].flip(0)).sum(-1, keepdim=True)
                scores = (above @ v[image, head].T).sub_(inner).mul_(share)
                grads[0, image, head] = (scores @ keys).mul_(ctx.scale).flip(0)
                grads[1, image, head] = (scores.T @ queries).mul_(ctx.scale)
                to_bias += scores
            if ctx.needs_input_grad[3]:
                _add_to_table(to_table, head, to_bias, ctx.grid)
        return grads[0], grads[1], grads[2], to_table, None, None


def _bias(table: Tensor, head: int, grid: Size, tokens: int) -> Tensor:
    """The bias of one head (N, N): rows are queries from the last patch to the first, then prefix tokens."""
    patches = grid[0] * grid[1]
    prefix = tokens - patches
    bias = table.new_empty(tokens, tokens)
    bias[:patches, prefix:].unflatten(0, grid).unflatten(2, grid).copy_(relative.shifts(table[:, head : head + 1], grid)[0])
    bias[patches:, prefix:] = table[-3, head]
    bias[:patches, :prefix] = table[-2, head]
    bias[patches:, :prefix] = table[-1, head]
    return bias


def _shares(bias: Tensor, queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Attention of one head of one image, (N, N)."""
    scores = torch.addmm(bias, queries, keys.T, alpha=scale)
    return torch.softmax(scores, dim=-1, out=scores)


def _add_to_table(table: Tensor, head: int, bias: Tensor, grid: Size) -> None:
    """Add the gradient of a head's bias (N, N), laid out as `_bias` gives it, to that of the table."""
    (h, w), tokens = grid, bias.shape[0]
    patches = h * w
    prefix = tokens - patches
    table[-3, head] += bias[patches:, prefix:].sum()
    table[-2, head] += bias[:patches, :prefix].sum()
    table[-1, head] += bias[patches:, :prefix].sum()
    between = bias[:patches, prefix:].unflatten(0, grid).unflatten(2, grid)
    # What `relative.shifts` reads at y + i and x + j is added up there, first along one side, then along the other.
    rows = bias.new_zeros(2 * h - 1, w, w)
    for y in range(h):
        rows[y : y + h] += between[y].transpose(0, 1)
    lines = bias.new_zeros(2 * h - 1, 2 * w - 1)
    for x in range(w):
        lines[:, x : x + w] += rows[:, x]
    table[: table.shape[0] - relative.EXTRA, head] += lines.flip(0, 1).flatten()
