"""Running a frozen backbone, or a trained classifier, over a split."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backbones.contract import Backbone, Interpolation, Pool, normalise
from mae_bench.core.precision import autocast
from mae_bench.core.run import Run
from mae_bench.core.samples import Skipped, in_order
from tasks.common.accuracy import accuracy, ranked
from tasks.common.images import Labelled, evaluation_transform, stack
from tasks.data import LabelledSplit

BATCH = 64
"""Images of one forward pass; results do not depend on it beyond rounding."""


@dataclass(frozen=True)
class View:
    """How images are brought to the network in evaluation."""

    size: tuple[int, int]
    """Height and width in pixels."""
    crop_ratio: float
    """Of the centre crop to the shorter side."""
    interpolation: Interpolation = "bicubic"
    """How images are resized: as in the training of the backbone."""


def batches(
    split: LabelledSplit, view: View, run: Run, title: str, skipped: Skipped | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (images uint8 (B, 3, H, W), classes) of a split in order, prepared for evaluation, with progress.

    Raises:
        InputError: an image cannot be decoded, and `skipped` does not take it.
    """
    data = Labelled(split, evaluation_transform(view.size, view.crop_ratio, view.interpolation))
    run.reporter.start(title, len(data))
    for images, labels in in_order(data, stack, batch_size=BATCH, workers=run.workers, skipped=skipped):
        yield images.to(run.device, non_blocking=True), labels
        run.reporter.advance(len(labels))


def pixels(images: Tensor, backbone: Backbone) -> Tensor:
    """Turn uint8 images into the normalised floats a backbone takes."""
    return normalise(images.float() / 255, backbone.spec)


@torch.no_grad()
def extract(
    backbone: Backbone, split: LabelledSplit, pool: Pool, view: View, run: Run, *, title: str, skipped: Skipped | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the pooled features of a split with the final norm, in eval mode and fp32 on the CPU.

    Args:
        backbone: moved to the run's device.
        split: images.
        pool: class token or mean of the patch tokens.
        view: how images are prepared.
        run: device, precision, workers, progress.
        title: in progress displays.
        skipped: takes damaged images, which are then left out; None makes them an InputError.

    Returns:
        Features (N, C) and classes (N,).
    """
    backbone.to(run.device).eval()
    found, classes = [], []
    for images, labels in batches(split, view, run, title, skipped):
        with autocast(run.device, run.precision):
            (features,) = backbone(pixels(images, backbone), norm=True)
        found.append(features.pool(pool).float().cpu())
        classes.append(labels)
    return torch.cat(found), torch.cat(classes)


@torch.no_grad()
def measure(model: nn.Module, logits: Callable[[Tensor], Tensor], split: LabelledSplit, view: View, run: Run) -> dict[str, float]:
    """Accuracy of a classifier on a split, in eval mode; `logits` takes uint8 images (B, 3, H, W)."""
    model.to(run.device).eval()
    best, truth = [], []
    for images, labels in batches(split, view, run, "evaluate"):
        with autocast(run.device, run.precision):
            best.append(ranked(logits(images)).cpu())
        truth.append(labels)
    return accuracy(torch.cat(best), torch.cat(truth), len(split.classes), run.out)
