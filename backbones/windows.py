"""Attention inside windows and with decomposed relative positions, as ViTDet has it (arXiv 2203.16527).

Letters in shape comments: B batch, h w grid, s side of a window, n windows an image, C width, A heads, D width of a head.
"""

import torch
from timm.layers.attention import Attention
from torch import Tensor, nn
from torch.nn import functional

Size = tuple[int, int]


class GridAttention(nn.Module):
    """timm's attention over a grid of patch tokens, in windows or whole, with or without relative positions.

    It takes over the parts of the attention it replaces under their own names, so the names of the weights stay.
    """

    def __init__(self, attention: nn.Module, *, window: int, rel_pos: Size | None) -> None:
        """Take over an attention.

        Args:
            attention: timm's `Attention`.
            window: side of the windows in patches; 0 is one window as large as the grid.
            rel_pos: (h, w) that the relative position tables are sized for; None has none.
        """
        super().__init__()
        if type(attention) is not Attention or attention.gate is not None:
            raise ValueError(
                f"windows and relative positions are for timm's plain Attention, not this {type(attention).__name__}"
            )
        self.window = window
        self.num_heads, self.head_dim = attention.num_heads, attention.head_dim
        self.qkv, self.q_norm, self.k_norm = attention.qkv, attention.q_norm, attention.k_norm
        self.attn_drop, self.norm = attention.attn_drop, attention.norm
        self.proj, self.proj_drop = attention.proj, attention.proj_drop
        self.rel_pos_h: nn.Parameter | None = None
        self.rel_pos_w: nn.Parameter | None = None
        if rel_pos is not None:
            like = attention.qkv.weight
            self.rel_pos_h = nn.Parameter(like.new_zeros(2 * rel_pos[0] - 1, self.head_dim))
            self.rel_pos_w = nn.Parameter(like.new_zeros(2 * rel_pos[1] - 1, self.head_dim))

    def forward(self, tokens: Tensor, grid: Size) -> Tensor:
        """Attend.

        Args:
            tokens: (B, h*w, C), already normed, no prefix tokens.
            grid: (h, w).
        """
        qkv = self.qkv(tokens).unflatten(1, grid)
        if self.window == 0:
            attended = self._attend(qkv)
        else:
            # A zero token beyond the border has the bias as its q, k and v, and takes part in its window's softmax.
            windows = partition(pad(qkv, self.window, self.qkv.bias), self.window)
            attended = merge(self._attend(windows), self.window, grid)
        return self.proj_drop(self.proj(self.norm(attended.flatten(1, 2))))

    def _attend(self, qkv: Tensor) -> Tensor:
        """Attention within each grid of (B, h, w, 3*A*D), giving (B, h, w, A*D)."""
        grid: Size = (qkv.shape[1], qkv.shape[2])
        # 3 x (B, A, h*w, D)
        q, k, v = qkv.flatten(1, 2).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        scale = self.head_dim**-0.5
        if self.rel_pos_h is not None and self.rel_pos_w is not None:
            q, k = fold(q * scale, k, *relative_bias(q, self.rel_pos_h, self.rel_pos_w, grid), grid)
            scale = 1.0
        dropout = self.attn_drop.p if self.training else 0.0
        attended = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scale)
        return attended.transpose(1, 2).flatten(2).unflatten(1, grid)


def pad(grid: Tensor, window: int, value: Tensor | None) -> Tensor:
    """Fill (B, h, w, C) at the bottom and the right up to multiples of the window, with `value` (C,) or zeros."""
    batch, h, w, width = grid.shape
    padded_h, padded_w = -(-h // window) * window, -(-w // window) * window
    if (padded_h, padded_w) == (h, w):
        return grid
    if value is None:
        return functional.pad(grid, (0, 0, 0, padded_w - w, 0, padded_h - h))
    right = value.to(grid.dtype).expand(batch, h, padded_w - w, width)
    bottom = value.to(grid.dtype).expand(batch, padded_h - h, padded_w, width)
    return torch.cat([torch.cat([grid, right], dim=2), bottom], dim=1)


def partition(grid: Tensor, window: int) -> Tensor:
    """Cut (B, n_h*s, n_w*s, C) into windows, (B*n_h*n_w, s, s, C)."""
    return grid.unflatten(1, (-1, window)).unflatten(3, (-1, window)).transpose(2, 3).flatten(0, 2)


def merge(windows: Tensor, window: int, grid: Size) -> Tensor:
    """Undo `pad` and `partition`: windows (B*n_h*n_w, s, s, C) to (B, h, w, C)."""
    h, w = grid
    rows, columns = -(-h // window), -(-w // window)
    padded = windows.unflatten(0, (-1, rows, columns)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return padded[:, :h, :w]


def relative_bias(q: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor, grid: Size) -> tuple[Tensor, Tensor]:
    """What relative positions add to the score of a query and a key, by the key's row (B, A, h*w, h) and column (B, A, h*w, w).

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
    """Widen queries and keys so that their plain product has the relative bias in it.

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


def distances(table: Tensor, side: int) -> Tensor:
    """Rows of a relative position table for each pair (query, key) along a side, (side, side, D)."""
    length = 2 * side - 1
    if table.shape[0] != length:
        table = functional.interpolate(table.T.unsqueeze(0), size=length, mode="linear").squeeze(0).T
    steps = torch.arange(side, device=table.device)
    return table[steps[:, None] - steps[None, :] + side - 1]
