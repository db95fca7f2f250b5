"""What the numbers of a checkpoint look like, block by block, and whether they look like those of a trained network.

One tensor is looked at at a time, so a mapped file of any size takes the memory of its largest tensor.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Verdict = Literal["trained", "untrained", "partly untrained", "broken"]


@dataclass(frozen=True)
class Numbers:
    """One tensor in a few numbers."""

    name: str
    count: int
    mean: float
    std: float
    kurtosis: float
    """Excess kurtosis: 0 for a normal distribution, -1.2 for a uniform one; trained weights mostly have more of both ends."""
    lowest: float
    highest: float

    @property
    def constant(self) -> bool:
        """Whether all numbers are the same one."""
        return self.lowest == self.highest


@dataclass(frozen=True)
class Block:
    """The numbers of a block that show whether it was trained."""

    index: int
    qkv_std: float
    qkv_kurtosis: float
    mlp_std: float
    mlp_kurtosis: float
    norm_weight: float
    """Mean of the weights of its norms; they begin at 1."""
    bias: float
    """Largest absolute bias, of norms as well; biases begin at 0."""
    layer_scale: float | None
    """Largest absolute LayerScale, averaged over the two of the block."""
    fresh: bool
    """Whether its norms are exactly 1 and 0 and its other biases nothing, as before the first step of any training."""


@dataclass(frozen=True)
class Inspection:
    """What is said of a network."""

    blocks: tuple[Block, ...]
    parameters: int
    verdict: Verdict
    findings: tuple[str, ...]
    """What speaks for the verdict, and what is odd."""


# Biases of fresh networks are 0, or drawn with a standard deviation of 1e-6 (the ViT paper's MLPs; timm's `jax` initialisation).
FRESH_BIAS = 1e-5

# Weights whose spread differs this many times from that of the same weight in the middle block are said to be odd; in DeiT-tiny
# the largest spread of a weight is 1.5 times its smallest.
ODD_SPREAD = 50.0


def inspect(weights: Mapping[str, Tensor]) -> Inspection:
    """Look at every tensor of a network.

    Args:
        weights: by timm's names, maybe mapped; each is read once.
    """
    found = [numbers(name, tensor) for name, tensor in weights.items()]
    grouped: dict[int, list[Numbers]] = {}
    for entry in found:
        if match := re.match(r"blocks\.(\d+)\.", entry.name):
            grouped.setdefault(int(match[1]), []).append(entry)
    blocks = tuple(_block(index, entries) for index, entries in sorted(grouped.items()))
    broken = [*_constants(found), *_spreads(found), *_copies(grouped)]
    verdict, reason = _verdict(blocks, broken)
    return Inspection(blocks, sum(entry.count for entry in found), verdict, (*reason, *broken))


def numbers(name: str, tensor: Tensor) -> Numbers:
    """Look at one tensor."""
    values = tensor.detach().flatten().to(torch.float32)
    mean = values.mean()
    centred = values - mean
    variance = centred.square().mean()
    fourth = centred.square_().square_().mean()
    kurtosis = float(fourth / variance**2) - 3 if variance > 0 else 0.0
    low, high = values.aminmax()
    return Numbers(name, values.numel(), float(mean), float(variance.sqrt()), kurtosis, float(low), float(high))


def _block(index: int, entries: list[Numbers]) -> Block:
    qkv = [entry for entry in entries if re.search(r"attn\.(qkv|q_proj|k_proj|v_proj)\.weight$", entry.name)]
    mlp = [entry for entry in entries if re.search(r"mlp\.fc\d\w*\.weight$", entry.name)]
    norms = [entry for entry in entries if re.search(r"norm\d?\.weight$", entry.name)]
    biases = [entry for entry in entries if entry.name.endswith("bias")]
    scales = [entry for entry in entries if re.search(r"gamma(_\d)?$", entry.name)]
    untouched = all(entry.constant and entry.highest == 1 for entry in norms)
    untouched &= all(_reach(entry) <= (0 if "norm" in entry.name else FRESH_BIAS) for entry in biases)
    return Block(
        index,
        _mean(entry.std for entry in qkv),
        _mean(entry.kurtosis for entry in qkv),
        _mean(entry.std for entry in mlp),
        _mean(entry.kurtosis for entry in mlp),
        _mean(entry.mean for entry in norms),
        max((_reach(entry) for entry in biases), default=0.0),
        _mean(_reach(entry) for entry in scales) if scales else None,
        bool(norms) and untouched,
    )


def _reach(entry: Numbers) -> float:
    """Largest absolute value."""
    return max(abs(entry.lowest), abs(entry.highest))


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0


def _verdict(blocks: tuple[Block, ...], broken: list[str]) -> tuple[Verdict, list[str]]:
    fresh = [block.index for block in blocks if block.fresh]
    if broken:
        return "broken", []
    if fresh and len(fresh) == len(blocks):
        return "untrained", ["every norm is exactly 1 and no bias is above 1e-5, as before the first step of a training"]
    if fresh:
        return "partly untrained", [f"blocks {_ranges(fresh)} have norms of exactly 1 and no biases, the others do not"]
    return "trained", []


def _constants(found: list[Numbers]) -> list[str]:
    """Matrices that hold one number only; a bias or a norm may."""
    wrong = [entry for entry in found if entry.constant and _is_matrix(entry.name)]
    return [f"{entry.name} holds {entry.highest:g} everywhere" for entry in wrong]


def _is_matrix(name: str) -> bool:
    return bool(re.search(r"(proj|qkv|fc\d\w*)\.weight$", name)) or name == "pos_embed"


def _spreads(found: list[Numbers]) -> list[str]:
    """Weights that are far larger or smaller than the same weight in other blocks."""
    by_part: dict[str, list[Numbers]] = {}
    for entry in found:
        if entry.name.startswith("blocks.") and _is_matrix(entry.name) and not entry.constant:
            by_part.setdefault(entry.name.split(".", 2)[2], []).append(entry)
    said = []
    for entries in by_part.values():
        middle = sorted(entry.std for entry in entries)[len(entries) // 2]
        for entry in entries:
            if not middle / ODD_SPREAD <= entry.std <= middle * ODD_SPREAD:
                said.append(f"{entry.name} has a standard deviation of {entry.std:.3g}, other blocks {middle:.3g}")
    return said


def _copies(grouped: dict[int, list[Numbers]]) -> list[str]:
    """Blocks that are the same, to the last digit of all their numbers."""
    seen: dict[tuple[float, ...], int] = {}
    said = []
    for index, entries in sorted(grouped.items()):
        key = tuple(value for entry in entries for value in (entry.mean, entry.std, entry.kurtosis))
        if any(entry.std > 0 and _is_matrix(entry.name) for entry in entries) and key in seen:
            said.append(f"block {index} is a copy of block {seen[key]}")
        seen.setdefault(key, index)
    return said


def _ranges(numbers: list[int]) -> str:
    """Numbers with runs written as `0-5`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
