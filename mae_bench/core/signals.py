"""Stopping when asked to: the first signal asks for a stop at the next safe place, the second quits at once."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class StopRequest:
    """Whether a signal has asked this process to stop, or its time is over."""

    def __init__(self, deadline: float | None = None) -> None:
        """Ask for nothing yet.

        Args:
            deadline: value of `time.monotonic` from which on a stop is asked for; None never does.
        """
        self.signal: signal.Signals | None = None
        self.deadline = deadline

    def __bool__(self) -> bool:
        """True once a signal has come or the time is over."""
        return self.signal is not None or self._late()

    @property
    def why(self) -> str:
        """What asked, for messages; it may have been another process of the same training."""
        if self.signal is not None:
            return self.signal.name
        return "--stop-after" if self._late() else "another process"

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def take(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: note the first signal, quit on a second Ctrl-C."""
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


@contextmanager
def stop_on_signal(deadline: float | None = None) -> Iterator[StopRequest]:
    """Collect stop signals inside the block; outside the main thread none can be had, and only the deadline asks."""
    request = StopRequest(deadline)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, request.take) for number in ASKING}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
