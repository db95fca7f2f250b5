"""Kinds of checkpoint files, told by their first bytes, and how each gives its content without running code."""

import io
import json
import math
import re
import shlex
import struct
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from backbones import pickles
from backbones.opened import OpenFile
from mae_bench.core.errors import InputError

HEAD_BYTES = 512
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
# How torch.save's format before 1.6 begins: the pickle of a number.
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
PICKLE = b"\x80"
# Weights hardly get smaller by compression; what claims to is a bomb.
MAX_INFLATION = 20
# Of the safetensors library.
MAX_HEADER = 100_000_000

Content = tuple[Any, dict[str, str]]
"""What a file holds, and the text of its header."""


def content_of(file: OpenFile) -> Content:
    """Read a file of any kind that is known; the tensors of large ones are mapped, not read.

    Raises:
        InputError: anything else; the line says what it is instead.
    """
    with file.reader() as reader:
        head = reader.read(HEAD_BYTES)
    return _loader(file, head)(file)


def _loader(file: OpenFile, head: bytes) -> Callable[[OpenFile], Content]:
    """Choose how to read a file from its first bytes; its name may say anything."""
    path = file.path
    if not head:
        raise InputError(f"{path}: empty file (0 bytes); copy or download it again")
    if head.startswith(LFS_POINTER):
        raise InputError(f"{path}: a Git LFS pointer, not the file itself; run: git lfs pull")
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise InputError(f"{path}: an HTML page, not a checkpoint; download the file itself")
    if head.startswith(b"PK"):
        return _load_zip
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _load_safetensors
    if head.startswith(PICKLE) and not head.startswith(LEGACY):
        return _load_pickle
    return _load_legacy


def _load_safetensors(file: OpenFile) -> Content:
    _check_header(file)
    try:
        with safe_open(file.same(), framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        again = "copy or download it again"
        raise InputError(f"{file.path}: damaged or cut safetensors file ({one_line(error)}); {again}") from error


def _check_header(file: OpenFile) -> None:
    """Refuse names that stand twice in a header, of which the library takes the last; the rest it checks itself."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        if twice is not None:
            raise InputError(f"{file.path}: damaged safetensors file ({twice[:100]!r} is in it twice); download it again")
        return dict(pairs)

    with file.reader() as reader:
        length = int.from_bytes(reader.read(8), "little")
        if length > min(file.size, MAX_HEADER):
            return  # The library says so.
        with suppress(ValueError, RecursionError):
            json.loads(reader.read(length), object_pairs_hook=unique)


def _load_zip(file: OpenFile) -> Content:
    try:
        archive = zipfile.ZipFile(file.reader())
    except (zipfile.BadZipFile, NotImplementedError, struct.error, OSError, ValueError) as error:
        raise InputError(f"{file.path}: damaged or cut file ({one_line(error)}); copy or download it again") from error
    with archive:
        entries = archive.infolist()
        if entries and all(entry.filename.endswith(".npy") for entry in entries):
            return _npz(file, archive, entries), {}
    if any("/code/" in entry.filename or entry.filename.endswith("/constants.pkl") for entry in entries):
        raise InputError(
            f"{file.path}: a TorchScript archive, which is a program; where it is trusted, save its weights: "
            "torch.save(torch.jit.load(FILE).state_dict(), OUT)"
        )
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise InputError(f"{file.path}: a compressed zip archive, which torch.save does not write; unpack it first")
    return _torch_load(file, file.same(), mmap=True), {}


def _load_legacy(file: OpenFile) -> Content:
    return _torch_load(file, file.reader(), mmap=False), {}


def _torch_load(file: OpenFile, source: Any, *, mmap: bool) -> Any:
    """`torch.load` without code, every way it fails told as one kind of fault."""
    try:
        with torch.serialization.safe_globals(pickles.FOR_TORCH):
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
    # Damaged files end it with a dozen types of exception (KeyError, UnicodeDecodeError, struct.error, ...).
    except Exception as error:
        _refuse(file, error)


def _load_pickle(file: OpenFile) -> Content:
    try:
        return pickles.load(file.reader()), {}
    except Exception as error:
        _refuse(file, error)


def _refuse(file: OpenFile, error: Exception) -> NoReturn:
    foreign = re.search(r"GLOBAL (\S+)", str(error))
    if foreign:
        name, out = foreign.group(1).rstrip("."), shlex.quote(f"{file.path.stem}.safetensors")
        raise InputError(
            f"{file.path}: holds {name}, which is code or an object and is not run here; "
            "save the weights alone: torch.save(model.state_dict(), PATH), or, if you trust its maker, run: "
            f"mae-bench ckpt convert {shlex.quote(str(file.path))} {out} --to timm --trust-pickle {file.sha256}"
        ) from None
    raise InputError(f"{file.path}: damaged, cut or no checkpoint ({one_line(error)}); copy or download it again") from error


def _npz(file: OpenFile, archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> dict[str, Any]:
    """Arrays as numpy.savez writes them; those that are not compressed are mapped."""
    if sum(entry.file_size for entry in entries) > MAX_INFLATION * file.size:
        raise InputError(f"{file.path}: claims to hold {MAX_INFLATION} times its own size; no weights do")
    try:
        whole = np.memmap(file.same(), np.uint8, mode="c")
        return {entry.filename.removesuffix(".npy"): _npy(_entry(archive, entry, whole)) for entry in entries}
    # numpy and zipfile end at damaged files with many types of exception.
    except Exception as error:
        _refuse(file, error)


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, whole: np.ndarray) -> np.ndarray:
    """The bytes of an array's file."""
    if entry.compress_type != zipfile.ZIP_STORED:
        return np.frombuffer(bytearray(archive.read(entry)), np.uint8)
    fixed = 30  # Bytes of a zip entry's own header, which ends with the lengths of its name and extra field.
    name, extra = struct.unpack("<HH", whole[entry.header_offset + fixed - 4 : entry.header_offset + fixed].tobytes())
    start = entry.header_offset + fixed + name + extra
    return whole[start : start + entry.file_size]


def _npy(content: np.ndarray) -> Any:
    """A tensor over the bytes of a `.npy` file; the type's name where its values are no numbers."""
    head = io.BytesIO(content[:16_384].tobytes())
    version = np.lib.format.read_magic(head)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(head)
    if dtype.kind not in "fiub":
        return str(dtype)
    start, count = head.tell(), math.prod(shape)
    values = content[start : start + count * dtype.itemsize].view(dtype).reshape(shape, order="F" if fortran else "C")
    if not dtype.isnative:
        values = values.astype(dtype.newbyteorder("="))
    return torch.from_numpy(values)


def check_stored(path: Path, size: int, name: str, tensor: Tensor) -> None:
    """Refuse tensors that are larger than the file (a few bytes can claim terabytes) or not plain arrays.

    Args:
        path: for messages.
        size: bytes of the file; compressed ones hold up to `MAX_INFLATION` times as much.
        name: of the tensor.
        tensor: itself.
    """
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise InputError(f"{path}: tensor {name} is sparse or quantised; save it as a plain float tensor")
    if tensor.is_meta or tensor.numel() * tensor.element_size() > MAX_INFLATION * size:
        raise InputError(f"{path}: tensor {name} claims {tensor.numel()} numbers, more than the file can hold")


def one_line(error: BaseException) -> str:
    """An exception in a message."""
    # torch.load says at length what its defaults are before it says what is wrong.
    text = (str(error).rpartition("WeightsUnpickler error: ")[2].strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
