"""What families share whose tensors end up under timm's names: heads to leave out, the last steps of a conversion."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from backbones import eva_shapes, naming, relative, shapes
from backbones.contract import Interpolation
from backbones.families import Converted
from backbones.naming import Translated
from backbones.reading import RawCheckpoint
from backbones.vit import IMAGENET_MEAN, IMAGENET_STD
from backbones.zoo import Rgb, eva, vit
from mae_bench.core.errors import InputError

# AugReg, the ViT paper and BEiT's ImageNet-22K files (timm, models/vision_transformer.py and beit.py).
HALF: Rgb = (0.5, 0.5, 0.5)

MEAN_ASSUMED = "ImageNet mean and std are assumed: the file does not say"

HEADS = {
    r"head\.|heads\.|head_dist\.|pre_logits\.": "classification head",
    r"fc_norm\.": "norm after pooling, part of the classification head",
    r"attn_pool\.": "attention pooling, part of the classification head",
    r"lm_head\.": "head of the pretraining",
}
"""Reasons to leave tensors out, by pattern of the beginning of the name."""

SCALES = {r"(blocks\.\d+\.)gamma_([12])": r"\1ls\2.gamma", r"(blocks\.\d+\.)ls_([12])\.gamma": r"\1ls\2.gamma"}
"""Other spellings of LayerScale."""

BIASES = {r"(blocks\.\d+\.attn\.)([qkv])_bias": r"\1\2.bias"}
"""Biases of queries and values beside one weight for all three, as `naming.fuse` takes them."""

INDEX = "relative_position_index"


def is_around(raw: RawCheckpoint, pattern: str) -> bool:
    """Whether a tensor around the network has such a name."""
    return any(re.search(pattern, name) for name in raw.dropped)


def published_heads(translated: Translated, heads: Mapping[int, int]) -> dict[str, Any]:
    """The number of heads that a family's own networks of a width have, for `as_vit`; nothing for other widths.

    Args:
        translated: tensors by timm's names.
        heads: number of heads by width.
    """
    weight = translated.state.get("patch_embed.proj.weight")
    number = heads.get(weight.shape[0]) if weight is not None and weight.ndim else None
    return {} if number is None else {"num_heads": number}


def as_vit(
    raw: RawCheckpoint,
    translated: Translated,
    *,
    method: str = "unknown",
    mean: Rgb = IMAGENET_MEAN,
    std: Rgb = IMAGENET_STD,
    interpolation: Interpolation = "bicubic",
    notes: Iterable[str] = (),
    **known: Any,
) -> Converted:
    """The plain Vision Transformer that translated tensors are of.

    Args:
        raw: the file.
        translated: its tensors by timm's names.
        method: how it was pretrained.
        mean: of the input, RGB in 0..1.
        std: the same.
        interpolation: how images are resized to the input.
        notes: for the ledger.
        known: fields of `VitArch` that the family fixes, whatever the shapes say.

    Raises:
        InputError: parts that the network does not have, or shapes that fit none.
    """
    shapes.refuse_foreign(raw.path, translated.state)
    arch = shapes.arch_of(raw.path, translated.state, **{**known, **raw.facts})
    told = (*shapes.assumptions(arch, heads="num_heads" in known or "num_heads" in raw.facts), *notes)
    spec = vit.spec_of(arch, method=method, mean=mean, std=std, interpolation=interpolation)
    return Converted("vit", arch, spec, translated.state, translated.renamed, translated.dropped, told)


def as_eva(
    raw: RawCheckpoint,
    translated: Translated,
    *,
    method: str = "unknown",
    mean: Rgb = IMAGENET_MEAN,
    std: Rgb = IMAGENET_STD,
    interpolation: Interpolation = "bicubic",
    notes: Iterable[str] = (),
    **known: Any,
) -> Converted:
    """The network with rotary positions that translated tensors are of; see `as_vit`."""
    arch = eva_shapes.arch_of(raw.path, translated.state, **{**known, **raw.facts})
    told = (*eva_shapes.assumptions(arch, heads="num_heads" in known or "num_heads" in raw.facts), *notes)
    spec = eva.spec_of(arch, method=method, mean=mean, std=std, interpolation=interpolation)
    return Converted("eva", arch, spec, translated.state, translated.renamed, translated.dropped, told)


def fuse_biases(translated: Translated) -> None:
    """Make `qkv.bias` of the biases of queries and values; keys have none (BEiT)."""
    naming.fuse(translated, zero_biases="k")


def drop_index(raw: RawCheckpoint) -> dict[str, str]:
    """Leave out BEiT's buffers of which row of a table is for which pair of patches, if they are what is computed here.

    Raises:
        InputError: they are something else, so the tables are in another order, or of a rectangle that nobody told of.
    """
    pattern = rf".*{INDEX}$"
    size = raw.facts.get("image_size")
    for name, tensor in raw.state.items():
        if re.match(pattern, name) and not _is_index(tensor, _patch_grid(raw, tensor, size)):
            raise InputError(
                f"{raw.path}: {name} is not BEiT's order of patches in a square with a class token; if the network is for a "
                "rectangle, give its image_size"
            )
    return {pattern: "numbers of the rows of a table, which are made anew"}


def _patch_grid(raw: RawCheckpoint, index: Tensor, size: tuple[int, int] | None) -> tuple[int, int]:
    """Grid (h, w) that an index is for: of the size in pixels, else a square."""
    kernel = next((tensor for name, tensor in raw.state.items() if re.match(r"patch_embed\.proj(ection)?\.weight$", name)), None)
    if size and kernel is not None and kernel.ndim == 4 and kernel.shape[-1]:
        return size[0] // kernel.shape[-1], size[1] // kernel.shape[-1]
    side = math.isqrt(max(index.shape[0] - 1, 0)) if index.ndim else 0
    return side, side


def _is_index(index: Tensor, grid: tuple[int, int]) -> bool:
    tokens = grid[0] * grid[1] + 1
    if tokens == 1 or index.shape != (tokens, tokens):
        return False
    # A table of row numbers gives the number of the row for each pair.
    rows = torch.arange(relative.table_rows(grid), dtype=torch.float64).unsqueeze(1)
    return torch.equal(relative.table_bias(rows, grid, grid, 1)[0], index.to(torch.float64))
