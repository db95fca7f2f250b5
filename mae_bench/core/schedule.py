"""Learning-rate schedules as pure functions of the step, so that a resumed run needs no state of theirs."""

import math
from typing import Literal

from pydantic import Field

from mae_bench.core.config import Config


def check_warmup(key: str, warmup: float, whole: str, length: int) -> None:
    """See that a training reaches its peak rate.

    Args:
        key: name of the setting with the length of the warm-up.
        warmup: that length.
        whole: name of the setting with the length of the whole training.
        length: that length, in the same unit.

    Raises:
        ValueError: the warm-up is as long as the training, or longer.
    """
    if warmup >= length:
        raise ValueError(f"{key}={warmup:.9g} is not less than {whole}={length}; set {key} too, {length // 10} say")


class ScheduleConfig(Config):
    """Linear warm-up, then one of the usual decays; all lengths in optimizer steps."""

    kind: Literal["cosine", "poly", "multistep", "constant"] = "cosine"
    warmup_steps: int = Field(default=0, ge=0)
    warmup_start: float = Field(default=0.0, ge=0, le=1)
    """Factor at step 0 of the warm-up."""
    end: float = Field(default=0.0, ge=0, le=1)
    """Factor that cosine and poly end at, as a share of the peak rate."""
    power: float = Field(default=1.0, gt=0)
    """Exponent of poly (mmseg's `PolyLR`)."""
    milestones: tuple[int, ...] = ()
    """Steps at which multistep multiplies by `gamma`."""
    gamma: float = Field(default=0.1, gt=0, le=1)

    def factor(self, step: int, steps: int) -> float:
        """Share of the peak learning rate at a step.

        Args:
            step: number of optimizer steps already made, from 0.
            steps: length of the whole training.
        """
        if step < self.warmup_steps:
            return self.warmup_start + (1 - self.warmup_start) * step / self.warmup_steps
        if self.kind == "constant":
            return 1.0
        if self.kind == "multistep":
            return self.gamma ** sum(step >= milestone for milestone in self.milestones)
        progress = min(1.0, (step - self.warmup_steps) / max(1, steps - self.warmup_steps))
        if self.kind == "cosine":
            return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * progress))
        return self.end + (1 - self.end) * (1 - progress) ** self.power
