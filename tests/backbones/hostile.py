"""Files that want to run code, arrays as Detectron2 has them, and the one line that a bad file ends in."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from backbones import reading
from mae_bench.core.errors import InputError

ARRAYS = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "c": np.arange(3, dtype=">f4"),
    "d": np.array(5),
    "e": np.ones((2, 0), np.float16),
    "f": np.array([True, False]),
}


class RunsCommand:
    """Pickles as a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def refused(path, match):
    with pytest.raises(InputError, match=match) as caught:
        reading.read(Path(path))
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(path)) and caught.value.exit_code == 3
    return message


def sha256(path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
