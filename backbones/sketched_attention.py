"""Attention on tensors that have shapes and no numbers: what it keeps for the backward pass and how many operations it takes.

The attentions by parts take many small steps, each as slow on such tensors as a large one. Memory and operations are foretold by
such tensors, so there one step for all images and heads stands for them, with the same products of matrices.
"""

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable


def applies(tensor: Tensor) -> bool:
    """Whether a tensor has no numbers."""
    return isinstance(tensor, FakeTensor)


def attend(q: Tensor, k: Tensor, v: Tensor, *tables: Tensor) -> Tensor:
    """The shape of an attention.

    Args:
        q: (B, A, N, D).
        k: (B, A, N, D).
        v: (B, A, N, D).
        tables: what relative positions are made of; kept for the backward pass too.

    Returns:
        (B, A, N, D), laid out in memory as (B, N, A, D).
    """
    return _Sketch.apply(q, k, v, *tables)  # type: ignore[return-value]  # apply is not typed


def attend_in_windows(qkv: Tensor, filling: Tensor, *lines: Tensor) -> Tensor:
    """The shape of an attention in windows of a map: each token looks for as many keys as a window has.

    Args:
        qkv: (B, H, W, 3, A, D).
        filling: (3, A, D), kept for the backward pass too.
        lines: (h, h, D) and (w, w, D) of windows of (h, w), kept for the backward pass too.

    Returns:
        (B, H, W, A, D).
    """
    q, k, v = qkv.flatten(1, 2).permute(2, 0, 3, 1, 4).unbind(0)
    # As many as a window has, in the memory of one.
    k, v = (part[:, :, :1].expand(-1, -1, len(lines[0]) * len(lines[1]), -1) for part in (k, v))
    return attend(q, k, v, filling, *lines).transpose(1, 2).unflatten(1, qkv.shape[1:3])


class _Sketch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, *tables: Tensor) -> Tensor:
        out = ((q @ k.transpose(2, 3)) @ v).transpose(1, 2).contiguous().transpose(1, 2)
        ctx.save_for_backward(q, k, v, out, *tables)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]  # takes one gradient
        q, k, v, _, *tables = ctx.saved_tensors
        shares, to_shares = q @ k.transpose(2, 3), grad @ v.transpose(2, 3)
        turned = (to_shares.transpose(2, 3) @ q, shares.transpose(2, 3) @ grad)
        return to_shares @ k, *turned, *(torch.zeros_like(table) for table in tables)
