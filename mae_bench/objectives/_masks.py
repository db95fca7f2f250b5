"""Which patches are removed: random, in blocks, or on a grid (arXiv 2111.06377, Table 1f).

Every kind gives noise of shape (N,), N = h*w; the patches with the smallest values are kept. It is drawn with the sample, so that
an image has the same mask whatever the number of processes and micro-batches.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mae_bench.core.errors import ConfigError

Grid = tuple[int, int]
Masking = Callable[[], Tensor]
"""Gives noise (N,), drawn from the global generator."""

LEAST_BLOCK = 16
"""Patches of the smallest block (BEiT, arXiv 2106.08254, algorithm 1)."""
ASPECTS = (0.3, 1 / 0.3)
"""Range of a block's height over its width (the same place)."""
GRID_RATIO = 0.75
"""What is removed when one patch of every four is kept."""


def num_kept(grid: Grid, mask_ratio: float) -> int:
    """Patches kept of each image, rounded down.

    Raises:
        ConfigError: none would be.
    """
    patches = grid[0] * grid[1]
    kept = int(patches * (1 - mask_ratio))
    if kept < 1:
        raise ConfigError(f"mae.mask_ratio={mask_ratio} keeps none of {patches} patches; lower it")
    return kept


def masking(kind: str, grid: Grid, num_removed: int) -> Masking:
    """Make the function that draws a mask.

    Args:
        kind: `random`, `block` or `grid`.
        grid: patches (h, w) of an image.
        num_removed: patches removed of each image.

    Raises:
        ConfigError: a grid that does not remove three patches of every four.
    """
    if kind == "random":
        return lambda: torch.rand(grid[0] * grid[1])
    if kind == "block":
        return lambda: _blocks(grid, num_removed)
    if grid[0] % 2 or grid[1] % 2 or num_removed != GRID_RATIO * grid[0] * grid[1]:
        raise ConfigError(f"mae.mask=grid keeps one patch of every four of an even grid: set mask_ratio={GRID_RATIO}")
    regular = _grid(grid)
    return lambda: regular


def _grid(grid: Grid) -> Tensor:
    """The first patch of every two by two is kept."""
    rows, columns = torch.arange(grid[0]) % 2, torch.arange(grid[1]) % 2
    return (rows[:, None] + columns[None, :]).float().flatten()


def _blocks(grid: Grid, num_removed: int) -> Tensor:
    """Block-wise masking of BEiT; what the last block has too much is kept, at random within it."""
    removed = torch.zeros(grid, dtype=torch.bool)
    while True:
        missing = num_removed - int(removed.sum())
        block = _block(grid, missing)
        fresh = torch.zeros(grid, dtype=torch.bool)
        fresh[block] = True
        fresh &= ~removed
        if int(fresh.sum()) >= missing:
            # 0 kept, 1 removed before, and 2 to 3 the last block, of which the largest are removed.
            noise = removed.float() * 4 + fresh * (2 + torch.rand(grid))
            return noise.flatten()
        removed |= fresh


def _block(grid: Grid, missing: int) -> tuple[slice, slice]:
    """A rectangle of at most the patches missing, but of no fewer than `LEAST_BLOCK` where the grid has them."""
    least = min(LEAST_BLOCK, grid[0] * grid[1])
    area = least + float(torch.rand(())) * max(0, missing - least)
    aspect = math.exp(math.log(ASPECTS[0]) + float(torch.rand(())) * math.log(ASPECTS[1] / ASPECTS[0]))
    height = min(grid[0], max(1, round(math.sqrt(area * aspect))))
    width = min(grid[1], max(1, round(math.sqrt(area / aspect))))
    top = int(torch.randint(grid[0] - height + 1, ()))
    left = int(torch.randint(grid[1] - width + 1, ()))
    return slice(top, top + height), slice(left, left + width)
