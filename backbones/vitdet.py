"""What ViTDet asks of a backbone (arXiv 2203.16527): windows, a few blocks with global attention, patches that a pyramid fits."""

import math
from collections.abc import Sequence

from backbones.contract import BackboneSpec, DenseOptions

PATCH_SIZES = (4, 8, 16, 32)
"""Strides of a map that Detectron2's pyramid can begin at."""


def fitting_patch(patch_size: int) -> int:
    """The patch size itself where a pyramid can begin at it, else the nearest by ratio: 16 for 14."""
    return min(PATCH_SIZES, key=lambda side: abs(math.log(side / patch_size)))


def dense_options(
    spec: BackboneSpec,
    image_size: tuple[int, int] | None = None,
    *,
    window: int = 0,
    global_layers: Sequence[int] | None = None,
    rel_pos: bool = False,
    keep_prefix: bool | None = None,
    drop_path: float = 0.0,
    checkpointing: bool = False,
) -> DenseOptions:
    """What a backbone is asked for, so that it does what Detectron2's ViT does, or what it does alone.

    With windows or relative positions it is Detectron2's ViT: no prefix tokens in the blocks, positions kept as stored and
    resized in every forward without antialiasing. Without, the network computes what it computes everywhere: class token and
    registers go through the blocks, and only the map goes on.

    Args:
        spec: of the checkpoint; patches that fit no pyramid are resampled to the nearest size that does.
        image_size: height and width in pixels that relative positions are sized by; None is the size of the checkpoint.
        window: side of attention windows in patches; 0 is global attention.
        global_layers: blocks without windows; None spreads four of them, as in ViTDet.
        rel_pos: decomposed relative positions, beginning at zero.
        keep_prefix: False takes class token and registers away where nothing else asks for it; None keeps them where it can.
        drop_path: largest stochastic depth rate.
        checkpointing: compute blocks again in the backward pass.
    """
    alone = not (window or rel_pos)
    patch = fitting_patch(spec.patch_size)
    return DenseOptions(
        image_size=image_size,
        stored_positions=True,
        antialias=alone,
        window=window,
        global_layers=() if not window else spread_layers(spec.depth) if global_layers is None else tuple(global_layers),
        rel_pos=rel_pos,
        keep_prefix=alone if keep_prefix is None else keep_prefix,
        patch_size=None if patch == spec.patch_size else patch,
        drop_path=drop_path,
        checkpointing=checkpointing,
    )


def spread_layers(depth: int, count: int = 4) -> tuple[int, ...]:
    """Numbers of `count` evenly spaced blocks, the last among them: 2, 5, 8, 11 of 12."""
    return tuple(sorted({max(0, depth * (part + 1) // count - 1) for part in range(count)}))
