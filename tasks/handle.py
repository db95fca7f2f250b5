"""From `DATASET=PATH` on the command line to a data set whose splits are read on first use."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mae_bench.core import find
from mae_bench.core.errors import ConfigError, InputError
from tasks.data import Kind, Split, Which, some

ROOM = "tasks.data"


@dataclass(frozen=True)
class DataHandle:
    """A data set on disk: where it is and what kind of task takes it."""

    name: str
    """File of `tasks/data` that reads it."""
    root: Path
    kind: Kind
    options: tuple[str, ...] = ()
    """Of its file's `INFO.options`, those that were asked for."""
    _splits: dict[Which, Split] = field(default_factory=dict, repr=False, compare=False)

    @property
    def text(self) -> str:
        """`DATASET=PATH` that opens it again from anywhere."""
        return f"{self.name_with_options}={self.root.resolve()}"

    @property
    def name_with_options(self) -> str:
        """What stands before the `=` of `text`."""
        return "+".join((self.name, *self.options))

    def split(self, which: Which) -> Any:
        """Read and validate one split; later calls give the same object.

        Returns:
            What `load` of the data set's file gives: `ImageFolderSplit`, `CocoSplit`, `SegmentationSplit`, ...

        Raises:
            InputError: the data cannot be used as it is, or its two splits have different classes.
        """
        if which not in self._splits:
            module = find.load(ROOM, self.name, what="data set")
            with _reading():
                split = module.load(self.root, which, **dict.fromkeys(self.options, True))
            for other, known in self._splits.items():
                _check_classes(self.root, {which: split.classes, other: known.classes})
            self._splits[which] = split
        return self._splits[which]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order; reads the smaller split when none has been read."""
        loaded = next(iter(self._splits.values()), None)
        return (loaded or self.split("val")).classes

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of both splits: names and sizes of the image files, content of the annotation files."""
        digest = hashlib.sha256(self.name.encode())
        for which in ("train", "val"):
            split: Split = self.split(which)
            digest.update(f"\n{which}\n".encode())
            for line in sorted(_describe(self.root, path) for path in split.files()):
                digest.update(line)
            for path in split.texts():
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def open_data(text: str) -> DataHandle:
    """Open `DATASET=PATH`, where DATASET is a file of `tasks/data`; only the layout is looked at.

    Options that the file offers follow the name after a plus: `folder+links=PATH`.

    Raises:
        ConfigError: the text has another form, or there is no such kind of data set or option of it.
        InputError: the path is missing or does not have that layout.
    """
    word, equals, place = text.partition("=")
    name, *options = word.split("+")
    if not equals or not name or not place:
        known = ", ".join(find.names(ROOM))
        raise ConfigError(f"{text!r} is not DATASET=PATH; write for example folder=/data/imagenet (data sets: {known})")
    module = find.load(ROOM, name, what="data set")
    for option in options:
        if option not in module.INFO.options:
            known = ", ".join(module.INFO.options) or "none"
            raise ConfigError(f"{text!r}: data set {name} has no option {option!r} (options: {known}); leave it out")
    root = Path(place).expanduser().absolute()
    if not root.is_dir():
        what = "is a file" if root.is_file() else "does not exist"
        raise InputError(f"data set {name}: {root} {what}; give the folder that holds the data")
    with _reading():
        module.check(root, **dict.fromkeys(options, True))
    return DataHandle(name, root, module.INFO.kind, tuple(dict.fromkeys(options)))


@contextmanager
def _reading() -> Iterator[None]:
    """Name the file or folder that the system does not let us read."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}; make it readable") from error


def _describe(root: Path, path: Path) -> bytes:
    """One line of a fingerprint; names are bytes, since a file system may hold ones that are not UTF-8."""
    relative = os.fsencode(os.path.relpath(path, root))
    try:
        size = path.stat().st_size
    except OSError:  # a link to nowhere, say; whoever decodes it tells
        size = -1
    return b"%s\0%d\n" % (relative, size)


def _check_classes(root: Path, classes: dict[Which, tuple[str, ...]]) -> None:
    train, val = classes["train"], classes["val"]
    if train == val:
        return
    differing = sorted(set(train) ^ set(val)) or ["the same names in another order"]
    raise InputError(f"{root}: train has {len(train)} classes and val {len(val)}: {some(differing)} differ; make them agree")
