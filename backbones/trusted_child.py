"""Run by `trusted.py` as a process of its own: unpickles a file in full, code included, and writes the tensors it finds.

    python -I trusted_child.py DESCRIPTOR OUT.safetensors

Tensors are numbered; the header has the keys that lead to each. Nothing else leaves this process.
"""

import json
import os
import pickle
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

DEPTH = 4


# How torch.save's format before 1.6 begins; other pickles are not torch's.
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."


class Absent(dict[Any, Any]):
    """Stands for what programs that are not installed have put into the file: values, mappings, lists."""

    def __init__(self, *args: Any, **facts: Any) -> None:
        """Take anything."""
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Take anything."""

    def append(self, value: Any) -> None:
        """Take anything."""


class _Unpickler(pickle.Unpickler):
    """The usual one, which goes on where a module is not installed."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            return Absent


class _Module(ModuleType):
    """What torch.load takes in place of pickle."""

    Unpickler = _Unpickler
    load = staticmethod(lambda file, **options: _Unpickler(file, **options).load())


def content_of(handle: int) -> Any:
    """Everything in the file."""
    with os.fdopen(handle, "rb") as file:
        head = file.read(len(LEGACY))
        file.seek(0)
        try:
            return torch.load(file, map_location="cpu", weights_only=False, pickle_module=_Module("pickles"))
        except (pickle.UnpicklingError, RuntimeError):
            if head == LEGACY or not head.startswith(b"\x80"):
                raise
            file.seek(0)
            return _Unpickler(file, encoding="latin1").load()


def tensors(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Tensors and arrays by the keys that lead to them; a pickled module has those of its state_dict."""
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        value = torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping) and len(path) < DEPTH:
        for key, inner in value.items():
            if isinstance(key, str):
                yield from tensors(inner, (*path, key))


def main(handle: int, out: str) -> None:
    """Convert one file."""
    found = list(tensors(content_of(handle)))
    state = {str(number): tensor.detach().contiguous().clone() for number, (_, tensor) in enumerate(found)}
    save_file(state, out, {"paths": json.dumps([path for path, _ in found])})


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
