"""Pickles without code: a short list of names may stand in them, and each stands for a function of this file or of no power.

The arrays of numpy are rebuilt here, from their bytes, and not by numpy's own functions for pickles, which trust what they get.
"""

import math
import pickle
import re
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from io import BufferedReader
from typing import Any

import numpy as np
import torch
from torch import Tensor

DTYPE = re.compile(r"[<>=|]?(f[248]|[iu][1248]|b1|\?)")


class Foreign(pickle.UnpicklingError):
    """A name outside the list, which `name` holds."""

    def __init__(self, name: str) -> None:
        """Keep the name for the message."""
        super().__init__(f"GLOBAL {name}")
        self.name = name


class Dtype:
    """Stands for numpy.dtype: plain numbers only."""

    def __init__(self, code: Any = "", align: Any = False, copy: Any = False) -> None:
        """Take a code such as `f4`."""
        if not isinstance(code, str) or not DTYPE.fullmatch(code):
            raise pickle.UnpicklingError(f"an array of {str(code)[:40]!r}, which are no plain numbers")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        """Take the byte order; `state` has the fields and shapes of compound types, too."""
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("an array of compound numbers")
        if state[1] not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError("an array of an unknown byte order")
        self.numpy = self.numpy.newbyteorder(state[1])


class Array:
    """Stands for numpy.ndarray: its bytes and what they mean."""

    def __init__(self) -> None:
        """Be empty until the state comes."""
        self._values = np.zeros(0, np.float32)

    def __setstate__(self, state: Any) -> None:
        """Take (version, shape, dtype, Fortran order, bytes)."""
        _version, shape, dtype, fortran, data = state
        self._values = _values(data, dtype, shape, "F" if fortran else "C")

    def tensor(self) -> Tensor:
        """A tensor of the same numbers, with memory of its own."""
        return torch.from_numpy(self._values.astype(self._values.dtype.newbyteorder("="), order="C"))


def _values(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    data = data.encode("latin1") if isinstance(data, str) else data  # Written by Python 2.
    plain = isinstance(shape, tuple) and all(type(side) is int and side >= 0 for side in shape)
    if not (plain and isinstance(dtype, Dtype) and isinstance(data, bytes | bytearray) and order in ("C", "F")):
        raise pickle.UnpicklingError("an array that is no plain block of numbers")
    if math.prod(shape) * dtype.numpy.itemsize != len(data):
        raise pickle.UnpicklingError("an array whose bytes do not fit its shape")
    return np.frombuffer(data, dtype.numpy).reshape(shape, order=order)


def _reconstruct(kind: Any, shape: Any, code: Any) -> Array:
    return Array()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """How protocol 5 writes arrays."""
    array = Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _scalar(dtype: Any, data: Any) -> Any:
    return _values(data, dtype, (), "C").item()


def _encode(text: Any, codec: Any = "latin1") -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("text that stands for no bytes")
    return text.encode("latin1")


def _empty() -> bytes:
    """How protocol 2 writes no bytes."""
    return b""


FOR_BYTES: dict[str, Callable[..., Any]] = {"_codecs.encode": _encode, "__builtin__.bytes": _empty}
"""What torch.load knows by itself."""

SAFE: dict[str, Callable[..., Any]] = {
    "argparse.Namespace": Namespace,
    "collections.OrderedDict": OrderedDict,
    "numpy.dtype": Dtype,
    "numpy.ndarray": Array,
}
for _room in ("numpy.core", "numpy._core"):
    SAFE[f"{_room}.multiarray._reconstruct"] = _reconstruct
    SAFE[f"{_room}.multiarray.scalar"] = _scalar
    SAFE[f"{_room}.numeric._frombuffer"] = _frombuffer
"""What may stand in a file, with what is called for it. Nothing here reaches further: getattr and its like never join."""

FOR_TORCH: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [(value, name) for name, value in SAFE.items()]
"""The same for `torch.serialization.safe_globals`."""


# The unpickler in Python, not the one in C: that one makes room for a memo as large as a file of a few bytes says.
class _Plain(pickle._Unpickler):
    """Unpickles by the list."""

    def find_class(self, module: str, name: str) -> Any:
        """Take names of the list only."""
        full = f"{module}.{name}"
        if full not in SAFE and full not in FOR_BYTES:
            raise Foreign(full)
        return SAFE.get(full) or FOR_BYTES[full]

    def load_build(self) -> None:
        """Give state to values only; a class among the names could be changed for the whole program else."""
        stack: list[Any] = self.stack  # pyright: ignore[reportAttributeAccessIssue]
        if type(stack[-2]) not in (Array, Dtype, Namespace, OrderedDict):
            raise pickle.UnpicklingError("state for something that has none")
        super().load_build()  # pyright: ignore[reportAttributeAccessIssue]

    dispatch = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}  # noqa: RUF012  # pyright: ignore[reportAssignmentType]


def load(file: BufferedReader) -> Any:
    """Read a plain pickle, of Python 2 too.

    Raises:
        Foreign: something outside the list.
        Exception: of a dozen kinds, for damaged files.
    """
    return _Plain(file, encoding="latin1").load()
