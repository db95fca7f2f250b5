"""Shares of right answers."""

from pathlib import Path
from typing import TYPE_CHECKING

from mae_bench.core.files import write_json
from results.names import PER_IMAGE
from tasks.contract import Metric

if TYPE_CHECKING:  # so that naming a task's recipes loads no torch
    from torch import Tensor

ACCURACIES = (Metric("top1"), Metric("top5"))
"""What every classification task reports; top5 only of more than five classes."""
PLACES = 5


def ranked(scores: "Tensor") -> "Tensor":
    """The best classes of each image from the best on, (N, up to 5), of scores (N, K)."""
    return scores.topk(min(PLACES, scores.shape[1]), dim=1).indices


def accuracy(best: "Tensor", truth: "Tensor", num_classes: int, out: Path | None = None) -> dict[str, float]:
    """Percent of images whose class is the first, and with more than five classes one of the first five.

    Args:
        best: classes (N, up to 5) from the best on; -1 stands for none.
        truth: classes (N,).
        num_classes: of the data set.
        out: folder in which `per_image.json` says of each image, in the order of the split, whether it is right (1) or not (0).
    """
    right = best == truth.to(best.device).unsqueeze(1)
    found = {"top1": right[:, 0]}
    if num_classes > PLACES:
        found["top5"] = right[:, :PLACES].any(1)
    if out is not None:
        write_json(out / PER_IMAGE, {name: hits.int().tolist() for name, hits in found.items()})
    return {name: 100 * float(hits.double().mean()) for name, hits in found.items()}
