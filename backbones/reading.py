"""Reading checkpoint files of strangers: tensors and plain values come out of them, and never code.

A file is opened once and stays open while its tensors are used, so that what is hashed is what is loaded. Tensors are mapped
where the format allows it: reading a file takes no memory for them, and copying them is left to who builds something of them.
"""

import json
from argparse import Namespace
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from backbones import nesting, wrapping
from backbones.archives import Content, check_stored, content_of, one_line
from backbones.opened import OpenFile, OpenFiles, Origin
from mae_bench.core.errors import InputError

# Weights in a folder, the first that is there, and what transformers writes beside them.
INDEX = "model.safetensors.index.json"
WEIGHTS = ("model.safetensors", INDEX, "pytorch_model.bin")
CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
JSON_BYTES = 2**20


@dataclass(frozen=True)
class RawCheckpoint:
    """The named tensors of a file, nothing of them interpreted yet.

    They may be mapped, so that they change or go when the file is written to: copy what is kept, and call `verify` then.
    """

    path: Path
    origin: Origin | str
    """The file that is held open, or the hash of one that is not."""
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
    facts: dict[str, Any] = field(default_factory=dict)
    """What the user says of the network, by fields of its architecture (`num_heads`, `image_size`); it goes before any guess."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of the tensors outside the network."""

    @property
    def sha256(self) -> str:
        """Hex digits of the file's hash; of the hashes of all files, where the checkpoint is in several."""
        return self.origin if isinstance(self.origin, str) else self.origin.sha256

    def verify(self) -> None:
        """See that the file is what it was when it was opened; to be called after tensors are copied.

        Raises:
            InputError: it was written to.
        """
        if not isinstance(self.origin, str):
            self.origin.verify()


def read(path: Path, *, ckpt_key: str = "") -> RawCheckpoint:
    """Read a checkpoint file, whatever its name ends in.

    `.safetensors`, `torch.save` of any age, numpy's `.npz`, and pickles of numpy arrays as Detectron2 writes them.

    Args:
        path: the file; the index of a checkpoint in several files (`model.safetensors.index.json`) stands for all of them.
        ckpt_key: which network of several: keys of the file and the beginning of names, joined by dots (`teacher.backbone`).

    Raises:
        InputError: anything that is not a whole file of named tensors; the line says what it is instead.
    """
    if path.name.endswith(".safetensors.index.json"):
        return _read_shards(path, ckpt_key)
    file = OpenFile(path)
    content = content_of(file)
    file.start_hash()
    return located(path, file, [file], content, ckpt_key)


def read_whole(path: Path) -> RawCheckpoint:
    """Read all named tensors of a file under their own names, without looking for a network among them.

    Raises:
        InputError: anything that is not a whole file of named tensors.
    """
    file = OpenFile(path)
    nested = nesting.unnest(path, content_of(file)[0])
    for name, tensor in nested.state.items():
        check_stored(path, file.size, name, tensor)
    file.verify()
    return RawCheckpoint(path, file, nested.state, dropped=nested.dropped)


def located(path: Path, origin: Origin, files: list[OpenFile], content: Content, ckpt_key: str) -> RawCheckpoint:
    """Find the network in what files hold.

    Args:
        path: for messages.
        origin: what the hash is of.
        files: where the tensors are; none can be larger than their sum.
        content: what they hold.
        ckpt_key: see `read`.
    """
    values, metadata = content
    nested = nesting.unnest(path, values, ckpt_key)
    size = sum(file.size for file in files)
    for name, tensor in nested.state.items():
        check_stored(path, size, name, tensor)
    found = wrapping.locate(path, nested.state, nested.prefix)
    origin.verify()
    notes = (f"the network under ckpt_key={ckpt_key} of several",) if ckpt_key else ()
    return RawCheckpoint(
        path,
        origin,
        found.state,
        metadata,
        _settings(values),
        {**nested.dropped, **found.around},
        found.prefix,
        found.unexplained,
        notes=notes,
        shapes={name: tuple(tensor.shape) for name, tensor in nested.state.items() if not name.startswith(found.prefix)},
    )


def read_folder(folder: Path, *, ckpt_key: str = "") -> RawCheckpoint:
    """Read a folder as `pretrain` or transformers leave it: the weights, and the JSON files that describe them.

    Raises:
        InputError: no weights in it, or files that cannot be used.
    """
    path = next((folder / name for name in WEIGHTS if (folder / name).exists()), folder)
    raw = read(path, ckpt_key=ckpt_key)
    return replace(raw, config=_json(folder / CONFIG), preprocessor=_json(folder / PREPROCESSOR))


def _read_shards(path: Path, ckpt_key: str) -> RawCheckpoint:
    """A checkpoint in several safetensors files, and the index of which tensor is in which."""
    index = OpenFile(path)
    places = _json_of(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(place, str) and _is_beside(place) for place in places.values()):
        raise InputError(f"{path}: no weight_map of tensors to files beside it; download the checkpoint again")
    files = {place: OpenFile(path.parent / place) for place in sorted(set(places.values()))}
    index.start_hash()
    state: dict[str, Tensor] = {}
    for place, file in files.items():
        found, _ = content_of(file)
        file.start_hash()
        wanted = {name for name in places if places[name] == place}
        if not isinstance(found, dict) or set(found) != wanted:
            raise InputError(f"{file.path}: not the tensors that {path.name} says it has; download the checkpoint again")
        state |= found
    shards = list(files.values())
    return located(path, OpenFiles([index, *shards]), shards, (state, {}), ckpt_key)


def _is_beside(place: str) -> bool:
    """Whether a name is of a file in the same folder."""
    return Path(place).name == place and place.endswith(".safetensors")


def _json(path: Path) -> dict[str, Any]:
    """A JSON file of settings; nothing where there is none."""
    return _json_of(OpenFile(path)) if path.exists() else {}


def _json_of(file: OpenFile) -> dict[str, Any]:
    limit = JSON_BYTES * (32 if file.path.name == INDEX else 1)
    with file.reader() as reader:
        text = reader.read(limit + 1)
    if len(text) > limit:
        raise InputError(f"{file.path}: larger than {limit} bytes, which no settings are; take it away")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file.path}: no JSON ({one_line(error)}); repair it or take it away") from error
    if not isinstance(values, dict):
        raise InputError(f"{file.path}: holds a {type(values).__name__}, not settings by name; repair it or take it away")
    return values


def _settings(content: Any) -> dict[str, Any]:
    args = dict.get(content, "args")
    if isinstance(args, Namespace):
        args = vars(args)
    return dict(args) if isinstance(args, dict) else {}
