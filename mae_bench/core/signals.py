"""Stopping when asked to: the first signal asks for a stop at the next safe place, the second quits at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class StopRequest:
    """Whether a signal has asked this process to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        """True once a signal has come."""
        return self.signal is not None

    def take(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: note the first signal, quit on a second Ctrl-C."""
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Collect stop signals inside the block; outside the main thread none can be had and the request stays empty."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, request.take) for number in ASKING}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
