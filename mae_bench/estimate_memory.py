"""How much memory the backbone of a cell takes, counted on tensors that have none, as that of a pretraining is."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backbones.contract import DenseOptions
    from backbones.source import Source

FLOAT = 4
"""Bytes of a weight; weights, gradients and optimizer state are fp32 in every precision."""
STATES = {"adamw": 2, "sgd": 1, "lars": 1}
"""Tensors that the optimizer keeps for each trainable weight; every task that trains a backbone does so by AdamW."""
COUNTED = (2, 4)
"""Images of the counted passes: pairs, since mixing takes them; two sizes, since autocast also keeps copies of weights."""


@dataclass(frozen=True)
class Size:
    """What a backbone takes at one size of image; in bytes."""

    weights: float
    kept: float
    """Between the passes of a step, whatever the number of images."""
    kept_each: float
    """The same for each image."""
    depth: int
    """Blocks."""


def trains(config: Mapping[str, Any]) -> bool:
    """Whether settings mean that the backbone is trained: only what trains it regularises it."""
    return "drop_path" in config and not config.get("frozen")


def memory(size: Size, config: Mapping[str, Any], images: int, processes: int = 1) -> float:
    """Bytes that the backbone of a cell takes in each of its processes: weights, and what training or reading them out adds.

    Heads, libraries and what single operations take for a moment are not in it, so that a cell takes at least about this much.

    Args:
        size: of the backbone.
        config: settings of the task.
        images: in the training split.
        processes: that share a batch.
    """
    batch = at_once(config, images, processes)
    if not trains(config):  # without gradients what one block computes is there, and that of those before it is gone
        return size.weights + batch * size.kept_each / size.depth
    blocks = config.get("blocks")  # of partial fine-tuning
    share = min(1.0, blocks / size.depth) if isinstance(blocks, int | float) else 1.0
    return size.weights * (1 + share * (1 + STATES["adamw"])) + share * (size.kept + batch * size.kept_each)


def less(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings by which a cell takes less memory, those that change no number before those that do."""
    names = ("accumulate", "batch_size", "image_size") if by_batches(config) else ("image_size",)
    return tuple(name for name in names if name in config)


def by_batches(config: Mapping[str, Any]) -> bool:
    """Whether images go through the backbone in the batches of the settings, and not once for all to take their features."""
    seen_anew = trains(config) or config.get("frozen") or config.get("crop_scale")
    return isinstance(config.get("batch_size"), int) and bool(seen_anew) and not config.get("cached")


def at_once(config: Mapping[str, Any], images: int, processes: int = 1) -> int:
    """Images that go through the backbone at a time: a micro-batch of a process, or a batch of an extraction of features."""
    from tasks.common.features import BATCH

    if not by_batches(config):
        return BATCH
    return max(1, min(config["batch_size"], images) // (int(config.get("accumulate") or 1) * processes))


def device_memory(device: str) -> float:
    """Bytes of memory that this machine has, or its first GPU."""
    if device == "cuda":
        import torch

        return float(torch.cuda.get_device_properties(0).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def measure(source: "Source", options: "DenseOptions", *, precision: str = "fp32") -> Size:
    """Count a step of a backbone.

    Args:
        source: the checkpoint.
        options: how it is built; the images are of their size, or of its own.
        precision: number format of the run.
    """
    import torch

    from mae_bench.counted import Summed, count

    size = options.image_size or source.spec.image_size

    def empty() -> Summed:
        return Summed(source._zoo.empty(source.arch, source.spec, options))

    def real() -> Summed:
        return Summed(source.build(options))

    few, many = (count(empty, real, torch.zeros(images, 3, *size), precision).kept for images in COUNTED)
    each = (many - few) / (COUNTED[1] - COUNTED[0])
    weights = sum(value.numel() for value in empty().parameters()) * FLOAT
    return Size(weights, few - each * COUNTED[0], each, source.spec.depth)
