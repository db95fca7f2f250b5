"""How long a training waits for its data, so that a device that starves is seen."""

import time
from collections.abc import Iterator
from typing import Any

from mae_bench.core.training import LOGGED

STEPS_OF_A_GROUP = 10
"""Steps that the numbers are of, at least."""
WORTH_SAYING = 0.05
"""Share of the time that waiting for data has to take to be shown beside the loss."""


class Waiting:
    """Counts the time between steps, and how much of it was spent on the next batch.

    With no data workers that is the time it takes to make the batch. On an accelerator the waiting of this process is counted,
    which is at most one group of steps ahead of the device.
    """

    def __init__(self) -> None:
        self.share = 0.0
        """Of the time of the last whole group of steps, 0 to 1."""
        self._forget()

    def next(self, source: Iterator[Any]) -> Any:
        """The next batch, with the wait for it counted."""
        started = time.monotonic()
        batch = next(source)
        self._waited += time.monotonic() - started
        return batch

    def count(self, samples: int) -> None:
        """Count a step of so many samples."""
        self._steps += 1
        self._samples += samples

    def numbers(self) -> dict[str, float]:
        """The numbers of a group of steps that is whole, once; nothing within one.

        Returns:
            `log/waiting`, share of the time spent waiting for data; `log/images_per_second`; and `log/step_images_per_second`,
            what the steps would take if nothing had to be waited for.
        """
        if self._steps < STEPS_OF_A_GROUP:
            return {}
        seconds = max(time.monotonic() - self._started, 1e-9)
        self.share = min(1.0, self._waited / seconds)
        numbers = {
            f"{LOGGED}waiting": round(self.share, 4),
            f"{LOGGED}images_per_second": round(self._samples / seconds, 2),
            f"{LOGGED}step_images_per_second": round(self._samples / max(seconds - self._waited, 1e-9), 2),
        }
        self._forget()
        return numbers

    @property
    def words(self) -> str:
        """What is said of it behind the loss, if anything."""
        return f", {self.share:.0%} waiting for data" if self.share >= WORTH_SAYING else ""

    def leave_out(self, seconds: float) -> None:
        """Count the time of something else, such as a probe or a save, neither as a step nor as waiting."""
        self._started += seconds

    def _forget(self) -> None:
        self._started, self._waited, self._steps, self._samples = time.monotonic(), 0.0, 0, 0
