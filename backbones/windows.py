"""Attention inside windows and with decomposed relative positions, as ViTDet has it (arXiv 2203.16527).

Letters in shape comments: B batch, h w grid, s side of a window, n windows an image, C width, A heads, D width of a head.
"""

import torch
from timm.layers.attention import Attention
from torch import Tensor, nn
from torch.nn import functional

from backbones import decomposed_attention, relative, table_attention

Size = tuple[int, int]

TOKENS = 256
"""Tokens that `by_parts` takes at a time."""


class GridAttention(nn.Module):
    """timm's attention over a grid of patch tokens, in windows or whole, with or without relative positions.

    It takes over the parts of the attention it replaces under their own names, so the names of the weights stay.
    """

    def __init__(self, attention: nn.Module, *, window: int = 0, side: Size, relative_kind: str = "none") -> None:
        """Take over an attention.

        Args:
            attention: timm's `Attention`.
            window: side of the windows in patches; 0 is one window as large as the grid.
            side: grid (h, w) that relative positions are stored for.
            relative_kind: `decomposed` or `table` makes parameters for relative positions; others do not.
        """
        super().__init__()
        if type(attention) is not Attention or attention.gate is not None:
            raise ValueError(
                f"windows and relative positions are for timm's plain Attention, not this {type(attention).__name__}"
            )
        self.window, self.side = window, side
        self.num_heads, self.head_dim = attention.num_heads, attention.head_dim
        self.qkv, self.q_norm, self.k_norm = attention.qkv, attention.q_norm, attention.k_norm
        self.attn_drop, self.norm = attention.attn_drop, attention.norm
        self.proj, self.proj_drop = attention.proj, attention.proj_drop
        like = attention.qkv.weight
        self.rel_pos_h: nn.Parameter | None = None
        self.rel_pos_w: nn.Parameter | None = None
        self.relative_position_bias_table: nn.Parameter | None = None
        if relative_kind == "decomposed":
            self.rel_pos_h = nn.Parameter(like.new_zeros(2 * side[0] - 1, self.head_dim))
            self.rel_pos_w = nn.Parameter(like.new_zeros(2 * side[1] - 1, self.head_dim))
        if relative_kind == "table":
            self.relative_position_bias_table = nn.Parameter(like.new_zeros(relative.table_rows(side), self.num_heads))

    def forward(self, tokens: Tensor, grid: Size, shared_bias: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            tokens: (B, P + h*w, C), already normed; P is 0 where there are windows or decomposed positions.
            grid: (h, w).
            shared_bias: (A, N, N) added to the scores, N being the tokens of a window or of the whole grid.
        """
        if self.window == 0:
            attended = self._attend(self.qkv(tokens), grid, shared_bias)
        else:
            # Where nothing is kept for a backward, one row of windows after the other: q, k and v of all are never there at once.
            height = grid[0] if torch.is_grad_enabled() else self.window
            strips = tokens.unflatten(1, grid).split(height, dim=1)
            attended = torch.cat([self._attend_windows(strip, shared_bias) for strip in strips], dim=1).flatten(1, 2)
        return self.proj_drop(self.proj(self.norm(attended)))

    def _attend_windows(self, tokens: Tensor, bias: Tensor | None) -> Tensor:
        """Attention inside the windows of (B, h, w, C), giving the same shape."""
        qkv, square = self.qkv(tokens), (self.window, self.window)
        found = self._attend_decomposed(qkv, square)
        if found is not None:
            return found
        # A zero token beyond the border has the bias as its q, k and v, and takes part in its window's softmax.
        windows = partition(pad(qkv, self.window, self.qkv.bias), self.window).flatten(1, 2)
        within = self._attend_all(windows, square, bias).unflatten(1, square)
        return merge(within, self.window, (tokens.shape[1], tokens.shape[2]))

    def _attend(self, qkv: Tensor, grid: Size, bias: Tensor | None) -> Tensor:
        """Attention among all tokens of (B, N, 3*A*D), giving (B, N, A*D)."""
        found = None if self.rel_pos_h is None else self._attend_decomposed(qkv.unflatten(1, grid), grid)
        return self._attend_all(qkv, grid, bias) if found is None else found.flatten(1, 2)

    def _attend_all(self, qkv: Tensor, grid: Size, bias: Tensor | None) -> Tensor:
        """The same by torch's attention, or by the one for tables of relative positions."""
        if self.rel_pos_h is not None:
            return self._attend_folded(qkv, grid)
        qkv = qkv.unflatten(-1, (3, self.num_heads, self.head_dim))
        dropout = self._dropout()
        # 3 x (B, A, N, D)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        scale = self.head_dim**-0.5
        if self.relative_position_bias_table is not None:
            table = relative.resize_table(self.relative_position_bias_table, self.side, grid)
            if table_attention.applies(q, table, dropout):
                return table_attention.attend(q, k, v, table, grid, scale).transpose(1, 2).flatten(2)
            bias = relative.table_bias(table, grid, grid, q.shape[2] - grid[0] * grid[1])
        mask = None if bias is None else bias.to(q.dtype)
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
        return attended.transpose(1, 2).flatten(2)

    def _attend_decomposed(self, qkv: Tensor, window: Size) -> Tensor | None:
        """The same in windows of maps, (B, h, w, 3*A*D) to (B, h, w, A*D), where decomposed positions allow to save memory."""
        plain = isinstance(self.q_norm, nn.Identity) and isinstance(self.k_norm, nn.Identity)
        if self.rel_pos_h is None or not plain or not decomposed_attention.applies(qkv, self.rel_pos_h, self._dropout()):
            return None
        heads = (3, self.num_heads, self.head_dim)
        # What windows are padded with, as above.
        filling = qkv.new_zeros(heads) if self.qkv.bias is None else self.qkv.bias.view(heads)
        return decomposed_attention.attend(qkv.unflatten(-1, heads), filling, *self._distances(window)).flatten(3)

    def _attend_folded(self, qkv: Tensor, grid: Size) -> Tensor:
        """The same with decomposed relative positions as a part of queries and keys, for torch's fused attention."""
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        q, k = relative.fold(q * self.head_dim**-0.5, k, *relative.decomposed(q, *self._distances(grid), grid), grid)
        # torch's fused attention wants q, k and v of one width.
        v = functional.pad(v, (0, q.shape[-1] - v.shape[-1]))
        attended = functional.scaled_dot_product_attention(q, k, v, dropout_p=self._dropout(), scale=1.0)
        return attended[..., : self.head_dim].transpose(1, 2).flatten(2)

    def _distances(self, grid: Size) -> tuple[Tensor, Tensor]:
        """Relative positions (h, h, D) and (w, w, D) of the rows and columns of a grid."""
        assert self.rel_pos_h is not None and self.rel_pos_w is not None
        return relative.distances(self.rel_pos_h, grid[0]), relative.distances(self.rel_pos_w, grid[1])

    def _dropout(self) -> float:
        return self.attn_drop.p if self.training else 0.0


def by_parts(module: nn.Module, tokens: Tensor) -> Tensor:
    """Run a module on (B, N, C) that treats each token by itself; on a CPU and without a backward, some tokens at a time.

    What an MLP widens them to is four times as much, and for all tokens of a large image it leaves every cache.
    """
    if torch.is_grad_enabled() or tokens.device.type != "cpu":
        return module(tokens)
    return torch.cat([module(part) for part in tokens.split(TOKENS, dim=1)], dim=1)


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
