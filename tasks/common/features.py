"""Running a frozen backbone, or a trained classifier, over a split."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from backbones.contract import Backbone, Pool, normalise
from mae_bench.core.run import Run
from tasks.common.images import Labelled, evaluation_transform, stack
from tasks.data.folder import ImageFolderSplit

BATCH = 64
"""Images of one forward pass; results do not depend on it beyond rounding."""


def batches(
    split: ImageFolderSplit, size: tuple[int, int], crop_ratio: float, run: Run, title: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (images uint8 (B, 3, H, W), classes) of a split in order, prepared for evaluation, with progress."""
    data = Labelled(split, evaluation_transform(size, crop_ratio))
    run.reporter.start(title, len(data))
    for images, labels in DataLoader(data, batch_size=BATCH, collate_fn=stack, num_workers=run.workers):
        yield images.to(run.device), labels
        run.reporter.advance(len(labels))


def pixels(images: Tensor, backbone: Backbone) -> Tensor:
    """Turn uint8 images into the normalised floats a backbone takes."""
    return normalise(images.float() / 255, backbone.spec)


def autocast(run: Run) -> torch.autocast:
    """The precision of a forward pass outside the engine."""
    types = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(run.device, dtype=types.get(run.precision), enabled=run.precision in types)


@torch.no_grad()
def extract(
    backbone: Backbone, split: ImageFolderSplit, pool: Pool, *, size: tuple[int, int], crop_ratio: float, run: Run, title: str
) -> tuple[Tensor, Tensor]:
    """Compute the pooled features of a split with the final norm, in fp32 on the CPU.

    Returns:
        Features (N, C) and classes (N,).
    """
    backbone.to(run.device).eval()
    found, classes = [], []
    for images, labels in batches(split, size, crop_ratio, run, title):
        with autocast(run):
            (features,) = backbone(pixels(images, backbone), norm=True)
        found.append(features.pool(pool).float().cpu())
        classes.append(labels)
    return torch.cat(found), torch.cat(classes)


@torch.no_grad()
def top1(
    model: nn.Module,
    logits: Callable[[Tensor], Tensor],
    split: ImageFolderSplit,
    *,
    size: tuple[int, int],
    crop_ratio: float,
    run: Run,
) -> float:
    """Share of a split's images that a classifier gets right, in percent."""
    model.to(run.device).eval()
    right = 0
    for images, labels in batches(split, size, crop_ratio, run, "evaluate"):
        with autocast(run):
            right += int((logits(images).argmax(1).cpu() == labels).sum())
    return 100 * right / len(split)
