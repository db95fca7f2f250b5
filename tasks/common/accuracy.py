"""Shares of right answers."""

from typing import TYPE_CHECKING

from tasks.contract import Metric

if TYPE_CHECKING:  # so that naming a task's recipes loads no torch
    from torch import Tensor

ACCURACIES = (Metric("top1"), Metric("top5"))
"""What every classification task reports; top5 only of more than five classes."""
PLACES = 5


def ranked(scores: "Tensor") -> "Tensor":
    """The best classes of each image from the best on, (N, up to 5), of scores (N, K)."""
    return scores.topk(min(PLACES, scores.shape[1]), dim=1).indices


def accuracy(best: "Tensor", truth: "Tensor", num_classes: int) -> dict[str, float]:
    """Percent of images whose class is the first, and with more than five classes one of the first five.

    Args:
        best: classes (N, up to 5) from the best on; -1 stands for none.
        truth: classes (N,).
        num_classes: of the data set.
    """
    right = best == truth.to(best.device).unsqueeze(1)
    found = {"top1": right[:, 0]}
    if num_classes > PLACES:
        found["top5"] = right[:, :PLACES].any(1)
    return {name: 100 * float(hits.double().mean()) for name, hits in found.items()}
