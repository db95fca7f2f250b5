"""Reading checkpoint files of strangers: tensors and plain values come out of them, and never code.

A file is opened once, so that what is hashed is what is loaded.
"""

import hashlib
import json
import os
import re
import stat
import struct
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from backbones import wrapping
from mae_bench.core.errors import InputError

# Keys under which training programs put the weights; the rest of their files is optimizer state and settings.
WRAPPERS = ("model", "state_dict", "model_state_dict", "model_ema", "ema", "teacher", "student", "module", "net", "encoder")

# Weights in a folder, the first that is there, and what transformers writes beside them.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
JSON_BYTES = 2**20

HEAD_BYTES = 512
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class RawCheckpoint:
    """The named tensors of a file, nothing of them interpreted yet."""

    path: Path
    sha256: str
    state: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    """Text of a safetensors header."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The training program's own settings (`args`), where the file holds them."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Entries beside the weights, with the reason they are left out."""
    prefix: str = ""
    """What was taken off the names of the network."""
    unexplained: tuple[str, ...] = ()
    """Tensors outside the network that nobody knows the purpose of."""
    config: dict[str, Any] = field(default_factory=dict)
    """`config.json` beside the file, where a folder was given; empty else."""
    preprocessor: dict[str, Any] = field(default_factory=dict)
    """`preprocessor_config.json` beside the file, where a folder was given; empty else."""
    notes: tuple[str, ...] = ()
    """Sentences for whoever reads the record: how the file was read, where that is not plain."""


def read(path: Path) -> RawCheckpoint:
    """Read a `.safetensors` file or a `torch.save` file of any age, whatever its name ends in.

    Raises:
        InputError: anything that is not a whole file of named tensors; the line says what it is instead.
    """
    with _open_regular(path) as file:
        before = os.fstat(file.fileno())
        load = _loader(path, file.read(HEAD_BYTES))
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        content, metadata = load(path, file)
        state, dropped = _weights(path, content)
        for name, tensor in state.items():
            _check_stored(path, name, tensor, before.st_size)
        # Copies, so that the numbers stay when the mapped file changes later.
        located = wrapping.locate(path, {name: tensor.detach().clone() for name, tensor in state.items()})
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise InputError(f"{path}: changed while it was read; wait until its writer is done")
    left_out = {**dropped, **located.around}
    return RawCheckpoint(path, sha256, located.state, metadata, _settings(content), left_out, located.prefix, located.unexplained)


def read_folder(folder: Path) -> RawCheckpoint:
    """Read a folder as `pretrain` or transformers leave it: the weights, and the JSON files that describe them.

    Raises:
        InputError: no weights in it, or files that cannot be used.
    """
    path = next((folder / name for name in WEIGHTS if (folder / name).exists()), folder)
    raw = read(path)
    return replace(raw, config=_sidecar(folder / CONFIG), preprocessor=_sidecar(folder / PREPROCESSOR))


def _sidecar(path: Path) -> dict[str, Any]:
    """A JSON file of settings; nothing where there is none."""
    if not path.exists():
        return {}
    with _open_regular(path) as file:
        text = file.read(JSON_BYTES + 1)
    if len(text) > JSON_BYTES:
        raise InputError(f"{path}: larger than {JSON_BYTES} bytes, which no settings are; take it away")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no JSON ({_one_line(error)}); repair it or take it away") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds a {type(values).__name__}, not settings by name; repair it or take it away")
    return values


@contextmanager
def _open_regular(path: Path) -> Iterator[BufferedReader]:
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its writer.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give the path of a checkpoint file") from error
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path}: a folder without model.safetensors in it; give the checkpoint file")
        if not stat.S_ISREG(mode):
            raise InputError(f"{path}: a pipe, device or socket, not a checkpoint file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(handle)


def _loader(path: Path, head: bytes) -> Callable[[Path, BufferedReader], tuple[Any, dict[str, str]]]:
    """Choose how to read a file from its first bytes; its name may say anything."""
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
    return _load_legacy


def _load_safetensors(path: Path, file: BufferedReader) -> tuple[Any, dict[str, str]]:
    try:
        with safe_open(_same_file(path, file), framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged or cut safetensors file ({_one_line(error)}); copy or download it again") from error


def _load_zip(path: Path, file: BufferedReader) -> tuple[Any, dict[str, str]]:
    file.seek(0)
    try:
        entries = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error, OSError, ValueError) as error:
        raise InputError(f"{path}: damaged or cut file ({_one_line(error)}); copy or download it again") from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise InputError(f"{path}: a compressed zip archive, which torch.save does not write; unpack it first")
    return _torch_load(path, _same_file(path, file), mmap=True), {}


def _load_legacy(path: Path, file: BufferedReader) -> tuple[Any, dict[str, str]]:
    file.seek(0)
    return _torch_load(path, file, mmap=False), {}


def _torch_load(path: Path, source: str | BufferedReader, *, mmap: bool) -> Any:
    """`torch.load` without code, every way it fails told as one kind of fault."""
    try:
        with torch.serialization.safe_globals([Namespace]):
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
    # Damaged files end it with a dozen types of exception (KeyError, UnicodeDecodeError, struct.error, ...).
    except Exception as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign:
            name = foreign.group(1).rstrip(".")
            raise InputError(
                f"{path}: holds {name}, which is code or an object and is not run here; "
                "save the weights alone: torch.save(model.state_dict(), PATH)"
            ) from None
        raise InputError(f"{path}: damaged, cut or no checkpoint ({_one_line(error)}); copy or download it again") from error


def _same_file(path: Path, file: BufferedReader) -> str:
    """A path to the open file itself, even if `path` names another one by now; `path` where the system has no such thing."""
    own = Path(f"/proc/self/fd/{file.fileno()}")
    return str(own if own.exists() else path)


def _weights(path: Path, content: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Find the named tensors in what a file holds, and say why the rest is left out."""
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, not named tensors; save model.state_dict()")
    found, key = _tensors(content), ""
    if not found:
        inner = {str(name): _tensors(value) for name, value in content.items() if isinstance(value, Mapping)}
        candidates = [name for name in WRAPPERS if inner.get(name)]
        if not candidates:
            keys = ", ".join(str(name) for name in list(content)[:5])
            raise InputError(f"{path}: no named tensors in it (its keys: {keys or 'none'}); save model.state_dict()")
        if len(candidates) > 1:
            raise InputError(f"{path}: weights under several keys ({', '.join(candidates)}); save the wanted ones alone")
        key = candidates[0]
        found = inner[key]
    rest = content if not key else content[key]
    dropped = {str(name): "not a tensor" for name in rest if str(name) not in found}
    if key:
        dropped |= {str(name): f"beside the weights, which are under {key!r}" for name in content if name != key}
    return found, dropped


def _tensors(values: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in values.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _check_stored(path: Path, name: str, tensor: Tensor, size: int) -> None:
    """Refuse tensors that are larger than the file (a few bytes can claim terabytes) or not plain arrays."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise InputError(f"{path}: tensor {name} is sparse or quantised; save it as a plain float tensor")
    if tensor.numel() * tensor.element_size() > size:
        raise InputError(f"{path}: tensor {name} claims {tensor.numel()} numbers, more than the file can hold")


def _settings(content: Any) -> dict[str, Any]:
    args = content.get("args") if isinstance(content, Mapping) else None
    if isinstance(args, Namespace):
        args = vars(args)
    return dict(args) if isinstance(args, Mapping) else {}


def _one_line(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
