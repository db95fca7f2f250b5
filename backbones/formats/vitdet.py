"""The backbone of Detectron2's ViTDet (arXiv 2203.16527): timm's names, relative positions by row and column, windows.

The file does not say which blocks have windows; the sizes of their relative positions do. Files that start a ViTDet have none of
these: they are plain networks without a class token and without a last norm.
"""

import math
import re
from typing import Any

from backbones import naming, shapes
from backbones.families import Converted, Evidence
from backbones.formats._common import HEADS, MEAN_ASSUMED, as_vit
from backbones.naming import Translated
from backbones.reading import RawCheckpoint
from backbones.relative import COLUMNS, ROWS
from mae_bench.core.errors import InputError

NAME = "the backbone of Detectron2's ViTDet"
EVIDENCE = Evidence.MARK

CLASS_ROW = "pos_embed, first row"
PREFIX = "backbone.net."
"""What Detectron2 puts before the names of a ViT under a pyramid."""
GLOBAL_ASSUMED = "global attention is assumed in all blocks: without relative positions the file does not say which have windows"
UNUSED = "position of the class token, which Detectron2 keeps and does not use"


def recognise(raw: RawCheckpoint) -> bool:
    """Relative positions by row and column in the blocks, or Detectron2's prefix and no class token."""
    if f"blocks.0.attn.{ROWS}" in raw.state:
        return True
    return raw.prefix.endswith(PREFIX) and shapes.is_timm_vit(raw.state) and "cls_token" not in raw.state


def convert(raw: RawCheckpoint) -> Converted:
    """Find the windows; the row of the class token, which is not there, is left out of the positions."""
    if "blocks.0.mlp.lin1.weight" in raw.state:
        raise InputError(f"{raw.path}: the image encoder of Segment Anything, which is not supported")
    translated = naming.translate(raw.path, raw.state, {}, HEADS)
    if "cls_token" in translated.state:
        raise InputError(f"{raw.path}: relative positions by row and column and a class token, which Detectron2's ViT has not")
    if "pos_embed" in translated.state:
        _drop_class_row(raw, translated)
    if f"blocks.0.attn.{ROWS}" not in translated.state:
        return as_vit(raw, translated, notes=(GLOBAL_ASSUMED, MEAN_ASSUMED))
    known, notes = _windows(raw, translated)
    return as_vit(raw, translated, method="vitdet", notes=(*notes, MEAN_ASSUMED), relative="decomposed", **known)


def _drop_class_row(raw: RawCheckpoint, translated: Translated) -> None:
    positions = shapes.tensor(raw.path, translated.state, "pos_embed", 3)
    rows, size = positions.shape[1], raw.facts.get("image_size")
    patch = shapes.patch_size(raw.path, translated.state)
    if rows == (size[0] // patch) * (size[1] // patch) if size else math.isqrt(rows) ** 2 == rows:
        return
    translated.state["pos_embed"], translated.origin["pos_embed"] = positions[:, 1:], ("pos_embed, other rows",)
    translated.dropped[CLASS_ROW] = UNUSED


def _windows(raw: RawCheckpoint, translated: Translated) -> tuple[dict[str, Any], list[str]]:
    """What the sizes of the relative positions say of windows, grid and heads."""
    sides: dict[int, tuple[int, int]] = {}
    width = 0
    for name in translated.state:
        match = re.fullmatch(rf"blocks\.(\d+)\.attn\.{ROWS}", name)
        if match:
            lines = [shapes.tensor(raw.path, translated.state, name.replace(ROWS, part), 2) for part in (ROWS, COLUMNS)]
            sides[int(match[1])] = ((lines[0].shape[0] + 1) // 2, (lines[1].shape[0] + 1) // 2)
            width = width or lines[0].shape[1]
    embed_dim = shapes.tensor(raw.path, translated.state, "patch_embed.proj.weight", 4).shape[0]
    known: dict[str, Any] = {"num_heads": max(embed_dim // max(width, 1), 1)}
    kinds = sorted(set(sides.values()))
    if len(kinds) == 1 and kinds[0][0] != kinds[0][1]:
        return {**known, "relative_grid": kinds[0]}, []
    if len(kinds) != 2 or kinds[0][0] != kinds[0][1]:
        found = ", ".join(f"{h} x {w}" for h, w in kinds)
        raise InputError(
            f"{raw.path}: relative positions for {found} patches, so windows cannot be told from global attention; "
            "files of ViTDet with windows and some global blocks are read"
        )
    window, grid = kinds
    global_layers = tuple(sorted(block for block, side in sides.items() if side == grid))
    told = f"windows of {window[0]} patches but in blocks {', '.join(map(str, global_layers))}, from the sizes of the tables"
    return {**known, "window": window[0], "global_layers": global_layers, "relative_grid": grid}, [told]
