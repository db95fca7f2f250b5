"""Position embeddings: stored ones brought to any grid, and the fixed sine-cosine ones of MAE; patches of another size.

Rows are laid out as `pos_embed` of timm and MAE: those of the prefix tokens first, if there are any, then the grid row by row.
"""

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor
from torch.nn import functional

Size = tuple[int, int]


def resample(positions: Tensor, old: Size, new: Size, *, num_prefix: int, antialias: bool = True) -> Tensor:
    """Bring position embeddings from any grid to any grid; rows of prefix tokens stay as they are.

    Args:
        positions: (1, num_prefix + h*w, C).
        old: grid (h, w) the rows belong to. It is never guessed: 4 x 9 and 6 x 6 have the same number of rows.
        new: grid wanted.
        num_prefix: number of rows that belong to prefix tokens.
        antialias: see `DenseOptions.antialias`.
    """
    if positions.shape[1] != num_prefix + old[0] * old[1]:
        raise ValueError(f"{positions.shape[1]} position rows are not {num_prefix} prefix rows and a grid of {old[0]} x {old[1]}")
    return resample_abs_pos_embed(positions, list(new), list(old), num_prefix_tokens=num_prefix, antialias=antialias)


def resize_kernel(weight: Tensor, side: int) -> Tensor:
    """Bring the kernel of a patch projection (C, 3, s, s) to another side, bicubic and with the sum of its values as it comes.

    ViTDet turns the 14 pixels of MAE's ViT-H into 16 so (arXiv 2203.16527, A.2): interpolated, not solved for equal outputs.
    """
    if weight.shape[-2:] == (side, side):
        return weight
    return functional.interpolate(weight, size=(side, side), mode="bicubic", align_corners=False)


def sincos_2d(embed_dim: int, grid: Size, *, num_prefix: int = 0) -> Tensor:
    """Fixed 2-D sine-cosine positions of MAE (arXiv 2111.06377, section 4 and appendix A.1), (1, num_prefix + h*w, C) float32.

    Half of the channels tell the column and half the row, in the order [sin x, cos x, sin y, cos y]; each quarter runs through
    the wavelengths of the Transformer, 2*pi to 10000*2*pi. Prefix tokens have rows of zeros.
    """
    if embed_dim % 4:
        raise ValueError(f"sine-cosine positions need a width that is a multiple of 4, not {embed_dim}")
    # In double precision, as the published tables were made; the last digits of large angles depend on it.
    omega = 10000 ** -(torch.arange(embed_dim // 4, dtype=torch.float64) / (embed_dim // 4))
    y, x = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")
    angles_x, angles_y = x.reshape(-1, 1) * omega, y.reshape(-1, 1) * omega
    table = torch.cat([angles_x.sin(), angles_x.cos(), angles_y.sin(), angles_y.cos()], dim=1)
    return torch.cat([table.new_zeros(num_prefix, embed_dim), table]).float().unsqueeze(0)
