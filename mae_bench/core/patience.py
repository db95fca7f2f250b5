"""Faults of a shared file system that pass: the same call again, a few times, before anybody is told."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from mae_bench.core.errors import EnvironmentFault

PASSING = (errno.EIO, errno.ESTALE, errno.EINTR, errno.ETIMEDOUT)
"""What NFS and its like say while a server is away or a handle has become old."""
WAITS = (0.2, 1.0)
"""Seconds before the second and the third try; there is no fourth."""

T = TypeVar("T")


def patiently(call: Callable[[], T]) -> T:
    """Give what a call gives, which is made again after a fault that may pass.

    Raises:
        OSError: of the last try, or one that does not pass.
        EnvironmentFault: the same, where the call tells of it so.
    """
    for wait in WAITS:
        try:
            return call()
        except (OSError, EnvironmentFault) as error:
            if number_of(error) not in PASSING:
                raise
            time.sleep(wait)
    return call()


def number_of(error: BaseException) -> int | None:
    """The system's number of an error, also of one that stands for it."""
    found = error if isinstance(error, OSError) else error.__cause__
    return found.errno if isinstance(found, OSError) else None
