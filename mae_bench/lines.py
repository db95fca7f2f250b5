"""Progress as plain lines, for output that is no terminal."""

import sys
import time
from contextlib import AbstractContextManager, nullcontext

SECONDS_BETWEEN_LINES = 10.0
"""Time between two lines about what runs."""


def duration(seconds: float) -> str:
    """A time as people read it: `12 s`, `3:05`, `1:02:03`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Lines:
    """A line when a piece of work begins, and every ten seconds one about how far it is."""

    def __init__(self) -> None:
        self._title, self._total, self._done, self._first = "", 0, 0, 0
        self._began = self._spoken = time.monotonic()

    def start(self, title: str, total: int, done: int = 0) -> None:
        """Begin a piece of work."""
        self._title, self._total, self._done, self._first = title, total, done, done
        self._began = time.monotonic()
        self._say(f"{title}: {done}/{total}")

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Say that some steps were made."""
        self._done += steps
        if time.monotonic() - self._spoken < SECONDS_BETWEEN_LINES and self._done != self._total:
            return
        speed = (self._done - self._first) / max(time.monotonic() - self._began, 1e-9)
        left = f", eta {duration((self._total - self._done) / speed)}" if speed > 0 and self._done < self._total else ""
        self._say(f"{self._title}: {self._done}/{self._total}{f', {note}' if note else ''}{left}")

    def live(self) -> AbstractContextManager[object]:
        """The block within which progress is shown."""
        return nullcontext()

    def _say(self, text: str) -> None:
        self._spoken = time.monotonic()
        print(text, file=sys.stdout, flush=True)  # noqa: T201
