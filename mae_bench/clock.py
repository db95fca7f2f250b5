"""The time and the energy of a cell over all its sessions, also of those that a kill ended."""

import contextlib
import math
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mae_bench.core.errors import EnvironmentFault
from mae_bench.core.files import write_json
from mae_bench.energy import Meter
from results.store import read_object

ELAPSED = "elapsed.json"
SECONDS_BETWEEN_NOTES = 5.0
"""A kill loses at most this much of the time counted."""


class Clock(AbstractContextManager["Clock"]):
    """Counts while the block runs, and keeps the sums in the cell's folder."""

    def __init__(self, folder: Path, meter: Meter | None = None, *, keeps: bool = True) -> None:
        """Begin where the last session ended.

        Args:
            folder: of the cell.
            meter: of the devices the cell runs on; None counts no energy.
            keeps: whether the sums are written; of several processes of a cell one does.
        """
        self._path, self._meter, self._keeps = folder / ELAPSED, meter or Meter(()), keeps
        before = read_object(self._path)
        self._before = _number(before.get("seconds")) or 0.0
        self.sessions = int(_number(before.get("sessions")) or bool(before)) + 1
        self._joules_before = _number(before.get("joules")) if before else 0.0
        self._started, self._joules = time.monotonic(), self._meter.joules()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)

    @property
    def session(self) -> float:
        """Seconds of this session until now."""
        return time.monotonic() - self._started

    @property
    def seconds(self) -> float:
        """Seconds of all sessions until now."""
        return self._before + self.session

    @property
    def joules(self) -> float | None:
        """Energy of all sessions until now; None where a device of one of them did not tell."""
        now = self._meter.joules()
        if now is None or self._joules is None or self._joules_before is None:
            return None
        return self._joules_before + now - self._joules

    def __enter__(self) -> Self:
        """Begin to count."""
        self._note()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End counting."""
        self._ended.set()
        self._thread.join()
        self._note()

    def _count(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_NOTES):
            with contextlib.suppress(EnvironmentFault):  # the disk is full or the file system away; the next note comes
                self._note()

    def _note(self) -> None:
        if not self._keeps:
            return
        sums: dict[str, Any] = {"seconds": round(self.seconds, 3), "sessions": self.sessions}
        joules = self.joules
        write_json(self._path, sums if joules is None else {**sums, "joules": round(joules, 1)})


def noted_seconds(folder: Path) -> float | None:
    """Seconds of a cell's sessions until the last note; None where there is none that can be read."""
    return _number(read_object(folder / ELAPSED).get("seconds"))


def _number(value: object) -> float | None:
    """A sum as it was noted; None for anything else that a damaged file may hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < math.inf else None
