"""What self-distillation has in common: a teacher that is a moving average of the student, and signs of collapse."""

import copy
import math

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

LOOK_EVERY = 50
"""Steps between two looks at the features; an effective rank takes a singular value decomposition."""
TINY = 1e-7


def cosine(start: float, end: float, step: int, steps: int) -> float:
    """Half a cosine from `start` at step 0 to `end` at the last of `steps`."""
    return end - (end - start) * (1 + math.cos(math.pi * step / max(1, steps - 1))) / 2


def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move the teacher's parameters towards the student's: `momentum * teacher + (1 - momentum) * student`."""
    with torch.no_grad():
        for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
            mine.lerp_(theirs.to(mine.dtype), 1 - momentum)


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy that is never trained and drops no path: what a teacher says is not to depend on chance."""
    copied = copy.deepcopy(module).requires_grad_(False)
    for part in copied.modules():
        if isinstance(part, DropPath):
            part.drop_prob = 0.0
    return copied


def health(features: Tensor) -> dict[str, Tensor]:
    """Signs of collapse, for the log only.

    Args:
        features: (B, C), one vector an image.

    Returns:
        `log/feature_std`: deviation over the batch of the normalised features, times the root of C; 0 when all images have the
        same direction, about 1 when directions are spread evenly. `log/effective_rank`: exponential of the entropy of the
        singular values (RankMe, arXiv 2210.02885, equation 1), from 1 to the smaller of B and C. Both NaN where a feature is
        not finite.
    """
    features = features.detach().float()
    finite, nan = features.isfinite().all(), features.new_tensor(math.nan)
    points = nn.functional.normalize(features, dim=1)
    spread = points.std(dim=0, correction=0).mean() * points.shape[1] ** 0.5
    # Of NaN there are no singular values: torch raises. The loss tells that such a training has diverged.
    shares = torch.linalg.svdvals(features.nan_to_num(0.0, 0.0, 0.0))
    shares = shares / shares.sum().clamp_min(TINY) + TINY
    rank = (-(shares * shares.log()).sum()).exp()
    return {"log/feature_std": spread.where(finite, nan), "log/effective_rank": rank.where(finite, nan)}
